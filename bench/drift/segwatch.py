"""Segwatch's verdicts on a case: its public way, from values to counts to a score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.drift import scenarios
from bench.drift.judgement import Judgement
from bench.drift.scenarios import Case
from detectors.layout import Layout
from detectors.score import BaselineStatistic, WindowScore, score_window
from detectors.statistic import PaneStatistic

ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What segwatch said, with what only it says: the rate that the sequences supported."""

    judgement: Judgement
    supported_alpha: float
    statuses: tuple[str, ...]


def layout() -> Layout:
    """All columns of a case as one signal."""
    return Layout.stacked([("embedding", [f"component_{index}" for index in range(scenarios.DIMENSIONS)])])


def fit(case: Case, block: int) -> BaselineStatistic:
    values = scenarios.baseline(case, block)
    return BaselineStatistic.fit(layout(), values, scenarios.sequence_names(len(values), case, "b"))


def verdict(
    baseline: BaselineStatistic, values: NDArray[np.floating], sequences: list[str], alpha: float
) -> WindowScore:
    """One window, from its values (n, D)."""
    window = PaneStatistic(baseline.layout.width, baseline.binning.bins)
    window.add(baseline.binning.codes(values), sequences)
    return score_window(baseline, window, alpha)


def judge(case: Case, alpha: float = ALPHA) -> Verdicts:
    """Every window of the case; the score is minus the logarithm of the p-value."""
    names = scenarios.sequence_names(case.records, case, "w")
    alarms: list[bool] = []
    p_values: list[float] = []
    supported, statuses = 0.0, set()
    for block in range(case.blocks):
        baseline = fit(case, block)
        for values in scenarios.windows(case, block):
            score = verdict(baseline, values, names, alpha)
            p_value = score.scores[0].p_value if score.scores else None
            alarms.append(score.alarm)
            p_values.append(1.0 if p_value is None else p_value)
            supported = max(supported, score.supported_alpha)
            statuses.add(score.status)
    scores = [-math.log(p_value) for p_value in p_values]
    return Verdicts(Judgement(len(alarms), alarms, p_values, scores), supported, tuple(sorted(statuses)))
