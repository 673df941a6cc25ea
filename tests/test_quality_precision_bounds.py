"""Average precision from few labels: who has not seen enough labels of a class and size says so, and bounds cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.quality.average_precision import Ranked
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_instances import judge_instances
from detectors.quality.precision_bounds import LEAST, Resampled
from detectors.quality.ratio import Estimate
from monitor.quality_evidence import Evidence
from monitor.quality_precision import precision
from tests.made_instances import labels, predictions, rectangle

CAR, SIGN = 0, 1
SMALL, LARGE = 20, 100
"""Sides of squares."""


def judged(*objects: tuple[int, int, int | None], score: float = 0.9) -> InstanceJudgement:
    """Of an image with these (class, side, pixels by which the prediction is off; None where there is none)."""
    found = [one for one in objects if one[2] is not None]
    return judge_instances(
        predictions(
            [kind for kind, *_ in found],
            [score - 0.01 * place for place in range(len(found))],
            [rectangle(0, off or 0, side, side) for _, side, off in found],
        ),
        labels([kind for kind, *_ in objects], [rectangle(0, 0, side, side) for _, side, _ in objects]),
        2,
    )


def evidence(judgements: list[InstanceJudgement], probability: float = 0.1, frames: int = 1) -> Evidence:
    count = len(judgements)
    return Evidence(
        classes=("car", "sign"),
        inputs=tuple(map(str, range(count))),
        probability=np.full(count, probability),
        sampling=np.ones(count),
        clusters=np.arange(count) // frames,
        assumed=0,
        left_out=0,
        metrics={},
        instances=[(row, 1.0, one) for row, one in enumerate(judgements)],
    )


def told(given: Evidence, population: int | None, metric: str, name: str | None) -> Estimate:
    (found,) = [one for own, which, one in precision(given, {metric}, population) if (own, which) == (name, metric)]
    return found


def street(large: int) -> list[InstanceJudgement]:
    """50 images with a small car each; so many of them with a large one, too."""
    return [judged((CAR, SMALL, i % 5), *([(CAR, LARGE, 30)] if i < large else [])) for i in range(50)]


def test_a_single_object_of_a_size_is_no_number() -> None:
    given = evidence(street(large=1))
    car = told(given, 500, "ap_large", "car")
    assert (car.status, car.point, car.lower, car.needed_of) == ("too few labels", None, None, "labels")
    assert car.needed == (LEAST - 1) * 50
    everybody = told(given, 500, "ap_large", None)
    assert (everybody.status, everybody.point) == ("too few labels", None)


def test_objects_of_one_sequence_are_one_where_the_process_is_asked_for() -> None:
    given = evidence(street(large=10), frames=10)
    assert told(given, 500, "ap_large", "car").status == "ok"
    car = told(given, None, "ap_large", "car")
    assert (car.status, car.needed_of, car.estimand) == ("too few labels", "sequences", "process")


def test_a_size_that_no_label_shows_is_absent_only_where_all_records_are_labelled() -> None:
    given = evidence(street(large=0))
    assert told(given, 500, "ap_large", "car").status == "too few labels"
    assert told(given, 500, "ap_large", "car").needed > 50
    assert told(given, 50, "ap_large", "car").status == "absent"
    assert told(given, 50, "ap_large", None).status == "absent"


def test_with_all_records_labelled_there_is_no_width() -> None:
    given = evidence(street(large=1), probability=1.0)
    for metric in ("ap", "ap75", "ap_large", "ar"):
        for name in ("car", None):
            one = told(given, 50, metric, name)
            assert one.status == "ok"
            assert one.lower == one.point == one.upper
    whole = Ranked.of(street(large=1), 2).precision()
    assert told(given, 50, "ap", "car").point == whole.ap[CAR]


def test_objects_that_are_all_found_leave_room_for_one_that_is_not() -> None:
    few, many = (evidence([judged((CAR, SMALL, 0))] * count, 0.05) for count in (LEAST, 60))
    lowers = []
    for given in (few, many):
        one = told(given, 2000, "ap50", "car")
        assert one.point == pytest.approx(1) and one.upper == pytest.approx(1)
        assert one.lower is not None
        lowers.append(one.lower)
    assert lowers[0] < 0.5 < 0.85 < lowers[1] < 1


def test_labels_that_were_certain_to_be_made_leave_room_for_others() -> None:
    given = evidence([judged((CAR, SMALL, 5))] * 10 + [judged()] * 40)
    certain = replace(given, probability=np.r_[np.ones(10), np.full(40, 0.1)])
    one = told(certain, 450, "ap75", "car")
    assert one.lower is not None and one.upper is not None and one.upper - one.lower > 0.02


def test_nothing_found_leaves_room_above() -> None:
    one = told(evidence([judged((CAR, SMALL, None))] * 20), 500, "ap50", "car")
    assert (one.point, one.lower) == (0, 0)
    assert one.upper is not None and 0.001 < one.upper < 0.5


def test_the_mean_of_a_size_needs_each_class_that_labels_show() -> None:
    both = [judged((CAR, LARGE, i % 30), (SIGN, SMALL, 2)) for i in range(30)]
    given = evidence(both)
    assert told(given, 300, "ap_large", "car").status == "ok"
    assert told(given, 300, "ap_large", None).status == "too few labels"
    whole = told(given, 300, "ap", None)
    assert whole.status == "ok" and whole.lower is not None and whole.upper is not None
    assert whole.lower < (whole.point or 0) < whole.upper


def test_without_any_instance_there_is_no_entry() -> None:
    assert precision(evidence([]), None, 10) == []
    assert precision(evidence(street(0)), {"iou"}, 500) == []


def test_intervals_cover() -> None:
    """30 labels of 300 images, in sequences that differ; the class is in a third of them."""
    rng, hits = np.random.default_rng(5), []
    for _ in range(12):
        level = np.repeat(rng.normal(5, 3, 15), 20)
        made = []
        for i in range(300):
            off = int(np.clip(level[i] + rng.normal(0, 3), 0, 19))
            there = rng.random() < 0.35
            score = float(np.clip(0.9 - off / 25 + rng.normal(0, 0.1), 0.05, 0.99))
            made.append(judged(*([(CAR, SMALL, off if rng.random() < 0.9 else None)] if there else []), score=score))
        whole = Ranked.of(made, 2).precision()
        for _ in range(12):
            chosen = rng.choice(300, 30, replace=False)
            ranked = Ranked.of([made[i] for i in chosen], 2)
            resampled = Resampled.of(ranked, np.full(30, 10.0), np.arange(30), np.full(30, 0.9))
            if np.count_nonzero(resampled.sizes("ap", CAR)) < LEAST:
                continue
            point = ranked.precision()
            for metric in ("ap", "ap50", "ap75"):
                lower, upper = resampled.bounds(metric, CAR, float(getattr(point, metric)[CAR]))
                assert 0 <= lower < upper <= 1
                hits.append(lower <= getattr(whole, metric)[CAR] <= upper)
    assert len(hits) > 350
    assert 0.93 < np.mean(hits) < 0.995
