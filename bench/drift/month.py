"""Thirty days of traffic without drift, again and again: how many drift alarms a user gets.

An hour has 480 records, 96 of each of five slices that are alike, with 256 embedding components (normal, half of their
variance shared by eight factors), counts of 20 classes (Poisson, means 0.01 to 5), three confidences and the number of
instances, which is the sum of the counts. Every month has fresh baselines of 10,000 records, 2,000 for a slice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.drift.scenarios import generator
from bench.drift.segwatch import verdict
from detectors.layout import Layout
from detectors.score import BaselineStatistic

HOURS, SLICES, SLICE_RECORDS = 720, 5, 96
COMPONENTS, CLASSES, FACTORS = 256, 20, 8
BASELINE_RECORDS = 10_000
BUDGET = 1.0
"""False alarms in 30 days."""


@dataclass(frozen=True, slots=True)
class Month:
    """Alarms of one month's verdicts: on all records of an hour, and on slices."""

    verdicts: int
    all_records: int
    slices: int
    signals: Mapping[str, int]
    """Of both, by the signal that alarmed."""


def alphas() -> tuple[float, float]:
    """Rates for a window of all records and for one of a slice: half of the budget for each kind."""
    share = BUDGET / HOURS / 2
    return share, share / SLICES


def layout() -> Layout:
    return Layout.stacked(
        [
            ("embedding", [f"component_{index}" for index in range(COMPONENTS)]),
            ("confidence", ["mean_score", "lowest_score", "map_confidence"]),
            ("class_mix", [*(f"class_{index}" for index in range(CLASSES)), "<other>"]),
            ("instances", ["instances"]),
        ]
    )


def records(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count, 281) values of records without drift."""
    mixing = np.random.default_rng(21).standard_normal((FACTORS, COMPONENTS))
    mixing *= np.sqrt(0.5) / np.linalg.norm(mixing, axis=0)
    values = np.empty((count, layout().width))
    components = values[:, :COMPONENTS]
    components[:] = rng.standard_normal((count, COMPONENTS), dtype=np.float32)
    components *= np.sqrt(0.5)
    components += rng.standard_normal((count, FACTORS)) @ mixing
    values[:, COMPONENTS] = rng.beta(8, 2, count)
    values[:, COMPONENTS + 1] = values[:, COMPONENTS] * rng.beta(5, 2, count)
    values[:, COMPONENTS + 2] = rng.beta(20, 2, count)
    counts = rng.poisson(np.geomspace(0.01, 5, CLASSES), (count, CLASSES))
    values[:, COMPONENTS + 3 : -2] = counts
    values[:, -2] = 0  # unknown classes
    values[:, -1] = counts.sum(1)
    return values


def simulate(number: int, hours: int = HOURS, seed: int = 0) -> Month:
    """Every hour's verdicts on all records and on each slice."""
    rng = generator(seed, "month", number)
    values = records(rng, BASELINE_RECORDS)
    names = [""] * BASELINE_RECORDS
    whole = BaselineStatistic.fit(layout(), values, names)
    own = [BaselineStatistic.fit(layout(), part, names[: len(part)]) for part in np.array_split(values, SLICES)]
    alpha, slice_alpha = alphas()
    names = [""] * (SLICES * SLICE_RECORDS)
    of_all = of_slices = 0
    signals: Counter[str] = Counter()
    for _ in range(hours):
        values = records(rng, SLICES * SLICE_RECORDS)
        score = verdict(whole, values, names, alpha)
        of_all += score.alarm
        signals.update(one.signal for one in score.scores if one.alarm)
        for baseline, part in zip(own, np.array_split(values, SLICES), strict=True):
            score = verdict(baseline, part, names[: len(part)], slice_alpha)
            of_slices += score.alarm
            signals.update(one.signal for one in score.scores if one.alarm)
    return Month(hours * (1 + SLICES), of_all, of_slices, signals)
