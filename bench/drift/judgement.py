"""What a contender said of a case's windows, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Judgement:
    """One entry a window, in the order of the case; fewer where the time was up. None: the method gives no such."""

    windows: int
    alarms: Sequence[bool] | None
    p_values: Sequence[float] | None
    scores: Sequence[float] | None
    """Larger is further from the baseline; only their order is used."""
    paths: Sequence[Sequence[tuple[int, float]]] | None = None
    """Of online detectors: the records of their running statistic (`bench.drift.peers.protocol.climb`)."""
    failure: str = ""
    """Why there is nothing, where there is nothing."""

    def alarm_rate(self) -> float | None:
        return float(np.mean(self.alarms)) if self.alarms else None

    def share_of_small_p(self, alpha: float) -> float | None:
        """Share of p-values at or below ``alpha``."""
        return float(np.mean(np.asarray(self.p_values) <= alpha)) if self.p_values else None


def threshold(scores: Sequence[float], rate: float) -> float:
    """The score that at most a share ``rate`` of drift-free windows exceeds.

    The (k+1)-th largest with ``k = floor(rate * windows)``: k of these windows would have alarmed.

    >>> threshold([1.0, 2.0, 3.0, 4.0], 0.25)
    3.0
    """
    if not scores:
        raise ValueError("no drift-free windows to set a threshold on")
    ordered = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    return float(ordered[min(int(rate * len(ordered) + 1e-9), len(ordered) - 1)])


def power(drift_free: Judgement, drifted: Judgement, rate: float) -> float | None:
    """Share of drifted windows above the threshold that the drift-free ones set; None for methods without scores."""
    if not drift_free.scores or not drifted.scores:
        return None
    return float(np.mean(np.asarray(drifted.scores) > threshold(drift_free.scores, rate)))


def binomial_error(share: float, windows: int) -> float:
    """Standard error of a share; that of about one window where none or all are in it.

    >>> round(binomial_error(0.01, 900), 4)
    0.0033
    """
    inner = min(max(share, 1 / (windows + 2)), 1 - 1 / (windows + 2))
    return float(np.sqrt(inner * (1 - inner) / windows))


def first_at_or_above(path: Sequence[tuple[int, float]], limit: float, cap: int) -> int:
    """Records until the running statistic reaches the limit; ``cap`` where it never does.

    >>> first_at_or_above([(1, 0.0), (7, 2.0)], 1.5, 100), first_at_or_above([(1, 0.0)], 1.5, 100)
    (7, 100)
    """
    return next((seen for seen, value in path if value >= limit), cap)


def limit_for(paths: Sequence[Sequence[tuple[int, float]]], run_length: float, cap: int) -> float | None:
    """The lowest limit whose mean run length, runs cut at ``cap``, is at least ``run_length``; None: there is none."""
    limits = sorted({value for path in paths for _, value in path})
    low, high = 0, len(limits)
    while low < high:  # the mean grows with the limit
        middle = (low + high) // 2
        mean = np.mean([first_at_or_above(path, limits[middle], cap) for path in paths])
        low, high = (low, middle) if mean >= run_length else (middle + 1, high)
    return limits[low] if low < len(limits) else None
