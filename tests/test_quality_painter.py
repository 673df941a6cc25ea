"""Painted runs are what pycocotools decodes and NumPy paints, and what is no mask is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

from detectors.quality.run_painter import paint_classes, paint_instances

Masks = NDArray[np.bool_]

stacks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=20))
"""(M, H, W)"""


def encoded(masks: Masks) -> list[dict[str, Any]]:
    return [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def painted(masks: Masks, values: list[int], background: int) -> NDArray[np.int64]:
    image = np.full(masks.shape[1:], background)
    for mask, value in zip(masks, values, strict=True):
        image[mask] = value
    return image


@given(stacks, st.data())
def test_later_masks_lie_over_earlier_ones(masks: Masks, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 300), min_size=len(masks), max_size=len(masks)))
    found = paint_classes(encoded(masks), values, 255)
    assert found.dtype == (np.uint8 if max(values) < 256 else np.uint16) and found.flags.c_contiguous
    assert (found == painted(masks, values, 255)).all()


@given(stacks)
def test_instances_are_numbered_from_1(masks: Masks) -> None:
    assert (paint_instances(encoded(masks)) == painted(masks, list(range(1, len(masks) + 1)), 0)).all()


def test_long_runs_and_steps_back_are_read() -> None:
    """Numbers of several groups, and differences below 0 from the fourth number on."""
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 700, 900), np.bool_)
    masks[0, :, 100:800] = True
    masks[1] = rng.random((700, 900)) < 0.5
    masks[2, 3:650, 50:60] = True
    assert (paint_classes(encoded(masks), [70_000, 2, 1], 0) == painted(masks, [70_000, 2, 1], 0)).all()


def test_text_and_bytes_are_read_alike() -> None:
    masks = np.random.default_rng(1).random((2, 9, 7)) < 0.4
    texts = [{"size": mask["size"], "counts": mask["counts"].decode()} for mask in encoded(masks)]
    assert (paint_instances(texts) == paint_instances(encoded(masks))).all()


@pytest.mark.parametrize(
    "counts",
    [b"", b"0", b"3", b"5", b"131", b"4_", b"Q", b"\x00", b"22 ", "2é", "\ud800", b"_" * 13 + b"0", b"06O", b"o" * 40],
)
def test_a_string_that_is_no_mask_of_this_size_is_refused_by_its_place(counts: str | bytes) -> None:
    good = {"size": [2, 2], "counts": b"121"}
    with pytest.raises(ValueError, match="mask 1 is no compressed RLE of 2 x 2 pixels"):
        paint_instances([good, {"size": [2, 2], "counts": counts}])


@given(st.binary(max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_any_bytes_are_painted_within_the_image_or_refused(counts: bytes, height: int, width: int) -> None:
    try:
        found = paint_instances([{"size": [height, width], "counts": counts}])
    except ValueError:
        return
    assert found.shape == (height, width) and set(np.unique(found)) <= {0, 1}


@pytest.mark.parametrize(
    ("masks", "positions", "message"),
    [
        ([], [], "without a mask"),
        ([{"size": [2, 2], "counts": b"4"}, {"size": [1, 4], "counts": b"4"}], [1, 2], "different size"),
        ([{"size": [2, 2], "counts": b"4"}], [1, 2], "1 masks, but positions"),
        ([{"size": [2, 2], "counts": b"4"}], [-1], "got -1"),
        ([{"size": [0, 2], "counts": b""}], [1], "a map of 0 x 2"),
        ([{"size": [10**6, 10**6], "counts": b""}], [1], "a map of 1000000 x 1000000"),
    ],
)
def test_impossible_maps_are_refused(masks: list[dict[str, Any]], positions: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paint_classes(masks, positions, 0)
