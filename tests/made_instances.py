"""Images of rectangles as instances, and what pycocotools makes of them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectors.quality.judge_instances import InstanceMasks

SIDE, GRID = 160, 16
"""On this grid many rectangles have equal IoUs, and some have exactly 32^2 or 96^2 pixels, where COCO's sizes meet."""


@dataclass(frozen=True)
class Image:
    predicted: InstanceMasks
    labelled: InstanceMasks


def rle_of(mask: NDArray[Any]) -> dict[str, Any]:
    made: dict[str, Any] = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return made


def decode(rles: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(M, H, W)"""
    if not rles:
        return np.zeros((0, *size), np.bool_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how pycocotools gives its result to NumPy 2
        masks: NDArray[np.bool_] = coco.decode(list(rles)).transpose(2, 0, 1).astype(np.bool_)
    return masks


def rectangle(x: int, y: int, width: int, height: int, side: int = SIDE) -> dict[str, Any]:
    mask = np.zeros((side, side), np.bool_)
    mask[y : y + height, x : x + width] = True
    return rle_of(mask)


def predictions(kinds: Sequence[int], scores: Sequence[float], rles: Sequence[Any]) -> InstanceMasks:
    return InstanceMasks(np.array(kinds, np.int64), list(rles), np.array(scores, np.float64))


def labels(kinds: Sequence[int], rles: Sequence[Any], crowd: Sequence[bool] | None = None) -> InstanceMasks:
    flags = np.zeros(len(kinds), np.bool_) if crowd is None else np.array(crowd, np.bool_)
    return InstanceMasks(np.array(kinds, np.int64), list(rles), crowd=flags)


@st.composite
def rectangles(draw: st.DrawFn) -> dict[str, Any]:
    """Near one corner, so that many of them match; an empty one now and then."""
    x, y = (GRID * draw(st.integers(0, 1)) for _ in range(2))
    width, height = (GRID * draw(st.sampled_from([1, 2, 2, 3, 5, 6, 6, 7, 0])) for _ in range(2))
    return rectangle(x, y, width, height)


@st.composite
def images(draw: st.DrawFn, classes: int, most: int = 6, ties: bool = True) -> Image:
    """Few scores, so that many are equal, unless ``ties`` is False: then they differ within the image."""
    kind = st.integers(0, classes - 1)
    found = draw(st.lists(st.tuples(kind, rectangles()), max_size=most))
    given = draw(st.lists(st.tuples(kind, rectangles(), st.booleans()), max_size=most))
    if ties:
        scores = draw(st.lists(st.sampled_from([0.2, 0.5, 0.9]), min_size=len(found), max_size=len(found)))
    else:
        scores = [(1 + place) / 10 for place in draw(st.permutations(range(len(found))))]
    return Image(
        predictions([kind for kind, _ in found], scores, [rle for _, rle in found]),
        labels([kind for kind, _, _ in given], [rle for _, rle, _ in given], [crowd for _, _, crowd in given]),
    )


def random_image(rng: np.random.Generator, classes: int, found: int, given: int, side: int = SIDE) -> Image:
    """Labels anywhere; predictions are labels moved and resized, with scores of two digits."""

    def box() -> NDArray[np.int64]:
        width, height = rng.integers(4, side // 2, 2)
        return np.array([rng.integers(0, side - width), rng.integers(0, side - height), width, height])

    true = [box() for _ in range(given)]
    near = [true[rng.integers(given)] if given and rng.random() < 0.8 else box() for _ in range(found)]
    moved = [np.maximum(one + rng.integers(-3, 4, 4), 1) for one in near]
    return Image(
        predictions(
            rng.integers(0, classes, found).tolist(),
            rng.integers(1, 100, found) / 100,
            [rectangle(*one, side=side) for one in moved],
        ),
        labels(
            rng.integers(0, classes, given).tolist(),
            [rectangle(*one, side=side) for one in true],
            (rng.random(given) < 0.1).tolist(),
        ),
    )


def coco_evaluation(given: Sequence[Image], classes: int, use_classes: bool = True) -> COCOeval:
    """pycocotools' own evaluation, with masks' areas; quiet."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(given, start=1):
        for side, listed in ((image.labelled, truth), (image.predicted, found)):
            for place, (kind, rle) in enumerate(zip(side.kinds.tolist(), side.rles, strict=True)):
                annotation = {"image_id": number, "category_id": kind + 1, "segmentation": rle, "iscrowd": 0}
                annotation |= {"id": len(listed) + 1, "area": int(coco.area(rle)), "bbox": coco.toBbox(rle).tolist()}
                if side.scores is not None:
                    annotation["score"] = float(side.scores[place])
                if side.crowd is not None:
                    annotation["iscrowd"] = int(side.crowd[place])
                listed.append(annotation)
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_dataset(truth, given, classes), _dataset(found, given, classes), "segm")
        evaluation.params.useCats = int(use_classes)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _dataset(annotations: list[dict[str, Any]], given: Sequence[Image], classes: int) -> COCO:
    made = COCO()
    made.dataset = {
        "images": [{"id": number, "height": SIDE, "width": SIDE} for number in range(1, len(given) + 1)],
        "categories": [{"id": kind + 1, "name": str(kind)} for kind in range(classes)],
        "annotations": annotations,
    }
    made.createIndex()
    return made
