"""Coverage and width of the intervals over many repetitions, by the estimators that users get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality import scenarios
from bench.quality.scenarios import Choice, Floats, Setting
from detectors.quality.assisted import Expectation, assisted
from detectors.quality.ratio import Estimate, RatioSample
from detectors.quality.spotcheck import spotcheck

Row = dict[str, Any]

POPULATIONS = 20
"""Windows that a case's repetitions are shared among."""
CLASSES = ((1.0, 0.8), (1.0, 0.97), (0.5, 0.3), (0.5, 0.6), (0.5, 0.9), (0.2, 0.75), (0.2, 0.95), (0.05, 0.7))
"""Share of frames with the class, and its IoU as a family's parameter (the value itself comes out near it)."""
LABELS = (20, 50, 100, 200)
SEQUENCES = {20: 10, 50: 10, 100: 10, 200: 20}
"""Labelled sequences of as many labels, where the process is estimated."""
CORRELATIONS = (0.3, 0.7)
ASSISTED_CLASSES = ((1.0, 0.8), (0.5, 0.6), (0.2, 0.75))
ASSISTED_LABELS = (50, 100, 200)
QUALITIES = (0.0, 0.8, 0.9)
"""Correlation of the expectation's residuals with the labels'."""
WITH_MISSES = ("misses", "objects")
"""Families with records that are wholly wrong, to which an expectation may be blind."""
PROCESS_RECORDS = 1_000_000
"""From which the process's value is taken: 5,000 times the labels, so that its own error is 1/70 of theirs."""


@dataclass
class Tally:
    """What became of a case's repetitions."""

    given: int = 0
    refused: int = 0
    low: int = 0
    """Intervals that lie below the truth."""
    high: int = 0
    widths: list[float] = field(default_factory=list)
    by_population: dict[int, list[int]] = field(default_factory=dict)

    def add(self, estimate: Estimate, truth: float, population: int = 0) -> None:
        if estimate.lower is None or estimate.upper is None:
            self.refused += 1
            return
        self.given += 1
        low, high = estimate.upper < truth - 1e-12, estimate.lower > truth + 1e-12
        self.low += low
        self.high += high
        self.widths.append(estimate.upper - estimate.lower)
        self.by_population.setdefault(population, []).append(not (low or high))

    def row(self) -> Row:
        shares = [float(np.mean(hits)) for hits in self.by_population.values() if len(hits) >= 50]
        return {
            "given": self.given,
            "refused": self.refused,
            "coverage": None if not self.given else 1 - (self.low + self.high) / self.given,
            "below": None if not self.given else self.low / self.given,
            "above": None if not self.given else self.high / self.given,
            "width": None if not self.given else float(np.mean(self.widths)),
            "worst_window": min(shares, default=None),
        }


def describe(setting: Setting, labels: int) -> Row:
    """What tells a case from others."""
    return {
        "family": setting.family,
        "held_out": setting.family in scenarios.HELD_OUT,
        "frequency": setting.frequency,
        "iou": setting.iou,
        "correlation": setting.correlation,
        "labels": labels,
    }


def windows(
    setting: Setting, labels: int, choice: Choice, repetitions: int, records: int = scenarios.WINDOW_RECORDS
) -> Iterator[tuple[int, Floats, Floats, NDArray[np.int64], Floats, np.random.Generator]]:
    """Population number, intersections and unions (N,), chosen records (n,) and their weights (n,), and a generator."""
    rng = setting.generator("window", labels, choice, records)
    sequences = np.arange(records) // scenarios.WINDOW_FRAMES
    intersections, unions = scenarios.draw(setting, rng, POPULATIONS, sequences)
    for number in range(POPULATIONS):
        intersection, union = intersections[number], unions[number]
        chance = scenarios.probabilities(intersection, union, labels, choice, rng)
        for _ in range(repetitions // POPULATIONS):
            if choice == "uniform":
                chosen = rng.choice(records, labels, replace=False, shuffle=False)
            else:
                chosen = np.flatnonzero(rng.random(records) < chance)
            yield number, intersection, union, chosen, 1 / chance[chosen], rng


def window_coverage(setting: Setting, labels: int, choice: Choice, repetitions: int) -> Row:
    """The default estimand: records of a window, chosen one by one."""
    tally = Tally()
    for number, intersection, union, chosen, weights, _ in windows(setting, labels, choice, repetitions):
        clusters = chosen // scenarios.WINDOW_FRAMES
        sample = RatioSample(intersection[chosen], union[chosen], weights, clusters)
        tally.add(spotcheck(sample, len(union)), float(intersection.sum() / union.sum()), number)
    return {**describe(setting, labels), "estimand": "window", "choice": choice, **tally.row()}


def process_coverage(setting: Setting, labels: int, repetitions: int) -> Row:
    """The process's value, from a few sequences with several labels each."""
    frames = labels // SEQUENCES[labels]
    truth = process_value(setting, frames)
    sequences = np.arange(labels) // frames
    intersections, unions = scenarios.draw(setting, setting.generator("process", labels), repetitions, sequences)
    tally = Tally()
    for intersection, union in zip(intersections, unions, strict=True):
        tally.add(spotcheck(RatioSample(intersection, union, np.ones(labels), sequences)), truth)
    return {**describe(setting, labels), "estimand": "process", "choice": "uniform", **tally.row()}


@cache
def process_value(setting: Setting, frames: int) -> float:
    """From so many records that its own error does not matter."""
    rng, sequences = setting.generator("truth", frames), np.arange(frames * 400) // frames
    intersection = union = 0.0
    for _ in range(max(1, PROCESS_RECORDS // (len(sequences) * 200))):
        drawn = scenarios.draw(setting, rng, 200, sequences)
        intersection, union = intersection + drawn[0].sum(), union + drawn[1].sum()
    return float(intersection / union)


def help_of_expectations(setting: Setting, labels: int, quality: float | str, repetitions: int) -> Row:
    """Assisted and spot-checked intervals from the same labels; N is 20 n, or 2,000 where that is more."""
    records = max(scenarios.WINDOW_RECORDS, 20 * labels)
    helped, plain = Tally(), Tally()
    ratios, last = [], -1
    guessed: tuple[Floats, Floats] = (np.empty(0), np.empty(0))
    for number, intersection, union, chosen, weights, rng in windows(setting, labels, "uniform", repetitions, records):
        if number != last:
            last = number
            if isinstance(quality, str):
                guessed = scenarios.blind_expectations(intersection, union, rng)
            else:
                guessed = scenarios.expectations(intersection, union, quality, rng)
        sample = RatioSample(intersection[chosen], union[chosen], weights, chosen // scenarios.WINDOW_FRAMES)
        totals = (float(values.sum()) for values in guessed)
        expectation = Expectation(guessed[0][chosen], guessed[1][chosen], *totals)
        truth = float(intersection.sum() / union.sum())
        pair = assisted(sample, expectation, records), spotcheck(sample, records)
        for tally, estimate in zip((helped, plain), pair, strict=True):
            tally.add(estimate, truth, number)
        if pair[0].width is not None and pair[1].width:
            ratios.append(pair[0].width / pair[1].width)
    row = helped.row()
    savings = (plain.row()["width"] / row["width"]) ** 2 if row["width"] else None
    return {
        **describe(setting, labels),
        "quality": quality,
        **row,
        "plain_coverage": plain.row()["coverage"],
        "labels_saved": savings,
        "mean_width_ratio": float(np.mean(ratios)) if ratios else None,
    }


def coverage_rows(families: Sequence[str], repetitions: int) -> Iterator[Row]:
    """Every family, class, number of labels, choice and estimand."""
    for family in families:
        for frequency, iou in CLASSES:
            setting = Setting(family, frequency, iou)
            for labels in LABELS:
                yield window_coverage(setting, labels, "uniform", repetitions)
                yield window_coverage(setting, labels, "biased", repetitions)
                for correlation in CORRELATIONS:
                    yield process_coverage(Setting(family, frequency, iou, correlation), labels, repetitions)


def assisted_rows(families: Sequence[str], repetitions: int) -> Iterator[Row]:
    """Every family, some classes and expectations of every quality."""
    for family in families:
        for frequency, iou in ASSISTED_CLASSES:
            for labels in ASSISTED_LABELS:
                for quality in (*QUALITIES, *(("blind",) if family in WITH_MISSES else ())):
                    yield help_of_expectations(Setting(family, frequency, iou), labels, quality, repetitions)
