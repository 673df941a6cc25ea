"""A window against the windows just before it: has something moved lately, whatever the baseline says?

Panes keep counts and no records, so windows without drift cannot be drawn record by record. What can change places are
units: the records of one pane without a sequence, and each sequence's records in one window. Without drift any of them
could have been the window's; so the law is that of the window's units exchanged with those of the windows before it
(`detectors.permutation` does the same with the baseline's sequences). It needs nothing of the baseline but its bins,
and holds whatever shift stands since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import xlogy

from detectors.baseline import BaselineStatistic
from detectors.divergence import jensen_shannon
from detectors.layout import SignalColumns
from detectors.nulls import SignalLaw, lowest_p_value
from detectors.resampling import NullStatistics
from detectors.statistic import PaneStatistic
from detectors.unevenness import BLOCKS, QUANTILE

FEWEST_WINDOWS = 4
FEWEST_RECORDS = 5
"""Of the window: as against the baseline."""
MOST_UNITS = 32
"""Of each kind in a window; more are added up in turn, the earlier windows' alike."""
QUICK_EXCHANGES, EXCHANGES, MANY_EXCHANGES = 200, 4000, 20_000
"""The few settle what is clear. With twelve sequences an hour, the tail of 4,000 alarmed three times too often."""
DOUBTED = 0.02
"""p-values from here on are taken from the second, and those near an alarm from the last."""
STEP = 256
"""Exchanges that are picked at once."""
MOST_TABLED = 1 << 22
TWICE_AS_FAR = 4.0
"""A sudden shift is twice as far from the days before it as these are from each other; divergences are squares of
small distances. A slow decay moves on for another half of the history and a window: less than that."""


@dataclass(frozen=True, slots=True)
class RollingSignal:
    """One signal against the windows before: as in `detectors.score.SignalScore`."""

    signal: str
    js: float
    p_value: float
    reference_js: float
    """The js that blocks of the earlier windows reach against the rest of them; an alarm is `TWICE_AS_FAR` beyond."""
    alarm: bool


@dataclass(frozen=True, slots=True)
class RollingScore:
    """The verdict against the windows before. ``scores`` is empty where they, or the window, are too few."""

    status: str
    """"ok", "too few windows", or "too few records"."""
    windows: int
    records: int
    """Of the earlier windows that it was compared with."""
    alpha: float
    scores: tuple[RollingSignal, ...] = ()

    @property
    def alarm(self) -> bool:
        return any(one.alarm for one in self.scores)

    @property
    def p_value(self) -> float | None:
        """Of all signals together (Bonferroni)."""
        return min(1.0, len(self.scores) * min(one.p_value for one in self.scores)) if self.scores else None


def score_rolling(
    baseline: BaselineStatistic,
    window: Sequence[PaneStatistic],
    before: Sequence[Sequence[PaneStatistic]],
    alpha: float,
) -> RollingScore:
    """Compare the panes of a window with those of windows ``before`` it, in order of time, on the baseline's bins.

    ``alpha`` is shared evenly by the signals. Dependence between windows (a sequence that goes on for days) is not in
    the law; dependence within one sequence in one window, and within a sequence's panes, is.
    """
    wholes = [PaneStatistic.merged(panes) for panes in before if panes]
    whole = PaneStatistic.merged(window)
    records = sum(one.records for one in wholes)
    if whole.records < FEWEST_RECORDS:
        return RollingScore("too few records", len(wholes), records, alpha)
    if len(wholes) < FEWEST_WINDOWS or records < whole.records:
        return RollingScore("too few windows", len(wholes), records, alpha)
    pools = _pools(window, [panes for panes in before if panes])
    counts, reference = whole.counts(), np.sum([one.counts() for one in wholes], axis=0)
    js = np.nan_to_num(jensen_shannon(counts, reference))
    own = _between_blocks([one.counts() for one in wholes])
    parts = baseline.watched
    seed = int(baseline.digest[:15], 16) ^ whole.records
    scores = tuple(_judge(part, pools, js, own, alpha / len(parts), seed) for part in parts)
    return RollingScore("ok", len(wholes), records, alpha, scores)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Units that may change places: counts (U, D, B + 1), the first ``own`` of them the window's."""

    units: NDArray[np.int32]
    own: int


def _pools(window: Sequence[PaneStatistic], before: Sequence[Sequence[PaneStatistic]]) -> tuple[_Pool, ...]:
    """Single records and sequences apart, as far as the window has them."""
    found = []
    singles, sequences = _units(window)
    earlier = [_units(panes) for panes in before]
    for kind, own in enumerate((singles, sequences)):
        if not own:
            continue
        together = -(-len(own) // MOST_UNITS)
        mine = _added(own, together)
        others = [unit for each in earlier for unit in _added(each[kind], together)]
        found.append(_Pool(np.stack([*mine, *others]).astype(np.int32), len(mine)))
    return tuple(found)


def _units(panes: Sequence[PaneStatistic]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Each pane's single records, and each sequence's records in all panes, as counts (D, B + 1)."""
    singles: list[NDArray[np.int64]] = []
    sequences: dict[str, NDArray[np.int64]] = {}
    for pane in panes:
        for group in pane.groups():
            if not group.sequence:
                singles.append(group.counts)
            elif group.sequence in sequences:
                sequences[group.sequence] = sequences[group.sequence] + group.counts
            else:
                sequences[group.sequence] = group.counts
    return singles, list(sequences.values())


def _added(units: Sequence[NDArray[np.int64]], together: int) -> list[NDArray[np.int64]]:
    return [np.sum(units[i : i + together], axis=0) for i in range(0, len(units), together)]


def _judge(
    part: SignalColumns,
    pools: tuple[_Pool, ...],
    js: NDArray[np.float64],
    own: NDArray[np.float64],
    share: float,
    seed: int,
) -> RollingSignal:
    span = slice(part.start, part.stop)
    lowest = 1.0
    for pool in pools:
        lowest *= lowest_p_value(pool.own, max(len(pool.units) - pool.own, 1))
    p_value = 1.0
    for most, settled in ((QUICK_EXCHANGES, DOUBTED), (EXCHANGES, 10 * share), (MANY_EXCHANGES, 0.0)):
        exchanged = _exchange(pools, span, most, seed)
        p_value = max(_rank(exchanged), lowest)
        if p_value > max(settled, share):
            break
    shown, far = float(js[span].max()), 0.0
    total = 0.0
    if len(own):
        far = float(np.quantile(own[:, span].max(1), QUANTILE))
        total = float(np.quantile(own[:, span].sum(1), QUANTILE))
    matters = shown > TWICE_AS_FAR * far or float(js[span].sum()) > TWICE_AS_FAR * total
    return RollingSignal(part.signal, shown, p_value, far, alarm=p_value <= share and shown > 0 and matters)


def _rank(exchanged: NullStatistics) -> float:
    """p-value of row 0 among the others: the tail beyond them, and never less than what is counted there."""
    beyond, counted = (SignalLaw.exact(exchanged, 0, exchanged.g.shape[1], counted=only) for only in (False, True))
    p_value = beyond.p_value(exchanged.g[0], exchanged.a[0])
    seen = counted.p_value(exchanged.g[0], exchanged.a[0])
    return max(p_value, seen) if seen > 1.5 / len(exchanged.g) else p_value


def _between_blocks(windows: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(K, D) js of each of up to eight blocks of the earlier windows against the rest of them."""
    blocks = [np.sum(part, axis=0) for part in np.array_split(np.stack(windows), min(BLOCKS, len(windows)))]
    counts = np.stack(blocks)
    return np.nan_to_num(jensen_shannon(counts, counts.sum(0) - counts))


def _exchange(pools: tuple[_Pool, ...], columns: slice, most: int, seed: int) -> NullStatistics:
    """G and A of ``most`` exchanges; row 0 is the window as it is."""
    rng = np.random.default_rng(seed)
    units = [np.ascontiguousarray(pool.units[:, columns]) for pool in pools]
    everything = np.sum([each.sum(0, dtype=np.int64) for each in units], axis=0)
    numbers = np.arange(1 + min(int(everything[0].sum()), MOST_TABLED), dtype=np.float64)
    table = xlogy(numbers, numbers)
    found: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    finite = np.zeros(len(everything), dtype=np.bool_)
    for start in range(0, most + 1, STEP):
        inside = np.zeros((min(STEP, most + 1 - start), *everything.shape), dtype=np.int64)
        for each, pool in zip(units, pools, strict=True):
            chosen = rng.random((len(inside), len(each))).argpartition(pool.own - 1, axis=1)[:, : pool.own]
            if not start:
                chosen[0] = np.arange(pool.own)
            _add(inside, each, chosen)
        if not start:  # values that are not finite are new, or are not: the frozen baseline judges that
            finite = (everything - inside[0])[:, -1] == 0
        found.append(_statistics(inside, everything, finite, table))
    return NullStatistics(np.concatenate([g for g, _ in found]), np.concatenate([a for _, a in found]))


@njit(cache=True, nogil=True)
def _add(inside: Any, units: Any, chosen: Any) -> None:  # pragma: no cover
    """Add to each row (R, D, B + 1) the units (U, D, B + 1) that are chosen (R, J) for it."""
    for row in range(len(inside)):
        for unit in chosen[row]:
            for d in range(inside.shape[1]):
                for k in range(inside.shape[2]):
                    inside[row, d, k] += units[unit, d, k]


@njit(cache=True, nogil=True)
def _xlogx(x: Any, table: Any) -> Any:  # pragma: no cover
    return table[x] if x < len(table) else x * np.log(x)


@njit(cache=True, nogil=True)
def _statistics(inside: Any, everything: Any, finite: Any, table: Any) -> Any:  # pragma: no cover
    """G and A (R, D) of `detectors.divergence` between ``inside`` (R, D, B + 1) and what that leaves of everything;
    ``finite`` columns without their last cell."""
    rows, dimensions, cells = inside.shape
    g, a = np.zeros((rows, dimensions)), np.zeros((rows, dimensions))
    for row in range(rows):
        for d in range(dimensions):
            used = cells - 1 if finite[d] else cells
            n, total = 0, 0
            for k in range(used):
                n += inside[row, d, k]
                total += everything[d, k]
            if n == 0 or n == total:
                continue
            whole = _xlogx(total, table) - _xlogx(n, table) - _xlogx(total - n, table)
            unordered, ordered, below, below_all = whole, 0.0, 0, 0
            for k in range(used):
                c, e = inside[row, d, k], everything[d, k]
                unordered += _xlogx(c, table) + _xlogx(e - c, table) - _xlogx(e, table)
                below += c
                below_all += e
                if k < used - 1:
                    ordered += whole + _xlogx(below, table) + _xlogx(below_all - below, table)
                    ordered += _xlogx(n - below, table) + _xlogx(total - n - below_all + below, table)
                    ordered -= _xlogx(below_all, table) + _xlogx(total - below_all, table)
            g[row, d], a[row, d] = max(2 * unordered, 0.0), max(2 * ordered, 0.0)
    return g, a
