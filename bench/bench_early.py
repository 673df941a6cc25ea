"""Early detection as it runs in service: false alarms in 30 days, and how soon a shift is seen. Prints, writes JSON.

`monitor.early_feed.Feed` is given a pane of 20 records every five minutes, 64 columns in four signals, a baseline of
10,000 records of its own for every run, and a fifth of one false alarm in 30 days: a run length of 864,000 records.
Columns are independent normals; frames come in sequences of ten, AR(1) 0.9. What reaches the run length counts,
whatever its size. A shift, in standard deviations, comes after a quiet day; a run ends a day after it.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray

from bench.rig import write_result
from detectors.baseline import BaselineStatistic
from detectors.layout import Layout
from detectors.statistic import PaneStatistic
from detectors.units import BaselineUnits
from monitor.early_feed import Feed

COLUMNS, SIGNALS, BINS, FRAMES, RECORDS = 64, 4, 16, 10, 10_000
PANE_US, PANES_PER_DAY, PER_PANE, BUDGET = 300_000_000, 288, 20, 0.2
SHIFTS = {"single": ((1, 1.0), (1, 0.5), (64, 0.25)), "sequences": ((1, 1.0), (64, 0.5))}
"""Columns and standard deviations."""


def layout() -> Layout:
    width = COLUMNS // SIGNALS
    return Layout.stacked([(f"signal_{s}", [f"column_{k}" for k in range(width)]) for s in range(SIGNALS)])


class Run:
    """One model's traffic and its test."""

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._rng, self._pane = kind, np.random.default_rng([seed, len(kind)]), 0
        self._baseline = BaselineStatistic.fit(layout(), self._values(RECORDS), self._names(RECORDS))
        self.feed = Feed(BaselineUnits(self._baseline), PANE_US, BUDGET, lambda _: True)

    def _values(self, records: int) -> NDArray[np.float64]:
        if self._kind == "single":
            return self._rng.normal(size=(records, COLUMNS))
        x = self._rng.normal(size=(records // FRAMES, COLUMNS))
        frames = []
        for _ in range(FRAMES):
            x = 0.9 * x + math.sqrt(1 - 0.81) * self._rng.normal(size=x.shape)
            frames.append(x)
        return np.stack(frames, axis=1).reshape(records, COLUMNS)

    def _names(self, records: int) -> list[str]:
        return [f"{self._pane}-{k // FRAMES}" if self._kind == "sequences" else "" for k in range(records)]

    def panes(self, number: int, shift: NDArray[np.float64] | float = 0.0) -> int:
        """Feed so many; stop at the first alarm. How many were fed."""
        before = len(self.feed.alarms)
        for fed in range(number):
            statistic = PaneStatistic(COLUMNS, BINS)
            codes = self._baseline.binning.codes(self._values(PER_PANE) + shift)
            statistic.add(codes, self._names(PER_PANE))
            self.feed.pane(self._pane * PANE_US, statistic)
            self._pane += 1
            if len(self.feed.alarms) > before:
                return fed + 1
        return number


def delay(kind: str, seed: int, columns: int, sigmas: float) -> float:
    """Minutes from the shift to the alarm."""
    run = Run(kind, seed)
    run.panes(PANES_PER_DAY)
    shift = np.where(np.arange(COLUMNS) < columns, sigmas, 0.0)
    return run.panes(PANES_PER_DAY, shift) * PANE_US / 60e6


def false_alarms(kind: str, seed: int, days: int) -> int:
    run, left = Run(kind, seed), days * PANES_PER_DAY
    while left > 0:
        left -= run.panes(left)
    return len(run.feed.alarms)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=30, help="runs for each shift")
    parser.add_argument("--months", type=int, default=60, help="drift-free months of either kind")
    parser.add_argument("--kinds", nargs="+", choices=SHIFTS, default=tuple(SHIFTS))
    arguments = parser.parse_args()
    result: dict[str, object] = {"runs": arguments.runs, "months": arguments.months}
    for kind in arguments.kinds:
        for columns, sigmas in SHIFTS[kind]:
            found = [delay(kind, seed, columns, sigmas) for seed in range(arguments.runs)]
            name = f"{kind}, {sigmas:g} sigma in {columns}"
            result[name] = {"minutes": float(np.mean(found)), "standard_error": _error(found)}
            print(f"{name}: {np.mean(found):.1f} +- {_error(found):.1f} minutes", flush=True)
        alarms: list[float] = []
        for month in range(arguments.months):
            alarms.append(false_alarms(kind, 10_000 + month, 30))
            told = {"months": len(alarms), "alarms": float(np.mean(alarms)), "standard_error": _error(alarms)}
            result[f"{kind}, 30 days without drift"] = told
            write_result("early", result)
        if alarms:
            print(
                f"{kind}: {np.mean(alarms):.2f} +- {_error(alarms):.2f} in 30 days, {len(alarms)} of them", flush=True
            )
    write_result("early", result)


def _error(values: list[float]) -> float:
    return float(np.std(values) / math.sqrt(len(values)))


if __name__ == "__main__":
    main()
