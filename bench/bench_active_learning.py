"""What labels chosen by active learning are worth against labels of uniformly drawn records, at an equal budget.

Traffic of the demo, of which a small part has shifted. Some of its images are labelled, the demo's network is trained
on with them (every second image of a batch comes from its old training data, in all arms alike), and measured on other
images: those of the shifted part, and the whole mixture. The choice sees what segwatch would: the mean score of what
the shipped network found, and the sketch of the embedding.

    uniform   every image with the same probability
    random    detectors.active_learning: drawn in proportion to the wish, spread over the embedding space
    greedy    detectors.active_learning: wish times distance, one after another

The settings were fixed before the first run; arms share the traffic, the order of old training data and the seeds of
training. Seeds change all of them.

    python bench/bench_active_learning.py [--seeds 3] [--shifts new_background] [--budget 40] [--steps 80]

Prints a table, and writes bench-results/active_learning.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.rig import write_result
from detectors.active_learning import choose_greedily, draw_spread, points, probabilities, sketches, wishes
from embeddings.projection import ProjectionFit
from embeddings.segmenter import Segmenter, instances, load_segmenter
from embeddings.segmenter_training import Batch, augment, train_further
from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import CLASS_NAMES, PLAIN, Scene, SceneSource, target

SHARE = 0.15
"""Of the traffic that has shifted."""
STRENGTH = 3
POOL = 600
MEASURED = 200
"""Images of each part, shifted and not, on which a network is measured."""
BASELINE = 400
"""Images of the training part by which the embedding is whitened."""
BATCH = 16
RATE = 5e-4

Choice = Callable[[NDArray[np.float64], NDArray[np.float64], int, np.random.Generator], NDArray[np.int64]]


def uniform(
    _: NDArray[np.float64], wished: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    return rng.choice(len(wished), count, replace=False)


def random(
    where: NDArray[np.float64], wished: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    return np.flatnonzero(draw_spread(where, probabilities(wished, count), rng))


def greedy(
    where: NDArray[np.float64], wished: NDArray[np.float64], count: int, _: np.random.Generator
) -> NDArray[np.int64]:
    return np.array(choose_greedily(where, wished, count), np.int64)


ARMS: dict[str, Choice] = {"uniform": uniform, "random": random, "greedy": greedy}


@dataclass(frozen=True, eq=False)
class Traffic:
    """A pool of images to choose from, and those to measure on."""

    pool: list[Scene]
    shifted: NDArray[np.bool_]
    measured: dict[str, list[Scene]]


def traffic(shift: str, seed: int) -> Traffic:
    rng, source = np.random.default_rng(seed), SceneSource("traffic")
    recipe = CORRUPTIONS[shift](STRENGTH)
    shifted = rng.random(POOL) < SHARE
    pool = [source.scene(rng, recipe if own else PLAIN) for own in shifted]
    other = SceneSource("validation")  # other digits, other photographs
    measured = {
        "shifted": [other.scene(rng, recipe) for _ in range(MEASURED)],
        "plain": [other.scene(rng) for _ in range(MEASURED)],
    }
    return Traffic(pool, shifted, measured)


def features(segmenter: Segmenter, scenes: list[Scene]) -> NDArray[np.float32]:
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    return np.concatenate([segmenter.features(images[i : i + 32]).numpy() for i in range(0, len(images), 32)])


def seen_by(segmenter: Segmenter, scenes: list[Scene]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, K) points and (N,) mean scores, as the store has them."""
    rng, source = np.random.default_rng(1), SceneSource("train")
    fit = ProjectionFit()
    fit.update(features(segmenter, [source.scene(rng) for _ in range(BASELINE)]))
    where = points(sketches(fit.finish().project(features(segmenter, scenes))))
    confidence = np.full(len(scenes), np.nan)
    for start in range(0, len(scenes), 40):
        part = segmenter.segment(np.stack([scene.image for scene in scenes[start : start + 40]]))
        for i, each in enumerate(part):
            found = [one.score for one in instances(each)]
            if found:
                confidence[start + i] = np.mean(found)
    return where, confidence


def trained_on(scenes: list[Scene], steps: int, seed: int) -> Segmenter:
    """The shipped network after ``steps`` more, of half these images and half its old ones."""
    rng, source = np.random.default_rng(seed), SceneSource("train")

    def next_batch() -> Batch:
        chosen = [scenes[int(i)] for i in rng.integers(len(scenes), size=BATCH // 2)]
        both = [*chosen, *(source.scene(rng) for _ in range(BATCH // 2))]
        return np.stack([augment(scene.image, rng) for scene in both]), np.stack([target(scene) for scene in both])

    return train_further(load_segmenter(), next_batch, steps=steps, peak_rate=RATE, seed=seed)


def confusion(segmenter: Segmenter, scenes: list[Scene]) -> NDArray[np.float64]:
    channels = 1 + len(CLASS_NAMES)
    total = np.zeros((channels, channels))
    for start in range(0, len(scenes), 40):
        part = scenes[start : start + 40]
        guessed = segmenter.segment(np.stack([scene.image for scene in part])).argmax(axis=1)
        truth = np.stack([target(scene) for scene in part])
        total += np.bincount((truth * channels + guessed).ravel(), minlength=channels**2).reshape(channels, channels)
    return total


def measured(segmenter: Segmenter, given: Traffic) -> dict[str, float]:
    """Mean over digits of pooled IoU: of the shifted part, of the rest, and of both in their shares."""
    tables = {name: confusion(segmenter, scenes) for name, scenes in given.measured.items()}
    tables["mixture"] = SHARE * tables["shifted"] + (1 - SHARE) * tables["plain"]
    return {name: _mean_iou(table) for name, table in tables.items()}


def _mean_iou(table: NDArray[np.float64]) -> float:
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float(np.mean(table.diagonal()[1:] / union[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Active learning against uniform labels.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shifts", default="new_background")
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--steps", type=int, default=80)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    shipped = load_segmenter()
    runs: list[dict[str, Any]] = []
    for shift in arguments.shifts.split(","):
        for seed in range(1, arguments.seeds + 1):
            given = traffic(shift, seed)
            where, confidence = seen_by(shipped, given.pool)
            wished = wishes(confidence, [()] * POOL)
            runs.append({"shift": shift, "seed": seed, "arm": "before", **measured(shipped, given)})
            for arm, choose in ARMS.items():
                rows = choose(where, wished, arguments.budget, np.random.default_rng(seed))
                retrained = trained_on([given.pool[i] for i in rows], arguments.steps, seed)
                shares = {"labels": len(rows), "of_shifted": int(given.shifted[rows].sum())}
                runs.append({"shift": shift, "seed": seed, "arm": arm, **shares, **measured(retrained, given)})
                print(runs[-1], f"{time.monotonic() - began:.0f} s", flush=True)
    print("| Shift | arm | labels of the shifted part | IoU shifted | IoU plain | IoU mixture |")
    print("|---|---|---|---|---|---|")
    for shift in arguments.shifts.split(","):
        for arm in ("before", *ARMS):
            own = [run for run in runs if (run["shift"], run["arm"]) == (shift, arm)]
            cells = [f"{np.mean([run[name] for run in own]):.3f}" for name in ("shifted", "plain", "mixture")]
            of_shifted = "-" if arm == "before" else f"{np.mean([run['of_shifted'] for run in own]):.1f}"
            print(f"| {shift} | {arm} | {of_shifted} | " + " | ".join(cells) + " |")
    settings = {
        "share": SHARE,
        "strength": STRENGTH,
        "pool": POOL,
        "budget": arguments.budget,
        "steps": arguments.steps,
    }
    write_result("active_learning", {"settings": settings, "seconds": round(time.monotonic() - began), "runs": runs})


if __name__ == "__main__":
    main()
