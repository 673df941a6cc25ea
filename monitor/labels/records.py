"""From what a format's reader found to label records, and the check that they all pass before the first is given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import msgspec

from monitor.classes import Classes
from monitor.errors import BadRecord, InputError
from monitor.records import LABEL_TYPE, Limits, Model, decode
from monitor.records.reasons import shorten
from monitor.records.types import to_us
from monitor.sources.protocol import Partition, RawRecord
from monitor.windows import to_text

InputIdRule = Literal["stem", "file_name", "id"]
"""What an image's ``input_id`` is made of: its file's name without folder and extension, all of it, or its number."""
FormRule = Literal["auto", "instances", "semantic"]
"""What an image's masks become: a list of instances, or one map of classes. ``auto``: what the export says of the
image, where segwatch asked for it, else instances."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller says about an export: whose labels these are, of when, what for, and how inputs are named."""

    annotator: str
    annotation_version: int
    label_time: datetime
    purpose: str = "spot_check"
    model: Model | None = None
    selection_probability: float | None = None
    input_id: InputIdRule = "stem"
    classes: Classes | None = None
    """The model's; needed where a semantic map is made or checked, else only to refuse names it does not have."""
    png_folder: Path | None = None
    """Where the PNG files of a COCO panoptic export lie; None: a folder beside the JSON file with its name."""
    form: FormRule = "auto"
    explicit: frozenset[str] = frozenset()
    """Fields of the record in which the caller's word counts, whatever the export says; in others the export's does."""
    limits: Limits = field(default_factory=Limits)


class Draft(NamedTuple):
    """A record and the entry of the export that it comes from, for messages: ``images[3] (id 42)``."""

    entry: str
    record: dict[str, Any]


def refuse(path: Path, entry: str, why: str) -> NoReturn:
    """Raise InputError that names the file, the entry (may be empty) and the reason."""
    raise InputError(f"{path}: {entry}: {why}" if entry else f"{path}: {why}")


def entry_of(kind: str, index: int, key: object = None) -> str:
    """How a message names an entry.

    >>> entry_of("annotations", 17, 4711)
    'annotations[17] (id 4711)'
    """
    return f"{kind}[{index}]" + ("" if key is None else f" (id {shorten(key)})")


def label_record(request: Request, input_id: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A record of segwatch.label.v1 as a JSON object. ``parts``: ``instances``, ``semantic``, what belongs to them, and
    fields that the export gives (``annotator``, ``purpose``, ...), which count unless the caller insists on others.

    Absent parts are left out, never null.
    """
    record: dict[str, Any] = {
        "type": LABEL_TYPE,
        "input_id": input_id,
        "annotator": request.annotator,
        "annotation_version": request.annotation_version,
        "label_time": to_text(to_us(request.label_time)),
        "purpose": request.purpose,
    }
    if request.model is not None:
        record["model"] = {"name": request.model.name, "version": request.model.version}
    if request.selection_probability is not None:
        record["selection_probability"] = request.selection_probability
    return {**record, **{name: part for name, part in parts.items() if name not in request.explicit}}


def stem_of(file_name: str) -> str:
    """A file's name without folder and extension, whichever system wrote it.

    >>> stem_of("cam7/000123.jpg"), stem_of("C:\\\\images\\\\a.b.png")
    ('000123', 'a.b')
    """
    return os.path.splitext(file_name.replace("\\", "/").rpartition("/")[2])[0]


def check_request(request: Request) -> None:
    """Raise InputError that names the argument at fault."""
    if request.label_time.tzinfo is None:
        raise InputError("label_time: expected a time with its offset")
    if request.input_id not in ("stem", "file_name", "id"):
        raise InputError(f"input_id: {shorten(request.input_id)} is none of stem, file_name, id")
    try:
        _decode(label_record(request, "probe", {"instances": []}), request.limits)
    except BadRecord as bad:
        raise InputError(bad.detail) from None


def check_all(path: Path, drafts: Iterable[Draft], request: Request) -> int:
    """Run through all drafts, keeping none; how many there are.

    Each must be a record that segwatch takes, as ``decode`` has it, and say something that no other one says: one
    annotator's annotation of an input, in one version. Raises InputError for the first that is not.
    """
    seen: dict[tuple[str, str, int], str] = {}
    count = 0
    for entry, record in drafts:
        try:
            _decode(record, request.limits)
        except BadRecord as bad:
            refuse(path, entry, bad.detail)
        count += 1
        key = (record["input_id"], record["annotator"], record["annotation_version"])
        if key in seen:
            refuse(path, entry, f"input_id {shorten(key[0])} is that of {seen[key]} too")
        seen[key] = entry
    return count


def _decode(record: dict[str, Any], limits: Limits) -> None:
    try:
        value = msgspec.json.encode(record)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord("wrong_type", f"cannot be written as JSON: {shorten(str(error))}") from None
    decode(RawRecord(_NOWHERE, 0, value, None, (), None), limits)


_NOWHERE = Partition("file", "", "", 0)
