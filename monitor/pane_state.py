"""What the store keeps of a pane: its statistic, and a few of its records for when a shift is to be shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detectors.exemplars import Exemplars
from detectors.statistic import PaneStatistic
from detectors.wire import Reader, Writer

MAGIC = b"SWPN"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class PaneState:
    """``exemplars`` is empty in the panes of slices: their records are among those of all."""

    statistic: PaneStatistic
    exemplars: Exemplars

    @classmethod
    def empty(cls, dimensions: int, bins: int) -> PaneState:
        return cls(PaneStatistic(dimensions, bins), Exemplars(dimensions))

    @classmethod
    def merged(cls, states: Iterable[bytes], *, every_exemplar: bool = False) -> PaneState:
        """The states of panes or of deltas as one: adding, in any order.

        ``every_exemplar``: keep those of all parts, for a window that is looked at and not stored.
        """
        parts = [cls.from_bytes(state) for state in states]
        whole = PaneStatistic.merged(part.statistic for part in parts)
        exemplars = Exemplars(whole.dimensions, kept=None) if every_exemplar else Exemplars(whole.dimensions)
        for part in parts:
            exemplars.merge(part.exemplars)
        return cls(whole, exemplars)

    def to_bytes(self) -> bytes:
        """The canonical form."""
        writer = Writer()
        writer.raw(MAGIC + bytes([FORMAT_VERSION]))
        writer.block(self.exemplars.to_bytes())
        writer.raw(self.statistic.to_bytes())
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> PaneState:
        """What `to_bytes` wrote. Raises ValueError where the data is damaged, or a newer release wrote it."""
        if data[: len(MAGIC)] != MAGIC or len(data) <= len(MAGIC):
            raise ValueError("not the state of a pane")
        if data[len(MAGIC)] != FORMAT_VERSION:
            raise ValueError(f"pane has format {data[len(MAGIC)]}, this release reads format {FORMAT_VERSION}")
        reader = Reader(data[len(MAGIC) + 1 :], "pane")
        exemplars = Exemplars.from_bytes(reader.raw(reader.number()))
        return cls(PaneStatistic.from_bytes(reader.rest()), exemplars)
