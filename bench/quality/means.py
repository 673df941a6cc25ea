"""Coverage of what is no class's pooled ratio: the mean over classes, and COCO's average precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.special import ndtri

from bench.quality import scenarios
from bench.quality.coverage import POPULATIONS, SEQUENCES, Row, Tally, process_value
from bench.quality.scenarios import Choice, Floats, Setting
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_instances import InstanceMasks, judge_instances
from detectors.quality.mean import correlations, mean_over
from detectors.quality.ratio import Estimate, RatioSample
from detectors.quality.spotcheck import design, spotcheck
from monitor.quality_evidence import Evidence
from monitor.quality_precision import precision

LABELS = (50, 100, 200)
CLASSES = ((1.0, 0.9), (1.0, 0.8), (0.5, 0.9), (0.5, 0.6), (0.2, 0.75), (0.2, 0.6))
"""Share of frames with the class, and its IoU as a family's parameter."""
SETS = {3: CLASSES[::2], 6: CLASSES}
CORRELATION = 0.5
METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
WINDOW_RECORDS, PROCESS_SEQUENCES = 1000, 4000
HEIGHT, WIDTH, CELL = 480, 640, 160
PRESENCE = (0.95, 0.5, 0.2)
"""Of each class of objects, the share of frames."""


def mean_rows(families: Sequence[str], repetitions: int) -> Iterator[Row]:
    """Mean IoU, of a window with either choice of records and of the process."""
    for family in families:
        for count in SETS:
            for labels in LABELS:
                for choice in ("uniform", "biased"):
                    yield _mean_of_window(family, count, labels, choice, repetitions)
                yield _mean_of_process(family, count, labels, repetitions)


def _settings(family: str, count: int) -> list[Setting]:
    return [Setting(family, *one, CORRELATION, seed=place) for place, one in enumerate(SETS[count])]


def _mean_of_window(family: str, count: int, labels: int, choice: Choice, repetitions: int) -> Row:
    settings, tally, records = _settings(family, count), Tally(), scenarios.WINDOW_RECORDS
    sequences = np.arange(records) // scenarios.WINDOW_FRAMES
    rng = settings[0].generator("mean", count, labels, choice)
    for number in range(POPULATIONS):
        made = [[side[0] for side in scenarios.draw(one, rng, 1, sequences)] for one in settings]
        truth = float(np.mean([shared.sum() / union.sum() for shared, union in made]))
        of_all = sum(shared for shared, _ in made), sum(union for _, union in made)
        chance = scenarios.probabilities(*of_all, labels, choice, rng)
        for _ in range(repetitions // POPULATIONS):
            chosen = _choose(chance, labels, choice, rng)
            samples = [
                RatioSample(shared[chosen], union[chosen], 1 / chance[chosen], sequences[chosen])
                for shared, union in made
            ]
            tally.add(_mean(samples, records), truth, number)
    return {"family": family, "classes": count, "labels": labels, "estimand": "window", "choice": choice, **tally.row()}


def _choose(chance: Floats, labels: int, choice: Choice, rng: np.random.Generator) -> NDArray[np.int64]:
    if choice == "uniform":
        return rng.choice(len(chance), labels, replace=False, shuffle=False)
    return np.flatnonzero(rng.random(len(chance)) < chance)


def _mean_of_process(family: str, count: int, labels: int, repetitions: int) -> Row:
    settings, tally, frames = _settings(family, count), Tally(), labels // SEQUENCES[labels]
    truth = float(np.mean([process_value(one, frames) for one in settings]))
    sequences = np.arange(labels) // frames
    rng = settings[0].generator("mean of process", count, labels)
    drawn = [scenarios.draw(one, rng, repetitions, sequences) for one in settings]
    for row in range(repetitions):
        samples = [RatioSample(shared[row], union[row], np.ones(labels), sequences) for shared, union in drawn]
        tally.add(_mean(samples, None), truth)
    return {
        "family": family, "classes": count, "labels": labels, "estimand": "process", "choice": "uniform", **tally.row()
    }  # fmt: skip


def _mean(samples: Sequence[RatioSample], population: int | None) -> Estimate:
    units = [design(one, one.numerator, one.denominator, population) for one in samples]
    return mean_over([spotcheck(one, population) for one in samples], correlations(units))


def precision_rows(repetitions: int) -> Iterator[Row]:
    """COCO's AP of each class and of all, with a fifth of the repetitions: each interval takes 200 resamples."""
    times = max(repetitions // 5, POPULATIONS)
    for labels in LABELS:
        for estimand in ("window", "process"):
            tallies: dict[tuple[str, str], Tally] = {}
            for number, truth, found in _precisions(labels, estimand, times):
                for name, metric, one in found:
                    value = truth[name, metric]
                    if value is not None:
                        tallies.setdefault((name, metric), Tally()).add(one, value, number)
            for (name, metric), tally in tallies.items():
                what = {"of": name, "metric": metric, "labels": labels, "estimand": estimand}
                yield {**what, "choice": "uniform", **tally.row()}


Told = list[tuple[str, str, Estimate]]
"""Class ("all" for the mean), metric and estimate."""
Truth = dict[tuple[str, str], float | None]
"""By class and metric; None where there is no label of the class and size."""


def _precisions(labels: int, estimand: str, times: int) -> Iterator[tuple[int, Truth, Told]]:
    """Population's number, its values, and the estimates from some of its labels."""
    rng = np.random.default_rng([7, labels, len(estimand)])
    of_window = estimand == "window"
    frames = scenarios.WINDOW_FRAMES if of_window else labels // SEQUENCES[labels]
    for number in range(POPULATIONS if of_window else 1):
        count = WINDOW_RECORDS // frames if of_window else PROCESS_SEQUENCES
        made = _Images(rng, count, frames)
        truth = {(name, metric): one.point for name, metric, one in made.told(np.arange(len(made)), len(made))}
        for _ in range(times // (POPULATIONS if of_window else 1)):
            if of_window:
                chosen = rng.choice(len(made), labels, replace=False)
                yield number, truth, made.told(chosen, len(made))
            else:
                firsts = frames * rng.choice(count, SEQUENCES[labels], replace=False)
                yield number, truth, made.told((firsts[:, None] + np.arange(frames)).ravel(), None)


@dataclass(frozen=True)
class _Class:
    there: NDArray[np.bool_]
    quality: Floats


class _Images:
    """Judged images of squares, in sequences that are alike in which classes they hold and in how well these are found.

    Each class has one to three objects where it is present; large ones are found more often. Scores follow quality.
    """

    def __init__(self, rng: np.random.Generator, sequences: int, frames: int) -> None:
        self._rng, self._sequences, self._frames = rng, sequences, frames
        classes = [_Class(self._alike() < ndtri(share), self._alike()) for share in PRESENCE]
        self._judged = [self._image(place, classes) for place in range(sequences * frames)]

    def __len__(self) -> int:
        return len(self._judged)

    def _alike(self) -> Floats:
        own = self._rng.standard_normal((self._sequences, self._frames))
        normal: Floats = (0.5**0.5 * (own + self._rng.standard_normal((self._sequences, 1)))).ravel()
        return normal

    def _image(self, place: int, classes: Sequence[_Class]) -> InstanceJudgement:
        rng = self._rng
        cells = iter(rng.permutation((HEIGHT // CELL) * (WIDTH // CELL)).tolist())
        kinds, labelled, found, scores, squares = [], [], [], [], []
        for kind, one in enumerate(classes):
            for _ in range(int(one.there[place]) * int(rng.integers(1, 4))):
                cell = next(cells)
                side = float(np.clip(45 * np.exp(0.7 * rng.standard_normal()), 6, 120))
                corner = [float(cell % 4 * CELL), float(cell // 4 * CELL)]
                kinds.append(kind)
                labelled.append([*corner, round(side), round(side)])
                quality = one.quality[place] + rng.standard_normal() + np.log(side / 30)
                if quality > -1.2:
                    off = round(side * 0.3 / (1 + np.exp(quality)))
                    found.append(kind)
                    squares.append([corner[0] + off, corner[1], round(side), round(side)])
                    scores.append(1 / (1 + np.exp(-quality - 0.7 * rng.standard_normal())))
            if rng.random() < 0.1:
                found.append(kind)
                cell = next(cells)
                squares.append([float(cell % 4 * CELL), float(cell // 4 * CELL), 30.0, 30.0])
                scores.append(0.6 * rng.random())
        return judge_instances(
            InstanceMasks(np.array(found, np.int64), _rles(squares), np.array(scores, np.float64)),
            InstanceMasks(np.array(kinds, np.int64), _rles(labelled)),
            len(PRESENCE),
        )

    def told(self, chosen: NDArray[np.int64], population: int | None) -> Told:
        """Estimates from labels of these images; of a population of as many as there are the values themselves."""
        count = len(chosen)
        evidence = Evidence(
            classes=tuple(f"in {100 * share:g} %" for share in PRESENCE),
            inputs=tuple(map(str, chosen)),
            probability=np.full(count, 1.0 if population is None else count / population),
            sampling=np.ones(count),
            clusters=chosen // self._frames,
            assumed=0,
            left_out=0,
            metrics={},
            instances=[(row, 1.0, self._judged[place]) for row, place in enumerate(chosen.tolist())],
        )
        return [(name or "all", metric, one) for name, metric, one in precision(evidence, METRICS, population)]


def _rles(squares: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return list(coco.frPyObjects(np.array(squares, np.float64), HEIGHT, WIDTH)) if squares else []
