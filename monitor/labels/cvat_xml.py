"""CVAT's own export, "CVAT for images 1.1": one XML file, alone or as ``annotations.xml`` in a zip archive.

One record an image, in the file's order; an image without shapes gives an empty list. Masks and polygons are read; any
other shape, and tracks of videos, are refused. Shapes with a higher ``z_order`` lie over others where a map is made of
them. Tags are no masks and say nothing here, but for segwatch's own.

The parser is expat, fed part by part, without document types: so there are no entities that could grow or reach
elsewhere.

Source: CVAT's XML annotation format 1.1, https://docs.cvat.ai/docs/manual/advanced/xml_format/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote
from xml.parsers import expat

from detectors.box_runs import Box
from monitor.errors import InputError
from monitor.labels.archives import MAX_UNPACKED_BYTES, PART_BYTES, has_member, is_archive, unpack
from monitor.labels.asked import ASKED, NOTHING, convert_asked
from monitor.labels.coco_json import MAX_ENTRIES, UTF8_BOM
from monitor.labels.cvat_shapes import Frame, Shape, frame_parts
from monitor.labels.records import Draft, Request, entry_of, label_record, refuse, stem_of
from monitor.masks import MAX_SIDE
from monitor.records.reasons import shorten

MEMBER = "annotations.xml"
MAX_DEPTH = 16
MAX_COORDINATES = 1 << 20
"""Of one polygon."""
SHAPES = ("mask", "polygon", "box", "polyline", "points", "ellipse", "cuboid", "skeleton")


class CvatXml:
    """The records of an export; iterating reads the masks, each time anew.

    Raises InputError: from the start for the document, from the iteration for a shape.
    """

    def __init__(self, path: Path, request: Request) -> None:
        self._path, self._request = path, request
        self._frames = _Reader(path).frames
        for i, frame in enumerate(self._frames):
            if not self._input_id(frame):
                refuse(path, entry_of("image", i, frame.key), "gives no input_id: it has no name")

    def __iter__(self) -> Iterator[Draft]:
        for i, frame in enumerate(self._frames):
            entry = entry_of("image", i, frame.key)
            try:
                parts = frame_parts(frame, self._request)
            except InputError as error:
                refuse(self._path, entry, str(error))
            yield Draft(entry, label_record(self._request, self._input_id(frame), parts))

    def _input_id(self, frame: Frame) -> str:
        if frame.asked.input_id:
            return frame.asked.input_id
        rule = self._request.input_id
        return frame.key if rule == "id" else stem_of(frame.name) if rule == "stem" else frame.name


class _Reader:
    """The document as frames; shapes keep their numbers as text."""

    def __init__(self, path: Path) -> None:
        self.frames: list[Frame] = []
        self._path, self._depth, self._shapes = path, 0, 0
        self._frame: Frame | None = None
        self._asked: dict[str, str] | None = None
        self._attribute: str | None = None
        self._text = ""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            for part in _parts_of(path):
                parser.Parse(part, False)
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            refuse(path, "", f"not XML: {expat.errors.messages[error.code]} (line {error.lineno})")
        except (LookupError, ValueError):  # an encoding that Python does not have, or none of one byte a character
            refuse(path, "", "not XML in UTF-8")
        except _Refused as refused:
            refuse(path, self._entry(), str(refused))
        except InputError as error:
            refuse(path, "", str(error))

    def _doctype(self, *_: object) -> NoReturn:
        raise _Refused("a document type is not read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"elements nested deeper than {MAX_DEPTH}")
        if self._depth == 1 and name != "annotations":
            raise _Refused(f"the root is {shorten(name)}, expected annotations: no export of CVAT")
        if self._depth == 2 and name == "track":
            raise _Refused("has tracks of a video; export the images of the task")
        if self._depth == 2 and name == "image":
            self._frame = _frame(attributes)
            self.frames.append(self._frame)
            if len(self.frames) > MAX_ENTRIES:
                raise _Refused(f"more than {MAX_ENTRIES} images")
        elif self._depth == 3 and self._frame is not None:
            if name in SHAPES:
                self._add(name, attributes)
            elif name == "tag" and attributes.get("label") == ASKED:
                self._asked = {}
            elif name != "tag":
                raise _Refused(f"{shorten(name)} is none of CVAT's shapes")
        elif self._depth == 4 and name == "attribute" and self._asked is not None:
            self._attribute, self._text = attributes.get("name", ""), ""

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth == 3 and self._attribute is not None and self._asked is not None:
            self._asked[self._attribute] = self._text
            self._attribute = None
        elif self._depth == 2 and self._asked is not None and self._frame is not None:
            if "input_id" in self._asked:
                self._asked["input_id"] = unquote(self._asked["input_id"])
            self._frame = self._frame._replace(asked=_checked(self._asked))
            self.frames[-1], self._asked = self._frame, None
        elif self._depth == 1:
            self._frame = None

    def _data(self, text: str) -> None:
        if self._attribute is not None:
            self._text += text
            if len(self._text) > 4096:
                raise _Refused(f"an attribute of {ASKED} is longer than 4096 characters")

    def _add(self, kind: str, attributes: Mapping[str, str]) -> None:
        self._shapes += 1
        if self._shapes > MAX_ENTRIES:
            raise _Refused(f"more than {MAX_ENTRIES} shapes")
        assert self._frame is not None
        z_order = _integer(attributes, "z_order", -(2**31)) if "z_order" in attributes else 0
        numbers: Any = ""
        box = None
        if kind == "mask":
            box = Box(*(_integer(attributes, side, 0) for side in ("left", "top", "width", "height")))
            numbers = attributes.get("rle", "")
        elif kind == "polygon":
            numbers = _points(attributes.get("points", ""))
        self._frame.shapes.append(Shape(kind, attributes.get("label", ""), z_order, numbers, box))

    def _entry(self) -> str:
        return entry_of("image", len(self.frames) - 1, self._frame.key) if self._frame is not None else ""


class _Refused(Exception):
    """What is wrong where the parser stands."""


def _frame(attributes: Mapping[str, str]) -> Frame:
    height, width = _integer(attributes, "height", 1), _integer(attributes, "width", 1)
    return Frame(attributes.get("id", ""), attributes.get("name", ""), height, width, [], NOTHING)


def _integer(attributes: Mapping[str, str], name: str, least: int) -> int:
    text = attributes.get(name)
    if text is None:
        raise _Refused(f"{name} is missing")
    try:
        value = int(text) if len(text) <= 12 else least - 1
    except ValueError:
        value = least - 1
    if not least <= value <= MAX_SIDE:
        raise _Refused(f"{name}: expected an integer from {least} to {MAX_SIDE}, got {shorten(text)}")
    return value


def _points(text: str) -> list[float]:
    """``x,y;x,y`` in pixels."""
    if text.count(";") + text.count(",") >= MAX_COORDINATES:
        raise _Refused(f"a polygon has more than {MAX_COORDINATES} coordinates")
    try:
        return [float(part) for pair in text.split(";") for part in pair.split(",")]
    except ValueError:
        raise _Refused("points: expected x,y pairs with semicolons between them") from None


def _checked(texts: Mapping[str, str]) -> Any:
    try:
        return convert_asked(texts)
    except InputError as error:
        raise _Refused(str(error)) from None


def _parts_of(path: Path) -> Iterator[bytes]:
    """The document, part by part. Raises InputError without the path."""
    if is_archive(path):
        yield from unpack(path, MEMBER)
        return
    try:
        if not os.path.isfile(path):
            raise InputError("is no regular file")
        if path.stat().st_size > MAX_UNPACKED_BYTES:
            raise InputError(f"has {path.stat().st_size} bytes, the limit is {MAX_UNPACKED_BYTES}")
        with path.open("rb") as file:
            while part := file.read(PART_BYTES):
                yield part
    except OSError as error:
        raise InputError(error.strerror or "cannot be read") from None


def recognises(path: Path) -> bool:
    """Whether this begins like XML, or is a zip archive with an ``annotations.xml``."""
    if is_archive(path):
        return has_member(path, MEMBER)
    try:
        if not os.path.isfile(path):
            return False
        with path.open("rb") as file:
            return file.read(4096).removeprefix(UTF8_BOM).lstrip()[:1] == b"<"
    except (OSError, ValueError):
        return False
