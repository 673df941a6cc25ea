"""Tensors of a body: V2 (JSON, or JSON with raw tensors behind it), or plain JSON by the path of its keys.

V2's binary extension puts raw tensors behind the JSON, each of ``parameters.binary_data_size`` bytes, little-endian; an
element of BYTES is its length (4 bytes) and itself. How long the JSON is stands in a header that loggers do not keep;
its end is where its last brace closes.

Sources: KServe "Open Inference Protocol (V2)"; Triton, ``extension_binary_data.md``.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.adapters.protocol import EntryError, Part

DTYPES: Final[dict[str, str]] = {
    "BOOL": "?",
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
MAX_DIMENSIONS: Final = 8

Items = list[Any]
Values = NDArray[Any] | Items
"""Numbers as an array of the tensor's shape; texts, bytes and objects as a list along its last dimension."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """``values`` of ``shape``; a list holds them flat."""

    name: str
    values: Values
    shape: tuple[int, ...]

    def of_batch(self, index: int) -> Tensor:
        """One entry of the first dimension."""
        if isinstance(self.values, list):
            each = math.prod(self.shape[1:])
            if each == 1 and isinstance(self.values[index], list):  # plain JSON, of texts or of uneven length
                return Tensor(self.name, self.values[index], (len(self.values[index]),))
            return Tensor(self.name, self.values[index * each : (index + 1) * each], self.shape[1:])
        return Tensor(self.name, self.values[index], self.shape[1:])


class Body:
    """A request's or response's body. ``fields``: its JSON (empty where it is none); ``raw``: its bytes.

    ``side``: ``request`` or ``response``, for messages. Raises EntryError where it should be JSON and is not.
    """

    def __init__(self, side: str, part: Part) -> None:
        self.side = side
        self.raw = part.body
        self.content_type = part.content_type.partition(";")[0].strip().lower()
        self._tail = b""
        self._fields: dict[str, Any] | None = None
        self._offsets: dict[str, int] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object."""
        if self._fields is None:
            self._fields, self._tail = _read(self.raw, self.side)
        return self._fields

    def tensor(self, name: str) -> Tensor:
        """By its name (V2), else by the path of its keys. Raises EntryError."""
        found = self.fields.get("inputs" if self.side == "request" else "outputs")
        if isinstance(found, list) and all(isinstance(entry, dict) and "datatype" in entry for entry in found):
            for entry in found:
                if entry.get("name") == name:
                    return self._v2(entry, f"{self.side}.{name}")
            names = ", ".join(str(entry.get("name")) for entry in found)
            raise EntryError(f"{self.side}: no tensor {name!r} (there: {names or 'none'})")
        value = lookup(self.fields, name)
        if value is None:
            raise EntryError(f"{self.side}.{name}: missing")
        return _plain(value, f"{self.side}.{name}")

    def _v2(self, entry: dict[str, Any], field: str) -> Tensor:
        shape, datatype = entry.get("shape"), str(entry.get("datatype"))
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_DIMENSIONS
            or not all(isinstance(side, int) and 0 <= side < 2**40 for side in shape)
        ):
            raise EntryError(f"{field}.shape: not a list of up to {MAX_DIMENSIONS} sizes")
        count = math.prod(shape)
        if not count and math.prod(side or 1 for side in shape) >= 2**59:
            raise EntryError(f"{field}.shape: {shape} is no array, not even an empty one")  # NumPy makes none of it
        parameters = entry.get("parameters") or {}
        if isinstance(parameters, dict) and "binary_data_size" in parameters:
            raw = self._binary(entry["name"], parameters["binary_data_size"], field)
            return Tensor(field, _from_raw(raw, datatype, shape, count, field), tuple(shape))
        data = entry.get("data")
        if data is None:
            raise EntryError(f"{field}: neither data nor parameters.binary_data_size")
        flat = _flat(data)
        if len(flat) != count:
            raise EntryError(f"{field}: {len(flat)} values, its shape {shape} has {count}")
        if datatype == "BYTES":
            return Tensor(field, flat, tuple(shape))
        if datatype not in DTYPES:
            raise EntryError(f"{field}.datatype: {datatype!r} is not read")
        if None in flat:  # NumPy would read it as NaN
            raise EntryError(f"{field}.data: a value is null")
        try:
            with np.errstate(over="ignore"):  # too large becomes infinite, which the record's checks refuse
                return Tensor(field, np.array(flat, DTYPES[datatype]).reshape(shape), tuple(shape))
        except (TypeError, ValueError, OverflowError):
            raise EntryError(f"{field}.data: a value is no {datatype}") from None

    def _binary(self, name: str, size: Any, field: str) -> bytes:
        if self._offsets is None:
            self._offsets, at = {}, 0
            for entry in self.fields.get("inputs" if self.side == "request" else "outputs") or []:
                own = lookup(entry, "parameters.binary_data_size")
                if isinstance(own, int) and own >= 0:
                    self._offsets[str(entry.get("name"))] = at
                    at += own
        start = self._offsets.get(name)
        if start is None or not isinstance(size, int) or size < 0 or start + size > len(self._tail):
            raise EntryError(f"{field}: {size!r} bytes of binary data announced, {len(self._tail)} are there in all")
        return self._tail[start : start + size]


def lookup(tree: Any, path: str) -> Any:
    """A value by keys and positions with dots between them; keys may hold dots themselves. None where it is not.

    >>> lookup({"a": [{"b.c": 3}]}, "a.0.b.c")
    3
    """
    if isinstance(tree, dict):
        if path in tree:
            return tree[path]
        at = path.find(".")
        while at >= 0:
            if path[:at] in tree and (found := lookup(tree[path[:at]], path[at + 1 :])) is not None:
                return found
            at = path.find(".", at + 1)
        return None
    first, _, rest = path.partition(".")
    if isinstance(tree, list) and first.isdecimal() and int(first) < len(tree):
        return lookup(tree[int(first)], rest) if rest else tree[int(first)]
    return None


def _read(raw: bytes, side: str) -> tuple[dict[str, Any], bytes]:
    try:
        tree = msgspec.json.decode(raw)
        tail = b""
    except (ValueError, RecursionError):
        try:
            # Latin-1 keeps the place of every byte; the JSON is then decoded as what it is.
            _, end = json.JSONDecoder().raw_decode(raw.decode("latin-1"))
            tree, tail = msgspec.json.decode(raw[:end]), raw[end:]
        except (ValueError, RecursionError) as error:
            raise EntryError(f"{side}: its body is not JSON ({ascii(str(error))[1:-1][:100]})") from None
    if not isinstance(tree, dict):
        raise EntryError(f"{side}: its body is not a JSON object")
    return tree, tail


def _from_raw(raw: bytes, datatype: str, shape: list[int], count: int, field: str) -> Values:
    if datatype == "BYTES":
        items, at = [], 0
        while at + 4 <= len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            items.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        if at != len(raw) or len(items) != count:
            raise EntryError(f"{field}: its binary data does not hold {count} elements")
        return items
    if datatype not in DTYPES:
        raise EntryError(f"{field}.datatype: {datatype!r} is not read")
    dtype = np.dtype(DTYPES[datatype])
    if len(raw) != count * dtype.itemsize:
        raise EntryError(f"{field}: {len(raw)} bytes, its shape {shape} has {count * dtype.itemsize}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _flat(data: Any) -> Items:
    """V2 allows tensors as nested lists as well as flat."""
    flat: Items = data if isinstance(data, list) else [data]
    while flat and all(isinstance(each, list) for each in flat):
        flat = [value for each in flat for value in each]
    return flat


def _plain(value: Any, field: str) -> Tensor:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(each, (str, dict)) for each in items):
        return Tensor(field, items, (len(items),))
    try:
        array = np.array(items)
    except ValueError:
        array = np.array(items, dtype=object)
    if array.dtype == object or array.dtype.kind not in "biuf":
        return Tensor(field, items, (len(items),))  # polygons, run lengths: whoever wants numbers says so
    return Tensor(field, array, array.shape)
