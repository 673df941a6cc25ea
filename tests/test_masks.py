"""Masks: checked, measured and encoded as pycocotools does it, and hostile ones refused for nothing."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

from monitor.errors import BadRecord
from monitor.masks import (
    CHARACTER,
    COORDINATE,
    CUT,
    FAULTS,
    NEGATIVE,
    NO_POLYGON,
    POINTS,
    SIZE,
    SUM,
    TOO_LARGE,
    Rle,
    check_masks,
    counts_of,
    decode_rle,
    encode_rle,
    find_faults,
)

some_masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


def by_coco(mask: NDArray[np.bool_]) -> dict[str, Any]:
    encoded: dict[str, Any] = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return encoded


def borders() -> list[NDArray[np.bool_]]:
    frame = np.zeros((37, 53), np.bool_)
    frame[[0, -1], :] = frame[:, [0, -1]] = True
    corner = np.zeros((37, 53), np.bool_)
    corner[-1, -1] = True
    first = np.zeros((37, 53), np.bool_)
    first[0, 0] = True
    stripes = np.zeros((300, 500), np.bool_)
    stripes[:, ::2] = True
    checks = np.indices((64, 65)).sum(axis=0) % 2 == 0
    noise = np.random.default_rng(7).random((240, 320)) < 0.5
    full = np.ones((480, 640), np.bool_)
    shapes = [frame, corner, first, stripes, checks, noise, full]
    return [*shapes, ~full, full[:1], full[:, :1], full[:1, :1], ~full[:1, :1]]


@given(some_masks)
@settings(max_examples=200, deadline=None)
def test_encoding_gives_pycocotools_bytes_and_decoding_gives_the_mask_back(mask: NDArray[np.bool_]) -> None:
    encoded = encode_rle(mask)
    assert encoded["size"] == list(by_coco(mask)["size"])
    assert encoded["counts"].encode() == by_coco(mask)["counts"]
    assert np.array_equal(decode_rle(encoded["size"], encoded["counts"]), mask)
    assert np.array_equal(decode_rle(encoded["size"], counts_of(encoded["counts"]).tolist()), mask)


@pytest.mark.parametrize("mask", borders(), ids=str)
def test_extreme_masks_agree_with_pycocotools(mask: NDArray[np.bool_]) -> None:
    encoded, theirs = encode_rle(mask), by_coco(mask)
    assert encoded["counts"].encode() == theirs["counts"]
    assert np.array_equal(decode_rle(encoded["size"], encoded["counts"]), mask)
    height, width = mask.shape
    report = check_masks([Rle((height, width), encoded["counts"])])
    assert report.fault.tolist() == [0]
    assert report.area[0] == coco.area(theirs)
    assert report.bbox[0].tolist() == coco.toBbox(theirs).tolist()


@given(st.lists(some_masks, min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_chunk_of_both_forms_is_measured_as_pycocotools_measures_each(masks: list[NDArray[np.bool_]]) -> None:
    forms: list[Rle] = []
    for mask in masks:
        height, width = mask.shape
        text = encode_rle(mask)["counts"]
        forms += [Rle((height, width), text), Rle((height, width), counts_of(text).tolist())]
    report = check_masks(forms)
    theirs = [by_coco(mask) for mask in masks for _ in range(2)]
    assert not report.fault.any()
    assert report.area.tolist() == [coco.area(each) for each in theirs]
    assert report.bbox.tolist() == [coco.toBbox(each).tolist() for each in theirs]
    assert report.size.tolist() == [list(mask.shape) for mask in masks for _ in range(2)]


@given(st.lists(st.integers(0, 2**40), max_size=30))
def test_counts_survive_the_string_that_pycocotools_writes(counts: list[int]) -> None:
    small = [count % 2**20 for count in counts] or [0]
    text = coco.frPyObjects({"size": [1, max(1, sum(small))], "counts": small}, 1, max(1, sum(small)))["counts"]
    assert counts_of(text.decode()).tolist() == small


def test_polygons_have_the_area_and_box_of_their_corners() -> None:
    square = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]
    triangle = [50.0, 50.0, 54.0, 50.0, 50.0, 53.0]
    report = check_masks([[square], [square, triangle], [list(reversed(square))]])
    assert report.area.tolist() == [200.0, 206.0, 200.0]
    assert report.bbox[:2].tolist() == [[10, 10, 20, 10], [10, 10, 44, 43]]
    theirs = coco.area(coco.merge(coco.frPyObjects([square, triangle], 100, 100)))
    assert abs(theirs - report.area[1]) < 8, "painting differs by pixels at the edge only"


@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        (Rle((10, 20), "1"), SUM),
        (Rle((10, 20), ""), SUM),
        (Rle((10, 20), [100, 99]), SUM),
        (Rle((10, 20), [100, 101]), SUM),
        (Rle((10, 20), []), SUM),
        (Rle((10, 20), [200, -1, 1]), NEGATIVE),
        (Rle((10, 20), "O"), NEGATIVE),
        (Rle((10, 20), "1 2"), CHARACTER),
        (Rle((10, 20), "p"), CHARACTER),
        (Rle((10, 20), "/"), CHARACTER),
        (Rle((10, 20), "1\0"), CHARACTER),
        (Rle((10, 20), "1\u0131"), CHARACTER),
        (Rle((10, 20), "1\ud800"), CHARACTER),
        (Rle((10, 20), "X"), CUT),
        (Rle((10, 20), "o" * 11), CUT),
        (Rle((10, 20), "o" * 12 + "0"), CUT),
        (Rle((10, 20), "o" * 100_000), CUT),
        (Rle((10, 20), "P" * 11 + "?"), SUM),
        (Rle((0, 20), [0]), SIZE),
        (Rle((-10, -20), [200]), SIZE),
        (Rle((10**6, 10**6), [10**12]), TOO_LARGE),
        (Rle((2**31 - 1, 2**31 - 1), "0"), TOO_LARGE),
        ([], NO_POLYGON),
        ([[0.0, 0.0, 1.0, 1.0]], POINTS),
        ([[0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 3.0]], POINTS),
        ([[0.0, 0.0, 1.0, 1.0, 2.0, float("nan")]], COORDINATE),
        ([[0.0, 0.0, 1.0, 1.0, 2.0, float("inf")]], COORDINATE),
        ([[0.0, 0.0, 1.0, 1.0, 2.0, 1e8]], COORDINATE),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_faulty_mask_is_named_and_leaves_its_neighbours_alone(mask: Any, fault: int) -> None:
    good = Rle((2, 2), [1, 2, 1])
    masks = [good, mask, good, Rle((2, 2), "121"), [[0.0, 0.0, 4.0, 0.0, 0.0, 3.0]]]
    report = check_masks(masks)
    assert report.fault.tolist() == [0, fault, 0, 0, 0]
    assert find_faults(masks)[0].tolist() == [0, fault, 0, 0, 0]
    assert FAULTS[fault][0] in ("bad_mask", "mask_too_large")
    assert report.area.tolist() == [2, 0, 2, 2, 6]


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=60), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=500, deadline=None)
def test_a_string_passes_only_if_its_counts_are_plain_and_add_up(text: str, height: int, width: int) -> None:
    fault = check_masks([Rle((height, width), text)]).fault[0]
    try:
        counts = counts_of(text)
    except BadRecord:
        assert fault != 0
        return
    assert (fault == 0) == (counts.sum() == height * width)


compressed = st.builds(
    Rle,
    st.tuples(st.integers(-1, 50), st.integers(-1, 50)),
    st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=60),
)


@given(st.lists(compressed | some_masks.map(lambda mask: Rle(mask.shape, encode_rle(mask)["counts"])), max_size=8))
@settings(max_examples=500, deadline=None)
def test_finding_faults_without_measuring_finds_the_same_ones(masks: list[Rle]) -> None:
    fault, size = find_faults(masks, max_pixels=2000)
    report = check_masks(masks, max_pixels=2000)
    assert fault.tolist() == report.fault.tolist()
    assert size.tolist() == report.size.tolist()


def test_counts_whose_sum_wraps_around_to_the_right_number_are_a_fault() -> None:
    largest = "P" * 8 + "1"
    assert counts_of("4" + largest).tolist() == [4, 2**40]
    fault, _ = find_faults([Rle((2, 2), "4" + 2 * largest + "0" * (2**24 - 2)), Rle((2, 2), "4" + largest + "p")])
    assert fault.tolist() == [SUM, CHARACTER]


def test_a_mask_of_10_to_the_12_pixels_costs_no_memory() -> None:
    check_masks([Rle((2, 2), "121")])
    tracemalloc.start()
    try:
        started = time.perf_counter()
        report = check_masks([Rle((10**6, 10**6), [10**12]), Rle((10**6, 10**6), "o" * 11 + "0")])
        taken_s = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.fault.tolist() == [TOO_LARGE, TOO_LARGE]
    assert peak < 100_000
    assert taken_s < 1


def test_decoding_refuses_what_checking_refuses() -> None:
    with pytest.raises(BadRecord, match="mask_too_large"):
        decode_rle((10**6, 10**6), [10**12])
    with pytest.raises(BadRecord, match="bad_mask: the counts do not add up"):
        decode_rle((4, 4), "1")


def test_no_masks_at_all_are_a_report_of_none() -> None:
    assert len(check_masks([])) == 0
