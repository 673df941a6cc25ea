"""Judging semantic maps: confusion counts, run painting and boundaries against what others do for the same result.

    python bench/bench_quality_semantic.py [--rounds 30]

All ratios are taken side by side in one process, on one thread, by CPU time: in each round every contender has one
turn, and a ratio is the median over rounds. torchmetrics lives in the environment of the peers, which the program moves
to when it has to. Prints one JSON object, writes bench-results/quality_semantic.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from bench.rig import ROOT, peers_python, write_result
from detectors.quality.boundary import boundary_width
from detectors.quality.confusion import ClassTable, confusion_counts, enlarge
from detectors.quality.judge_semantic import judge_semantic
from detectors.quality.run_painter import paint_classes
from detectors.quality.semantic_boundary import boundary_sums

SIDE, CLASSES, VOID = 512, 21, 255
TURN_S = 0.02
"""A contender does its work again until so much time has passed: the clock of CPU time is coarse."""


def regions(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(SIDE, SIDE) label of 16 x 16 patches, 3 % of them void, and a prediction five pixels beside it."""
    rng = np.random.default_rng(seed)
    labelled = enlarge(rng.integers(0, CLASSES, (16, 16)).astype(np.uint8), (SIDE, SIDE))
    predicted = np.roll(labelled, 5, axis=1)
    void = enlarge(rng.random((16, 16)) < 0.03, (SIDE, SIDE))
    return predicted, np.where(void, np.uint8(VOID), labelled)


def noise(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Each pixel by itself, the worst that memory can meet."""
    predicted, labelled = np.random.default_rng(seed).integers(0, CLASSES, (2, SIDE, SIDE)).astype(np.uint8)
    return predicted, labelled


def ellipses(seed: int, total: int = 20, height: int = 480, width: int = 640) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(total):
        cy, cx = rng.uniform(60, height - 60), rng.uniform(60, width - 60)
        ry, rx = rng.uniform(30, 80), rng.uniform(20, 80)
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        masks.append(coco.encode(np.asfortranarray(inside, np.uint8)))
    return masks


def turn(work: Callable[[], object]) -> float:
    """CPU seconds a call."""
    calls, started = 0, time.thread_time()
    while True:
        work()
        calls += 1
        passed = time.thread_time() - started
        if passed > TURN_S:
            return passed / calls


def compare(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, and how many times as long as the first the others take; medians over rounds."""
    for work in contenders.values():
        work()
    seconds = np.array([[turn(work) for work in contenders.values()] for _ in range(rounds)])
    result = {f"{name}_ms": 1e3 * float(each) for name, each in zip(contenders, np.median(seconds, 0), strict=True)}
    ratios = seconds[:, 1:] / seconds[:, :1]
    for name, column in zip(list(contenders)[1:], ratios.T, strict=True):
        result[f"ratio_to_{name}"] = float(np.median(column))
        result[f"ratio_to_{name}_p10"] = float(np.quantile(column, 0.1))
    return result


def bench_confusion(maps: tuple[NDArray[np.uint8], NDArray[np.uint8]], rounds: int) -> dict[str, float]:
    import torch
    from torchmetrics import JaccardIndex

    torch.set_num_threads(1)
    predicted, labelled = maps
    table = ClassTable.of(range(CLASSES), [VOID])
    tensors = torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(labelled.astype(np.int64))
    updated = JaccardIndex(task="multiclass", num_classes=CLASSES, ignore_index=VOID)
    called = JaccardIndex(task="multiclass", num_classes=CLASSES, ignore_index=VOID)
    counts = confusion_counts(predicted, labelled, table)
    updated.update(*tensors)
    assert (counts[:CLASSES, :CLASSES] == updated.confmat.numpy()).all()
    return compare(
        {
            "segwatch": lambda: confusion_counts(predicted, labelled, table),
            "torchmetrics_update": lambda: updated.update(*tensors),
            "torchmetrics_call": lambda: called(*tensors),
        },
        rounds,
    )


def bench_painting(rounds: int) -> dict[str, float]:
    masks, positions = ellipses(0), [number % CLASSES for number in range(20)]

    def decoded() -> NDArray[np.uint8]:
        image = np.full(masks[0]["size"], VOID, np.uint8)
        for mask, position in zip(masks, positions, strict=True):
            image[coco.decode(mask).astype(bool)] = position
        return image

    assert (decoded() == paint_classes(masks, positions, VOID)).all()
    return compare({"segwatch": lambda: paint_classes(masks, positions, VOID), "decoding": decoded}, rounds)


def bench_boundaries(rounds: int) -> dict[str, float]:
    table = ClassTable.of(range(CLASSES), [VOID])
    predicted_values, labelled_values = regions(1)
    predicted, labelled = table.predicted[predicted_values], table.labelled[labelled_values]
    seen = np.where(labelled == CLASSES + 1, labelled, predicted)
    element, near = np.ones((3, 3), np.uint8), boundary_width(SIDE, SIDE)

    def region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=[0.0])
        edge: NDArray[np.bool_] = mask & (cv2.erode(framed, element, iterations=near)[1:-1, 1:-1] == 0)
        return edge

    def eroded() -> NDArray[np.int64]:
        sums = np.zeros((2, CLASSES), np.int64)
        for position in range(CLASSES):
            first, second = region(seen == position), region(labelled == position)
            sums[:, position] = (first & second).sum(), (first | second).sum()
        return sums

    assert (eroded() == np.stack(boundary_sums(predicted, labelled, CLASSES))).all()
    return compare(
        {"segwatch": lambda: boundary_sums(predicted, labelled, CLASSES), "erosion_by_class": eroded}, rounds
    )


def bench_judging(rounds: int) -> dict[str, float]:
    table = ClassTable.of(range(CLASSES), [VOID])
    predicted, labelled = regions(1)
    confidence = (255 * np.random.default_rng(0).beta(8, 1, predicted.shape)).astype(np.uint8)
    judged = judge_semantic(predicted, labelled, table, confidence)
    result = compare({"segwatch": lambda: judge_semantic(predicted, labelled, table, confidence)}, rounds)
    return result | {
        "bytes": len(judged.to_bytes()),
        "bytes_without_confidence": len(judge_semantic(predicted, labelled, table).to_bytes()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    if importlib.util.find_spec("torchmetrics") is None:
        python = str(peers_python())
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(python, [python, *sys.argv])
    cv2.setNumThreads(1)
    result = {
        "confusion_of_regions": bench_confusion(regions(0), arguments.rounds),
        "confusion_of_noise": bench_confusion(noise(0), arguments.rounds),
        "painting": bench_painting(arguments.rounds),
        "boundaries": bench_boundaries(arguments.rounds),
        "judging": bench_judging(arguments.rounds),
    }
    print(json.dumps(result, indent=2))
    write_result("quality_semantic", result)


if __name__ == "__main__":
    main()
