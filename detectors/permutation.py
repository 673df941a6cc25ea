"""Sequences of window and baseline change places: the test where they are few, and the last word elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.divergence import cumulative_statistic, g_statistic
from detectors.resampling import NullStatistics

MOST_EXCHANGES = 2000
"""Of all ways to pick the window's sequences out of the pool, at most this many are tried."""
MOST_POOLED = 1024
"""Sequences of the baseline that take part, or twice those of the window where that is more."""
BLOCK_CELLS = 1 << 20


def exchange(
    baseline: BaselineStatistic,
    window: Sequence[NDArray[np.int64]],
    columns: slice = slice(None),
    most: int = MOST_EXCHANGES,
) -> NullStatistics:
    """Statistics of exchanges of sequences between window and baseline, at most ``most``; row 0 is the window as it is.

    ``window`` holds the counts (D, B + 1) of each of its sequences; ``columns`` picks those to calculate.

    Without drift any J of the M + J sequences could have been the window, so the rank of row 0 among all rows is a
    p-value without any approximation, down to ``1 / C(M + J, J)`` or 1 in ``most`` + 1. Drawing windows from the
    baseline's sequences (`detectors.resampling`) needs many: one that is itself part of a small baseline stands out
    far less than a new one does, and no drawn window holds what the baseline has not seen.
    A baseline sequence stands in as a run, from its middle, of the typical length of the window's.
    """
    size = np.mean([counts[0].sum() for counts in window])
    cells = baseline.binning.cells
    always_finite = baseline.counts[columns, -1] == 0
    runs, wholes = [counts[columns].astype(np.float64) for counts in window], []
    seed = int(baseline.digest[:15], 16)
    ends = baseline.sample.independent + np.cumsum(baseline.sample.lengths)
    for number in _pooled(len(ends), len(window), seed):
        length = int(baseline.sample.lengths[number])
        rows = baseline.sample.codes[ends[number] - length : ends[number], columns]
        take = min(length, max(1, round(size)))
        first = (length - take) // 2
        runs.append(_count(rows[first : first + take], cells) * (size / take))
        wholes.append(_count(rows, cells))
    typical = float(np.mean([counts[0].sum() for counts in wholes]))
    wholes = [counts * (typical / counts[0].sum()) for counts in runs[: len(window)]] + wholes
    short, full = np.stack(runs), np.stack(wholes)
    short[:, always_finite, -1] = 0.0
    full[:, always_finite, -1] = 0.0
    everything = full.sum(0)
    g, a = [], []
    for chosen in _picks(len(short), len(window), most, max(1, BLOCK_CELLS // max(full[0].size, len(short))), seed):
        inside, outside = np.tensordot(chosen, short, 1), everything - np.tensordot(chosen, full, 1)
        # What is left of a cell that is empty once its sequences are inside is rounding.
        outside[np.abs(outside) < 1e-6] = 0.0
        g.append(np.nan_to_num(g_statistic(inside, outside)))
        a.append(np.nan_to_num(cumulative_statistic(inside, outside)))
    return NullStatistics(np.concatenate(g), np.concatenate(a))


def _pooled(sequences: int, window: int, seed: int) -> NDArray[np.int64]:
    """The baseline's sequences that take part, ascending."""
    most = max(MOST_POOLED, 2 * window)
    if sequences <= most:
        return np.arange(sequences)
    return np.sort(np.random.default_rng(seed).choice(sequences, most, replace=False))


def _count(codes: NDArray[np.uint8], cells: int) -> NDArray[np.float64]:
    dimensions = codes.shape[1]
    flat = codes + np.arange(0, dimensions * cells, cells)
    return np.bincount(flat.ravel(), minlength=dimensions * cells).reshape(dimensions, cells).astype(np.float64)


def _picks(pool: int, size: int, most: int, step: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Blocks (at most ``step``, pool), 1 for the units that make up the window: the first ``size``, then other ways."""
    observed = tuple(range(size))
    rng = np.random.default_rng(seed)
    others = (
        [pick for pick in combinations(range(pool), size) if pick != observed] if comb(pool, size) <= most else None
    )
    total = 1 + (most if others is None else len(others))
    for start in range(0, total, step):
        stop = min(total, start + step)
        picked = np.zeros((stop - start, pool))
        head = int(start == 0)
        picked[:head, :size] = 1.0
        count = stop - start - head
        if count:
            chosen = (
                rng.random((count, pool)).argpartition(size - 1, axis=1)[:, :size]
                if others is None
                else np.array(others[start - 1 + head : stop - 1])
            )
            np.put_along_axis(picked[head:], chosen, 1.0, axis=1)
        yield picked
