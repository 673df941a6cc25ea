"""COCO panoptic: a JSON file, and beside it a folder of PNG files whose colours are segment ids.

A pixel has one segment, so masks that overlap cannot be written so, and are refused. Of an image with a list the
instances are things, and with a map as well its other classes are stuff; of an image with a map alone all is stuff.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detectors.quality.mask_runs import read_runs
from detectors.quality.run_painter import paint_instances
from monitor.classes import Classes
from monitor.errors import InputError
from monitor.exports.coco import image_entry
from monitor.exports.items import Item, MaskOf, masks_of_map
from monitor.exports.target import target
from monitor.records.reasons import shorten

MAX_PIXELS = 50_000_000


def write_panoptic(items: Iterable[Item], classes: Classes, out: Path) -> None:
    """``out`` and the folder with its name without ``.json``. Raises InputError for masks that overlap."""
    category = {name: k + 1 for k, name in enumerate(classes.names)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    things: set[str] = set()
    for item in items:
        masks = [*item.masks, *_stuff(item, classes)]
        if item.form == "instances":
            things.update(mask.class_name for mask in item.masks)
        images.append(image_entry(item, len(images) + 1))
        try:
            picture, segments = _picture(masks, item.size, category)
        except InputError as error:
            raise InputError(f"{shorten(item.input_id)}: {error}") from None
        name = f"{len(images):08d}.png"
        with target(out.parent / out.stem / name) as file:
            file.write(picture)
        annotations.append({"image_id": len(images), "file_name": name, "segments_info": segments})
    categories = [
        {"id": k, "name": name, "supercategory": "", "isthing": int(name in things)} for name, k in category.items()
    ]
    whole = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    with target(out) as file:
        file.write(msgspec.json.encode(whole))


def _stuff(item: Item, classes: Classes) -> list[MaskOf]:
    """Masks of the classes in a label's map that its list does not have."""
    if item.label is None or item.form != "instances" or item.label.semantic is None:
        return []
    listed = {mask.class_name for mask in item.masks}
    found = masks_of_map(item.label.semantic, item.size, classes, MAX_PIXELS)
    return [mask for mask in found if mask.class_name not in listed]


def _picture(masks: Sequence[MaskOf], size: tuple[int, int], category: dict[str, int]) -> tuple[bytes, list[Any]]:
    """A PNG file and its segments; empty masks are no segments."""
    runs = read_runs([mask.rle for mask in masks])
    kept = np.flatnonzero(runs.area)
    ids: NDArray[Any] = np.zeros(size, np.int32)
    if len(kept):
        ids = np.asarray(paint_instances([masks[k].rle for k in kept.tolist()]), np.int32)
    if int(np.count_nonzero(ids)) != int(runs.area.sum()):
        raise InputError("its masks overlap, and panoptic has one segment a pixel: export it as coco")
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "png")
    corners = runs.box[kept]
    boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()
    segments = [
        {
            "id": place + 1,
            "category_id": category[masks[k].class_name],
            "area": int(runs.area[k]),
            "bbox": box,
            "iscrowd": int(masks[k].crowd),
        }
        for place, (k, box) in enumerate(zip(kept.tolist(), boxes, strict=True))
    ]
    return buffer.getvalue(), segments
