"""What the store keeps of a pane: its statistic, and in blocks beside it what only some panes have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from detectors.exemplars import Exemplars
from detectors.moments import Moments
from detectors.quality.expected import ExpectedSums
from detectors.statistic import PaneStatistic
from detectors.wire import Reader, Writer

MAGIC = b"SWPN"
FORMAT_VERSION = 2
"""2 writes what stands beside the statistic as named blocks; in format 1 it was the exemplars alone."""

EXEMPLARS, EXPECTED, MOMENTS = "exemplars", "expected", "moments"


@dataclass(frozen=True, eq=False)
class PaneState:
    """The panes of slices have a statistic alone: their records are among those of all."""

    statistic: PaneStatistic
    exemplars: Exemplars
    """A few records for when a shift is to be shown; empty in the panes of slices."""
    moments: Moments | None = None
    """Of the embedding's components; None in the panes of slices, without a baseline that has some, and in format 1."""

    expected: ExpectedSums | None = None
    """How sure the model was of what it found; None in the panes of slices, and before quality was measured."""

    @classmethod
    def empty(cls, dimensions: int, bins: int, components: int = 0, classes: int = 0) -> PaneState:
        """``components``: of which moments are kept; ``classes``: whose confidence is counted; 0 for none."""
        moments = Moments(components) if components else None
        expected = ExpectedSums(classes) if classes else None
        return cls(PaneStatistic(dimensions, bins), Exemplars(dimensions), moments, expected)

    @classmethod
    def merged(cls, states: Iterable[bytes], *, every_exemplar: bool = False) -> PaneState:
        """The states of panes or of deltas as one: adding, in any order.

        Moments of some records only would be no moments of the window: where a part has none, the whole has none; and
        so with what was expected.
        ``every_exemplar``: keep those of all parts, for a window that is looked at and not stored.
        """
        parts = [cls.from_bytes(state) for state in states]
        whole = PaneStatistic.merged(part.statistic for part in parts)
        exemplars = Exemplars(whole.dimensions, kept=None) if every_exemplar else Exemplars(whole.dimensions)
        for part in parts:
            exemplars.merge(part.exemplars)
        expected = merged_expected([part.expected for part in parts])
        return cls(whole, exemplars, _merged([part.moments for part in parts]), expected)

    def to_bytes(self) -> bytes:
        """The canonical form: blocks in the order of their names, then the statistic."""
        blocks = {}
        if len(self.exemplars):
            blocks[EXEMPLARS] = self.exemplars.to_bytes()
        if self.expected is not None:
            blocks[EXPECTED] = self.expected.to_bytes()
        if self.moments is not None:
            blocks[MOMENTS] = self.moments.to_bytes()
        writer = Writer()
        writer.raw(MAGIC + bytes([FORMAT_VERSION]))
        writer.number(len(blocks))
        for name in sorted(blocks):
            writer.text(name)
            writer.block(blocks[name])
        writer.raw(self.statistic.to_bytes())
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> PaneState:
        """What `to_bytes` wrote. Raises ValueError where the data is damaged, or a newer release wrote it."""
        if data[: len(MAGIC)] != MAGIC or len(data) <= len(MAGIC):
            raise ValueError("not the state of a pane")
        version = data[len(MAGIC)]
        if not 1 <= version <= FORMAT_VERSION:
            raise ValueError(f"pane has format {version}, this release reads up to {FORMAT_VERSION}")
        reader = Reader(data[len(MAGIC) + 1 :], "pane")
        blocks = dict([(EXEMPLARS, reader.raw(reader.number()))] if version == 1 else _blocks(reader))
        unknown = sorted(blocks.keys() - {EXEMPLARS, EXPECTED, MOMENTS})
        if unknown:
            raise ValueError(f"pane has {unknown[0]!r}, which this release does not know: a newer one wrote it")
        statistic = PaneStatistic.from_bytes(reader.rest())
        exemplars, moments, expected = (blocks.get(name) for name in (EXEMPLARS, MOMENTS, EXPECTED))
        return cls(
            statistic,
            Exemplars.from_bytes(exemplars) if exemplars is not None else Exemplars(statistic.dimensions),
            Moments.from_bytes(moments) if moments is not None else None,
            ExpectedSums.from_bytes(expected) if expected is not None else None,
        )


def _blocks(reader: Reader) -> Iterator[tuple[str, bytes]]:
    """Names, ascending, and what stands under each."""
    previous = ""
    for _ in range(reader.number()):
        name = reader.text()
        if name <= previous:
            raise ValueError(f"damaged {reader.what}: blocks are not in order")
        previous = name
        yield name, reader.raw(reader.number())


def _merged(parts: Iterable[Moments | None]) -> Moments | None:
    whole: Moments | None = None
    for part in parts:
        if part is None:
            return None
        if whole is None:
            whole = Moments(part.components)
        whole.merge(part)
    return whole


def merged_expected(parts: Iterable[ExpectedSums | None]) -> ExpectedSums | None:
    """Sums of all parts; None where one has none, or where they are of different classes."""
    whole: ExpectedSums | None = None
    for part in parts:
        if part is None or (whole is not None and part.classes != whole.classes):
            return None
        if whole is None:
            whole = ExpectedSums(part.classes)
        whole.merge(part)
    return whole


def expected_in(data: bytes) -> ExpectedSums | None:
    """Of a pane's state, without reading anything else of it. Raises ValueError as `PaneState.from_bytes`."""
    if data[: len(MAGIC)] != MAGIC or len(data) <= len(MAGIC):
        raise ValueError("not the state of a pane")
    if data[len(MAGIC)] != FORMAT_VERSION:
        return None  # format 1 has none; a newer one is for a newer release
    found = dict(_blocks(Reader(data[len(MAGIC) + 1 :], "pane"))).get(EXPECTED)
    return None if found is None else ExpectedSums.from_bytes(found)
