"""Instance masks judged: IoU against decoding both sides, COCO AP against pycocotools, boundaries against OpenCV.

    python bench/bench_quality_masks.py [--rounds 7]

Contenders take turns; every figure is a median over the rounds, by the CPU time of one thread, and every ratio a median
of the rounds' own ratios, so that a busy neighbour does not decide. Both sides' results are compared first. Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectors.quality.average_precision import average_precision
from detectors.quality.boundary import boundary_pixels, boundary_width
from detectors.quality.judge_instances import InstanceMasks, judge_instances
from detectors.quality.mask_runs import mask_iou

HEIGHT, WIDTH, INSTANCES, IMAGES, CLASSES = 480, 640, 20, 500, 10
CV = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}

Rles = list[dict[str, Any]]
Work = Callable[[], object]


def ellipse(rng: np.random.Generator, around: NDArray[np.float64] | None = None) -> tuple[NDArray[np.float64], Any]:
    """Centre and radii, and the mask; ``around`` another one's, moved by some 4 pixels."""
    if around is None:
        shape = np.concatenate([rng.uniform((0, 0), (HEIGHT, WIDTH)), rng.uniform(8, 60, 2)])
    else:
        shape = around + rng.normal(0, 4, 4)
    y, x, ry, rx = shape
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    mask = ((rows - y) / max(ry, 3)) ** 2 + ((columns - x) / max(rx, 3)) ** 2 < 1
    return shape, coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def image(rng: np.random.Generator) -> tuple[InstanceMasks, InstanceMasks]:
    """20 labelled instances of 10 classes; of each predicted one in five is somewhere else or of another class."""
    labelled = [ellipse(rng) for _ in range(INSTANCES)]
    kinds = rng.integers(0, CLASSES, INSTANCES)
    found = [ellipse(rng, shape if rng.random() < 0.8 else None) for shape, _ in labelled]
    guessed = np.where(rng.random(INSTANCES) < 0.9, kinds, rng.integers(0, CLASSES, INSTANCES))
    return (
        InstanceMasks(guessed, [rle for _, rle in found], rng.random(INSTANCES)),
        InstanceMasks(kinds, [rle for _, rle in labelled], crowd=np.zeros(INSTANCES, np.bool_)),
    )


def timed(work: dict[str, Work], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """CPU seconds of each, once a round, in turn; the first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, function in work.items():
            start = time.thread_time()
            for _ in range(repeats):
                function()
            if number:
                taken[name].append((time.thread_time() - start) / repeats)
    return taken


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 2)


def medians_us(taken: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(1e6 * statistics.median(seconds), 1) for name, seconds in taken.items()}


def decode(rles: Rles) -> NDArray[np.uint8]:
    """(H, W, M)"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        masks: NDArray[np.uint8] = coco.decode(rles)
    return masks


def iou_decoded(found: Rles, given: Rles) -> NDArray[np.float64]:
    """By one product of matrices, the fastest way there is with decoded masks."""
    first, second = (decode(side).reshape(-1, len(side), order="F").astype(np.float32) for side in (found, given))
    shared = first.T @ second
    return shared / (first.sum(axis=0)[:, None] + second.sum(axis=0)[None, :] - shared)


def iou(rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    found, given = (list(side.rles) for side in image(rng))
    ours = mask_iou(found, given)
    if np.abs(ours - iou_decoded(found, given)).max() > 1e-6 or (ours != coco.iou(found, given, [0] * INSTANCES)).any():
        raise SystemExit("the IoUs differ")
    work: dict[str, Work] = {
        "runs": lambda: mask_iou(found, given),
        "pycocotools_iou": lambda: coco.iou(found, given, [0] * INSTANCES),
    }
    fast = timed(work, rounds, 200)
    slow = timed({"runs": work["runs"], "decoding_both": lambda: iou_decoded(found, given)}, rounds, 3)
    return {
        "us": {**medians_us(fast), "decoding_both": medians_us(slow)["decoding_both"]},
        "ratio_to_decoding_both": {"value": ratio(slow["decoding_both"], slow["runs"]), "target": 100},
        "ratio_to_pycocotools_iou": ratio(fast["pycocotools_iou"], fast["runs"]),
    }


def datasets(images: Sequence[tuple[InstanceMasks, InstanceMasks]]) -> tuple[COCO, COCO]:
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, pair in enumerate(images, start=1):
        for listed, masks in zip(sides, pair, strict=True):
            for place, (kind, rle) in enumerate(zip(masks.kinds.tolist(), masks.rles, strict=True)):
                one = {"id": len(listed) + 1, "image_id": number, "category_id": kind, "segmentation": rle}
                one |= {"area": int(coco.area(rle)), "iscrowd": 0}
                listed.append(one | ({} if masks.scores is None else {"score": float(masks.scores[place])}))
    made = []
    for listed in sides:
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(1, len(images) + 1)],
            "categories": [{"id": kind, "name": str(kind)} for kind in range(CLASSES)],
            "annotations": listed,
        }
        dataset.createIndex()
        made.append(dataset)
    return made[0], made[1]


def coco_precision(predicted: COCO, labelled: COCO) -> NDArray[np.float64]:
    """(C,) AP; IoU, matching and accumulation are timed, reading the files is not."""
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(labelled, predicted, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))
    return precision


def precision(rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    images = [image(rng) for _ in range(IMAGES)]
    with redirect_stdout(io.StringIO()):
        predicted, labelled = datasets(images)

    def judged() -> list[Any]:
        return [judge_instances(*pair, CLASSES) for pair in images]

    judgements = judged()
    ours, theirs = average_precision(judgements, CLASSES).ap, coco_precision(*copy.deepcopy((predicted, labelled)))
    if np.abs(ours - theirs).max() > 1e-9:
        raise SystemExit(f"the scores differ: {ours} and {theirs}")
    work: dict[str, Work] = {
        "judge_and_average": lambda: average_precision(judged(), CLASSES),
        "average_only": lambda: average_precision(judgements, CLASSES),
        "pycocotools": lambda: coco_precision(predicted, labelled),
    }
    taken = timed(work, rounds)
    return {
        "seconds": {name: round(statistics.median(seconds), 4) for name, seconds in taken.items()},
        "mean_ap": round(float(ours.mean()), 4),
        "ratio_to_pycocotools": {"value": ratio(taken["pycocotools"], taken["judge_and_average"]), "target": 2.5},
        "ratio_of_averaging_kept_judgements": ratio(taken["pycocotools"], taken["average_only"]),
        "bytes_of_a_judgement": round(statistics.mean(len(judgement.to_bytes()) for judgement in judgements), 1),
    }


def edges_cropped(rles: Rles, d: int) -> NDArray[np.bool_]:
    """(H, W) the boundaries, with OpenCV on each mask's box; the masks themselves decoded as pycocotools does."""
    edges = np.zeros((HEIGHT, WIDTH), np.bool_)
    square = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
    for rle, (x, y, width, height) in zip(rles, coco.toBbox(rles).astype(int), strict=True):
        crop = np.ascontiguousarray(decode([rle])[y : y + height, x : x + width, 0])
        edges[y : y + height, x : x + width] |= crop > cv2.erode(crop, square, **CV)
    return edges


def boundary(rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    found, given = (list(side.rles) for side in image(rng))
    d = boundary_width(HEIGHT, WIDTH)

    def cropped() -> tuple[int, int]:
        first, second = edges_cropped(found, d), edges_cropped(given, d)
        return int((first & second).sum()), int((first | second).sum())

    if boundary_pixels(found, given) != cropped():
        raise SystemExit("the boundaries differ")
    taken = timed({"runs": lambda: boundary_pixels(found, given), "opencv_on_crops": cropped}, rounds, 3)
    return {"us": medians_us(taken), "ratio_to_opencv_on_crops": ratio(taken["opencv_on_crops"], taken["runs"])}


def instances(rounds: int = 7) -> dict[str, Any]:
    """The figures of instance masks, with their targets."""
    return {
        "iou_20x20_640x480": iou(rounds),
        "ap_500_images_of_20": precision(rounds),
        "boundary_20_and_20": boundary(rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender")
    cv2.setNumThreads(1)
    print(json.dumps({"benchmark": "quality_masks", "instances": instances(parser.parse_args().rounds)}, indent=2))


if __name__ == "__main__":
    main()
