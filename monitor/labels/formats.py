"""The formats of annotation exports that can be read: one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from monitor.classes import Classes
from monitor.errors import InputError
from monitor.labels import coco, cvat_json, cvat_xml, label_studio, panoptic, png_folder
from monitor.labels.coco import CocoInstances
from monitor.labels.cvat_json import CvatJson
from monitor.labels.cvat_xml import CvatXml
from monitor.labels.label_studio import LabelStudio
from monitor.labels.panoptic import CocoPanoptic
from monitor.labels.png_folder import PngFolder
from monitor.labels.records import Draft, FormRule, InputIdRule, Request, check_all, check_request
from monitor.records import Limits, Model
from monitor.records.reasons import shorten

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of export is read. ``open``: may be iterated more than once, and gives the same drafts."""

    summary: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, Request], Iterable[Draft]]
    asked: bool = False
    """Whether an annotation tool made it: its images are those that segwatch gave it, and none may be unknown here."""


FORMATS: dict[str, Format] = {
    "coco-panoptic": Format(
        "COCO panoptic: a JSON file and its folder of PNG files", panoptic.recognises, CocoPanoptic
    ),
    "cvat": Format('CVAT: its XML ("CVAT for images"), alone or in a zip archive', cvat_xml.recognises, CvatXml, True),
    "cvat-json": Format("CVAT: what its REST interface answers", cvat_json.recognises, CvatJson, True),
    "labelstudio": Format("Label Studio: its raw JSON", label_studio.recognises, LabelStudio, True),
    "coco": Format("COCO or LVIS instances: a JSON file", coco.recognises, CocoInstances),
    "png-folder": Format("a folder of index or palette PNG files", png_folder.recognises, PngFolder),
}
"""By name, in the order in which they are asked: every panoptic file would pass for one of instances."""


def detect_format(path: Path) -> str:
    """The name of the export's format. Raises InputError."""
    for name, each in FORMATS.items():
        if each.recognises(path):
            return name
    known = f"is none of the formats {', '.join(FORMATS)}"
    raise InputError(f"{path}: {known if os.path.exists(path) else 'no such file'}")


def read_labels(
    path: Path,
    format: str = AUTO,
    *,
    annotator: str,
    annotation_version: int,
    label_time: datetime,
    purpose: str = "spot_check",
    model: Model | None = None,
    selection_probability: float | None = None,
    input_id: InputIdRule = "stem",
    classes: Classes | None = None,
    png_folder: Path | None = None,
    form: FormRule = "auto",
    explicit: frozenset[str] = frozenset(),
    limits: Limits | None = None,
) -> Iterator[dict[str, Any]]:
    """Label records of an export (``segwatch.label.v1`` as JSON objects), one an image (Label Studio: an annotation),
    in its order.

    All of it is checked before this returns, so that none of a bad export's records is ever given; the records are then
    made again one by one, since together they may not fit in memory. The export must lie still meanwhile: a file that
    changes between the two raises InputError half-way.

    ``annotator`` to ``selection_probability``: the fields of the records where the export says nothing of its own, and
    in those that ``explicit`` names whatever it says. ``form``: what an image's masks become. ``input_id``: what the
    inputs' names are made of (a field ``images[].input_id`` wins). ``classes``: the model's; without them any class
    name passes, and semantic maps cannot be read. ``png_folder``: of a panoptic export, where it is not the JSON file's
    path without ``.json``.

    Raises InputError: one line with the file, the entry and the reason.
    """
    if format != AUTO and format not in FORMATS:
        raise InputError(f"format: {shorten(format)} is none of {', '.join([AUTO, *FORMATS])}")
    request = Request(
        annotator=annotator,
        annotation_version=annotation_version,
        label_time=label_time,
        purpose=purpose,
        model=model,
        selection_probability=selection_probability,
        input_id=input_id,
        classes=classes,
        png_folder=png_folder,
        form=form,
        explicit=explicit,
        limits=limits or Limits(),
    )
    check_request(request)
    if "\0" in str(path):
        raise InputError(f"{shorten(str(path))}: no such file")
    export = FORMATS[detect_format(path) if format == AUTO else format].open(path, request)
    check_all(path, export, request)
    return (record for _, record in export)
