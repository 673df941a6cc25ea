"""river's detectors, one for each dimension: they have read the baseline, then read the window record by record.

An alarm of any of them while it reads the window is an alarm. They give neither p-values nor scores. KSWIN is left
out: it takes 0.5 ms for each value.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from river import drift

from bench.drift.peers.protocol import Fit, Judge, Setting, Values, Verdict, climb, run

DELTAS = [10.0**-power for power in range(2, 12)]
LIMITS = [50.0 * 1.2**step for step in range(10)]
"""Loose to strict; for every one of them a detector reads each dimension."""


def detectors(kind: type[drift.ADWIN] | type[drift.PageHinkley]) -> Fit:
    def fit(baseline: Values, setting: Setting) -> Judge:
        read = [kind() for _ in range(baseline.shape[1])]
        for each, column in zip(read, baseline.T.tolist(), strict=True):
            for value in column:
                each.update(value)

        def judge(window: Values) -> Verdict:
            return Verdict(_any_alarm(copy.deepcopy(read), window), None, None)

        return judge

    return fit


def _any_alarm(going_on: list[drift.ADWIN] | list[drift.PageHinkley], window: Values) -> bool:
    for each, column in zip(going_on, window.T.tolist(), strict=True):
        for value in column:
            each.update(value)
            if each.drift_detected:
                return True
    return False


def online(make: Callable[[float], drift.ADWIN | drift.PageHinkley], knobs: list[float]) -> Fit:
    """Detectors of all settings side by side: the statistic is the strictest one's rank that has alarmed."""

    def fit(baseline: Values, setting: Setting) -> Judge:
        read = [[make(knob) for knob in knobs] for _ in range(baseline.shape[1])]
        for row, column in zip(read, baseline.T.tolist(), strict=True):
            for value in column:
                for each in row:
                    each.update(value)

        def judge(window: Values) -> Verdict:
            return Verdict(None, None, None, climb(_strictest(copy.deepcopy(read), window)))

        return judge

    return fit


def _strictest(going_on: list[list[drift.ADWIN | drift.PageHinkley]], window: Values) -> Iterator[float]:
    for record in window.tolist():
        reached = -1
        for row, value in zip(going_on, record, strict=True):
            for rank, each in enumerate(row):
                each.update(value)
                if each.drift_detected:
                    reached = max(reached, rank)
        yield float(reached)


if __name__ == "__main__":
    run(
        {"ADWIN": detectors(drift.ADWIN), "Page-Hinkley": detectors(drift.PageHinkley)},
        online={
            "ADWIN": online(lambda delta: drift.ADWIN(delta=delta), DELTAS),
            "Page-Hinkley": online(lambda limit: drift.PageHinkley(threshold=limit), LIMITS),
        },
    )
