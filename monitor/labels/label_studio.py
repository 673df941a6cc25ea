"""Label Studio's raw JSON: a list of tasks, each with its annotations, as it exports and as its webhooks send them.

Read this and not its COCO export, which loses thin masks and holes. One record an annotation: brush masks and polygons
(in per cent of the image's sides) are read; a rectangle, an ellipse or key points are no mask, and refused. Choices,
ratings, texts and relations say nothing here. Annotations that were skipped (``was_cancelled``) and tasks without
annotations are no labels. Of an annotation with no result at all the image is said to show nothing.

The annotator is ``labelstudio:`` and the number of ``completed_by``, the version is the time of the last change
(``updated_at``) in microseconds: the same state is the same annotation however often it comes, and a later one replaces
it in whatever order they come.

Source: label-studio-sdk 2.1 (types of tasks and annotations); the brush format in `detectors.brush_rle`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import numpy as np
from msgspec import Meta

from detectors.brush_rle import brush_runs
from monitor.errors import InputError
from monitor.labels.asked import Asked, read_asked
from monitor.labels.coco_json import MAX_ENTRIES, UTF8_BOM, FileName, Key, decode_export, part_fault
from monitor.labels.outlines import first_fault
from monitor.labels.painted import check_sides, parts_in_form, rle_of_runs
from monitor.labels.records import Draft, Request, entry_of, label_record, refuse, stem_of
from monitor.masks import Side
from monitor.records.reasons import shorten
from monitor.records.types import Name, Time, to_us
from monitor.windows import to_text

MAX_RESULTS = 10_000
MAX_DATA_BYTES = 1024 * 1024
BYTES_A_NUMBER = 5
"""A byte of a mask as JSON: three digits, a comma, a space."""
BRUSH, POLYGON = "brushlabels", "polygonlabels"
UNDRAWN = frozenset(
    {"choices", "textarea", "rating", "number", "datetime", "taxonomy", "relation", "pairwise", "ranker", "labels-meta"}
)
"""Results that say something other than where something is."""


class _User(msgspec.Struct, frozen=True):
    id: int | None = None
    email: Annotated[str, Meta(max_length=200)] | None = None


class Annotation(msgspec.Struct, frozen=True):
    """What somebody said about a task. ``result`` is a list that is still undecoded."""

    id: Key | None = None
    completed_by: int | _User | None = None
    result: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    was_cancelled: bool = False
    created_at: Time | None = None
    updated_at: Time | None = None


class Task(msgspec.Struct, frozen=True):
    """``data`` is what the task was made of."""

    annotations: Annotated[list[Annotation], Meta(max_length=10_000)]
    id: Key | None = None
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Data(msgspec.Struct, frozen=True):
    image: FileName | None = None
    input_id: Name | None = None
    segwatch: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Value(msgspec.Struct, frozen=True):
    format: str | None = None
    rle: Sequence[Annotated[int, Meta(ge=0, le=255)]] | None = None
    points: list[tuple[float, float]] | None = None
    brushlabels: list[Name] | None = None
    polygonlabels: list[Name] | None = None


class _Result(msgspec.Struct, frozen=True):
    type: str
    value: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    original_width: Side | None = None
    original_height: Side | None = None
    image_rotation: float = 0.0


_TASKS: Any = Annotated[list[Task], Meta(max_length=MAX_ENTRIES)]
_data: msgspec.json.Decoder[_Data | None] = msgspec.json.Decoder(_Data | None)
_results: msgspec.json.Decoder[list[_Result]] = msgspec.json.Decoder(
    Annotated[list[_Result], Meta(max_length=MAX_RESULTS)]
)
_value: msgspec.json.Decoder[_Value] = msgspec.json.Decoder(_Value)


class LabelStudio:
    """The records of a raw JSON export; iterating reads the masks, each time anew. Raises InputError."""

    def __init__(self, path: Path, request: Request) -> None:
        self._path, self._request = path, request
        self._tasks: list[Task] = decode_export(path, _TASKS)

    def __iter__(self) -> Iterator[Draft]:
        try:
            yield from drafts_of(self._tasks, self._request)
        except InputError as error:
            refuse(self._path, "", str(error))


def drafts_of(tasks: Iterable[Task], request: Request) -> Iterator[Draft]:
    """Records of tasks' annotations. Raises InputError that names the entry."""
    for i, task in enumerate(tasks):
        entry = entry_of("task", i, task.id)
        done = [(k, one) for k, one in enumerate(task.annotations) if not one.was_cancelled]
        if not done:
            continue
        try:
            input_id, asked = _named(task, request)
        except InputError as error:
            raise InputError(f"{entry}: {error}") from None
        for k, annotation in done:
            place = f"{entry}: {entry_of('annotations', k, annotation.id)}"
            try:
                parts = {**_fields_of(annotation), **_parts_of(annotation, asked, request)}
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
            yield Draft(place, label_record(request, input_id, parts))


def _named(task: Task, request: Request) -> tuple[str, Asked]:
    """The task's ``input_id``, and what was asked for with it."""
    size = len(memoryview(task.data))
    if size > MAX_DATA_BYTES:
        raise InputError(f"data has {size} bytes, the limit is {MAX_DATA_BYTES}")
    try:
        data = (_data.decode(task.data) if size else None) or _Data()
    except (ValueError, RecursionError) as error:
        raise InputError(part_fault(error, task.data, "data")) from None
    asked = read_asked(data.segwatch)
    name = asked.input_id or data.input_id
    if not name and request.input_id == "id":
        name = None if task.id is None else str(task.id)
    elif not name:
        file = _file_name(data.image or "")
        name = stem_of(file) if request.input_id == "stem" else file
    if not name:
        raise InputError(f"gives no input_id: data.input_id is missing, data.image is {shorten(data.image)}")
    return name, asked


def _file_name(address: str) -> str:
    """The last part of an address; of Label Studio's local files what ``d`` names.

    >>> _file_name("https://images.example/cam7/000123.jpg?x=1"), _file_name("/data/local-files/?d=cam7/000123.jpg")
    ('000123.jpg', '000123.jpg')
    """
    try:
        parts = urlsplit(address)
        named = parse_qs(parts.query).get("d") if parts.path.endswith("/local-files/") else None
    except ValueError:
        return ""
    return unquote(named[0] if named else parts.path).replace("\\", "/").rpartition("/")[2]


def _fields_of(annotation: Annotation) -> dict[str, Any]:
    """Who said it and when; left out where the annotation does not tell."""
    fields: dict[str, Any] = {}
    who = annotation.completed_by
    number, email = (who.id, who.email) if isinstance(who, _User) else (who, None)
    if number is not None:
        fields["annotator"] = f"labelstudio:{number}"
    elif email:
        fields["annotator"] = email
    when = annotation.updated_at or annotation.created_at
    if when is not None:
        fields["annotation_version"], fields["label_time"] = to_us(when), to_text(to_us(when))
    return fields


def _parts_of(annotation: Annotation, asked: Asked, request: Request) -> dict[str, Any]:
    results, limits = _results_of(annotation, request), request.limits
    instances: list[dict[str, Any]] = []
    sizes: dict[tuple[int, int], int] = {}
    room = limits.max_value_bytes
    for k, result in enumerate(results):
        if result.type in UNDRAWN:
            continue
        where = f"result[{k}]"
        if result.type not in (BRUSH, POLYGON):
            raise InputError(f"{where}: {shorten(result.type)} is no mask; {BRUSH} and {POLYGON} are")
        if result.original_height is None or result.original_width is None:
            raise InputError(f"{where}: original_width or original_height is missing")
        height, width = result.original_height, result.original_width
        if height * width > limits.max_pixels:
            raise InputError(f"{where}: {height} x {width} pixels, the limit is {limits.max_pixels}")
        if sizes and (height, width) not in sizes:
            raise InputError(f"{where}: the image is {height} x {width}, in other results {next(iter(sizes))}")
        sizes[height, width] = k
        check_sides(len(results), height, width)
        if result.image_rotation:
            raise InputError(f"{where}: the image was turned by {result.image_rotation:g} degrees")
        try:
            instance, runs = _instance(result, height, width, request, room)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        room -= runs
        instances.append(instance)
    if not sizes:
        if asked.form_for(request) == "semantic":
            raise InputError("has no result, and no size to make a map of")
        return {"instances": [], **asked.parts()}
    (height, width), *_ = sizes
    polygons = [one["mask"] for one in instances if isinstance(one["mask"], list)]
    fault = first_fault(polygons, height, width, limits.max_pixels) if polygons else None
    if fault is not None:
        raise InputError(fault[1])
    return {**parts_in_form(instances, height, width, asked.form_for(request), request.classes), **asked.parts()}


def _results_of(annotation: Annotation, request: Request) -> list[_Result]:
    size, limit = len(memoryview(annotation.result)), BYTES_A_NUMBER * request.limits.max_value_bytes
    if size == 0:
        raise InputError("result is missing")
    if size > limit:
        raise InputError(f"result has {size} bytes, the limit is {limit}")
    try:
        return _results.decode(annotation.result)
    except (ValueError, RecursionError) as error:
        raise InputError(part_fault(error, annotation.result, "result")) from None


def _instance(result: _Result, height: int, width: int, request: Request, room: int) -> tuple[dict[str, Any], int]:
    """The mask with its class, and how many runs it has. Raises ValueError."""
    try:
        value = _value.decode(result.value)
    except (ValueError, RecursionError) as error:
        raise ValueError(part_fault(error, result.value, "value")) from None
    names = (value.brushlabels if result.type == BRUSH else value.polygonlabels) or []
    if len(names) != 1:
        raise ValueError(f"has {len(names)} labels, expected one")
    if request.classes is not None and names[0] not in request.classes.names:
        raise ValueError(f"{result.type} {shorten(names[0])}, which the classes do not have")
    if result.type == POLYGON:
        if value.points is None or len(value.points) < 3:
            raise ValueError("points: a polygon needs three points at least")
        points = np.array(value.points) * [width / 100, height / 100]
        return {"class": names[0], "mask": [points.reshape(-1).tolist()]}, 0
    if value.rle is None or (value.format or "rle") != "rle":
        raise ValueError("value has no rle")
    starts, ends = brush_runs(np.array(value.rle, np.uint8), height, width, room)
    return {"class": names[0], "mask": rle_of_runs(starts, ends, height, width)}, len(starts)


def recognises(path: Path) -> bool:
    """Whether this begins like a JSON list; COCO's files are objects."""
    try:
        if not os.path.isfile(path):
            return False
        with path.open("rb") as file:
            return file.read(4096).removeprefix(UTF8_BOM).lstrip()[:1] == b"["
    except (OSError, ValueError):
        return False
