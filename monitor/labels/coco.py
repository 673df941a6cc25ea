"""COCO instances, and LVIS, which adds what the annotators did not look for.

One record an image, in the file's order. Images without an annotation give an empty list: nothing is there. An
annotation with ``iscrowd`` becomes an instance with ``crowd: true``: a region of many objects, in which COCO counts
no prediction as wrong.

LVIS annotates a few classes an image. Where an image says so (``neg_category_ids``, ``not_exhaustive_category_ids``),
its record has ``judged_classes``, those that were looked for: the annotated ones and ``absent``, which are verified
not to be there; ``not_exhaustive`` are annotated, but not all of their objects. Of any other class the record says
nothing.

The segmentations stay undecoded in memory, as bytes of the file, until their image has its turn.

Source: Lin et al., Microsoft COCO, 2014; Gupta, Dollar, Girshick, LVIS, 2019 (federated annotation, section 3).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from monitor.errors import InputError
from monitor.labels.asked import read_asked
from monitor.labels.coco_json import (
    MAX_ENTRIES,
    UTF8_BOM,
    Categories,
    CategoryId,
    Flag,
    ImageEntry,
    Images,
    Key,
    category_fault,
    decode_export,
    input_id_of,
    names_of,
    number_images,
    part_fault,
)
from monitor.labels.outlines import first_fault
from monitor.labels.painted import parts_in_form
from monitor.labels.records import Draft, Request, entry_of, label_record, refuse
from monitor.masks import Mask, Rle, offsets_of, write_counts
from monitor.records.reasons import shorten

MAX_IDS_BYTES = 1024 * 1024
"""Of one image's list of category ids."""


class _Annotation(msgspec.Struct, frozen=True, gc=False):
    image_id: Key
    category_id: CategoryId
    id: Key | None = None
    segmentation: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    iscrowd: Flag = 0


class _File(msgspec.Struct, frozen=True):
    images: Images
    categories: Categories
    annotations: Annotated[list[_Annotation], Meta(max_length=MAX_ENTRIES)]


_ids = msgspec.json.Decoder(list[CategoryId] | None)
_segmentation: msgspec.json.Decoder[Mask] = msgspec.json.Decoder(Mask)


class CocoInstances:
    """The records of a COCO instances file; iterating reads the masks, each time anew.

    Raises InputError: from the start for whatever concerns more than one image, from the iteration for a mask.
    """

    def __init__(self, path: Path, request: Request) -> None:
        self._path, self._request = path, request
        file = decode_export(path, _File)
        self._images, self._annotations = file.images, file.annotations
        self._names = names_of(path, file.categories)
        numbers = number_images(path, file.images, request.input_id, request.limits.max_pixels)
        owners = self._owners(numbers)
        self._order = np.argsort(owners, kind="stable")
        self._offsets = offsets_of(np.bincount(owners, minlength=len(file.images)).tolist())

    def __iter__(self) -> Iterator[Draft]:
        for i, image in enumerate(self._images):
            own = self._order[self._offsets[i] : self._offsets[i + 1]].tolist()
            entry, instances = entry_of("images", i, image.id), self._instances(image, own)
            try:
                asked = read_asked(image.segwatch)
                form = asked.form_for(self._request)
                parts = parts_in_form(instances, image.height, image.width, form, self._request.classes)
            except InputError as error:
                refuse(self._path, entry, str(error))
            parts.update(self._judged(i, image, own), **asked.parts())
            yield Draft(entry, label_record(self._request, input_id_of(image, self._request.input_id), parts))

    def _owners(self, numbers: dict[Key, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(A,) position of each annotation's image."""
        seen: dict[Key, int] = {}
        classes = self._request.classes
        good = {category_id for category_id in self._names if not category_fault(category_id, self._names, classes)}
        owners = np.empty(len(self._annotations), np.int64)
        for k, annotation in enumerate(self._annotations):
            number = numbers.get(annotation.image_id, -1)
            fault = None
            if number < 0:
                fault = f"image_id {shorten(annotation.image_id)} is none of the images"
            elif annotation.category_id not in good:
                fault = category_fault(annotation.category_id, self._names, classes)
            elif annotation.id is not None and seen.setdefault(annotation.id, k) != k:
                fault = f"has the id of annotations[{seen[annotation.id]}]"
            if fault is not None:
                refuse(self._path, self._entry(k), fault)
            owners[k] = number
        return owners

    def _instances(self, image: ImageEntry, own: Sequence[int]) -> list[dict[str, Any]]:
        masks = [self._mask(k) for k in own]
        limits = self._request.limits
        fault = first_fault(masks, image.height, image.width, limits.max_pixels) if masks else None
        if fault is not None:
            refuse(self._path, self._entry(own[fault[0]]), f"segmentation: {fault[1]}")
        instances = []
        for k, mask in zip(own, masks, strict=True):
            annotation = self._annotations[k]
            instance: dict[str, Any] = {"class": self._names[annotation.category_id], "mask": plain_mask(mask)}
            if annotation.iscrowd:
                instance["crowd"] = True
            instances.append(instance)
        return instances

    def _mask(self, k: int) -> Mask:
        raw = self._annotations[k].segmentation
        size, limit = len(memoryview(raw)), self._request.limits.max_value_bytes
        if size == 0:
            refuse(self._path, self._entry(k), "segmentation is missing: a box is no mask")
        if size > limit:
            refuse(self._path, self._entry(k), f"segmentation has {size} bytes, a record at most {limit}")
        try:
            return _segmentation.decode(raw)
        except (ValueError, RecursionError) as error:
            refuse(self._path, self._entry(k), part_fault(error, raw, "segmentation"))

    def _judged(self, i: int, image: ImageEntry, own: Sequence[int]) -> dict[str, list[str]]:
        """What LVIS' fields say; nothing where there are none."""
        negative = self._category_ids(i, image.neg_category_ids, "neg_category_ids")
        partly = self._category_ids(i, image.not_exhaustive_category_ids, "not_exhaustive_category_ids")
        if negative is None and partly is None:
            return {}
        negative, partly = negative or [], partly or []
        annotated = {self._annotations[k].category_id: k for k in reversed(own)}
        for category_id in negative:
            if category_id in annotated:
                where = self._entry(annotated[category_id])
                entry = entry_of("images", i, image.id)
                refuse(self._path, entry, f"neg_category_ids: {category_id} is annotated by {where}")
        return {
            "judged_classes": self._class_list([*annotated, *negative, *partly]),
            "absent": self._class_list(negative),
            "not_exhaustive": self._class_list(partly),
        }

    def _category_ids(self, i: int, raw: msgspec.Raw, field: str) -> list[int] | None:
        size = len(memoryview(raw))
        if size == 0:
            return None
        fault = None
        found: list[int] | None = None
        if size > MAX_IDS_BYTES:
            fault = f"{field} has {size} bytes, the limit is {MAX_IDS_BYTES}"
        else:
            try:
                found = _ids.decode(raw)
            except (ValueError, RecursionError) as error:
                fault = part_fault(error, raw, field)
        unknown = [category_id for category_id in found or () if category_id not in self._names]
        if unknown:
            fault = f"{field}: {unknown[0]} is none of the categories"
        if fault is not None:
            refuse(self._path, entry_of("images", i, self._images[i].id), fault)
        return found

    def _class_list(self, category_ids: Iterable[int]) -> list[str]:
        """Sorted, without repeats, and without names that the model does not have: nobody will predict those."""
        classes = self._request.classes
        names = {self._names[category_id] for category_id in category_ids}
        return sorted(names if classes is None else names.intersection(classes.names))

    def _entry(self, k: int) -> str:
        return entry_of("annotations", k, self._annotations[k].id)


def plain_mask(mask: Mask) -> Any:
    """As JSON has it; uncompressed RLE becomes compressed, run by run.

    >>> plain_mask(Rle((2, 2), [1, 2, 1]))
    {'size': [2, 2], 'counts': '121'}
    """
    if not isinstance(mask, Rle):
        return mask
    counts = mask.counts if isinstance(mask.counts, str) else compressed(np.array(mask.counts, np.int64))
    return {"size": list(mask.size), "counts": counts}


def compressed(counts: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """(R,) run lengths as COCO's string.

    >>> compressed(np.array([1, 2, 1]))
    '121'
    """
    return str(write_counts(counts).tobytes().decode("ascii"))


def recognises(path: Path) -> bool:
    """Whether this is a JSON object at all; panoptic files are asked before."""
    try:
        if not os.path.isfile(path):
            return False
        with path.open("rb") as file:
            return file.read(4096).removeprefix(UTF8_BOM).lstrip()[:1] == b"{"
    except (OSError, ValueError):
        return False
