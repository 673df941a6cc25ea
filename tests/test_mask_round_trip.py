"""What annotation tools are given comes back as the same masks, pixel for pixel; pycocotools is the judge."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detectors.box_runs import box_runs, runs_of_box
from detectors.brush_rle import brush_bytes, brush_runs
from detectors.quality.mask_runs import read_runs
from detectors.run_order import transpose_runs
from monitor.classes import Classes
from monitor.exports import EXPORTS, Item, MaskOf
from monitor.labels.formats import read_labels
from tests.made_masks import adversarial, images_of_masks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CLASSES = Classes(("sky", "car", "person"), (0, 7, 300), ignore=(255,))
WHEN = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
GOLDEN = json.loads((Path(__file__).parent / "data" / "tool_masks.json").read_text())
"""Masks as the SDKs of the tools encode them; bench/bench_mask_round_trip.py says how they were made."""


def theirs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """pycocotools' encoding."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def item_of(name: str, masks: list[NDArray[np.bool_]], **more: Any) -> Item:
    height, width = masks[0].shape
    listed = [MaskOf(CLASSES.names[k % 3], theirs(mask), score=0.5) for k, mask in enumerate(masks)]
    return Item(name, (height, width), listed, "instances", **more)


def back(path: Path, form: str, **more: Any) -> list[dict[str, Any]]:
    known: dict[str, Any] = {"annotator": "ann", "annotation_version": 1, "label_time": WHEN, "classes": CLASSES}
    return list(read_labels(path, form, **{**known, **more}))


def as_annotated(path: Path) -> None:
    """What a person does who agrees with every prediction of a Label Studio task."""
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        [prediction] = task.pop("predictions")
        done = {"id": number, "completed_by": 3, "result": prediction["result"], "updated_at": "2026-11-23T13:00:00Z"}
        task["annotations"] = [done]
    path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("form", ["coco", "cvat", "labelstudio"])
def test_ten_thousand_masks_come_back_with_an_iou_of_one(tmp_path: Path, form: str) -> None:
    images = list(images_of_masks(10_000, seed=7))
    assert sum(map(len, images)) == 10_000
    path = tmp_path / EXPORTS[form].file_name
    EXPORTS[form].write((item_of(f"i{k}", masks) for k, masks in enumerate(images)), CLASSES, path)
    if form == "labelstudio":
        as_annotated(path)
    records = back(path, EXPORTS[form].read_as)
    assert [record["input_id"] for record in records] == [f"i{k}" for k in range(len(images))]
    for masks, record in zip(images, records, strict=True):
        ours = [one["mask"] for one in record["instances"]]
        assert [one["class"] for one in record["instances"]] == [CLASSES.names[k % 3] for k in range(len(masks))]
        for mask, our in zip(masks, ours, strict=True):
            assert our == theirs(mask)
        plain = [{"size": our["size"], "counts": our["counts"].encode()} for our in ours]
        wanted = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
        pixels = np.array([mask.sum() for mask in masks])
        iou = np.diagonal(coco_mask.iou(plain, wanted, [0] * len(masks)))
        assert (iou[pixels > 0] == 1.0).all()
        assert (coco_mask.area(plain)[pixels == 0] == 0).all()


@pytest.mark.parametrize("form", ["coco", "cvat", "labelstudio"])
def test_a_map_comes_back_as_the_same_map(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(4)
    maps = [rng.choice([0, 7, 300, 255], size=size).astype(np.uint16) for size in ((1, 1), (7, 30), (40, 13))]
    items = []
    for k, indices in enumerate(maps):
        pairs = zip(CLASSES.names, CLASSES.indices, strict=True)
        masks = [MaskOf(name, theirs(indices == value)) for name, value in pairs if (indices == value).any()]
        asked = {"purpose": "relabel", "selection_probability": 0.125}
        items.append(Item(f"m/{k}", (indices.shape[0], indices.shape[1]), masks, "semantic", asked))
    path = tmp_path / EXPORTS[form].file_name
    EXPORTS[form].write(items, CLASSES, path)
    if form == "labelstudio":
        as_annotated(path)
    for record, indices, item in zip(back(path, EXPORTS[form].read_as), maps, items, strict=True):
        assert (record["input_id"], record["purpose"]) == (item.input_id, "relabel")
        assert record["selection_probability"] == 0.125
        assert np.array_equal(indices_of(record), indices)


def indices_of(record: dict[str, Any]) -> NDArray[np.uint16]:
    import base64

    from monitor.records import Semantic, decode_semantic

    return decode_semantic(Semantic(base64.b64decode(record["semantic"]["classes_png"])))[0].astype(np.uint16)


def test_panoptic_comes_back_with_things_and_stuff(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:30, :40]
    parts = [(rows < 10), (rows >= 10) & (columns < 20), (rows >= 10) & (columns > 25)]
    masks = [MaskOf("car", theirs(parts[1])), MaskOf("car", theirs(parts[2])), MaskOf("person", theirs(parts[0]))]
    path = tmp_path / "panoptic.json"
    EXPORTS["coco-panoptic"].write([Item("a", (30, 40), masks, "instances")], CLASSES, path)
    [record] = back(path, "coco-panoptic")
    assert [(one["class"], one["mask"]) for one in record["instances"]] == [(m.class_name, m.rle) for m in masks]
    wanted = np.full((30, 40), 255)
    for part, value in zip(parts, (300, 7, 7), strict=True):
        wanted[part] = value
    assert np.array_equal(indices_of(record), wanted)


def test_polygons_stay_polygons_in_coco_and_are_painted_elsewhere(tmp_path: Path) -> None:
    polygon = [[2.0, 2.0, 20.0, 3.5, 8.25, 17.0]]
    rle = coco_mask.merge(coco_mask.frPyObjects(polygon, 24, 30))
    plain = {"size": [24, 30], "counts": rle["counts"].decode()}
    item = Item("a", (24, 30), [MaskOf("car", plain, polygons=polygon)], "instances")
    for form in ("coco", "cvat"):
        path = tmp_path / EXPORTS[form].file_name
        EXPORTS[form].write([item], CLASSES, path)
        [record] = back(path, EXPORTS[form].read_as)
        assert record["instances"][0]["mask"] == (polygon if form == "coco" else plain)


@pytest.mark.parametrize("case", GOLDEN["masks"], ids=lambda case: case["name"])
def test_encodings_equal_those_of_the_tools_own_sdks(case: dict[str, Any]) -> None:
    """cvat-sdk 2.80.0 (`encode_mask`) and label-studio-sdk 2.1.2 (`mask2rle`)."""
    height, width = case["size"]
    mask = np.array([[character == "#" for character in row] for row in case["rows"]], np.bool_)
    runs = read_runs([theirs(mask)])
    counts, box = box_runs(runs.starts, runs.ends, height)
    assert [*counts.tolist(), box.left, box.top, box.left + box.width - 1, box.top + box.height - 1] == case["cvat"]
    assert brush_bytes(runs.starts, runs.ends, height, width).tolist() == case["labelstudio"]
    for found in (
        runs_of_box(counts, box, height, width),
        brush_runs(np.array(case["labelstudio"], np.uint8), height, width),
        brush_runs(np.array(case["literal"], np.uint8), height, width),
    ):
        assert (found[0].tolist(), found[1].tolist()) == (runs.starts.tolist(), runs.ends.tolist())


def test_turning_runs_twice_gives_the_runs_again() -> None:
    for masks in images_of_masks(400, seed=3):
        height, width = masks[0].shape
        for mask in masks:
            runs = read_runs([theirs(mask)])
            rows = transpose_runs(runs.starts, runs.ends, height, width)
            turned = read_runs([theirs(mask.T)])
            assert (rows[0].tolist(), rows[1].tolist()) == (turned.starts.tolist(), turned.ends.tolist())


def test_a_stream_cut_anywhere_is_refused() -> None:
    for mask in adversarial(9, 7):
        runs = read_runs([theirs(mask)])
        data = brush_bytes(runs.starts, runs.ends, 9, 7)
        for end in range(len(data) - 2):  # the last byte but one may hold padding alone
            with pytest.raises(ValueError, match="ends too early"):
                brush_runs(data[:end], 9, 7)
        with pytest.raises(ValueError, match="of another picture"):
            brush_runs(data, 7, 8)


def test_any_bytes_are_a_mask_or_refused() -> None:
    rng = np.random.default_rng(11)
    runs = read_runs([theirs(adversarial(9, 7)[14])])
    good = brush_bytes(runs.starts, runs.ends, 9, 7)
    refused = 0
    for _ in range(3000):
        data = good.copy()
        data[rng.integers(4, len(data), 3)] = rng.integers(0, 256, 3)
        try:
            starts, ends = brush_runs(data, 9, 7)
        except ValueError:
            refused += 1
            continue
        assert (starts < ends).all() and (ends[:-1] < starts[1:]).all() and (not len(ends) or ends[-1] <= 63)
    assert 0 < refused < 3000


def test_masks_that_would_grow_beyond_bounds_are_refused() -> None:
    lines = np.arange(0, 4000, 2) * 2000
    with pytest.raises(ValueError, match="more than 1000 runs"):
        transpose_runs(lines, lines + 2000, 2000, 4000, most=1000)
