"""Labels of an export on disk, to be stored in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO

import msgspec

from monitor.store.values import LabelKey, LabelRow

AT_ONCE = 500

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LabelRow)


class LabelSpool:
    """Keys in memory, some 300 bytes a label; the labels in ``file``, a temporary one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: list[tuple[LabelKey, int, int]] = []
        """Key, offset and length; of one key in the order of adding."""
        self._end = 0

    def add(self, rows: Sequence[LabelRow]) -> None:
        for row in rows:
            data = _encoder.encode(row)
            self._file.write(data)
            self._places.append((row.key, self._end, len(data)))
            self._end += len(data)

    def portions(self) -> Iterator[list[LabelRow]]:
        """All labels in ascending order of their keys, those of one key as they were added."""
        self._places.sort()
        places = iter(self._places)
        while some := list(islice(places, AT_ONCE)):
            yield [self._read(offset, length) for _, offset, length in some]

    def _read(self, offset: int, length: int) -> LabelRow:
        self._file.seek(offset)
        return _decoder.decode(self._file.read(length))
