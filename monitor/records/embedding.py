"""The embedding that a record brings along, from its encoded bytes straight to an array.

512 Python floats cost as much as the rest of the record. In MessagePack a list of doubles is nine bytes a number (a
marker and the number, highest byte first), so numpy reads it in place; lists that mix integers or widths take the
slower way.
"""

from __future__ import annotations

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
_LAYOUTS: tuple[tuple[bytes, np.dtype[Any], type[np.floating]], ...] = (
    (b"\xcb", np.dtype(">f8"), np.float64),
    (b"\xca", np.dtype(">f4"), np.float32),
)


def read_embedding(wire: msgspec.Raw) -> NDArray[np.floating] | None:
    """(D,) float64, or float32 where all numbers were sent so; None where there is none.

    Raises msgspec.ValidationError for anything but a list of 1 to MAX_DIMENSIONS numbers. NaN and infinity, which only
    MessagePack can carry, are kept.
    """
    data = bytes(wire)
    if data in _ABSENT:
        return None
    first = data[0]
    if first in (_ARRAY16, _ARRAY32):
        header = 3 if first == _ARRAY16 else 5
        length = int.from_bytes(data[1:header], "big")
    elif 0x91 <= first <= 0x9F:
        header, length = 1, first & 0x0F
    else:
        return np.array((_msgpack if first >= 0x80 else _json).decode(data), np.float64)
    if 0 < length <= MAX_DIMENSIONS:
        for marker, sent, native in _LAYOUTS:
            stride = 1 + sent.itemsize
            # Counting bytes in a strided slice takes a third of the time of a comparison in numpy.
            if len(data) == header + length * stride and data[header::stride].count(marker) == length:
                return np.ndarray((length,), sent, data, header + 1, (stride,)).astype(native)
    return np.array(_msgpack.decode(data), np.float64)
