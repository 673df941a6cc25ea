"""The geometry of masks agrees with scipy.ndimage, OpenCV and pycocotools, and costs nothing by the pixel."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy import ndimage

from detectors.merge_sort import merge_sort
from detectors.polygon_runs import polygon_runs
from detectors.signals.mask_geometry import SHAPES
from monitor.mask_shapes import is_dear, shapes_of
from monitor.masks import Mask, Rle, check_masks, counts_of, encode_rle
from monitor.records import Prediction
from monitor.records.types import Instance, Model

some_masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
COLUMN = {name: place for place, name in enumerate(SHAPES)}
RING = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def record(*instances: tuple[str, Mask], input_id: str = "image") -> Prediction:
    return Prediction(
        input_id=input_id,
        event_time=datetime(2026, 1, 1, tzinfo=UTC),
        model=Model("street", "1"),
        instances=[Instance(kind, 0.5, mask) for kind, mask in instances],
    )


def rle(mask: NDArray[np.bool_]) -> Rle:
    height, width = mask.shape
    return Rle((height, width), encode_rle(mask)["counts"])


def listed(mask: Rle) -> Rle:
    """The other form, with runs of no length and runs cut in two."""
    assert isinstance(mask.counts, str)
    counts: list[int] = []
    for place, count in enumerate(counts_of(mask.counts).tolist()):
        counts += [count // 2, 0, count - count // 2] if place % 3 else [count]
    return Rle(mask.size, counts)


def measures(*masks: Mask) -> dict[str, list[float]]:
    shapes, _ = shapes_of([record(*(("car", mask) for mask in masks))], 1.0)
    assert shapes.shape == (len(masks), len(SHAPES))
    return {name: shapes[:, place].tolist() for name, place in COLUMN.items()}


def overlap(*instances: tuple[str, Mask]) -> float:
    return float(shapes_of([record(*instances)], 1.0)[1][0])


def sides(mask: NDArray[np.bool_]) -> int:
    """Of pixels, between the mask and the rest, by the sums of differences over the painted mask."""
    framed = np.pad(mask, 1).astype(np.int8)
    return int(np.abs(np.diff(framed, axis=0)).sum() + np.abs(np.diff(framed, axis=1)).sum())


def parts(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Components and holes, by labelling the painted mask and its background, the outside included."""
    return ndimage.label(mask, np.ones((3, 3)))[1], ndimage.label(np.pad(~mask, 1, constant_values=True))[1] - 1


@given(some_masks)
@settings(max_examples=400, deadline=None)
def test_both_forms_of_rle_are_measured_as_scipy_and_pycocotools_measure_the_painted_mask(
    mask: NDArray[np.bool_],
) -> None:
    found = measures(rle(mask), listed(rle(mask)))
    area = int(coco.area(coco.encode(np.asfortranarray(mask.astype(np.uint8)))))
    components, holes = parts(mask)
    assert found["area"] == [area] * 2
    assert found["share"] == [area / mask.size] * 2
    assert found["boundary"] == [sides(mask)] * 2
    assert found["components"] == [components] * 2
    assert found["holes"] == [holes] * 2
    if area:
        framed = np.zeros_like(mask)
        framed[[0, -1], :] = framed[:, [0, -1]] = True
        assert found["border"] == [float((mask & framed).any())] * 2
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        aspect = (columns[-1] - columns[0] + 1) / (rows[-1] - rows[0] + 1)
        assert found["aspect"] == [aspect] * 2
        np.testing.assert_allclose(found["compactness"], 4 * np.pi * area / sides(mask) ** 2)


@pytest.mark.parametrize("seed", range(6))
def test_large_masks_of_blobs_and_noise_have_opencvs_components_and_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(240, 320)).astype(np.float32)
    mask = (noise if seed == 0 else cv2.GaussianBlur(noise, (0, 0), float(seed))) > 0
    found = measures(rle(mask))
    components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    background = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)[0]
    assert (found["components"], found["holes"]) == ([components], [background - 2])
    assert found["boundary"] == [sides(mask)]


@pytest.mark.parametrize(
    ("name", "rows", "boundary", "components", "holes", "border"),
    [
        ("one pixel in the middle", [[0, 0, 0], [0, 1, 0], [0, 0, 0]], 4, 1, 0, 0),
        ("one pixel in the corner", [[0, 0, 0], [0, 0, 0], [0, 0, 1]], 4, 1, 0, 1),
        ("a full mask", [[1, 1], [1, 1], [1, 1]], 10, 1, 0, 1),
        ("one row", [[1, 1, 0, 1, 1]], 12, 2, 0, 1),
        ("one column", [[1], [1], [0], [1]], 10, 2, 0, 1),
        ("a ring", RING, 16, 1, 1, 1),
        ("two pixels at a corner are one", [[1, 0], [0, 1]], 8, 1, 0, 1),
        ("and the same the other way", [[0, 1], [1, 0]], 8, 1, 0, 1),
        ("a diamond of corners has a hole", [[0, 1, 0], [1, 0, 1], [0, 1, 0]], 16, 1, 1, 1),
        ("a ring in a ring", np.pad(np.pad(RING, 1), 1, constant_values=1), 16 + 28 + 20, 2, 2, 1),
        ("a run over the foot of a column that touches nothing", [[0, 0, 1], [0, 0, 0], [0, 1, 0]], 8, 2, 0, 1),
    ],
)
def test_shapes_that_a_person_can_count(
    name: str, rows: list[list[int]], boundary: int, components: int, holes: int, border: int
) -> None:
    found = measures(rle(np.array(rows, np.bool_)))
    assert (found["boundary"], found["components"], found["holes"]) == ([boundary], [components], [holes]), name
    assert found["border"] == [border]


def test_an_empty_mask_has_no_pixels_and_no_shape() -> None:
    found = measures(rle(np.zeros((4, 5), np.bool_)))
    nothing = {name: values for name, values in found.items() if not np.isnan(values[0])}
    assert nothing == {name: [0.0] for name in ("area", "share", "boundary", "components", "holes")}


@given(some_masks, st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_a_mask_moved_in_a_larger_image_keeps_its_shape(mask: NDArray[np.bool_], x: int, y: int) -> None:
    canvas = np.zeros((2, 24, 24), np.bool_)
    canvas[0, : mask.shape[0], : mask.shape[1]] = canvas[1, y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    found = measures(rle(canvas[0]), rle(canvas[1]))
    for name in set(SHAPES) - {"border"}:
        assert found[name][0] == found[name][1] or np.isnan(found[name]).all()


def covered_twice(masks: Sequence[NDArray[np.bool_]], kinds: Sequence[int]) -> float:
    """Overlap by counting on the painted masks."""
    depth = {kind: sum(mask.astype(int) for mask, k in zip(masks, kinds, strict=True) if k == kind) for kind in kinds}
    total = sum(int(mask.sum()) for mask in masks)
    return sum(int(d[d > 1].sum()) for d in depth.values()) / total if total else np.nan


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_overlap_is_what_another_instance_of_the_class_covers_too(
    data: st.DataObject, shape: tuple[int, int], number: int
) -> None:
    masks = [data.draw(hnp.arrays(np.bool_, shape)) for _ in range(number)]
    kinds = data.draw(st.lists(st.integers(0, 2), min_size=number, max_size=number))
    instances = [(f"class {kind}", rle(mask)) for mask, kind in zip(masks, kinds, strict=True)]
    np.testing.assert_equal(overlap(*instances), covered_twice(masks, kinds))


def test_a_duplicate_overlaps_wholly_and_other_classes_do_not_count() -> None:
    square = np.zeros((10, 10), np.bool_)
    square[2:6, 2:6] = True
    assert overlap(("car", rle(square)), ("car", listed(rle(square)))) == 1.0
    assert overlap(("car", rle(square)), ("bus", rle(square))) == 0.0
    assert overlap(("car", rle(square)), ("car", rle(np.roll(square, 2, axis=1)))) == 0.5
    assert np.isnan(overlap()), "a record without instances has no overlap"


# -- polygons -----------------------------------------------------------------------------------------------------


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_polygons_along_the_sides_of_pixels_hold_those_pixels(boxes: list[tuple[int, int, int, int]]) -> None:
    painted = np.zeros((20, 20), np.bool_)
    for x, y, width, height in boxes:
        painted[y : y + height, x : x + width] = True
    empty = rle(np.zeros_like(painted))  # gives the record its image's size
    polygons: Mask = [rectangle(*map(float, box)) for box in boxes]
    found = measures(empty, polygons)
    assert (found["components"][1], found["holes"][1]) == parts(painted)
    if len(boxes) == 1:
        as_rle = measures(rle(painted))
        assert {name: values[1] for name, values in found.items()} == {
            name: values[0] for name, values in as_rle.items()
        }
    assert overlap(("car", polygons), ("car", rle(painted))) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_smooth_outlines_agree_with_the_rle_that_pycocotools_makes_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = 60 * (1 + 0.3 * np.sin(3 * angle + rng.uniform(0, 6)))
    polygon = np.column_stack([160 + radius * np.cos(angle), 120 + radius * np.sin(angle)]).ravel().tolist()
    theirs = coco.merge(coco.frPyObjects([polygon], 240, 320))
    painted = Rle((240, 320), theirs["counts"].decode())
    found = measures([polygon], painted)
    for name in ("area", "share", "aspect", "boundary", "compactness"):
        np.testing.assert_allclose(found[name][0], found[name][1], rtol=0.04, err_msg=name)
    for name in ("components", "holes", "border"):
        assert found[name][0] == found[name][1], name
    assert overlap(("car", [polygon]), ("car", painted)) > 0.97


def test_polygons_cut_no_pixel_whose_centre_they_miss() -> None:
    inside = np.zeros((30, 30), np.bool_)
    corners = np.array([[3.2, 4.1], [25.7, 8.3], [14.4, 27.9]])
    centres = np.indices((30, 30))[::-1] + 0.5
    turns = [
        (b[0] - a[0]) * (centres[1] - a[1]) - (b[1] - a[1]) * (centres[0] - a[0])
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    inside = np.all(np.array(turns) > 0, axis=0)
    one = np.array([0, 1])
    counts, _, _ = polygon_runs(corners.ravel(), np.array([0, 6]), one, np.array([[0, 0, 30, 30]]), one)
    found = check_masks([Rle((30, 30), [*counts.tolist(), 900 - int(counts.sum())])])
    assert found.area[0] == inside.sum() > 200
    assert overlap(("a", [corners.ravel().tolist()]), ("a", rle(inside))) == 1.0


def test_polygons_take_the_size_of_an_image_that_somebody_knows() -> None:
    corner = record(("car", [rectangle(28.0, 0.0, 4.0, 8.0)]))
    inner = record(("car", [rectangle(8.0, 8.0, 16.0, 8.0)]))
    sizes = np.array([[16, 32], [32, 64], [0, 0]])
    shapes, _ = shapes_of([corner, inner, inner], 1.0, sizes)
    np.testing.assert_array_equal(shapes[:, COLUMN["share"]], [1 / 16, 1 / 16, np.nan])
    np.testing.assert_array_equal(shapes[:, COLUMN["border"]], [1, 0, np.nan])


def test_polygons_alone_have_no_image_and_still_a_shape() -> None:
    found = measures([rectangle(-3, 100, 8, 4), rectangle(20, 100, 8, 4)])
    assert np.isnan([found["share"], found["border"]]).all()
    assert (found["area"], found["boundary"], found["aspect"]) == ([64], [48], [31 / 4])
    assert (found["components"], found["holes"]) == ([2], [0])
    moved: list[tuple[str, Mask]] = [("car", [rectangle(x, 1e6, 8, 4)]) for x in (-1e6, 4.0 - 1e6)]
    assert overlap(*moved) == 0.5


# -- a chunk ------------------------------------------------------------------------------------------------------


def mixed_chunk(records: int) -> list[Prediction]:
    rng = np.random.default_rng(3)
    chunk = []
    for number in range(records):
        masks: list[Mask] = [rle(rng.random((9, 11)) < 0.4) for _ in range(int(rng.integers(0, 4)))]
        if number % 3 == 0:
            masks = [listed(mask) if isinstance(mask, Rle) else mask for mask in masks]
        if number % 4 == 0:
            masks.append([rectangle(1.0, 2.0, float(rng.integers(1, 9)), 3.0)])
        instances = [(str(rng.integers(2)), mask) for mask in masks]
        chunk.append(record(*instances, input_id=f"image-{number}"))
    return chunk


def test_a_record_is_measured_alike_in_any_chunk() -> None:
    chunk = mixed_chunk(150)
    shapes, overlaps = shapes_of(chunk)
    alone = [shapes_of([each]) for each in chunk]
    np.testing.assert_array_equal(shapes, np.concatenate([rows for rows, _ in alone]))
    np.testing.assert_array_equal(overlaps, np.concatenate([one for _, one in alone]))
    assert shapes_of([])[0].shape == (0, len(SHAPES))


def test_the_dear_measures_are_taken_on_the_stated_part_of_the_inputs() -> None:
    chunk = [each for each in mixed_chunk(400) if each.instances]
    sizes = [len(each.instances or ()) for each in chunk]
    dear = [is_dear(each.input_id, 0.25) for each in chunk]
    assert 0.18 < np.mean(dear) < 0.32
    shapes, overlaps = shapes_of(chunk, 0.25)
    everywhere, _ = shapes_of(chunk, 1.0)
    taken = ~np.isnan(shapes[:, [COLUMN["components"], COLUMN["holes"]]])
    np.testing.assert_array_equal(taken, np.repeat(dear, sizes)[:, None] & [True, True])
    np.testing.assert_array_equal(shapes[taken[:, 0]], everywhere[taken[:, 0]])
    assert not (~np.isnan(overlaps) & ~np.array(dear)).any()
    assert all(is_dear(each.input_id, 0.5) for each, was in zip(chunk, dear, strict=True) if was)
    assert np.isnan(shapes_of(chunk, 0.0)[1]).all()


@given(hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(-9, 9) | st.integers(-(2**62), 2**62)))
@settings(max_examples=200, deadline=None)
def test_positions_are_sorted_as_numpy_sorts_them(values: NDArray[np.int64]) -> None:
    expected = np.sort(values)
    merge_sort(values)
    np.testing.assert_array_equal(values, expected)


# -- masks made to hurt -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "counts", "boundary", "holes"),
    [
        ((1, 2**31 - 1), [0, 2**31 - 1], 2 * 2**31, 0),
        ((2**31 - 1, 1), [0, 2**31 - 1], 2 * 2**31, 0),
        ((40_000, 50_000), [0, 2 * 10**9], 180_000, 0),
        ((40_000, 50_000), [0, 10**9 + 1, 1, 10**9 - 2], 180_004, 1),
        ((3, 2**30), [1, 2**30], 2 * 357_913_942 + 2 * 3, 0),
    ],
)
def test_a_mask_of_two_thousand_million_pixels_costs_its_runs(
    size: tuple[int, int], counts: list[int], boundary: int, holes: int
) -> None:
    counts = [*counts, size[0] * size[1] - sum(counts)]
    mask = Rle(size, counts)
    big = record(("car", mask), ("car", mask))
    shapes_of([big], 1.0)
    tracemalloc.start()
    begun = time.perf_counter()
    shapes, overlaps = shapes_of([big], 1.0)
    assert time.perf_counter() - begun < 0.5
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert shapes[0, COLUMN["boundary"]] == boundary
    assert (shapes[0, COLUMN["components"]], shapes[0, COLUMN["holes"]], overlaps[0]) == (1, holes, 1.0)


def test_a_mask_of_millions_of_runs_takes_time_by_its_runs() -> None:
    chess = Rle((3001, 1000), [1] * 3_001_000)  # fields of one colour touch at their corners
    shapes_of(mixed_chunk(40), 1.0)
    begun = time.process_time()
    shapes, overlaps = shapes_of([record(("car", chess), ("car", chess))], 1.0)
    assert time.process_time() - begun < 10
    found = {name: shapes[0, place] for name, place in COLUMN.items()}
    assert (found["area"], found["boundary"], overlaps[0]) == (1_500_500, 4 * 1_500_500, 1.0)
    assert (found["components"], found["holes"]) == (1, 2999 * 998 / 2), "each field within is a hole"


def test_a_polygon_over_ten_million_columns_is_not_cut() -> None:
    wide: Mask = [[-1e7, 0.0, 1e7, 0.0, 0.0, 5.0]]
    small: Mask = [rectangle(0.0, 0.0, 4.0, 4.0)]
    shapes, overlaps = shapes_of([record(("car", wide)), record(("car", small))], 1.0)
    assert shapes[:, COLUMN["boundary"]].tolist() == [4e7 + 10, 16]
    np.testing.assert_array_equal(shapes[:, COLUMN["components"]], [np.nan, 1])
    np.testing.assert_array_equal(overlaps, [np.nan, 0])
    in_image = record(("car", wide), ("car", rle(np.ones((5, 9), np.bool_))))
    assert shapes_of([in_image], 1.0)[1][0] > 0.5, "what lies outside the image is not cut at all"
