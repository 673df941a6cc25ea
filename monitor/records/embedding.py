"""The embedding that a record brings along, from its encoded bytes straight to an array.

512 Python floats cost as much as the rest of the record. In MessagePack a list of doubles is nine bytes a number (a
marker and the number, highest byte first), so numpy reads it in place; lists that mix integers or widths take the
slower way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

MAX_DIMENSIONS = 65_536

_Numbers = Annotated[list[float], Meta(min_length=1, max_length=MAX_DIMENSIONS)]
_json = msgspec.json.Decoder(_Numbers)
_msgpack = msgspec.msgpack.Decoder(_Numbers)

_ARRAY16, _ARRAY32 = 0xDC, 0xDD
_ABSENT = (b"", b"null", b"\xc0")
# A number's marker, its type as sent, and the type that it becomes.
_LAYOUTS: tuple[tuple[int, np.dtype[Any], type[np.floating]], ...] = (
    (0xCB, np.dtype(">f8"), np.float64),
    (0xCA, np.dtype(">f4"), np.float32),
)


def read_embedding(wire: msgspec.Raw | bytes) -> NDArray[np.floating] | None:
    """(D,) float64, or float32 where all numbers were sent so; None where there is none.

    Raises msgspec.ValidationError for anything but a list of 1 to MAX_DIMENSIONS numbers. NaN and infinity, which only
    MessagePack can carry, are kept.
    """
    data = bytes(wire)
    if data in _ABSENT:
        return None
    table = _read_alike(data, 1)
    if table is not None:
        return table.reshape(-1)
    return np.array((_msgpack if data[0] >= 0x80 else _json).decode(data), np.float64)


def read_embeddings(wires: Sequence[msgspec.Raw]) -> list[NDArray[np.floating] | Exception | None]:
    """``read_embedding`` of each; what it raises stands in its place.

    Lists of one length, as those of one model are, become rows of one array in a few steps for all of them.
    """
    found: list[NDArray[np.floating] | Exception | None] = [None] * len(wires)
    alike: dict[int, list[int]] = defaultdict(list)
    for i, wire in enumerate(wires):
        alike[len(wire)].append(i)
    for length, members in alike.items():
        if not length:
            continue
        data = b"".join([wires[i] for i in members])
        table = _read_alike(data, len(members))
        if table is not None:
            for i, row in zip(members, table, strict=True):
                found[i] = row
            continue
        for i in members:
            try:
                found[i] = read_embedding(wires[i])
            except (ValueError, RecursionError) as error:
                found[i] = error
    return found


def _read_alike(data: bytes, count: int) -> NDArray[np.floating] | None:
    """(count, D) of so many encoded lists end to end, all of one length in bytes; None where numpy cannot read them.

    It can where all numbers of all lists are doubles, or all are singles.
    """
    size = len(data) // count
    first = data[0]
    if first in (_ARRAY16, _ARRAY32):
        header = 3 if first == _ARRAY16 else 5
        length = int.from_bytes(data[1:header], "big")
    else:
        header, length = 1, first & 0x0F if 0x91 <= first <= 0x9F else 0
    if not 0 < length <= MAX_DIMENSIONS:
        return None
    lists = np.frombuffer(data, np.uint8).reshape(count, size)
    for marker, sent, native in _LAYOUTS:
        stride = 1 + sent.itemsize
        if (
            size == header + length * stride
            and (lists[:, :header] == lists[0, :header]).all()
            and (lists[:, header::stride] == marker).all()
        ):
            return np.ndarray((count, length), sent, data, header + 1, (size, stride)).astype(native)
    return None
