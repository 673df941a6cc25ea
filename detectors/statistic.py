"""The mergeable state of a pane or window: how many records fell into which bin, sequence by sequence."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from detectors.tally import Tally
from detectors.wire import Reader, Writer

FORMAT_VERSION = 2
WHOLE_COUNTS = 1
"""The format in which a count's bytes stood together: still read."""
MAGIC = b"SWPS"
PACKING = 1
"""zlib's level. Level 6 takes four times as long, as much as all else that a worker does with a pane, to save 5 %."""
MAX_CONTENT_BYTES = 256 << 20
"""Refuse to unpack more than this: a pane's delta has kilobytes, a damaged or hostile one could claim terabytes."""


@dataclass(frozen=True, slots=True)
class Group:
    """The records of one sequence, or those without any (``sequence`` "")."""

    sequence: str
    records: int
    counts: NDArray[np.int64]
    """(D, B + 1)"""


class PaneStatistic:
    """Counts of records over the baseline's bins, kept apart by sequence. Adding is all it does.

    Merging adds, sliding subtracts; so any number of workers in any order give what one worker gives, bit for bit.
    Records of one sequence are not independent of each other, so a test needs to know which counts belong to which
    sequence; records without a sequence are pooled under "". A version without a baseline has no bins (D = 0): its
    records and sequences are counted all the same.

    Memory: a group of r records takes at most min(r, 8 (B + 1)) D bytes, plus 8 (B + 1) D for a large one.

    >>> first, second = PaneStatistic(dimensions=2, bins=4), PaneStatistic(dimensions=2, bins=4)
    >>> first.add(np.array([[0, 4], [3, 3]], dtype=np.uint8), ["", "cam7"])
    >>> second.add(np.array([[3, 2]], dtype=np.uint8), ["cam7"])
    >>> first.merge(second)
    >>> first.records, first.sequences
    (3, 1)
    >>> first.counts().tolist()
    [[1, 0, 0, 2, 0], [0, 0, 1, 1, 1]]
    """

    __slots__ = ("_bins", "_dimensions", "_groups", "_total")

    def __init__(self, dimensions: int, bins: int) -> None:
        if dimensions < 0 or not 1 <= bins <= 255:
            raise ValueError(f"a statistic needs dimensions >= 0 and 1..255 bins, got {dimensions} and {bins}")
        self._dimensions = dimensions
        self._bins = bins
        self._groups: dict[str, Tally] = {}
        # Kept beside the groups, so that a verdict on a window of many sequences need not add them up again.
        self._total = Tally(dimensions, bins + 1)

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def bins(self) -> int:
        """Bins for finite values; one more counts the others."""
        return self._bins

    @property
    def records(self) -> int:
        return self._total.records

    @property
    def sequences(self) -> int:
        """Number of distinct sequences; records without one do not count."""
        return len(self._groups) - ("" in self._groups)

    def sizes(self) -> dict[str, int]:
        """Records of each group, without its counts."""
        return {name: tally.records for name, tally in self._groups.items()}

    def counts(self) -> NDArray[np.int64]:
        """(D, B + 1) over all groups; the caller's own copy."""
        return self._total.counts()

    def groups(self) -> Iterator[Group]:
        """Every group, in the order of its name."""
        for name in sorted(self._groups):
            tally = self._groups[name]
            yield Group(name, tally.records, tally.counts())

    def add(self, codes: NDArray[np.uint8], sequences: Sequence[str]) -> None:
        """Count records: codes (N, D) from `Binning.codes`, and each one's sequence ("" for none).

        Raises:
            ValueError: shapes do not fit, or a code is beyond the last bin.
        """
        if codes.dtype != np.uint8 or codes.shape != (len(sequences), self._dimensions):
            raise ValueError(
                f"statistic has {self._dimensions} dimensions, got {codes.dtype} codes of shape {codes.shape} "
                f"with {len(sequences)} sequences"
            )
        if not len(sequences):
            return
        if codes.size and codes.max() > self._bins:
            raise ValueError(f"code {codes.max()} is beyond the last of {self._bins + 1} bins")
        rows, width = codes.tobytes(), self._dimensions
        self._total.add(rows, len(sequences))
        if len(set(sequences)) == 1:
            self._group(sequences[0]).add(rows, len(sequences))
            return
        start = 0
        for name, run in groupby(sequences):
            stop = start + sum(1 for _ in run)
            self._group(name).add(rows[start * width : stop * width], stop - start)
            start = stop

    def merge(self, other: PaneStatistic) -> None:
        """Add another statistic's counts to this one."""
        self._check(other)
        if other is self:
            other = PaneStatistic.merged([self])
        for name, tally in other._groups.items():
            self._group(name).merge(tally)
        self._total.merge(other._total)

    def subtract(self, other: PaneStatistic) -> None:
        """Take away what was merged before, as when a window slides; groups without records vanish.

        Raises:
            ValueError: the other one holds what this one does not; nothing has changed then.
        """
        self._check(other)
        left: dict[str, Tally] = {}
        for name, tally in other._groups.items():
            if name not in self._groups:
                raise ValueError(f"cannot subtract: sequence '{name}' is not in the window")
            left[name] = self._groups[name].without(tally)
        self._total = self._total.without(other._total)
        for name, tally in left.items():
            if tally.records:
                self._groups[name] = tally
            else:
                del self._groups[name]

    @classmethod
    def merged(cls, parts: Iterable[PaneStatistic]) -> PaneStatistic:
        """A new statistic that holds all parts. Raises ValueError where there are none, for want of a shape."""
        result: PaneStatistic | None = None
        for part in parts:
            if result is None:
                result = cls(part._dimensions, part._bins)
            result.merge(part)
        if result is None:
            raise ValueError("nothing to merge: no statistic, so no number of bins")
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PaneStatistic) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_bytes(self) -> bytes:
        """The canonical form: equal statistics give equal bytes, whatever order and batches built them.

        Groups stand in the order of their UTF-8 names; each is written as sorted codes where it has at most B + 1
        records (a byte a record and dimension), else as counts in the narrowest integers that hold them, the lowest
        bytes of all before the next ones, which pack better apart; zlib packs the whole. Two zlib libraries may pack
        one content differently: across machines compare with ``==``.
        """
        content = self._content()
        header = Writer()
        header.raw(MAGIC + bytes([FORMAT_VERSION]))
        header.number(len(content))
        header.raw(zlib.compress(content, PACKING))
        return header.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> PaneStatistic:
        """The statistic that `to_bytes` wrote.

        Raises:
            ValueError: the data is damaged, or a newer release wrote it. Nothing is allocated on the word of a
                length that the data does not back.
        """
        what, older = "pane statistic", (WHOLE_COUNTS,)
        reader = Reader.unpacked(data, MAGIC, FORMAT_VERSION, what, MAX_CONTENT_BYTES, older=older)
        dimensions, bins, groups = reader.number(), reader.number(), reader.number()
        if not 1 <= bins <= 255 or dimensions * (bins + 1) > MAX_CONTENT_BYTES // 8:
            raise ValueError(f"damaged pane statistic: {dimensions} dimensions of {bins} bins")
        statistic = cls(dimensions, bins)
        previous: bytes | None = None
        for _ in range(groups):
            name = reader.text()
            encoded = name.encode("utf-8", "surrogatepass")
            if previous is not None and encoded <= previous:
                raise ValueError("damaged pane statistic: groups are not in order")
            previous = encoded
            tally = Tally.read(reader, dimensions, bins + 1, planes=reader.version > WHOLE_COUNTS)
            statistic._groups[name] = tally
            statistic._total.merge(tally)
        reader.end()
        return statistic

    def _content(self) -> bytes:
        writer = Writer()
        writer.number(self._dimensions)
        writer.number(self._bins)
        writer.number(len(self._groups))
        for encoded, name in sorted((name.encode("utf-8", "surrogatepass"), name) for name in self._groups):
            writer.block(encoded)
            self._groups[name].write(writer)
        return writer.data()

    def _group(self, name: str) -> Tally:
        tally = self._groups.get(name)
        if tally is None:
            tally = self._groups[name] = Tally(self._dimensions, self._bins + 1)
        return tally

    def _check(self, other: PaneStatistic) -> None:
        if other._dimensions != self._dimensions:
            raise ValueError(f"one statistic has {self._dimensions} dimensions, the other {other._dimensions}")
        if other._bins != self._bins:
            raise ValueError(f"one statistic has {self._bins} bins, the other {other._bins}")
