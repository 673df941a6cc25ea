"""Train the segmentation network that ships with the project, on the demo's train part; or measure it.

    python tools/train_segmenter.py                    train (some 12 minutes on one core), then measure
    python tools/train_segmenter.py --measure          measure the shipped weights only

Seeds are fixed, so the same machine and library versions give the same weights. Training never sees a
digit or a photograph's tile of the parts ``validation`` (measured here) and ``traffic`` (the demo).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.segmenter import (
    WEIGHTS,
    SegmentationNetwork,
    Segmenter,
    load_segmenter,
    save_segmenter,
)
from embeddings.segmenter_training import Batch, augment, step
from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import CLASS_NAMES, PLAIN, Recipe, SceneSource, target

SEED = 20261123
BATCH = 16
STEPS = 2400
PEAK_RATE = 4e-3
VALIDATION_SCENES = 400


def batch(source: SceneSource, rng: np.random.Generator) -> Batch:
    """BATCH augmented scenes with their channel numbers."""
    scenes = [source.scene(rng) for _ in range(BATCH)]
    images = np.stack([augment(scene.image, rng) for scene in scenes])
    return images, np.stack([target(scene) for scene in scenes])


def train() -> SegmentationNetwork:
    """AdamW under a one-cycle rate (Smith and Topin, 2017)."""
    torch.manual_seed(SEED)
    rng, source = np.random.default_rng(SEED), SceneSource("train")
    network = SegmentationNetwork(1 + len(CLASS_NAMES)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS, pct_start=0.2)
    started, running = time.monotonic(), 0.0
    for number in range(1, STEPS + 1):
        running += step(network, optimizer, batch(source, rng))
        schedule.step()
        if number % 100 == 0:
            print(f"step {number} of {STEPS}  loss {running / 100:.4f}  {time.monotonic() - started:.0f} s", flush=True)
            running = 0.0
    return network.fuse()


def intersection_over_union(segmenter: Segmenter, recipe: Recipe) -> NDArray[np.float64]:
    """(11,) pooled IoU by channel over the validation scenes; NaN where a class occurs in neither.

    Pixels are added up over all scenes before dividing: a mean of the scenes' IoU would be another number.
    """
    channels = 1 + len(CLASS_NAMES)
    rng, source = np.random.default_rng(SEED + 1), SceneSource("validation")
    confusion = np.zeros((channels, channels), dtype=np.int64)
    for _ in range(VALIDATION_SCENES // 40):
        scenes = [source.scene(rng, recipe) for _ in range(40)]
        guessed = segmenter.segment(np.stack([scene.image for scene in scenes])).argmax(axis=1)
        truth = np.stack([target(scene) for scene in scenes])
        pairs = np.bincount((truth * channels + guessed).ravel(), minlength=channels**2)
        confusion += pairs.reshape(channels, channels)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - confusion.diagonal()
    iou: NDArray[np.float64] = np.divide(confusion.diagonal(), union, out=np.full(channels, np.nan), where=union > 0)
    return iou


def measure(segmenter: Segmenter) -> None:
    """Print the model card's tables."""
    recipes = {"none": PLAIN} | {f"{name} {s}": make(s) for name, make in CORRUPTIONS.items() for s in (1, 2, 3)}
    print("| Corruption | mean of digits | " + " | ".join(CLASS_NAMES) + " | background |")
    print("|---|" + "---|" * (len(CLASS_NAMES) + 2))
    for name, recipe in recipes.items():
        iou = intersection_over_union(segmenter, recipe)
        occurring = iou[1:][list(recipe.digits)]
        cells = [f"{v:.3f}" if d in recipe.digits else "-" for d, v in enumerate(iou[1:])] + [f"{iou[0]:.3f}"]
        print(f"| {name} | {np.nanmean(occurring):.3f} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and measure the segmentation network of the demo.")
    parser.add_argument("--measure", action="store_true", help="measure the weights at --out, train nothing")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the safetensors file")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    if not arguments.measure:
        save_segmenter(train(), CLASS_NAMES, arguments.out)
    measure(load_segmenter(arguments.out))


if __name__ == "__main__":
    main()
