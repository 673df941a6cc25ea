"""CVAT: its XML ("CVAT for images 1.1"), and the body of ``PATCH /api/tasks/{id}/annotations/?action=create``.

Beside the XML go the task's labels as its label editor takes them (``labels.json``). One of them, of type ``tag``, is
called ``segwatch`` and carries in its attributes what is to come back with the labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import msgspec
import numpy as np

from detectors.box_runs import Box, box_runs
from detectors.quality.mask_runs import read_runs
from monitor.classes import Classes
from monitor.exports.items import Item
from monitor.exports.target import target
from monitor.labels.asked import ASKED

ATTRIBUTES = ("input_id", "form", "purpose", "selection_probability", "reason", "model", "version")
LABELS_FILE = "labels.json"
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


def write_cvat(items: Iterable[Item], classes: Classes, out: Path) -> None:
    """``out``, and ``labels.json`` beside it."""
    with target(out) as file:
        file.write(
            b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>\n'
        )
        for name in classes.names:
            file.write(_utf8(f"<label><name>{_text(name)}</name><type>any</type><attributes/></label>\n"))
        file.write(b"</labels></task></meta>\n")
        for number, item in enumerate(items):
            file.write(_utf8(_image(item, number)))
        file.write(b"</annotations>\n")
    with target(out.with_name(LABELS_FILE)) as file:
        file.write(msgspec.json.format(msgspec.json.encode(label_specs(classes)), indent=1))


def label_specs(classes: Classes) -> list[dict[str, Any]]:
    """The task's labels, for ``POST /api/tasks`` or the raw label editor."""
    spec = {"mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    asked = {"name": ASKED, "type": "tag", "attributes": [{"name": name, **spec} for name in ATTRIBUTES]}
    return [*({"name": name, "type": "any", "attributes": []} for name in classes.names), asked]


def _image(item: Item, number: int) -> str:
    size = f'width="{item.size[1]}" height="{item.size[0]}"'
    lines = [f'<image id="{number}" name={_attribute(item.file_name)} {size}>']
    for mask, (counts, box) in zip(item.masks, _boxes(item), strict=True):
        runs = ", ".join(map(str, counts))
        where = f'left="{box.left}" top="{box.top}" width="{box.width}" height="{box.height}"'
        lines.append(
            f'<mask label={_attribute(mask.class_name)} source="{_source(item)}" occluded="0" rle="{runs}" {where}'
            ' z_order="0"></mask>'
        )
    attributes = "".join(
        f"<attribute name={_attribute(name)}>{_text(value)}</attribute>" for name, value in texts_of(item).items()
    )
    lines.append(f'<tag label="{ASKED}" source="{_source(item)}">{attributes}</tag>')
    return "\n".join([*lines, "</image>\n"])


def texts_of(item: Item) -> dict[str, str]:
    """The attributes of the tag; the id is quoted, since XML cannot hold every character."""
    noted = {**item.noted, "input_id": quote(item.input_id, safe=" /:")}
    return {name: str(noted[name]) for name in ATTRIBUTES if noted.get(name) is not None}


def patch_body(
    items: Iterable[Item], frame_of: Mapping[str, int], label_ids: Mapping[str, int], specs: Mapping[str, int]
) -> dict[str, Any]:
    """The body that creates the items' masks in a task.

    Args:
        frame_of: the task's frame of each ``input_id``; an item without one is left out.
        label_ids: of the task, by name. Raises KeyError for a class that is none of them.
        specs: the attributes of its label ``segwatch``, by name; empty where the task has no such label.
    """
    shapes: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    for item in items:
        frame = frame_of.get(item.input_id)
        if frame is None:
            continue
        common = {"frame": frame, "group": 0, "source": _source(item)}
        for mask, (counts, box) in zip(item.masks, _boxes(item), strict=True):
            points = [*counts, box.left, box.top, box.left + box.width - 1, box.top + box.height - 1]
            shape = {"type": "mask", "label_id": label_ids[mask.class_name], "points": points, **common}
            score = {} if mask.score is None else {"score": mask.score}
            shapes.append({**shape, **score, "occluded": False, "z_order": 0, "attributes": []})
        values = [{"spec_id": specs[name], "value": text} for name, text in texts_of(item).items() if name in specs]
        if values:
            tags.append({"label_id": label_ids[ASKED], **common, "attributes": values})
    return {"version": 0, "tags": tags, "shapes": shapes, "tracks": []}


def _boxes(item: Item) -> Iterable[tuple[list[int], Box]]:
    runs = read_runs([mask.rle for mask in item.masks])
    for k in range(len(item.masks)):
        own = slice(*np.asarray(runs.offsets[k : k + 2]).tolist())
        counts, box = box_runs(runs.starts[own], runs.ends[own], item.size[0])
        yield counts.tolist(), box


def _source(item: Item) -> str:
    return "auto" if item.label is None else "manual"


def _text(value: object) -> str:
    return escape(_UNWRITABLE.sub("\ufffd", str(value)))


def _attribute(value: str) -> str:
    return quoteattr(_UNWRITABLE.sub("\ufffd", value))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
