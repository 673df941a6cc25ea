"""What segwatch wrote beside an image when it asked for labels, and reads again when they come back.

Tools carry it along: in COCO ``images[].segwatch``, in Label Studio ``data.segwatch``, in CVAT a tag ``segwatch`` whose
attributes have the names below. What an annotator or a tool made of it is checked like everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from monitor.errors import InputError
from monitor.labels.coco_json import part_fault
from monitor.labels.records import Request
from monitor.records.types import Name, Probability, Purpose

ASKED = "segwatch"
"""The name under which it stands in an export."""
MAX_ASKED_BYTES = 64 * 1024


class Asked(msgspec.Struct, frozen=True):
    """The parts that an import needs; there are others, for people."""

    input_id: Name | None = None
    purpose: Purpose | None = None
    selection_probability: Probability | None = None
    form: Literal["instances", "semantic"] | None = None

    def parts(self) -> dict[str, Any]:
        """Fields of the label record."""
        known = {"purpose": self.purpose, "selection_probability": self.selection_probability}
        return {name: value for name, value in known.items() if value is not None}

    def form_for(self, request: Request) -> str:
        """What the image's masks become."""
        return (self.form or "instances") if request.form == "auto" else request.form


NOTHING = Asked()


def read_asked(raw: msgspec.Raw | bytes) -> Asked:
    """From JSON; nothing, or null, asks for nothing. Raises InputError."""
    data = bytes(raw)
    if not data:
        return NOTHING
    if len(data) > MAX_ASKED_BYTES:
        raise InputError(f"{ASKED} has {len(data)} bytes, the limit is {MAX_ASKED_BYTES}")
    try:
        return msgspec.json.decode(data, type=Asked | None) or NOTHING
    except (ValueError, RecursionError) as error:
        raise InputError(part_fault(error, msgspec.Raw(data), ASKED)) from None


def convert_asked(texts: Mapping[str, str]) -> Asked:
    """From texts, as XML has them; empty ones are as good as none. Raises InputError."""
    try:
        return msgspec.convert({name: text for name, text in texts.items() if text}, Asked, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"{ASKED}: {error}") from None
