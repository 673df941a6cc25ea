"""A window's verdict: how far it is from the baseline, whether that can be chance, and what carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
from numpy.typing import NDArray

from detectors.attribution import ColumnShare, by_kind, column_shares, signal_shares
from detectors.baseline import BaselineStatistic
from detectors.divergence import (
    cumulative_statistic,
    g_statistic,
    jensen_shannon,
    kullback_leibler,
    used_bins,
)
from detectors.layout import SignalColumns
from detectors.nulls import SignalLaw, laws, lowest_p_value, missing_p_value
from detectors.permutation import MOST_EXCHANGES, exchange
from detectors.resampling import WindowShape, coarse
from detectors.statistic import Group, PaneStatistic
from detectors.unevenness import Unevenness

__all__ = ["BaselineStatistic", "DimensionScore", "SignalScore", "WindowScore", "score_window"]

FEWEST_RECORDS = 5
"""Below this no p-value is given: with four records even a bin that the baseline never filled proves little."""
FEWEST_SEQUENCES = 3
"""Windows of fewer are judged by exchanging sequences: drawn laws give 13 % alarms at a nominal 2 %."""
FEWEST_BASELINE_SEQUENCES = 30
"""Baselines of fewer as well: drawn laws give 1.6 % at a nominal 1 % with 20 sequences, 6 % with 10."""
MOST_EXCHANGED = 512
"""A window of more sequences is judged by a drawn law in any case, which small baselines make too generous."""
DOUBTED = 0.01
"""p-values from here on, and all that would alarm, have to stand when sequences are exchanged."""
MOST_CONFIRMED = 2048
"""The same, for windows of up to so many sequences."""
QUICK_EXCHANGES, EXCHANGES = 500, 4000
"""The few settle what is clear."""
MOST_NEEDED = 1 << 20
HIGHEST_ALPHA = 0.05
"""Where sequences support no lower rate than this, nothing alarms: one window in twenty would be noise, not news."""


@dataclass(frozen=True, slots=True)
class DimensionScore:
    """One column of a signal. ``p_value`` is its own, approximate, as if the others had not been looked at."""

    dimension: str
    js: float
    p_value: float


@dataclass(frozen=True, slots=True)
class SignalScore:
    """What one signal says about a window.

    ``js`` (bits, 0..1) and ``kl_nats`` are those of the dimension with the largest js. A marginal's divergence never
    exceeds the joint distribution's, so the largest one is the best lower bound there is for the signal as a whole;
    a mean over 32 components would hide that one of them has gone.
    """

    signal: str
    js: float
    kl_nats: float
    p_value: float | None
    """None where the window has too few records for one."""
    threshold: float | None
    """The js at which the signal alarms: what its most moved dimension alone would have to reach, or less where other
    evidence (many dimensions by a little) alarms already. ``alarm`` holds exactly where js > 0 reaches it."""
    baseline_js: float
    """The js that the baseline's own blocks reach against the rest of it: a shift that matters is larger."""
    design_effect: float
    """Mean G without drift over its degrees of freedom: 1 for independent records, more where they are not."""
    alarm: bool
    dimensions: tuple[DimensionScore, ...]


@dataclass(frozen=True, slots=True)
class WindowScore:
    """The verdict on one window, all signals together."""

    records: int
    sequences: int
    status: str
    """"ok", or why there is no verdict: "empty"; "too few records" or "too few sequences" for a p-value; or
    "unsupported", where there are p-values but the sequences support no rate of alarms below `HIGHEST_ALPHA`."""
    alarm: bool
    alpha: float
    """The rate of false alarms that was asked for, of the window over all signals."""
    supported_alpha: float
    """The lowest rate that the number of sequences supports. Where it is above ``alpha``, the verdict works at it."""
    sequences_needed: int | None
    """How many more independent units (sequences, or records where there are none) the baseline needs to support
    ``alpha`` for a window like this one: 0 where it does, None where the window has too few itself."""
    scores: tuple[SignalScore, ...]
    attribution: tuple[tuple[str, float], ...]
    """Signals and their shares of the alarm, largest first, adding up to 1; empty without an alarm."""
    dimensions: tuple[ColumnShare, ...]
    """The same by column."""


def score_window(baseline: BaselineStatistic, window: PaneStatistic, alpha: float) -> WindowScore:
    """Compare a window with its baseline.

    The window's rate of false alarms ``alpha`` is shared evenly by the signals (Bonferroni): a signal alarms where
    its p-value is at most its share, and the divergence is larger than those of the baseline's own blocks
    (`detectors.unevenness`), of one column or of all together. Records of one sequence are no independent observations:
    the law of windows without drift is drawn with whole runs of the baseline's sequences (`detectors.resampling`).
    Where the baseline has no sequences, nothing is known of the dependence within one, and each of the window's
    counts as a single record.

    Raises:
        ValueError: ``alpha`` outside (0, 1), or a window counted on other bins than the baseline's.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if window.dimensions != baseline.layout.width or window.bins != baseline.binning.bins:
        raise ValueError(
            f"baseline has {baseline.layout.width} dimensions of {baseline.binning.bins} bins, "
            f"window has {window.dimensions} of {window.bins}"
        )
    shape = _shape(baseline, window)
    columns = baseline.watched
    lowest = _lowest(baseline, shape)
    supported = min(1.0, len(columns) * lowest)
    status = _status(window, shape)
    attribution: tuple[tuple[str, float], ...] = ()
    dimensions: tuple[ColumnShare, ...] = ()
    scores: tuple[SignalScore, ...] = ()
    if status == "ok" and supported > max(alpha, HIGHEST_ALPHA):
        status = "unsupported"
    if status != "empty":
        counts = window.counts()
        comparison = _Comparison.of(counts, baseline, shape.records / window.records)
        if status in ("ok", "unsupported") and columns:
            share = max(alpha / len(columns), lowest) if status == "ok" else 0.0
            missing = [_missing(part, baseline, window, counts, shape) for part in columns]
            comparison, laws_of = _laws(baseline, window, shape, comparison, columns)
            uneven = baseline.unevenness
            p_values = [
                part_law.p_value(comparison.g[part.start : part.stop], comparison.a[part.start : part.stop])
                for part, part_law in zip(columns, laws_of, strict=True)
            ]
            if not _exchanges(len(baseline.sample.lengths), shape):
                p_values = _confirmed(baseline, window, columns, p_values, share)
            judged = zip(columns, laws_of, p_values, missing, strict=True)
            scores = tuple(
                _judge(part, comparison, law, p, lost, share, lowest, uneven) for part, law, p, lost in judged
            )
            attribution, dimensions = _attribution(baseline, counts, columns, comparison, laws_of, scores)
        else:
            scores = tuple(_unjudged(part, comparison, baseline.unevenness) for part in columns)
    alarm = any(score.alarm for score in scores)
    needed = _needed(baseline, shape, alpha / max(len(columns), 1)) if supported > alpha else 0
    return WindowScore(
        window.records,
        window.sequences,
        status,
        alarm,
        alpha,
        supported,
        needed,
        scores,
        attribution,
        dimensions,
    )


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Every column's divergences and statistics, (D,) each."""

    js: NDArray[np.float64]
    kl: NDArray[np.float64]
    g: NDArray[np.float64]
    a: NDArray[np.float64]
    js_noise: float
    """js for one unit of G, and what G's degrees of freedom take off: js is about ``js_noise * (G - freedom)``."""
    freedom: NDArray[np.int64]

    @classmethod
    def of(cls, counts: NDArray[np.int64], baseline: BaselineStatistic, weight: float) -> _Comparison:
        # Values that are not finite, in columns where the baseline has none, are judged once by `missing_p_value`:
        # a broken embedding is one event, not one in each of its 32 components.
        regular = counts * weight
        regular[baseline.counts[:, -1] == 0, -1] = 0.0
        n, m = float(counts[0].sum()) * weight if len(counts) else 1.0, float(baseline.records)
        used = used_bins(counts, baseline.counts)
        return cls(
            js=jensen_shannon(counts * weight, baseline.counts),
            kl=kullback_leibler(counts * weight, baseline.counts),
            g=np.nan_to_num(g_statistic(regular, baseline.counts)),
            a=np.nan_to_num(cumulative_statistic(regular, baseline.counts)),
            js_noise=(1 / n + 1 / m) / (8 * log(2)),
            freedom=used - 1,
        )

    def excess(self, part: SignalColumns, law: SignalLaw) -> float:
        """By how much G exceeds what it is without drift: over all dimensions, or of the one that exceeds most."""
        over = self.g[part.start : part.stop] - law.g.mean
        return float(max(over.sum(), over.max(), 0.0))


def _shape(baseline: BaselineStatistic, window: PaneStatistic) -> WindowShape:
    sizes = window.sizes()
    independent = sizes.pop("", 0)
    shape = WindowShape(independent, tuple(sorted(sizes.values())))
    return shape if len(baseline.sample.lengths) else WindowShape(shape.units, ())


def _exchanges(baseline_sequences: int, shape: WindowShape) -> bool:
    """Whether sequences are too few, on either side, for drawn laws, and few enough to be exchanged."""
    few = len(shape.sequences) < FEWEST_SEQUENCES or baseline_sequences < FEWEST_BASELINE_SEQUENCES
    return few and 0 < len(shape.sequences) <= MOST_EXCHANGED and shape.independent == 0


def _lowest(baseline: BaselineStatistic, shape: WindowShape) -> float:
    """The lowest p-value that as many sequences or records can support."""
    lowest = lowest_p_value(shape.units, _units(baseline, shape))
    return max(lowest, 1 / (1 + MOST_EXCHANGES)) if _exchanges(len(baseline.sample.lengths), shape) else lowest


def _needed(baseline: BaselineStatistic, shape: WindowShape, p_value: float) -> int | None:
    """How many more units the baseline needs for a p-value as low as this one, for windows of this shape."""
    have, sequences = _units(baseline, shape), len(baseline.sample.lengths)

    def supports(more: int) -> bool:
        exchanged = _exchanges(sequences + more, shape)
        lowest = lowest_p_value(shape.units, have + more)
        return max(lowest, 1 / (1 + MOST_EXCHANGES) if exchanged else 0.0) <= p_value

    most = 1
    while not supports(most):
        if most >= MOST_NEEDED:
            return None
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if supports(middle) else (middle, most)
    return most


def _laws(
    baseline: BaselineStatistic,
    window: PaneStatistic,
    shape: WindowShape,
    comparison: _Comparison,
    columns: Sequence[SignalColumns],
) -> tuple[_Comparison, tuple[SignalLaw, ...]]:
    """The law of each signal, and the statistics to hold against it."""
    if not _exchanges(len(baseline.sample.lengths), shape):
        return comparison, laws(baseline, coarse(shape))
    exchanged = exchange(baseline, [group.counts for group in window.groups()])
    exact = tuple(SignalLaw.exact(exchanged, part.start, part.stop) for part in columns)
    return replace(comparison, g=exchanged.g[0], a=exchanged.a[0]), exact


def _confirmed(
    baseline: BaselineStatistic,
    window: PaneStatistic,
    columns: Sequence[SignalColumns],
    p_values: Sequence[float],
    share: float,
) -> list[float]:
    """Low p-values have to stand when the window's sequences are exchanged with the baseline's, too.

    No window drawn from the baseline holds what the baseline has not seen, so that a single sequence in a cell that
    was empty, which every tenth window may have, looks impossible to the drawn law. Records without a sequence are so
    many that cells hardly stay empty.
    """
    confirmed = list(p_values)
    doubted = [index for index, p_value in enumerate(p_values) if p_value <= max(share, DOUBTED)]
    if not doubted or not 1 <= window.sequences <= MOST_CONFIRMED or not len(baseline.sample.lengths):
        return confirmed
    groups = list(window.groups())
    alone = _independent(baseline, groups, columns)
    sequences = [group.counts for group in groups if group.sequence]
    for index in doubted:
        part, other = columns[index], alone[index]
        span = slice(part.start, part.stop)
        p_value = 1.0
        for most in (QUICK_EXCHANGES, EXCHANGES):
            exchanged = exchange(baseline, sequences, span, most)
            law = SignalLaw.exact(exchanged, 0, part.stop - part.start, counted=False)
            p_value = law.p_value(exchanged.g[0], exchanged.a[0])
            if not share / 100 < p_value < 10 * share:
                break
        # Either kind of record may carry what has changed.
        confirmed[index] = max(p_values[index], p_value if other is None else min(1.0, 2 * min(other, p_value)))
    return confirmed


def _independent(
    baseline: BaselineStatistic, groups: Sequence[Group], columns: Sequence[SignalColumns]
) -> list[float | None]:
    """p-value of each signal over the records without a sequence alone; None where they are too few."""
    single = [group for group in groups if not group.sequence and group.records >= FEWEST_RECORDS]
    if not single:
        return [None] * len(columns)
    comparison = _Comparison.of(single[0].counts, baseline, 1.0)
    signal_laws = laws(baseline, coarse(WindowShape(single[0].records, ())))
    return [
        law.p_value(comparison.g[part.start : part.stop], comparison.a[part.start : part.stop])
        for part, law in zip(columns, signal_laws, strict=True)
    ]


def _attribution(
    baseline: BaselineStatistic,
    counts: NDArray[np.int64],
    columns: Sequence[SignalColumns],
    comparison: _Comparison,
    signal_laws: tuple[SignalLaw, ...],
    scores: tuple[SignalScore, ...],
) -> tuple[tuple[tuple[str, float], ...], tuple[ColumnShare, ...]]:
    """Shares by signal and by column; signals whose own p-value is above 0.05 have none. Empty without an alarm."""
    alarming = [score.signal for score in scores if score.alarm]
    if not alarming:
        return (), ()
    weights = {
        part.signal: comparison.excess(part, law)
        for part, law, score in zip(columns, signal_laws, scores, strict=True)
        if score.alarm or (score.p_value is not None and score.p_value <= 0.05)
    }
    carriers = by_kind(weights)
    shares = signal_shares({kind: weights[signal] for kind, signal in carriers.items()}, list(carriers))
    expected = np.zeros(len(comparison.g))
    for part, law in zip(columns, signal_laws, strict=True):
        expected[part.start : part.stop] = law.g.mean
    parts = {part.signal: part for part in columns}
    named = {kind: parts[signal] for kind, signal in carriers.items()}
    return shares, column_shares(shares, named, comparison.g - expected, counts, baseline)


def _judge(
    part: SignalColumns,
    comparison: _Comparison,
    law: SignalLaw,
    p_value: float,
    missing: float | None,
    share: float,
    floor: float,
    uneven: Unevenness,
) -> SignalScore:
    span = slice(part.start, part.stop)
    g, a, js = comparison.g[span], comparison.a[span], comparison.js[span]
    if missing is not None:
        p_value = min(1.0, 2 * min(p_value, missing))
    p_value = max(p_value, floor)
    top = int(np.argmax(js))
    shown = float(js[top])
    own = uneven.largest(part.start, part.stop)
    matters = shown > own or float(js.sum()) > uneven.total(part.start, part.stop)
    alarm = p_value <= share and shown > 0 and matters
    threshold = None
    if share > 0:
        needed = comparison.js_noise * (law.critical_g(share) - comparison.freedom[span])
        bound = float(np.clip(max(needed[top], own), 0.0, 1.0))
        threshold = min(bound, shown) if alarm else max(bound, float(np.nextafter(shown, 2)))
    return SignalScore(
        signal=part.signal,
        js=shown,
        kl_nats=float(comparison.kl[span][top]),
        p_value=p_value,
        threshold=threshold,
        baseline_js=own,
        design_effect=float(np.sum(law.g.mean) / max(1, comparison.freedom[span].sum())),
        alarm=alarm,
        dimensions=_dimensions(part, js, law.dimension_p_values(g, a)),
    )


def _unjudged(part: SignalColumns, comparison: _Comparison, uneven: Unevenness) -> SignalScore:
    """Divergences without a verdict: they are shown, with no p-value and no alarm."""
    js = comparison.js[part.start : part.stop]
    top = int(np.argmax(js))
    kl, own = float(comparison.kl[part.start + top]), uneven.largest(part.start, part.stop)
    return SignalScore(part.signal, float(js[top]), kl, None, None, own, 1.0, alarm=False, dimensions=())


def _dimensions(
    part: SignalColumns, js: NDArray[np.float64], p_values: NDArray[np.float64]
) -> tuple[DimensionScore, ...]:
    return tuple(DimensionScore(*row) for row in zip(part.dimensions, js.tolist(), p_values.tolist(), strict=True))


def _missing(
    part: SignalColumns,
    baseline: BaselineStatistic,
    window: PaneStatistic,
    counts: NDArray[np.int64],
    shape: WindowShape,
) -> float | None:
    """p-value of values that are not finite in columns that always had one; None where there are none."""
    new = np.zeros(len(counts), dtype=bool)
    new[part.start : part.stop] = baseline.counts[part.start : part.stop, -1] == 0
    if not counts[new, -1].any():
        return None
    units = 0
    for group in window.groups():
        most = int(group.counts[new, -1].max())
        units += most if group.sequence == "" else min(most, 1)
    return missing_p_value(units, shape.units if window.sequences else window.records, _units(baseline, shape))


def _units(baseline: BaselineStatistic, shape: WindowShape) -> int:
    """Independent observations that the baseline sets against a window of this shape."""
    if not shape.sequences:
        return baseline.independent_records + baseline.sequences
    return len(baseline.sample.lengths) + (baseline.sample.independent if shape.independent else 0)


def _status(window: PaneStatistic, shape: WindowShape) -> str:
    if window.records == 0:
        return "empty"
    if window.records < FEWEST_RECORDS:
        return "too few records"
    return "ok" if shape.records >= FEWEST_RECORDS else "too few sequences"
