"""COCO instances: polygons where the mask came as polygons, else compressed RLE, which loses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec
import numpy as np

from detectors.quality.mask_runs import read_runs
from monitor.classes import Classes
from monitor.exports.items import Item
from monitor.exports.target import target
from monitor.labels.asked import ASKED

COPIED_BYTES = 1024 * 1024
_json = msgspec.json.Encoder()


def write_coco(items: Iterable[Item], classes: Classes, out: Path) -> None:
    """One JSON file. A category's id is its position among the classes, plus 1; annotations are numbered from 1."""
    category = {name: k + 1 for k, name in enumerate(classes.names)}
    images: list[dict[str, Any]] = []
    number = 0
    with target(out) as file, TemporaryFile() as waiting:  # annotations may be many; images are few beside them
        for item in items:
            images.append(image_entry(item, len(images) + 1))
            for annotation in _annotations(item, category):
                number += 1
                whole = {"id": number, "image_id": len(images), **annotation}
                waiting.write((b",\n" if number > 1 else b"") + _json.encode(whole))
        categories = [{"id": k, "name": name, "supercategory": ""} for name, k in category.items()]
        head = {"info": {"description": "segwatch"}, "licenses": [], "categories": categories, "images": images}
        file.write(_json.encode(head)[:-1] + b',\n"annotations":[')
        waiting.seek(0)
        while part := waiting.read(COPIED_BYTES):
            file.write(part)
        file.write(b"]}\n")


def image_entry(item: Item, number: int) -> dict[str, Any]:
    """An entry of ``images``."""
    entry = {"id": number, "file_name": item.file_name, "height": item.size[0], "width": item.size[1]}
    if item.image:
        entry["coco_url"] = item.image
    return {**entry, "input_id": item.input_id, ASKED: item.noted}


def _annotations(item: Item, category: dict[str, int]) -> Iterable[dict[str, Any]]:
    runs = read_runs([mask.rle for mask in item.masks])
    corners = runs.box
    boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
    for mask, area, box in zip(item.masks, runs.area.tolist(), boxes, strict=True):
        entry = {
            "category_id": category[mask.class_name],
            "segmentation": mask.rle if mask.polygons is None else mask.polygons,
            "area": area,
            "bbox": box,
            "iscrowd": int(mask.crowd),
        }
        yield entry if mask.score is None else {**entry, "score": mask.score}
