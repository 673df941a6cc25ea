"""What drift is measured against: bins, counts and a sample of the baseline, frozen."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning
from detectors.layout import Layout, SignalColumns
from detectors.rhythm import Rhythm, learn
from detectors.sample import Sample
from detectors.seasons import OUTSIDE, Seasons, mixed_counts, mixed_sample
from detectors.unevenness import Unevenness, unevenness
from detectors.wire import Reader, Writer

FORMAT_VERSION = 2
"""2 adds seasons; a baseline that was given no times is written in format 1."""
MAGIC = b"SWBS"
MAX_CONTENT_BYTES = 256 << 20

SAMPLE_ROWS = 32_768
"""160 sequences of 200 frames; a byte a row and dimension before packing."""
READ_ROWS = 8192


@dataclass(frozen=True, eq=False)
class BaselineStatistic:
    """The baseline's side of every comparison. Immutable; `digest` names its content."""

    layout: Layout
    binning: Binning
    counts: NDArray[np.int64]
    """(D, B + 1)"""
    records: int
    sequences: int
    """Distinct sequences of all records, also those outside the sample."""
    independent_records: int
    """Records without a sequence."""
    sample: Sample
    seasons: Seasons | None = None
    """None where no times were given."""

    def __post_init__(self) -> None:
        width = self.layout.width
        if self.binning.dimensions != width or self.sample.codes.shape[1] != width:
            raise ValueError(
                f"layout has {width} columns, bins {self.binning.dimensions}, sample {self.sample.codes.shape[1]}"
            )
        if self.counts.shape != (width, self.binning.cells) or (self.counts.sum(1) != self.records).any():
            raise ValueError(f"counts do not add up to {self.records} records in each of {width} columns")
        if self.sample.codes.size and self.sample.codes.max() >= self.binning.cells:
            raise ValueError("the sample has codes beyond the last bin")

    @classmethod
    def fit(
        cls,
        layout: Layout,
        values: NDArray[np.floating],
        sequences: Sequence[str],
        *,
        bins: int = 16,
        sample_rows: int = SAMPLE_ROWS,
        seed: int = 0,
        times_us: NDArray[np.int64] | None = None,
        zone: str = "UTC",
    ) -> BaselineStatistic:
        """A baseline from its records' values (N, layout.width), which may be memory-mapped.

        ``sequences`` names each record's sequence ("" for none); within a sequence, rows stand in the order of time.
        With ``times_us`` (N,), microseconds since 1970, it learns which hours and weekdays of ``zone`` differ.

        Raises:
            ValueError: no records, shapes that do not fit the layout, or a zone that is not known.
        """
        if values.shape != (len(sequences), layout.width):
            raise ValueError(f"{len(sequences)} records in {layout.width} columns, values have shape {values.shape}")
        rows, binning = np.arange(len(values)), Binning.fit(values, bins)
        if times_us is None:
            return cls.counted(layout, binning, values, sequences, rows, sample_rows=sample_rows, seed=seed)
        rhythm = learn(binning, _counted(binning, values, rows), values, times_us, zone)
        return cls.counted(
            layout,
            binning,
            values,
            sequences,
            rows,
            sample_rows=sample_rows,
            seed=seed,
            times_us=times_us,
            rhythm=rhythm,
        )

    @classmethod
    def counted(
        cls,
        layout: Layout,
        binning: Binning,
        values: NDArray[np.floating],
        sequences: Sequence[str],
        rows: NDArray[np.int64],
        *,
        sample_rows: int = SAMPLE_ROWS,
        seed: int = 0,
        times_us: NDArray[np.int64] | None = None,
        rhythm: Rhythm | None = None,
    ) -> BaselineStatistic:
        """A part of the records, ``rows`` (N,) in ascending order, on bins that are there already: a slice's baseline.

        Arguments as for `fit`; ``rhythm`` is that of all records, and needs ``times_us``. Raises ValueError where
        ``rows`` is empty.
        """
        if not len(rows):
            raise ValueError("a baseline needs at least one record")
        numbers: dict[str, int] = {"": 0}
        named = (numbers.setdefault(sequences[row], len(numbers)) for row in rows.tolist())
        owner = np.fromiter(named, np.int64, len(rows))
        chosen, independent, lengths = choose_rows(owner, len(numbers), sample_rows, np.random.default_rng(seed))
        seasons = None
        if rhythm is not None and times_us is not None:
            seasons = _seasons(rhythm, binning, values, np.asarray(times_us)[rows], rows, owner, chosen)
        return cls(
            layout=layout,
            binning=binning,
            counts=_counted(binning, values, rows),
            records=len(rows),
            sequences=len(numbers) - 1,
            independent_records=int((owner == 0).sum()),
            sample=Sample(binning.codes(np.asarray(values[rows[chosen]])), independent, lengths),
            seasons=seasons,
        )

    def in_season(self, mixture: tuple[int, ...]) -> BaselineStatistic:
        """The baseline as it is at some times: of each part of ``seasons`` so many for each other, at least one.

        A mixture of several parts holds as many records as the scarcest of them allows.
        """
        return _in_season(self, mixture)

    @cached_property
    def watched(self) -> tuple[SignalColumns, ...]:
        """Signals of which the baseline has values; one without any (no image, no map) takes no share of alpha."""
        signals = self.layout.signals
        return tuple(part for part in signals if self.counts[part.start : part.stop, :-1].any())

    @cached_property
    def unevenness(self) -> Unevenness:
        """How far the baseline's own blocks are from the rest of it."""
        return unevenness(self.sample, self.binning.cells)

    @cached_property
    def digest(self) -> str:
        """Hash of all that scores depend on, equal wherever that is; why there are no seasons is not part of it."""
        told = self.seasons is not None and self.seasons.rhythm.calendar is not None
        return hashlib.blake2b(self._content(seasons=told), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaselineStatistic) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def to_bytes(self) -> bytes:
        content = self._content(seasons=True)
        writer = Writer()
        writer.raw(MAGIC + bytes([FORMAT_VERSION if self.seasons else 1]))
        writer.number(len(content))
        writer.raw(zlib.compress(content, 6))
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> BaselineStatistic:
        """The baseline that `to_bytes` wrote. Raises ValueError for damaged data and for newer formats."""
        version = 1 if data[len(MAGIC) : len(MAGIC) + 1] == b"\x01" else FORMAT_VERSION
        reader = Reader.unpacked(data, MAGIC, version, "baseline statistic", MAX_CONTENT_BYTES)
        named: list[tuple[str, list[str]]] = []
        for _ in range(reader.number()):
            signal = reader.text()
            named.append((signal, [reader.text() for _ in range(reader.number())]))
        layout = Layout.stacked(named)
        width, bins = layout.width, reader.number()
        records, sequences, independent_records = reader.number(), reader.number(), reader.number()
        edges = np.frombuffer(reader.raw(8 * width * (bins - 1) if bins else 0), dtype="<f8")
        counts = np.frombuffer(reader.raw(8 * width * (bins + 1)), dtype="<i8")
        rows, independent, groups = reader.number(), reader.number(), reader.number()
        lengths = np.frombuffer(reader.raw(8 * groups), dtype="<i8")
        codes = np.frombuffer(reader.raw(rows * width), dtype=np.uint8)
        seasons = Seasons.read(reader, width, bins + 1, rows) if version > 1 else None
        reader.end()
        try:
            return cls(
                layout=layout,
                binning=Binning(edges.astype(np.float64).reshape(width, bins - 1)),
                counts=counts.astype(np.int64).reshape(width, bins + 1),
                records=records,
                sequences=sequences,
                independent_records=independent_records,
                sample=Sample(codes.reshape(rows, width), independent, lengths.astype(np.int64)),
                seasons=seasons,
            )
        except ValueError as error:
            raise ValueError(f"damaged {reader.what}: {error}") from None

    def _content(self, *, seasons: bool) -> bytes:
        writer = Writer()
        writer.number(len(self.layout.signals))
        for columns in self.layout.signals:
            writer.text(columns.signal)
            writer.number(len(columns.dimensions))
            for dimension in columns.dimensions:
                writer.text(dimension)
        for number in (self.binning.bins, self.records, self.sequences, self.independent_records):
            writer.number(number)
        writer.raw(self.binning.edges.astype("<f8").tobytes())
        writer.raw(self.counts.astype("<i8").tobytes())
        for number in (len(self.sample.codes), self.sample.independent, len(self.sample.lengths)):
            writer.number(number)
        writer.raw(self.sample.lengths.astype("<i8").tobytes())
        writer.raw(self.sample.codes.tobytes())
        if seasons and self.seasons is not None:
            self.seasons.write(writer)
        return writer.data()


def _counted(binning: Binning, values: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(D, B + 1) of the records ``rows``."""
    counts: NDArray[np.int64] = _by_part(binning, values, rows, np.zeros(len(rows), dtype=np.int64), 1)[0]
    return counts


def _by_part(
    binning: Binning, values: NDArray[np.floating], rows: NDArray[np.int64], part: NDArray[np.int64], parts: int
) -> NDArray[np.int64]:
    """(P, D, B + 1): the records ``rows`` (N,), each in its ``part`` (N,) of 0..P - 1."""
    shape = (parts, binning.dimensions, binning.cells)
    counts = np.zeros(shape, dtype=np.int64)
    offsets = np.arange(0, shape[1] * shape[2], shape[2])
    for start in range(0, len(rows), READ_ROWS):
        cells = binning.codes(values[rows[start : start + READ_ROWS]]) + offsets
        own = part[start : start + READ_ROWS]
        for number in np.unique(own).tolist():
            flat = np.bincount(cells[own == number].ravel(), minlength=shape[1] * shape[2])
            counts[number] += flat.reshape(shape[1:])
    return counts


def _seasons(
    rhythm: Rhythm,
    binning: Binning,
    values: NDArray[np.floating],
    times_us: NDArray[np.int64],
    rows: NDArray[np.int64],
    owner: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> Seasons:
    """What the records ``rows`` (N,) at ``times_us`` (N,), of sequences ``owner`` (N,), are in each part."""
    calendar = rhythm.calendar
    if calendar is None:
        return Seasons.none(rhythm, binning.dimensions, binning.cells)
    part_of = calendar.of(times_us)
    inside = part_of >= 0
    part, owner = part_of[inside], owner[inside]
    counts = _by_part(binning, values, rows[inside], part, calendar.parts)
    named = np.unique(np.stack([part[owner > 0], owner[owner > 0]]), axis=1)[0]
    return Seasons(
        rhythm=rhythm,
        counts=counts.astype(np.min_scalar_type(int(counts.max()))),
        records=np.bincount(part, minlength=calendar.parts),
        sequences=np.bincount(named, minlength=calendar.parts),
        independent=np.bincount(part[owner == 0], minlength=calendar.parts),
        rows=np.where(part_of[chosen] < 0, OUTSIDE, part_of[chosen]).astype(np.uint8),
    )


@lru_cache(maxsize=128)
def _in_season(baseline: BaselineStatistic, mixture: tuple[int, ...]) -> BaselineStatistic:
    seasons = baseline.seasons
    if seasons is None or len(mixture) != len(seasons.records) or not any(mixture):
        raise ValueError(f"the baseline has no parts for the mixture {mixture}")
    taken, counts = mixed_counts(seasons, mixture)
    shares = taken / np.maximum(seasons.records, 1)
    return BaselineStatistic(
        layout=baseline.layout,
        binning=baseline.binning,
        counts=counts,
        records=int(taken.sum()),
        sequences=round(float(shares @ seasons.sequences)),
        independent_records=round(float(shares @ seasons.independent)),
        sample=mixed_sample(seasons, baseline.sample, mixture),
    )


def choose_rows(
    owner: NDArray[np.int64], groups: int, budget: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """Rows for the sample: single records, and runs of whole sequences, in proportion to their records.

    ``owner`` numbers each record's sequence, 0 for none. A sequence longer than an eighth of the budget gives one
    run of it.
    """
    by_owner = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=groups))
    singles = by_owner[: ends[0]]
    room = round(budget * len(singles) / len(owner))
    chosen = [np.sort(rng.choice(singles, min(room, len(singles)), replace=False))]
    left, lengths = budget - room, list[int]()
    longest = max(1, (budget - room) // 8)
    for group in rng.permutation(np.arange(1, groups)):
        if left <= 0:
            break
        run = by_owner[ends[group - 1] : ends[group]]
        size = min(len(run), longest, left)
        start = int(rng.integers(len(run) - size + 1))
        chosen.append(run[start : start + size])
        lengths.append(size)
        left -= size
    return np.concatenate(chosen), len(chosen[0]), np.array(lengths, dtype=np.int64)
