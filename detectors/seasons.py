"""The parts of a baseline by hour of the day and weekday, and what a window at some of these times is compared with."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.calendar import HOURS, WEEKDAYS, Calendar
from detectors.rhythm import Rhythm
from detectors.sample import Sample
from detectors.wire import Reader, Writer

FEWEST_OF_PART = 50
"""Records, below which a part is not compared with anything: as for slices."""
FEWEST_ROWS = 25
"""The same for the records of it that are in the sample."""
MOST_MIXED_ROWS = 8192
"""Of a mixture's sample: proportions differ from window to window, and laws keep theirs."""
KNOWN = 0.9
"""The share of a window's records that must lie in parts that the baseline knows."""
OUTSIDE = 255
"""In ``Seasons.rows``: of no part."""


@dataclass(frozen=True, eq=False)
class Seasons:
    """What a baseline keeps of each part of its calendar. Without one, all arrays are empty (P = 0)."""

    rhythm: Rhythm
    counts: NDArray[np.unsignedinteger]
    """(P, D, B + 1)"""
    records: NDArray[np.int64]
    """(P,)"""
    sequences: NDArray[np.int64]
    """(P,) distinct sequences with records in it."""
    independent: NDArray[np.int64]
    """(P,) records without a sequence."""
    rows: NDArray[np.uint8]
    """(S,) the part of each row of the baseline's sample."""

    def mixture(self, records: Sequence[int]) -> tuple[int, ...] | None:
        """Of each part, whole numbers in proportion to a window's ``records`` (P + 1,) in it.

        The last of ``records`` are those at times that no part is of. None where the baseline knows too little of the
        window's times. Where the window has its parts in the baseline's own proportions, but for chance, those are
        taken: nothing need be left out then, and all such windows share one law. Other proportions are rounded to about
        the reciprocal of the root of all records, half of what chance does to them.
        """
        sampled = np.bincount(self.rows, minlength=OUTSIDE + 1)[: len(self.records)]
        inside = np.array(records[:-1], dtype=np.float64)
        inside[(self.records < FEWEST_OF_PART) | (sampled < FEWEST_ROWS)] = 0.0
        total = inside.sum()
        if total <= 0 or total < KNOWN * sum(records):
            return None
        own = np.where(inside > 0, self.records, 0)
        expected = own * (total / own.sum())
        excess = ((inside - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
        freedom = int((inside > 0).sum()) - 1
        if excess <= freedom + 3 * math.sqrt(2 * freedom):
            return _reduced(own)
        scaled = inside / total * (1 << math.ceil(math.log2(max(total, 1)) / 2))
        return _reduced(np.rint(scaled).astype(np.int64))

    def write(self, writer: Writer) -> None:
        rhythm = self.rhythm
        writer.text(rhythm.zone)
        writer.number(rhythm.days)
        writer.number(rhythm.weeks)
        for p_value in (rhythm.p_hours, rhythm.p_weekdays):
            writer.raw(struct.pack("<d", math.nan if p_value is None else p_value))
        if rhythm.calendar is None:
            writer.number(0)
            return
        writer.number(len(self.records))
        writer.raw(np.array(rhythm.calendar.hours + rhythm.calendar.weekdays, dtype=np.int8).tobytes())
        for column in (self.records, self.sequences, self.independent):
            writer.raw(column.astype("<i8").tobytes())
        width = self.counts.dtype.itemsize
        writer.number(width)
        writer.raw(self.counts.astype(f"<u{width}").tobytes())
        writer.raw(self.rows.tobytes())

    @classmethod
    def read(cls, reader: Reader, dimensions: int, cells: int, rows: int) -> Seasons:
        """What `write` wrote, for a baseline of this shape. Raises ValueError where it is damaged."""
        zone, days, weeks = reader.text(), reader.number(), reader.number()
        p_values = [None if math.isnan(value) else value for value in struct.unpack("<dd", reader.raw(16))]
        parts = reader.number()
        if not parts:
            return cls.none(Rhythm(zone, days, weeks, p_values[0], p_values[1], None), dimensions, cells)
        blocks = np.frombuffer(reader.raw(HOURS + WEEKDAYS), dtype=np.int8).tolist()
        calendar = Calendar(zone, tuple(blocks[:HOURS]), tuple(blocks[HOURS:]))
        if calendar.parts != parts:
            raise ValueError(f"damaged {reader.what}: {parts} parts of a calendar with {calendar.parts}")
        columns = [np.frombuffer(reader.raw(8 * parts), dtype="<i8").astype(np.int64) for _ in range(3)]
        width = reader.number()
        if width not in (1, 2, 4, 8):
            raise ValueError(f"damaged {reader.what}: counts of {width} bytes")
        flat = np.frombuffer(reader.raw(parts * dimensions * cells * width), dtype=f"<u{width}")
        counts = flat.reshape(parts, dimensions, cells)
        if (counts.sum(-1, dtype=np.int64) != columns[0][:, None]).any():
            raise ValueError(f"damaged {reader.what}: counts do not add up to the records of their part")
        owner = np.frombuffer(reader.raw(rows), dtype=np.uint8)
        rhythm = Rhythm(zone, days, weeks, p_values[0], p_values[1], calendar)
        return cls(rhythm, counts, columns[0], columns[1], columns[2], owner)

    @classmethod
    def none(cls, rhythm: Rhythm, dimensions: int, cells: int) -> Seasons:
        """No parts, but what was looked for."""
        nothing = np.zeros(0, dtype=np.int64)
        counts = np.zeros((0, dimensions, cells), dtype=np.uint8)
        return cls(rhythm, counts, nothing, nothing, nothing, np.zeros(0, dtype=np.uint8))


def _reduced(weights: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple((weights // math.gcd(*weights.tolist())).tolist())


def mixed_counts(seasons: Seasons, mixture: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As many records of each part (P,) as the mixture allows, and their counts (D, B + 1) together."""
    weights = np.array(mixture, dtype=np.float64)
    inside = np.flatnonzero(weights)
    scale = float((seasons.records[inside] / weights[inside]).min())
    taken = np.floor(scale * weights + 1e-9).astype(np.int64)
    parts = (_shrunk(seasons.counts[part], int(taken[part])) for part in inside.tolist())
    return taken, np.sum(list(parts), axis=0)


def _shrunk(counts: NDArray[np.unsignedinteger], records: int) -> NDArray[np.int64]:
    """Counts (D, B + 1) of fewer records in the same proportions; what rounding loses goes to the largest rests."""
    own = counts.astype(np.float64)
    scaled = own * (records / own[0].sum()) if len(own) else own
    whole = np.floor(scaled + 1e-9)
    missing = records - whole.sum(1)
    order = np.argsort(-(scaled - whole), axis=1, kind="stable")
    places = np.arange(own.shape[1]) < missing[:, None]
    np.put_along_axis(whole, order, np.take_along_axis(whole, order, 1) + places, axis=1)
    return whole.astype(np.int64)


def mixed_sample(seasons: Seasons, sample: Sample, mixture: Sequence[int]) -> Sample:
    """As many rows of each part as the mixture allows, evenly over time; of a sequence those of one part, as a run."""
    weights = np.array(mixture, dtype=np.float64)
    have = np.bincount(seasons.rows, minlength=OUTSIDE + 1)[: len(weights)]
    inside = np.flatnonzero(weights)
    scale = float((have[inside] / weights[inside]).min())
    if len(inside) > 1:
        scale = min(scale, MOST_MIXED_ROWS / float(weights.sum()))
    kept = np.zeros(OUTSIDE + 1)
    kept[inside] = np.minimum(1.0, scale * weights[inside] / np.maximum(have[inside], 1))
    singles = seasons.rows[: sample.independent]
    owner = np.repeat(np.arange(len(sample.lengths)), sample.lengths)
    of_part = seasons.rows[sample.independent :]
    starts = np.flatnonzero(np.r_[True, (owner[1:] != owner[:-1]) | (of_part[1:] != of_part[:-1])][: len(owner)])
    lengths = np.diff(np.r_[starts, len(owner)])
    runs = _thinned(of_part[starts], lengths, kept)
    chosen = np.r_[_thinned(singles, np.ones(len(singles), dtype=np.int64), kept), np.repeat(runs, lengths)]
    return Sample(sample.codes[chosen], int(chosen[: sample.independent].sum()), lengths[runs])


def _thinned(parts: NDArray[np.uint8], sizes: NDArray[np.int64], kept: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which units stay, so that of each part about the share ``kept`` of its rows does."""
    chosen = np.zeros(len(parts), dtype=np.bool_)
    for part in np.unique(parts).tolist():
        at = np.flatnonzero(parts == part)
        if kept[part] >= 1:
            chosen[at] = True
        elif kept[part] > 0:
            steps = np.floor(np.cumsum(sizes[at]) * kept[part] / sizes[at].mean() + 1e-9)
            chosen[at] = np.diff(np.r_[0.0, steps]) > 0
    return chosen
