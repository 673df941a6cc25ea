"""The trainer, played: trains the small network further, on the inputs that a request names and on its old data."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from embeddings.segmenter import load_segmenter, save_segmenter
from embeddings.segmenter_training import Batch, augment, train_further
from monitor.demo.scenes import CLASS_NAMES, SceneSource, target
from monitor.masks import decode_rle

BATCH = 16
PEAK_RATE = 1e-3


@dataclass(frozen=True, eq=False)
class Example:
    """An image (H, W, 3) and the channel (H, W) of each pixel: 0 the background, else 1 + class."""

    image: NDArray[np.uint8]
    truth: NDArray[np.int64]


def examples(labels: Path, images: Iterable[Path], wanted: Collection[str]) -> list[Example]:
    """Of a COCO export of labels those of the ``wanted`` inputs, with the images of the annotators' batches."""
    export: dict[str, Any] = json.loads(labels.read_text(encoding="utf-8"))
    files = {file.stem: file for folder in images for file in folder.iterdir()}
    names = {one["id"]: one["name"] for one in export["categories"]}
    masks: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in export["annotations"]:
        masks[one["image_id"]].append(one)
    found = []
    for one in export["images"]:
        file = files.get(Path(one["file_name"]).stem)
        if one["input_id"] not in wanted or file is None:
            continue
        truth = np.zeros((one["height"], one["width"]), dtype=np.int64)
        for mask in masks[one["id"]]:
            rle = mask["segmentation"]
            truth[decode_rle(rle["size"], rle["counts"])] = 1 + CLASS_NAMES.index(names[mask["category_id"]])
        found.append(Example(simplejpeg.decode_jpeg(file.read_bytes(), colorspace="RGB"), truth))
    return found


def retrain(given: list[Example], weights: Path, *, steps: int, seed: int) -> tuple[float, float]:
    """Train the shipped network further and write it; mean loss of the first and the last tenth of the steps.

    Half of each batch is new, half of what it was trained on before: without that it forgets the day.
    """
    rng, old = np.random.default_rng(seed), SceneSource("train")

    def next_batch() -> Batch:
        new = [given[int(i)] for i in rng.integers(len(given), size=BATCH // 2)]
        scenes = [old.scene(rng) for _ in range(BATCH - len(new))]
        images = [one.image for one in new] + [scene.image for scene in scenes]
        truth = [one.truth for one in new] + [target(scene) for scene in scenes]
        return np.stack([augment(image, rng) for image in images]), np.stack(truth)

    losses: list[float] = []
    trained = train_further(
        load_segmenter(),
        next_batch,
        steps=steps,
        peak_rate=PEAK_RATE,
        seed=seed,
        threads=1,  # two wait for each other wherever the machine has other work
        on_step=lambda _, loss: losses.append(loss),
    )
    save_segmenter(trained.network, trained.class_names, weights)
    tenth = max(1, steps // 10)
    return float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))
