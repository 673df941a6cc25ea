"""Does a baseline have hours of the day, or days of the week, that differ more than days (or weeks) do?

Each record's codes become three scores a column (place, spread, share of values that are not finite), added up over
each hour of each day. The hours' labels of every day are then rotated by a random number of hours, each day's by
another: this breaks what is the same on all days, and keeps how alike neighbouring hours of one day are. Hours that
differ between each other more than almost all rotations do are a rhythm. Neighbouring hours that do not differ, by the
same test on the two alone, become one block. Days of the week are treated alike, within weeks, on what the hours leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.binning import Binning
from detectors.calendar import HOURS, NOWHERE, WEEKDAYS, Calendar, local_times

LEVEL = 0.01
"""Of the test whether there is a rhythm, for hours and for weekdays."""
ROTATIONS = 399
HOURS_DIFFER, WEEKDAYS_DIFFER = 0.5, 0.1
"""Neighbours whose p-value is above this become one block. A rhythm is shown by then, and a split too many costs a
little power, one too few false alarms at the same hour of every day: at 0.1 for hours, too, seven days gave 1.6 in 30
days where 0.8 were allowed. Blocks of weekdays multiply the parts."""
NEIGHBOURS_ROTATIONS = 199
FEWEST_DAYS = 7
"""Days with records in several hours; two hours can be told apart by 2^(days - 1) ways to exchange them."""
FEWEST_WEEKS = 4
"""Three leave 49 ways to rotate weekdays, too few for the level."""
FEWEST_OF_BLOCK = 200
"""Records, below which a block joins its nearest neighbour."""
MOST_DAYS = 126
"""The last ones are looked at."""
SCORES = 3
READ_ROWS = 2048
BLOCK_CELLS = 1 << 22


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What was learnt. ``p_hours`` and ``p_weekdays`` are None where too few days or weeks could be compared."""

    zone: str
    days: int
    """Days with records in at least two hours."""
    weeks: int
    p_hours: float | None
    p_weekdays: float | None
    calendar: Calendar | None
    """None where neither hours nor weekdays differ."""

    def describe(self) -> str:
        """What there is, or why there is nothing, for people."""
        if self.calendar is not None:
            names = [self.calendar.name(part) for part in range(self.calendar.parts)]
            return f"{'; '.join(names)} ({self.zone})"
        if self.p_hours is None:
            return f"none: records of {self.days} days, {FEWEST_DAYS} are needed"
        weekdays = "" if self.p_weekdays is not None else f", too few weeks ({self.weeks}) to tell weekdays"
        return f"none: hours differ no more than days do{weekdays}"


def learn(
    binning: Binning,
    counts: NDArray[np.int64],
    values: NDArray[np.floating],
    times_us: NDArray[np.int64],
    zone: str,
    *,
    seed: int = 0,
) -> Rhythm:
    """The rhythm of records with these values (N, D) at these times (N,); ``counts`` (D, B + 1) are theirs.

    Raises ValueError where ``zone`` is not known.
    """
    rng = np.random.default_rng(seed)
    sums, records, first_day = _cells(binning, counts, values, times_us, zone)
    days = int(((records > 0).sum(1) > 1).sum())
    hours, p_hours = np.zeros(HOURS, dtype=np.int64), None
    if days >= FEWEST_DAYS:
        p_hours = _p_value(sums, records, np.arange(HOURS), ROTATIONS, rng)
        if p_hours <= LEVEL:
            hours = _blocks(sums, records, HOURS_DIFFER, rng)
    weekdays, p_weekdays = np.zeros(WEEKDAYS, dtype=np.int64), None
    by_day = _without_hours(sums, records, hours)
    sums, records = _weeks(by_day, records.sum(1), first_day)
    weeks = int(((records > 0).sum(1) > WEEKDAYS // 2).sum())
    if weeks >= FEWEST_WEEKS:
        p_weekdays = _p_value(sums, records, np.arange(WEEKDAYS), ROTATIONS, rng)
        if p_weekdays <= LEVEL:
            weekdays = _blocks(sums, records, WEEKDAYS_DIFFER, rng)
    calendar = None
    if hours.max() > 0 or weekdays.max() > 0:
        calendar = Calendar(zone, tuple(hours.tolist()), tuple(weekdays.tolist()))
    return Rhythm(zone, days, weeks, p_hours, p_weekdays, calendar)


def _cells(
    binning: Binning,
    counts: NDArray[np.int64],
    values: NDArray[np.floating],
    times_us: NDArray[np.int64],
    zone: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Sums of scores (days, 24, F), records (days, 24), and the first day."""
    local = local_times(times_us, zone)
    last = int(local.day.max())
    first = max(int(local.day.min()), last - MOST_DAYS + 1)
    days = last - first + 1
    table = _scores(counts)
    columns = np.arange(len(table))
    cell = (local.day - first) * HOURS + local.hour
    sums = np.zeros((days * HOURS, table.shape[0] * SCORES))
    for start in range(0, len(cell), READ_ROWS):
        at = cell[start : start + READ_ROWS]
        kept = np.flatnonzero(at >= 0)
        if not len(kept):
            continue
        order = kept[np.argsort(at[kept], kind="stable")]
        codes = binning.codes(np.asarray(values[start : start + READ_ROWS]))[order]
        owner = at[order]
        heads = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
        scores = table[columns, codes].reshape(len(order), -1)
        sums[owner[heads]] += np.add.reduceat(scores, heads, axis=0)
    records = np.bincount(cell[cell >= 0], minlength=days * HOURS).astype(np.float64)
    return sums.reshape(days, HOURS, -1), records.reshape(days, HOURS), first


def _scores(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(D, B + 1, 3) scores of each bin, with mean 0 and variance 1 over all records, or 0 where a column has none.

    Place (the middle rank), spread (its square, less what place explains), and whether the value is not finite:
    components of the chi-square statistic (Nair, JASA 82, 1987).
    """
    finite, total = counts[:, :-1].astype(np.float64), counts.sum(1, keepdims=True).astype(np.float64)
    ranks = np.zeros(counts.shape)
    ranks[:, :-1] = (finite.cumsum(1) - finite / 2) / np.maximum(finite.sum(1, keepdims=True), 1)
    weights = np.zeros(counts.shape)
    weights[:, :-1] = finite / np.maximum(finite.sum(1, keepdims=True), 1)
    place = ranks - (weights * ranks).sum(1, keepdims=True)
    square = place**2 - (weights * place**2).sum(1, keepdims=True)
    slope = (weights * place * square).sum(1) / np.maximum((weights * place**2).sum(1), 1e-12)
    spread = square - slope[:, None] * place
    place[:, -1] = spread[:, -1] = 0.0
    missing = np.zeros(counts.shape)
    missing[:, -1] = 1.0
    scores = np.stack([place, spread, missing - counts[:, -1:] / np.maximum(total, 1)], axis=-1)
    shares = counts / np.maximum(total, 1)
    deviation = np.sqrt((shares[:, :, None] * scores**2).sum(1))
    return np.where(deviation[:, None, :] > 1e-6, scores / np.maximum(deviation, 1e-6)[:, None, :], 0.0)


def _without_hours(
    sums: NDArray[np.float64], records: NDArray[np.float64], hours: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(days, F): each day's sums, less what its hours bring along."""
    by_day: NDArray[np.float64] = sums.sum(1)
    for block in range(int(hours.max()) + 1):
        inside = hours == block
        mean = sums[:, inside].sum((0, 1)) / max(records[:, inside].sum(), 1.0)
        by_day = by_day - records[:, inside].sum(1)[:, None] * mean
    return by_day


def _weeks(
    by_day: NDArray[np.float64], records: NDArray[np.float64], first_day: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Days (K, F) and their records (K,) as weeks of seven days, Monday first."""
    lead = (first_day + 3) % WEEKDAYS
    weeks = -(-(lead + len(records)) // WEEKDAYS)
    sums, counts = np.zeros((weeks * WEEKDAYS, by_day.shape[1])), np.zeros(weeks * WEEKDAYS)
    sums[lead : lead + len(records)] = by_day
    counts[lead : lead + len(records)] = records
    return sums.reshape(weeks, WEEKDAYS, -1), counts.reshape(weeks, WEEKDAYS)


def _p_value(
    sums: NDArray[np.float64],
    records: NDArray[np.float64],
    groups: NDArray[np.int64],
    rotations: int,
    rng: np.random.Generator,
) -> float:
    """How many rotations within each period set the groups as far apart as they are; never 0.

    ``sums`` (periods, places, F), ``records`` (periods, places); ``groups``: of each place, `NOWHERE` for those that
    take no part.
    """
    kinds, dense = np.unique(groups[groups >= 0], return_inverse=True)
    labels = np.full(groups.shape, NOWHERE)
    labels[groups >= 0] = dense.reshape(-1)
    flat, weights = sums.reshape(-1, sums.shape[-1]), records.reshape(-1)
    inside = np.flatnonzero((weights > 0) & (np.tile(labels, len(records)) >= 0))
    if len(kinds) < 2 or not len(inside):
        return 1.0
    flat, weights = flat[inside], weights[inside]
    shift = flat.sum(0) / weights.sum()
    flat = flat - weights[:, None] * shift
    rows = []
    step = max(1, BLOCK_CELLS // (len(inside) * len(kinds)))
    for block in _rotated(labels, records > 0, rotations, step, rng):
        picked = (block[:, inside][:, None, :] == np.arange(len(kinds))[:, None]).astype(np.float64)
        totals, sizes = picked @ flat, picked @ weights
        between = (totals**2 / np.maximum(sizes, 1.0)[..., None]).sum(1)
        rows.append(np.stack([between.sum(1), between.max(1)], axis=1))
    found = np.concatenate(rows)
    spread = found.std(0)
    best = ((found - found.mean(0)) / np.where(spread > 0, spread, 1.0)).max(1)
    return float((1 + (best[1:] >= best[0] - 1e-9).sum()) / len(best))


def _rotated(
    labels: NDArray[np.int64],
    occupied: NDArray[np.bool_],
    rotations: int,
    step: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.int64]]:
    """Blocks (at most ``step``, periods * places) of labels; the first row of all is as it is."""
    periods, places = occupied.shape
    for start in range(0, rotations + 1, step):
        count = min(step, rotations + 1 - start)
        found = np.tile(labels, (count, periods, 1))
        for period in range(periods):
            at = np.flatnonzero(occupied[period] & (labels >= 0))
            if len(at) > 1:
                by = rng.integers(len(at), size=count)
                if start == 0:
                    by[0] = 0
                found[:, period, at] = labels[at[(np.arange(len(at)) + by[:, None]) % len(at)]]
        yield found.reshape(count, periods * places)


def _blocks(
    sums: NDArray[np.float64], records: NDArray[np.float64], differ: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The block of each place on the circle; neighbours whose p-value is above ``differ`` are one."""
    total, sizes = sums.sum(0), records.sum(0)
    groups = [[place] for place in np.flatnonzero(sizes > 0).tolist()]
    settled: set[tuple[int, ...]] = set()
    while len(groups) > 1:
        pairs = [(i, (i + 1) % len(groups)) for i in range(len(groups) if len(groups) > 2 else 1)]
        apart = {pair: _distance(total, sizes, groups[pair[0]], groups[pair[1]]) for pair in pairs}
        small = [pair for pair in pairs if min(sizes[groups[i]].sum() for i in pair) < FEWEST_OF_BLOCK]
        left = small or [pair for pair in pairs if (*groups[pair[0]], NOWHERE, *groups[pair[1]]) not in settled]
        if not left:
            break
        first, second = min(left, key=lambda pair: (apart[pair], pair))
        if not small:
            pair_of = np.full(len(sizes), NOWHERE)
            pair_of[groups[first]], pair_of[groups[second]] = 0, 1
            if _p_value(sums, records, pair_of, NEIGHBOURS_ROTATIONS, rng) <= differ:
                settled.add((*groups[first], NOWHERE, *groups[second]))
                continue
        groups[first] = groups[first] + groups[second]
        del groups[second]
    blocks = np.full(len(sizes), NOWHERE)
    for number, group in enumerate(sorted(groups, key=min)):
        blocks[group] = number
    return blocks


def _distance(total: NDArray[np.float64], sizes: NDArray[np.float64], first: list[int], second: list[int]) -> float:
    """Ward's: what the sum of squares grows by when two groups become one."""
    n, m = sizes[first].sum(), sizes[second].sum()
    difference = total[first].sum(0) / n - total[second].sum(0) / m
    return float(n * m / (n + m) * (difference**2).sum())
