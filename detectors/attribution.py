"""What carries an alarm: shares of the excess evidence by signal, by column, by slice, and the bins that changed.

Evidence is G in nats, so signals of few and of many columns compare; its excess is what lies above the expectation
without drift. Shares of each kind add up to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.divergence import g_statistic, used_bins
from detectors.layout import SignalColumns
from detectors.statistic import PaneStatistic

SHOWN_COLUMNS = 5
"""Columns whose bins are shown."""
SHOWN_CHANGE = 0.02
"""Bins are shown that gained or lost this share of the records."""


@dataclass(frozen=True, slots=True)
class BinChange:
    """A bin ``[lower, upper)`` of a column; None stands for an open end, both None for values that are not finite."""

    lower: float | None
    upper: float | None
    window: float
    """Share of the window's records, 0..1."""
    baseline: float


@dataclass(frozen=True, slots=True)
class ColumnShare:
    """One column's share of an alarm. ``bins``: those that changed most, for the first few columns alone."""

    signal: str
    dimension: str
    share: float
    bins: tuple[BinChange, ...]


VIEWS = {"embedding_mmd": "embedding", "embedding_clusters": "embedding", "class_score": "confidence"}
"""Signals that look at the same values as another one does; what they see is counted once, as that one's."""


def by_kind(weights: Mapping[str, float]) -> dict[str, str]:
    """For each signal that views are counted as, the view that carries most: {"embedding": "embedding_mmd"}."""
    chosen: dict[str, str] = {}
    for signal in sorted(weights, key=lambda name: (-weights[name], name)):
        chosen.setdefault(VIEWS.get(signal, signal), signal)
    return chosen


def signal_shares(weights: Mapping[str, float], alarming: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Shares by signal from each one's excess, largest first; alike for those that alarm where there is no excess.

    A shift to one side may show in A alone and leave no excess in G.
    """
    chosen = dict(weights) if sum(weights.values()) > 0 else dict.fromkeys(alarming, 1.0)
    total = sum(chosen.values())
    shares = ((signal, weight / total) for signal, weight in chosen.items())
    return tuple(sorted(shares, key=lambda pair: (-pair[1], pair[0])))


def column_shares(
    shares: Sequence[tuple[str, float]],
    carriers: Mapping[str, SignalColumns],
    excess: NDArray[np.float64],
    counts: NDArray[np.int64],
    baseline: BaselineStatistic,
) -> tuple[ColumnShare, ...]:
    """Each signal's share handed down to the columns of ``carriers``, its own or those of one of its views.

    ``excess``: (D,) G above its expectation; ``counts``: (D, B + 1) of the window.
    """
    found: list[tuple[float, str, str, int]] = []
    for signal, share in shares:
        part = carriers[signal]
        over = np.maximum(excess[part.start : part.stop], 0.0)
        if not over.any():
            over = np.ones_like(over)
        parts = share * over / over.sum()
        found += [
            (float(each), part.signal, name, part.start + i)
            for i, (name, each) in enumerate(zip(part.dimensions, parts, strict=True))
            if each > 0
        ]
    found.sort(key=lambda row: (-row[0], row[3]))
    return tuple(
        ColumnShare(signal, name, share, _changes(counts[at], baseline, at) if place < SHOWN_COLUMNS else ())
        for place, (share, signal, name, at) in enumerate(found)
    )


def slice_shares(
    slices: Mapping[str, tuple[BaselineStatistic, PaneStatistic]], design_effects: Mapping[str, float]
) -> tuple[tuple[str, float], ...]:
    """Shares by slice of one key (camera 1, camera 2, ...), largest first.

    ``design_effects``: by signal that carries the alarm, its mean G over the degrees of freedom in windows without
    drift, above 1 where records depend on each other. A slice's expectation is taken as that multiple of its degrees of
    freedom: what its own law would say, without drawing one for each of many slices.
    """
    weights: dict[str, float] = {}
    for name, (baseline, window) in slices.items():
        counts = window.counts()
        g = np.nan_to_num(g_statistic(counts, baseline.counts))
        freedom = used_bins(counts, baseline.counts) - 1
        spans = [part for part in baseline.layout.signals if part.signal in design_effects]
        weights[name] = sum(
            max(0.0, float((g - design_effects[part.signal] * freedom)[part.start : part.stop].sum())) for part in spans
        )
    total = sum(weights.values())
    if not total > 0:
        return ()
    shares = ((name, weight / total) for name, weight in weights.items() if weight > 0)
    return tuple(sorted(shares, key=lambda pair: (-pair[1], pair[0])))


def _changes(counts: NDArray[np.int64], baseline: BaselineStatistic, column: int) -> tuple[BinChange, ...]:
    own = baseline.counts[column]
    window, before = counts / max(counts.sum(), 1), own / max(own.sum(), 1)
    edges = baseline.binning.edges[column]
    changes = []
    for k in np.flatnonzero(np.abs(window - before) >= SHOWN_CHANGE).tolist():
        finite = k < len(own) - 1
        lower = float(edges[k - 1]) if finite and k > 0 else None
        upper = float(edges[k]) if finite and k < len(edges) and np.isfinite(edges[k]) else None
        changes.append(BinChange(lower, upper, float(window[k]), float(before[k])))
    return tuple(changes)
