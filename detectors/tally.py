"""Counts of one group of records, cheap to add to and small while the group is small."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.wire import Reader, Writer


class Tally:
    """How many of a group's records fell into each cell, (D, cells).

    Rows of codes are collected and counted a few hundred at a time, which costs the same however many came before.
    A group that never gets that far keeps its rows: they are smaller than a table of counts. Only their counts mean
    anything; which codes shared a row does not survive writing.
    """

    __slots__ = ("_cells", "_dimensions", "_rows", "_table", "records")

    def __init__(self, dimensions: int, cells: int) -> None:
        self.records = 0
        self._dimensions = dimensions
        self._cells = cells
        self._rows = bytearray()
        self._table: NDArray[np.int64] | None = None

    def add(self, rows: bytes | bytearray, records: int) -> None:
        """Count ``records`` rows of D codes each, already checked."""
        self.records += records
        self._rows += rows
        # As many rows as take the room of the table: a byte a code against eight a cell.
        if len(self._rows) > 8 * self._cells * self._dimensions:
            self._table = self.counts()
            self._rows.clear()

    def counts(self) -> NDArray[np.int64]:
        """(D, cells), the caller's own copy."""
        if self._table is None:
            table = np.zeros((self._dimensions, self._cells), dtype=np.int64)
        else:
            table = self._table.copy()
        if self._rows:
            _count(np.frombuffer(bytes(self._rows), dtype=np.uint8).reshape(-1, self._dimensions), table)
        return table

    def merge(self, other: Tally) -> None:
        if other._table is not None:
            self._table = self.counts() + other._table
            self._rows.clear()
            self.records += other.records - other._pending()
        self.add(other._rows, other._pending())

    def without(self, other: Tally) -> Tally:
        """A new tally with the other's records taken away; ValueError where they are not in this one."""
        left = self.counts() - other.counts()
        records = self.records - other.records
        if records < 0 or (left < 0).any():
            raise ValueError("cannot subtract: the window does not hold these records")
        return Tally._of(left, records)

    def write(self, writer: Writer) -> None:
        """Append the canonical form: a function of records and counts alone."""
        writer.number(self.records)
        counts = self.counts()
        if self.records <= self._cells:
            writer.raw(_sorted_codes(counts).tobytes())
            return
        width = 1 << max(0, (int(counts.max(initial=0)).bit_length() + 7) // 8 - 1).bit_length()
        writer.number(width)
        writer.raw(counts.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T.tobytes())

    @classmethod
    def read(cls, reader: Reader, dimensions: int, cells: int, *, planes: bool) -> Tally:
        """The tally at the reader's place, checked: every dimension must hold every record once.

        ``planes``: whether counts are written lowest bytes first, or each with its bytes together.
        """
        records = reader.number()
        if records == 0:
            raise ValueError(f"damaged {reader.what}: a group without records")
        if records <= cells:
            codes = np.frombuffer(reader.raw(dimensions * records), dtype=np.uint8).reshape(dimensions, records)
            if codes.size and (codes.max() >= cells or (codes[:, 1:] < codes[:, :-1]).any()):
                raise ValueError(f"damaged {reader.what}: codes out of range or order")
            tally = cls(dimensions, cells)
            tally.add(codes.T.tobytes(), records)
            return tally
        width = reader.number()
        if width not in (1, 2, 4, 8):
            raise ValueError(f"damaged {reader.what}: counts of {width} bytes")
        data = np.frombuffer(reader.raw(dimensions * cells * width), dtype=np.uint8)
        if planes:
            data = np.ascontiguousarray(data.reshape(width, -1).T)
        counts = data.reshape(-1).view(f"<u{width}")
        table = counts.astype(np.int64).reshape(dimensions, cells)
        # Sums in floating point as well, since eight-byte counts chosen by an attacker could wrap around.
        if (table < 0).any() or (table.sum(1) != records).any() or (table.sum(1, dtype=np.float64) > 2.0**62).any():
            raise ValueError(f"damaged {reader.what}: counts do not add up to {records} records")
        return cls._of(table, records)

    @classmethod
    def _of(cls, counts: NDArray[np.int64], records: int) -> Tally:
        tally = cls(*counts.shape)
        if records <= counts.shape[1]:
            tally.add(_sorted_codes(counts).T.tobytes(), records)
        else:
            tally.records = records
            tally._table = counts
        return tally

    def _pending(self) -> int:
        """Records that are still rows."""
        if self._dimensions == 0:
            return self.records
        return len(self._rows) // self._dimensions


@njit(cache=True, nogil=True)
def _count(rows: NDArray[np.uint8], table: NDArray[np.int64]) -> None:  # pragma: no cover
    """Add rows of codes, (N, D), to a table of (D, cells). Most groups are small, so that NumPy's steps cost more."""
    for row in range(rows.shape[0]):
        for dimension in range(rows.shape[1]):
            table[dimension, rows[row, dimension]] += 1


def _sorted_codes(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(D, records): each dimension's codes in ascending order."""
    dimensions, cells = counts.shape
    codes = np.repeat(np.tile(np.arange(cells, dtype=np.uint8), dimensions), counts.ravel())
    return codes.reshape(dimensions, -1) if dimensions else codes.reshape(0, 0)
