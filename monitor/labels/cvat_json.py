"""What CVAT's REST interface answers about a task or a job, put together in one JSON object:

    {"labels": the results of GET /api/labels?task_id=T (or job_id=J),
     "meta": GET /api/tasks/T/data/meta (jobs/J),
     "annotations": GET /api/tasks/T/annotations/ (jobs/J),
     "job": GET /api/jobs/J, or left out}

One record an image, in the order of the frames, as from CVAT's XML. With ``job`` its assignee is the annotator and its
last change the annotation's version, so that the same state of a job is the same annotation however often it comes.

Source: CVAT's OpenAPI schema (cvat-sdk 2.80: LabeledData, LabeledShape, DataMetaRead, JobRead).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from detectors.box_runs import Box
from monitor.errors import InputError
from monitor.labels.asked import ASKED, NOTHING, Asked, convert_asked
from monitor.labels.coco_json import MAX_ENTRIES, PROBED_BYTES, UTF8_BOM, FileName, decode_export, file_contains
from monitor.labels.cvat_shapes import Frame, Shape, frame_parts, read_integers
from monitor.labels.records import Draft, Request, entry_of, label_record, refuse, stem_of
from monitor.masks import Side
from monitor.records.types import Name, Time, to_us
from monitor.windows import to_text

BOX_NUMBERS = 4
"""At the end of a mask's points: left, top, right and bottom, the last two inclusive."""

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _AttributeSpec(msgspec.Struct, frozen=True, gc=False):
    id: Id
    name: str


class _Label(msgspec.Struct, frozen=True):
    id: Id
    name: Name
    attributes: list[_AttributeSpec] = []


class _FrameMeta(msgspec.Struct, frozen=True, gc=False):
    name: FileName
    width: Side
    height: Side


class _DataMeta(msgspec.Struct, frozen=True):
    size: Annotated[int, Meta(ge=0)]
    frames: Annotated[list[_FrameMeta], Meta(max_length=MAX_ENTRIES)]
    deleted_frames: list[int] = []
    included_frames: list[int] | None = None


class _Value(msgspec.Struct, frozen=True, gc=False):
    spec_id: Id
    value: Annotated[str, Meta(max_length=4096)]


class _Tag(msgspec.Struct, frozen=True):
    frame: int
    label_id: Id
    attributes: list[_Value] = []


class _Shape(msgspec.Struct, frozen=True, gc=False):
    type: str
    frame: int
    label_id: Id
    points: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"[]"))
    z_order: int = 0


class _Annotations(msgspec.Struct, frozen=True):
    shapes: Annotated[list[_Shape], Meta(max_length=MAX_ENTRIES)]
    tags: Annotated[list[_Tag], Meta(max_length=MAX_ENTRIES)] = []
    tracks: list[msgspec.Raw] = []


class _User(msgspec.Struct, frozen=True):
    username: Annotated[str, Meta(min_length=1, max_length=200)]


class _Job(msgspec.Struct, frozen=True):
    id: Id
    start_frame: Annotated[int, Meta(ge=0)]
    updated_date: Time
    assignee: _User | None = None


class _File(msgspec.Struct, frozen=True):
    labels: Annotated[list[_Label], Meta(max_length=65_536)]
    meta: _DataMeta
    annotations: _Annotations
    job: _Job | None = None


_points: msgspec.json.Decoder[list[float]] = msgspec.json.Decoder(list[float])


class CvatJson:
    """The records of a task or a job; iterating reads the masks, each time anew. Raises InputError."""

    def __init__(self, path: Path, request: Request) -> None:
        self._path, self._request = path, request
        file = decode_export(path, _File)
        if file.annotations.tracks:
            refuse(path, "annotations.tracks[0]", "is a track of a video")
        meta = file.meta
        first = file.job.start_frame if file.job else 0
        numbers = meta.included_frames
        if numbers is None:
            numbers = list(range(first, first + len(meta.frames)))
        if len(meta.frames) != len(numbers) or (file.job is None and len(meta.frames) != meta.size):
            refuse(path, "meta", f"has {len(meta.frames)} frames for {len(numbers)} numbers: a video is not read")
        gone = set(meta.deleted_frames)
        self._labels = {label.id: label for label in file.labels}
        self._shapes: dict[int, list[tuple[int, _Shape]]] = {number: [] for number in numbers}
        for k, shape in enumerate(file.annotations.shapes):
            if shape.frame not in self._shapes:
                refuse(path, f"annotations.shapes[{k}]", f"frame {shape.frame} is none of the frames")
            if shape.label_id not in self._labels:
                refuse(path, f"annotations.shapes[{k}]", f"label_id {shape.label_id} is none of the labels")
            self._shapes[shape.frame].append((k, shape))
        self._asked = {
            tag.frame: self._asked_of(k, tag)
            for k, tag in enumerate(file.annotations.tags)
            if tag.label_id in self._labels and self._labels[tag.label_id].name == ASKED
        }
        self._frames = [
            (number, frame) for number, frame in zip(numbers, meta.frames, strict=True) if number not in gone
        ]
        self._own = _fields_of(file.job) if file.job else {}

    def __iter__(self) -> Iterator[Draft]:
        for number, frame in self._frames:
            entry = entry_of("frame", number, frame.name)
            asked = self._asked.get(number, NOTHING)
            shapes = [self._shape(k, shape) for k, shape in self._shapes[number]]
            try:
                parts = frame_parts(
                    Frame(str(number), frame.name, frame.height, frame.width, shapes, asked), self._request
                )
            except InputError as error:
                refuse(self._path, entry, str(error))
            rule = self._request.input_id
            name = str(number) if rule == "id" else stem_of(frame.name) if rule == "stem" else frame.name
            yield Draft(entry, label_record(self._request, asked.input_id or name, {**self._own, **parts}))

    def _asked_of(self, k: int, tag: _Tag) -> Asked:
        names = {spec.id: spec.name for spec in self._labels[tag.label_id].attributes}
        texts = {names[one.spec_id]: one.value for one in tag.attributes if one.spec_id in names}
        if "input_id" in texts:
            texts["input_id"] = unquote(texts["input_id"])
        try:
            return convert_asked(texts)
        except InputError as error:
            refuse(self._path, f"annotations.tags[{k}]", str(error))

    def _shape(self, k: int, shape: _Shape) -> Shape:
        label, size = self._labels[shape.label_id].name, len(memoryview(shape.points))
        limit = 8 * self._request.limits.max_value_bytes  # CVAT writes integers as 12.0
        try:
            if size > limit:
                raise InputError(f"points have {size} bytes, the limit is {limit}")
            numbers = _points.decode(shape.points)
            box = None
            if shape.type == "mask":
                if len(numbers) <= BOX_NUMBERS:
                    raise InputError("points: expected counts and a box")
                left, top, right, bottom = read_integers(numbers[-BOX_NUMBERS:]).tolist()
                numbers, box = numbers[:-BOX_NUMBERS], Box(left, top, right - left + 1, bottom - top + 1)
        except (ValueError, RecursionError, InputError) as error:
            refuse(self._path, f"annotations.shapes[{k}]", str(error))
        return Shape(shape.type, label, shape.z_order, numbers, box)


def _fields_of(job: _Job) -> dict[str, Any]:
    """Fields of the records that a job's state gives."""
    changed_us = to_us(job.updated_date)
    annotator = f"cvat:{job.assignee.username}" if job.assignee else "cvat"
    return {"annotator": annotator, "annotation_version": changed_us, "label_time": to_text(changed_us)}


def recognises(path: Path) -> bool:
    """Whether this is a JSON object that mentions what CVAT answers."""
    try:
        if not os.path.isfile(path):
            return False
        with path.open("rb") as file:
            if file.read(PROBED_BYTES).removeprefix(UTF8_BOM).lstrip()[:1] != b"{":
                return False
    except (OSError, ValueError):
        return False
    return all(file_contains(path, word) for word in (b'"shapes"', b'"meta"', b'"labels"'))
