"""COCO panoptic: a JSON file and a folder of PNG files whose colours are segment ids.

``id = R + 256 G + 65536 B``; 0 is VOID, a pixel that nobody labelled. An image gives one record with both parts:
``instances`` are the segments of things (``isthing``), ``semantic`` has the class of every pixel, as the value that
the model's classes give it; VOID becomes the first value that they ignore.

All masks of an image come from one walk over its pixels, column by column, so that its cost does not grow with the
number of segments.

Source: Kirillov et al., Panoptic Segmentation, 2019; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from monitor.classes import Classes
from monitor.errors import BadRecord, InputError
from monitor.labels.asked import read_asked
from monitor.labels.coco import compressed
from monitor.labels.coco_json import (
    MAX_ENTRIES,
    Categories,
    CategoryId,
    FileName,
    Flag,
    ImageEntry,
    Images,
    Key,
    category_fault,
    decode_export,
    file_contains,
    input_id_of,
    names_of,
    number_images,
)
from monitor.labels.files import read_inside
from monitor.labels.index_png import base64_text, index_png
from monitor.labels.records import Draft, Request, entry_of, label_record, refuse
from monitor.records.png import read_header
from monitor.records.reasons import shorten

RGB = 2
"""PNG's number for colour without alpha."""
MAX_SEGMENTS = 65_536

SegmentId = Annotated[int, Meta(ge=1, le=2**24 - 1)]


class _Segment(msgspec.Struct, frozen=True, gc=False):
    id: SegmentId
    category_id: CategoryId
    iscrowd: Flag = 0


class _Annotation(msgspec.Struct, frozen=True, gc=False):
    image_id: Key
    file_name: FileName
    segments_info: Annotated[list[_Segment], Meta(max_length=MAX_SEGMENTS)]


class _File(msgspec.Struct, frozen=True):
    images: Images
    categories: Categories
    annotations: Annotated[list[_Annotation], Meta(max_length=MAX_ENTRIES)]


class CocoPanoptic:
    """The records of a COCO panoptic export; iterating reads the PNG files, each time anew.

    Raises InputError: from the start for whatever the JSON file alone shows, from the iteration for a PNG file.
    """

    def __init__(self, path: Path, request: Request) -> None:
        if request.classes is None:
            raise InputError(f"{path}: a panoptic export needs the model's classes (names and indices)")
        self._path, self._request, self._classes = path, request, request.classes
        self._folder = request.png_folder or path.parent / path.stem
        if not os.path.isdir(self._folder):
            raise InputError(f"{path}: the folder of its PNG files is not there: {self._folder}")
        file = decode_export(path, _File)
        self._images, self._annotations = file.images, file.annotations
        self._names = names_of(path, file.categories)
        self._things = self._find_things(file.categories)
        self._index = dict(zip(self._classes.names, self._classes.indices, strict=True))
        numbers = number_images(path, file.images, request.input_id, request.limits.max_pixels)
        self._annotation_of = self._match(numbers)

    def __iter__(self) -> Iterator[Draft]:
        for i, image in enumerate(self._images):
            k = self._annotation_of[i]
            try:
                asked = read_asked(image.segwatch)
            except InputError as error:
                refuse(self._path, entry_of("images", i, image.id), str(error))
            parts = {**self._parts(k, image), **asked.parts()}
            yield Draft(self._entry(k), label_record(self._request, input_id_of(image, self._request.input_id), parts))

    def _find_things(self, categories: Sequence[Any]) -> set[int]:
        for i, category in enumerate(categories):
            if category.isthing is None:
                refuse(self._path, entry_of("categories", i, category.id), "isthing is missing")
        return {category.id for category in categories if category.isthing}

    def _match(self, numbers: Mapping[Key, int]) -> list[int]:
        """The position of each image's annotation."""
        found = [-1] * len(self._images)
        for k, annotation in enumerate(self._annotations):
            number = numbers.get(annotation.image_id, -1)
            if number < 0:
                refuse(self._path, self._entry(k), f"image_id {shorten(annotation.image_id)} is none of the images")
            if found[number] >= 0:
                refuse(self._path, self._entry(k), f"is for the same image as annotations[{found[number]}]")
            found[number] = k
            self._check_segments(k, annotation.segments_info)
        for i, k in enumerate(found):
            if k < 0:
                entry = entry_of("images", i, self._images[i].id)
                refuse(self._path, entry, "has no annotation; without a PNG file nothing is known of its pixels")
        return found

    def _check_segments(self, k: int, segments: Sequence[_Segment]) -> None:
        seen: set[int] = set()
        for j, segment in enumerate(segments):
            fault = category_fault(segment.category_id, self._names, self._classes)
            if segment.id in seen:
                fault = "its id stands there twice"
            if fault is not None:
                refuse(self._path, self._entry(k), f"{entry_of('segments_info', j, segment.id)}: {fault}")
            seen.add(segment.id)

    def _parts(self, k: int, image: ImageEntry) -> dict[str, Any]:
        annotation, limits = self._annotations[k], self._request.limits
        try:
            data = read_inside(self._folder, annotation.file_name, limits.max_image_bytes)
            ids = read_segment_ids(data, shorten(annotation.file_name), image.height, image.width)
            segments = SegmentRuns(ids)
            segments.check({segment.id for segment in annotation.segments_info})
            instances = [
                {"class": self._names[segment.category_id], "mask": segments.mask(segment.id)}
                | ({"crowd": True} if segment.iscrowd else {})
                for segment in annotation.segments_info
                if segment.category_id in self._things
            ]
            values = {segment.id: self._index[self._names[segment.category_id]] for segment in annotation.segments_info}
            semantic = segments.painted(_with_void(values, self._classes, segments))
        except InputError as error:
            refuse(self._path, self._entry(k), error.detail if isinstance(error, BadRecord) else str(error))
        return {
            "image_size": [image.height, image.width],
            "instances": instances,
            "semantic": {"classes_png": base64_text(index_png(semantic))},
        }

    def _entry(self, k: int) -> str:
        """By its image's id: panoptic annotations have none of their own."""
        return f"annotations[{k}] (image_id {shorten(self._annotations[k].image_id)})"


def read_segment_ids(data: bytes, name: str, height: int, width: int) -> NDArray[np.int32]:
    """(H, W) segment ids of an 8-bit RGB PNG of exactly this size. Raises InputError.

    The size is compared before anything of it is allocated, and Pillow inflates no more than it says.
    """
    header = read_header(data, name)
    if (header.height, header.width) != (height, width):
        raise InputError(f"{name} is {header.height} x {header.width}, the image {height} x {width}")
    if header.colour != RGB or header.bits != 8:
        raise InputError(f"{name} is no 8-bit RGB PNG, whose colours are segment ids")
    try:
        # The plain reader, not Image.open, which warns of sizes by limits of its own.
        image = PngImageFile(io.BytesIO(data))
        image.load()
        colours = np.asarray(image)
    except Exception as error:  # Pillow raises whatever its decoders happen to: SyntaxError, struct.error, OSError
        raise InputError(f"{name}: {ascii(str(error))[1:-1][:160]}") from None
    if colours.shape != (height, width, 3):
        raise InputError(f"{name} holds another picture than its header says")
    red, green, blue = (colours[:, :, channel].astype(np.int32) for channel in range(3))
    ids: NDArray[np.int32] = red | green << 8 | blue << 16
    return ids


class SegmentRuns:
    """The runs of equal segment ids in a map (H, W), column by column, sorted by id."""

    def __init__(self, ids: NDArray[np.int32]) -> None:
        self._shape = ids.shape
        columns = np.ascontiguousarray(ids.T).reshape(-1)
        starts = np.concatenate([[0], np.flatnonzero(columns[1:] != columns[:-1]) + 1])
        self._values, self._starts = columns[starts], starts
        self._ends = np.append(starts[1:], columns.size)
        order = np.argsort(self._values, kind="stable")
        self._order = order
        self.found, first = np.unique(self._values[order], return_index=True)
        self._slices = dict(zip(self.found.tolist(), zip(first, [*first[1:], len(order)], strict=True), strict=True))

    def check(self, declared: set[int]) -> None:
        """Raise InputError unless the map has the declared ids and no others but VOID."""
        found = set(self.found.tolist())
        if undeclared := sorted(found - declared - {0}):
            raise InputError(f"the PNG file has the segment id {undeclared[0]}, segments_info does not")
        if missing := sorted(declared - found):
            raise InputError(f"segments_info has the id {missing[0]}, the PNG file has no pixel of it")

    def mask(self, segment_id: int) -> dict[str, Any]:
        """Compressed RLE of one segment that is there."""
        first, last = self._slices[segment_id]
        own = self._order[first:last]
        # Zeros and ones in turn: up to each start, up to each end, and zeros to the image's end, if any are left.
        edges = np.column_stack([self._starts[own], self._ends[own]]).reshape(-1)
        total = self._shape[0] * self._shape[1]
        counts = np.diff(edges, prepend=0, append=total)
        return {"size": list(self._shape), "counts": compressed(counts[:-1] if counts[-1] == 0 else counts)}

    def painted(self, value_of: Mapping[int, int]) -> NDArray[np.uint16]:
        """(H, W) with each id's value."""
        values = np.array([value_of[segment_id] for segment_id in self.found.tolist()], np.uint16)
        by_run = values[np.searchsorted(self.found, self._values)]
        return np.repeat(by_run, self._ends - self._starts).reshape(self._shape[::-1]).T


def _with_void(values: dict[int, int], classes: Classes, segments: SegmentRuns) -> dict[int, int]:
    if 0 not in segments.found:
        return values
    if not classes.ignore:
        raise InputError("the PNG file has pixels without a segment (VOID), and the classes ignore no index")
    return {**values, 0: classes.ignore[0]}


def recognises(path: Path) -> bool:
    """Whether a file mentions panoptic segments at all."""
    return file_contains(path, b'"segments_info"')
