"""What COCO's JSON files have in common: images, categories, and how a message names an entry.

Source: COCO data format, https://cocodataset.org/#format-data; LVIS, https://www.lvisdataset.org/dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from monitor.classes import Classes
from monitor.errors import InputError
from monitor.labels.files import read_bounded
from monitor.labels.records import InputIdRule, entry_of, refuse, stem_of
from monitor.masks import Side
from monitor.records.reasons import explain, shorten
from monitor.records.types import MAX_NAME, Name

MAX_FILE_BYTES = 2 * 1024**3
"""COCO's training set has 0.45 GB in 860,000 annotations, LVIS' 1.1 GB in 1.27 million."""
MAX_ENTRIES = 2_000_000
"""Of images, and of annotations. One takes some 300 bytes beside the file's own, which stay in memory too."""
MAX_OBJECTS = 8 * MAX_ENTRIES
"""JSON objects in a file, counted by their braces before anything is decoded: it bounds what decoding may allocate."""
SEARCHED_BYTES = 64 * 1024**2
"""Larger files are not decoded a second time to find the id of an ill-typed entry; its position is named."""
UTF8_BOM = b"\xef\xbb\xbf"
PROBED_BYTES = 1024 * 1024

Key = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=MAX_NAME)]
"""COCO's ids are integers; Cityscapes' panoptic files have texts."""
CategoryId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Flag = Annotated[int, Meta(ge=0, le=1)] | bool
FileName = Annotated[str, Meta(max_length=4096)]


class ImageEntry(msgspec.Struct, frozen=True, gc=False):
    """``input_id`` and ``segwatch`` are segwatch's own; the next two, lists of ids that are still undecoded, are LVIS',
    whose images are named by ``coco_url`` alone."""

    id: Key
    width: Side
    height: Side
    file_name: FileName | None = None
    coco_url: FileName | None = None
    input_id: Key | None = None
    neg_category_ids: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    not_exhaustive_category_ids: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    segwatch: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class CategoryEntry(msgspec.Struct, frozen=True, gc=False):
    """``isthing`` is there in panoptic files alone."""

    id: CategoryId
    name: Name
    isthing: Flag | None = None


Images = Annotated[list[ImageEntry], Meta(max_length=MAX_ENTRIES)]
Categories = Annotated[list[CategoryEntry], Meta(max_length=65_536)]
T = TypeVar("T")


def decode_export(path: Path, kind: type[T]) -> T:
    """The whole file, typed. Raises InputError that names the file, and the entry where one is at fault."""
    try:
        data = read_bounded(path, MAX_FILE_BYTES)
    except InputError as error:
        refuse(path, "", str(error))
    data = data.removeprefix(UTF8_BOM)
    if not data or (len(data) <= PROBED_BYTES and data.isspace()):
        refuse(path, "", "is empty")
    if len(data) > MAX_OBJECTS and (objects := data.count(b"{")) > MAX_OBJECTS:
        refuse(path, "", f"{objects} objects, the limit is {MAX_OBJECTS}")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        detail = explain(error, data, "json").detail.replace("the record: ", "", 1)
        refuse(path, "", _with_id(detail, data))
    except (ValueError, RecursionError) as error:
        refuse(path, "", f"not JSON: {explain(_as_decode_error(error), data, 'json').detail}")


def part_fault(error: Exception, raw: msgspec.Raw, name: str) -> str:
    """What is wrong with a part that was left undecoded at first; ``name`` is the field that it stands in."""
    detail = explain(_as_decode_error(error), memoryview(raw), "json", name).detail
    return detail if detail.startswith(name) else f"{name}: {detail}"


def number_images(path: Path, images: Sequence[ImageEntry], rule: InputIdRule, max_pixels: int) -> dict[Key, int]:
    """Image id to its position. Raises InputError for a repeated id, a size above the limit, an image without name."""
    numbers: dict[Key, int] = {}
    for i, image in enumerate(images):
        fault = None
        if image.id in numbers:
            fault = f"has the id of images[{numbers[image.id]}]"
        elif image.height * image.width > max_pixels:
            fault = f"{image.height} x {image.width} pixels, the limit is {max_pixels}"
        elif not input_id_of(image, rule):
            fault = f"gives no input_id: its file_name is {shorten(image.file_name)}"
        if fault is not None:
            refuse(path, entry_of("images", i, image.id), fault)
        numbers[image.id] = i
    return numbers


def input_id_of(image: ImageEntry, rule: InputIdRule) -> str:
    """Empty where the image has none. Its own field ``input_id`` wins over the rule.

    >>> input_id_of(ImageEntry(7, 4, 4, "cam7/000123.jpg"), "stem")
    '000123'
    """
    if image.input_id is not None:
        return str(image.input_id)
    if rule == "id":
        return str(image.id)
    name = image.file_name
    if name is None:
        name = (image.coco_url or "").partition("?")[0].rpartition("/")[2]
    return stem_of(name) if rule == "stem" else name


def names_of(path: Path, categories: Sequence[CategoryEntry]) -> dict[int, str]:
    """Category id to its class name. Raises InputError for a repeated id."""
    names: dict[int, str] = {}
    for i, category in enumerate(categories):
        if category.id in names:
            refuse(path, entry_of("categories", i, category.id), "its id stands there twice")
        names[category.id] = category.name
    return names


def category_fault(category_id: int, names: Mapping[int, str], classes: Classes | None) -> str | None:
    """Why an annotation cannot have this category: neither the file nor the model may lack it. None where it can."""
    name = names.get(category_id)
    if name is None:
        return f"category_id {category_id} is none of the categories"
    if classes is not None and name not in classes.names:
        return f"category_id {category_id} is {shorten(name)}, which the classes do not have"
    return None


def file_contains(path: Path, word: bytes) -> bool:
    """Whether the bytes stand anywhere in a regular file."""
    try:
        if not os.path.isfile(path):  # unlike Path's own, never raises
            return False
        with path.open("rb") as file:
            rest = b""
            while part := file.read(PROBED_BYTES):
                if word in rest + part:
                    return True
                rest = part[-len(word) :]
    except (OSError, ValueError):
        pass
    return False


def _as_decode_error(error: Exception) -> Exception:
    """A text that is not UTF-8 quotes the offending byte; the position alone is enough."""
    return ValueError("a text is not UTF-8") if isinstance(error, UnicodeDecodeError) else error


class _Named(msgspec.Struct, frozen=True):
    id: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


def _with_id(detail: str, data: bytes) -> str:
    """Put an entry's id beside its position, where it has one."""
    found = re.match(r"(images|categories|annotations)\[(\d+)\]", detail)
    if found is None or len(data) > SEARCHED_BYTES:
        return detail
    kind, index = found[1], int(found[2])
    try:
        kinds: Any = msgspec.defstruct("_Kind", [(kind, list[_Named])])
        key = msgspec.json.decode(getattr(msgspec.json.decode(data, type=kinds), kind)[index].id)
    except (ValueError, RecursionError, LookupError):
        return detail
    return entry_of(kind, index, key) + detail[found.end() :]
