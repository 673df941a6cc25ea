"""Calibration is scikit-learn's, and what confidence leads one to expect is what labels then show."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from detectors.quality.calibration import (
    MIN_RECORDS,
    CalibrationMap,
    calibration_error,
    reliability,
)
from detectors.quality.confidence_bins import BINS, CENTRES, EDGES, UNIFORM_BINS, bins_of, confidence_counts, uniform
from detectors.quality.confusion import ClassTable
from detectors.quality.expected import ExpectedSums, semantic_confidence
from detectors.quality.instance_expectation import InstanceExpectation, JudgedRecords
from detectors.quality.judge_instances import judge_instances
from detectors.quality.judge_semantic import SemanticJudgement, judge_semantic
from detectors.quality.semantic_expectation import SemanticExpectation
from tests.made_instances import labels, predictions, rectangle

VOID = 255
TABLE = ClassTable.of([0, 1, 2], ignore=[VOID])
EVEN = np.ones(3)

confidences = hnp.arrays(np.uint8, st.integers(1, 200))
tables = hnp.arrays(np.int64, (2, BINS), elements=st.integers(0, 1000))


def binned(confidence: NDArray[np.uint8], correct: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Total, correct and sum of confidence in each of the uniform bins."""
    code = bins_of(confidence / 255)
    sums = (None, correct, confidence / 255)
    return [uniform(np.bincount(code, weights, BINS).astype(np.float64)) for weights in sums]


# Reliability


@given(confidences)
def test_the_reliability_curve_is_that_of_scikit_learn(confidence: NDArray[np.uint8]) -> None:
    correct = np.random.default_rng(int(confidence.sum())).random(len(confidence)) < confidence / 255
    curve = reliability(*binned(confidence, correct))
    accuracy, mean = calibration_curve(correct, confidence / 255, n_bins=UNIFORM_BINS)
    np.testing.assert_allclose(curve.accuracy, accuracy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(curve.confidence, mean, rtol=0, atol=1e-9)


@given(confidences)
def test_calibration_error_is_its_formula(confidence: NDArray[np.uint8]) -> None:
    correct = np.random.default_rng(int(confidence.sum())).random(len(confidence)) < 0.7
    probability = confidence / 255
    expected = 0.0
    for low in np.arange(UNIFORM_BINS) / UNIFORM_BINS:
        held = (probability > low) & (probability <= low + 1 / UNIFORM_BINS) | ((low == 0) & (probability == 0))
        if held.any():
            expected += held.mean() * abs(probability[held].mean() - correct[held].mean())
    assert calibration_error(*binned(confidence, correct)) == pytest.approx(expected, abs=1e-9)


def test_nothing_has_no_calibration_error() -> None:
    nothing = np.zeros((3, BINS))
    assert np.isnan(calibration_error(nothing, nothing, nothing)).tolist() == [True] * 3
    assert len(reliability(nothing[0], nothing[0], nothing[0]).weight) == 0


def test_scores_on_an_edge_fall_as_with_scikit_learn() -> None:
    scores = np.concatenate([np.arange(17) / 16, np.nextafter(np.arange(1, 16) / 16, 1)])
    curve = reliability(*(uniform(np.bincount(bins_of(scores), each, BINS)) for each in (None, scores > 0.5, scores)))
    accuracy, mean = calibration_curve(scores > 0.5, scores, n_bins=16)
    np.testing.assert_allclose(curve.accuracy, accuracy, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curve.confidence, mean, rtol=0, atol=1e-12)


def test_the_sums_of_a_judgement_give_the_curve_of_its_pixels() -> None:
    rng = np.random.default_rng(0)
    predicted, labelled = rng.integers(0, 3, (2, 40, 50)).astype(np.uint8)
    labelled[:5] = VOID
    confidence = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    sums = judge_semantic(predicted, labelled, TABLE, confidence).confidence_sums()
    assert sums is not None
    for position in range(3):
        total, correct, certain, _ = uniform(np.moveaxis(sums[position], 1, 0))
        curve = reliability(total, correct, certain / 255)
        held = (predicted == position) & (labelled != VOID)
        accuracy, mean = calibration_curve((predicted == labelled)[held], confidence[held] / 255, n_bins=16)
        np.testing.assert_allclose(curve.accuracy, accuracy, rtol=0, atol=1e-9)
        np.testing.assert_allclose(curve.confidence, mean, rtol=0, atol=1e-9)


# The calibration map


@given(tables, st.data())
def test_a_map_never_falls_and_stays_a_probability(total: NDArray[np.int64], data: st.DataObject) -> None:
    correct = np.array([[data.draw(st.integers(0, most)) for most in row] for row in total.tolist()])
    records = np.minimum(total, data.draw(st.integers(1, 40)))
    labelled = data.draw(st.integers(5, 100))
    for prior in (0.0, 4.0):
        fitted = CalibrationMap.fit(total, correct, records, labelled, prior)
        assert (np.diff(fitted.probability, axis=1) >= 0).all()
        assert fitted.probability.min() >= 0 and fitted.probability.max() <= 1
        assert (CalibrationMap.from_bytes(fitted.to_bytes()).probability == fitted.probability).all()


def test_without_shrinkage_a_map_is_the_isotonic_regression_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    total = rng.integers(1, 500, (1, BINS))
    correct = rng.binomial(total, np.clip(CENTRES + rng.normal(0, 0.2, BINS), 0, 1))
    records = rng.integers(1, 60, (1, BINS))
    fitted = CalibrationMap.fit(total, correct, records, 60, prior_records=0)
    reference = IsotonicRegression(y_min=0, y_max=1)
    expected = reference.fit_transform(np.arange(BINS), (correct / total)[0], sample_weight=records[0])
    np.testing.assert_allclose(fitted.probability[0], expected, rtol=0, atol=1e-9)


def test_with_too_few_labels_confidence_is_taken_at_its_word() -> None:
    total = np.full((2, BINS), 1_000_000)
    fitted = CalibrationMap.fit(total, total // 3, np.full((2, BINS), 4), MIN_RECORDS - 1)
    assert (fitted.probability == CENTRES).all()
    assert (CalibrationMap.fit(0 * total, 0 * total, 0 * total, 100).probability == CENTRES).all()


def test_a_class_of_few_records_is_drawn_towards_the_others() -> None:
    """100 records of class 0 are right in 60 %; the one of class 1 is wrong everywhere, which is half believed."""
    total, records = np.full((3, BINS), 1000), np.repeat([[100], [1], [0]], BINS, axis=1)
    total[2] = 0
    fitted = CalibrationMap.fit(total, np.stack([0.6 * total[0], 0 * total[1], total[2]]), records, 100)
    overall = 0.3  # by pixels, of both classes together
    assert fitted.probability[0] == pytest.approx(0.6, abs=0.03)
    assert fitted.probability[1] == pytest.approx(0.5 * overall, abs=0.03)
    assert fitted.probability[2] == pytest.approx(overall, abs=0.03)


def test_a_map_learns_what_scores_mean() -> None:
    rng = np.random.default_rng(0)
    scores = rng.beta(5, 1, 200_000)
    position, record = rng.integers(0, 3, len(scores)), rng.integers(0, 300, len(scores))
    correct = rng.random(len(scores)) < scores**2
    fitted = CalibrationMap.fit_scores(3, position, scores, correct, np.ones(len(scores)), record)
    fresh = rng.beta(5, 1, 10_000)
    found = fitted.probabilities(np.zeros(len(fresh), np.int64), fresh)
    assert np.abs(found - fresh**2).mean() < 0.025  # a bin is 1/16 wide
    assert found.mean() == pytest.approx((fresh**2).mean(), abs=0.005)


def test_weights_undo_a_biased_choice() -> None:
    """Wrong records were labelled ten times as often: weighed by 1/probability, they count once."""
    rng = np.random.default_rng(3)
    scores, correct = np.full(40_000, 0.6), rng.random(40_000) < 0.5
    probability = np.where(correct, 0.05, 0.5)
    chosen = rng.random(40_000) < probability
    index = np.arange(int(chosen.sum()))
    chosen_of = (np.zeros(len(index), np.int64), scores[chosen], correct[chosen])
    weighted = CalibrationMap.fit_scores(1, *chosen_of, 1 / probability[chosen], index)
    plain = CalibrationMap.fit_scores(1, *chosen_of, np.ones(len(index)), index)
    at = bins_of(scores[:1])[0]
    assert weighted.probability[0, at] == pytest.approx(0.5, abs=0.03)
    assert plain.probability[0, at] < 0.15


@pytest.mark.parametrize(
    ("total", "correct", "message"),
    [
        (np.ones((1, 3)), np.ones((1, 3)), "shapes"),
        (np.ones((1, BINS)), np.full((1, BINS), 2), "at most all"),
        (-np.ones((1, BINS)), -np.ones((1, BINS)), "must be >= 0"),
    ],
)
def test_impossible_sums_are_refused(total: NDArray[np.float64], correct: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CalibrationMap.fit(total, correct, np.ones(total.shape), 10)


def test_a_damaged_or_falling_map_is_refused() -> None:
    data = CalibrationMap.identity(2).to_bytes()
    for end in range(len(data)):
        with pytest.raises(ValueError):
            CalibrationMap.from_bytes(data[:end])
    for place in range(len(data)):
        with pytest.raises(ValueError):
            CalibrationMap.from_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ValueError, match="must not fall"):
        CalibrationMap(CENTRES[None, ::-1])
    with pytest.raises(ValueError, match="0..1"):
        CalibrationMap(np.full((1, BINS), np.nan))


# The state


def sums_of(seed: int) -> ExpectedSums:
    rng = np.random.default_rng(seed)
    sums = ExpectedSums(3)
    for _ in range(rng.integers(0, 4)):
        predicted = rng.choice(np.array([0, 1, 2, 9], np.uint8), (6, 7))
        sums.add_semantic(semantic_confidence(predicted, rng.integers(0, 256, (6, 7)).astype(np.uint8), TABLE))
        many = rng.integers(0, 4)
        sums.add_instances(rng.integers(0, 4, many), rng.random(many), rng.integers(0, 5000, many))
    return sums


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_the_order_of_merging_leaves_no_trace(seed: int) -> None:
    found = set()
    for order in permutations(range(seed, seed + 4)):
        whole = ExpectedSums(3)
        for each in order:
            whole.merge(ExpectedSums.from_bytes(sums_of(each).to_bytes()))
        found.add(whole.to_bytes())
    assert len(found) == 1
    pairs = [sums_of(seed), sums_of(seed + 2)]
    for each, other in zip(pairs, (seed + 1, seed + 3), strict=True):
        each.merge(sums_of(other))
    pairs[0].merge(pairs[1])
    assert pairs[0].to_bytes() in found


def test_sums_survive_their_bytes_and_empty_ones_take_next_to_none() -> None:
    sums = sums_of(7)
    again = ExpectedSums.from_bytes(sums.to_bytes())
    assert again == sums and again != sums_of(8)
    assert (again.pixels == sums.pixels).all() and (again.area == sums.area).all()
    assert (again.semantic_records, again.instance_records) == (sums.semantic_records, sums.instance_records)
    assert len(ExpectedSums(4000).to_bytes()) < 24


def test_damaged_sums_are_refused() -> None:
    data = sums_of(7).to_bytes()
    for end in range(len(data)):
        with pytest.raises(ValueError):
            ExpectedSums.from_bytes(data[:end])
    for place in range(len(data)):
        with pytest.raises(ValueError):
            ExpectedSums.from_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])


def test_classes_out_of_range_are_refused() -> None:
    for position in (-1, 4):
        with pytest.raises(ValueError, match="outside 0..3"):
            ExpectedSums(3).add_instances(np.array([position]), np.array([0.5]), np.array([1]))
    with pytest.raises(ValueError, match="3 classes, the others 4"):
        ExpectedSums(3).merge(ExpectedSums(4))
    with pytest.raises(ValueError, match="0 classes"):
        ExpectedSums(0)


def test_maps_of_different_size_are_counted_at_the_size_asked_for() -> None:
    predicted, confidence = np.array([[0, 1], [2, 9]], np.uint8), np.array([[200]], np.uint8)
    assert semantic_confidence(predicted, confidence, TABLE).sum(1).tolist() == [1, 1, 1, 1]
    assert semantic_confidence(predicted, confidence, TABLE, (4, 6)).sum(1).tolist() == [6, 6, 6, 6]


# What to expect


class World:
    """A model that is right with probability ``confidence ** power``; class 1 is mostly taken for class 2."""

    mistaken = np.array([[0.0, 0.5, 0.5], [0.1, 0.0, 0.9], [0.5, 0.5, 0.0]])
    """(predicted, true)"""

    def __init__(self, seed: int, power: float = 1.0, void: float = 0.0) -> None:
        self.rng, self.power, self.void = np.random.default_rng(seed), power, void

    def judged(self) -> tuple[SemanticJudgement, NDArray[np.int64]]:
        """A judgement, and the counts of its prediction."""
        predicted = self.rng.choice(3, (60, 60), p=self.rng.dirichlet([3, 2, 1])).astype(np.uint8)
        confidence = (255 * self.rng.beta(6, 1, predicted.shape)).astype(np.uint8)
        right = self.rng.random(predicted.shape) < (confidence / 255) ** self.power
        other = (self.rng.random((*predicted.shape, 1)) > self.mistaken[predicted].cumsum(-1)).sum(-1)
        labelled = np.where(right, predicted, other).astype(np.uint8)
        # What is void is seldom what the model is sure of.
        labelled[self.rng.random(predicted.shape) < self.void * (1 - confidence / 255)] = VOID
        judgement = judge_semantic(predicted, labelled, TABLE, confidence)
        return judgement, confidence_counts(predicted.astype(np.int32), confidence, 3)


def ratio_of(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> NDArray[np.float64]:
    return pair[0] / pair[1]


@pytest.mark.parametrize(("power", "void"), [(1.0, 0.0), (2.0, 0.0), (2.0, 1.0)])
def test_a_fit_on_40_records_tells_the_iou_of_others(power: float, void: float) -> None:
    world = World(1, power, void)
    fitted = SemanticExpectation.fit([world.judged()[0] for _ in range(40)], EVEN)
    others = [world.judged() for _ in range(60)]
    truth = sum(judged.intersection for judged, _ in others) / sum(judged.union for judged, _ in others)
    found = ratio_of(fitted.expected(np.sum([counts for _, counts in others], axis=0)))
    np.testing.assert_allclose(found, truth, rtol=0, atol=0.015)
    if power > 1:
        plain = ratio_of(SemanticExpectation.unlabelled(EVEN).expected(np.sum([each for _, each in others], axis=0)))
        assert (plain - truth).max() > 0.05


def test_without_shrinkage_the_judged_records_are_expected_as_they_are() -> None:
    """As long as the bins' shares rise by themselves, which they do with this many pixels in few bins."""
    world = World(4, void=0.5)
    judged = [world.judged() for _ in range(30)]
    merged = [coarse(each) for each in judged]
    fitted = SemanticExpectation.fit([each for each, _ in merged], EVEN, prior_records=0)
    intersection, union = fitted.expected(np.sum([counts for _, counts in merged], axis=0))
    np.testing.assert_allclose(intersection, sum(each.intersection for each, _ in judged), rtol=1e-9)
    np.testing.assert_allclose(union, sum(each.union for each, _ in judged), rtol=1e-9)


def coarse(pair: tuple[SemanticJudgement, NDArray[np.int64]]) -> tuple[SemanticJudgement, NDArray[np.int64]]:
    """The same with three bins instead of twenty."""
    judgement, counts = pair
    bins = np.digitize(np.arange(BINS), [12, 15]) * 7
    sums = judgement.confidence_sums()
    assert sums is not None
    fewer, fewer_counts = np.zeros_like(sums), np.zeros_like(counts)
    np.add.at(fewer, (slice(None), bins), sums)
    np.add.at(fewer_counts, (slice(None), bins), counts)
    position, code = np.nonzero(fewer[:, :, 0] + fewer[:, :, 3])
    rows = np.column_stack([position, code, fewer[position, code]])
    return (
        SemanticJudgement(
            judgement.classes, judgement.height, judgement.width, judgement.confusion, judgement.boundary, rows
        ),
        fewer_counts,
    )


@given(hnp.arrays(np.int64, (5, 4, BINS), elements=st.integers(0, 10**6)))
def test_expectations_add_up_and_unions_hold_intersections(counts: NDArray[np.int64]) -> None:
    for model in (FITTED, SemanticExpectation.unlabelled(np.array([0.9, 0.1, 0.0]))):
        intersection, union = model.expected(counts)
        assert intersection.shape == union.shape == (5, 3)
        assert (intersection >= 0).all() and (intersection <= union + 1e-6).all()
        whole = model.expected(counts.sum(0))
        np.testing.assert_allclose(whole[0], intersection.sum(0), rtol=1e-9)
        np.testing.assert_allclose(whole[1], union.sum(0), rtol=1e-9)


FITTED = SemanticExpectation.fit([World(9).judged()[0] for _ in range(6)], EVEN)


def test_errors_go_to_the_classes_that_labels_show() -> None:
    assert FITTED.shares.sum(1) == pytest.approx(1)
    assert np.diag(FITTED.shares[:3]) == pytest.approx(0)
    assert FITTED.shares[1, 2] == pytest.approx((6 * 0.9 + 0.5) / 7, abs=0.03)
    prior = SemanticExpectation.unlabelled(np.array([0.6, 0.3, 0.1])).shares
    assert prior[2] == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-5)
    assert prior[3] == pytest.approx([0.6, 0.3, 0.1], abs=1e-5)


def test_a_single_class_has_no_other_to_be() -> None:
    counts = np.zeros((2, BINS), np.int64)
    counts[:, 10] = 100
    intersection, union = SemanticExpectation.unlabelled(np.array([1.0])).expected(counts)
    assert intersection[0] == pytest.approx(100 * CENTRES[10]) and union[0] == pytest.approx(200)


def test_frequencies_and_judgements_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="frequencies must be"):
        SemanticExpectation.unlabelled(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="has 3 classes, expected 2"):
        SemanticExpectation.fit([World(1).judged()[0]], np.ones(2))
    with pytest.raises(ValueError, match="expected \\(..., 4, 20\\)"):
        FITTED.expected(np.zeros((3, BINS), np.int64))


# Instances


def judged_instances(records: int, seed: int) -> JudgedRecords:
    """Two classes: a prediction is right with its score's square, and then covers 80 % of what it claims."""
    rng = np.random.default_rng(seed)
    many = rng.integers(0, 6, records)
    record = np.repeat(np.arange(records), many)
    position, score = rng.integers(0, 3, len(record)), rng.beta(4, 1, len(record))
    matched, area = rng.random(len(record)) < score**2, rng.integers(500, 1500, len(record))
    intersection, predicted = np.zeros((records, 3), np.int64), np.zeros((records, 3), np.int64)
    np.add.at(intersection, (record, position), (0.8 * area * matched).astype(int))
    np.add.at(predicted, (record, position), area)
    union = predicted + rng.integers(0, 400, (records, 3))
    return JudgedRecords(
        record,
        position,
        score,
        (0.8 * area * matched).astype(np.int64),
        np.zeros_like(area),
        np.zeros_like(matched),
        area,
        intersection[:, :2],
        union[:, :2],
        predicted[:, :2],
    )


def areas(judged: JudgedRecords) -> NDArray[np.int64]:
    sums = ExpectedSums(2)
    for record in range(len(judged.union)):
        held = judged.record == record
        sums.add_instances(judged.position[held], judged.score[held], judged.area[held])
    assert sums.instance_records == len(judged.union)
    return sums.area


def test_instances_tell_the_iou_of_others() -> None:
    fitted = InstanceExpectation.fit(judged_instances(150, 1))
    others = judged_instances(400, 2)
    intersection, union = fitted.expected(areas(others), records=400)
    truth = others.intersection.sum(0) / others.union.sum(0)
    np.testing.assert_allclose(intersection / union, truth, rtol=0, atol=0.02)
    plain = InstanceExpectation.unlabelled(2).expected(areas(others), records=400)
    assert (ratio_of(plain) - truth).min() > 0.1


@pytest.mark.parametrize("weighted", [False, True])
def test_without_shrinkage_judged_instances_add_up(weighted: bool) -> None:
    judged = judged_instances(50, 3)
    weights = np.random.default_rng(0).integers(1, 9, 50) if weighted else None
    fitted = InstanceExpectation.fit(judged, weights, prior_records=0)
    if weights is None:
        intersection, union = fitted.expected(areas(judged), records=50)
        np.testing.assert_allclose(intersection, judged.intersection.sum(0), rtol=1e-9)
        np.testing.assert_allclose(union, judged.union.sum(0), rtol=1e-9)
    else:
        blank = np.bincount(judged.record, minlength=50) == 0
        mean = (weights * blank) @ (judged.union - judged.predicted_pixels) / weights.sum()
        assert (mean > 0).all()
        np.testing.assert_allclose(fitted.blank, mean, rtol=1e-12)
        plain = InstanceExpectation.fit(judged, prior_records=0)
        assert not np.allclose(fitted.hit, plain.hit) and not np.allclose(fitted.beside, plain.beside)


def test_judgements_of_instances_give_what_the_fit_needs() -> None:
    """A good match, a wrong class, an invented one that scores low, and one on a crowd, of which nothing is learnt."""
    image = judge_instances(
        predictions(
            [0, 1, 2, 0],
            [0.9, 0.8, 0.7, 0.3],
            [rectangle(0, 0, 40, 40), rectangle(60, 0, 20, 20), rectangle(0, 60, 20, 20), rectangle(100, 100, 10, 10)],
        ),
        labels(
            [0, 0, 1],
            [rectangle(0, 0, 40, 36), rectangle(60, 0, 20, 20), rectangle(0, 60, 20, 20)],
            [False, False, True],
        ),
        2,
    )
    crowd = judge_instances(
        predictions([1], [0.6], [rectangle(0, 0, 30, 30)]), labels([1], [rectangle(0, 0, 90, 90)], [True]), 2
    )
    judged = JudgedRecords.of([image, crowd])
    assert judged.record.tolist() == [0, 0, 0, 0, 1] and judged.position.tolist() == [0, 1, 2, 0, 1]
    assert judged.shared.tolist() == [1440, 0, 0, 0, 0]
    assert judged.spilled.tolist() == [0, 0, 0, 0, 0]
    assert judged.ignored.tolist() == [False] * 4 + [True]
    assert judged.area.tolist() == [1600, 400, 400, 100, 900]
    assert judged.intersection.tolist() == [[1440, 0], [0, 0]] and judged.union.tolist() == [[2100, 400], [0, 0]]
    fitted = InstanceExpectation.fit(JudgedRecords.of([image, crowd] * 20), prior_records=0)
    assert fitted.calibration.probabilities(np.array([0, 0, 1, 1]), np.array([0.9, 0.3, 0.8, 0.6])).round(
        9
    ).tolist() == [0.9, 0, 0, 0]
    intersection, union = fitted.expected(areas(JudgedRecords.of([image] * 3 + [crowd] * 3)), records=6)
    np.testing.assert_allclose(intersection, [3 * 1440, 0], atol=1e-9)
    np.testing.assert_allclose(union, [3 * 2100, 3 * 400], rtol=1e-9)
    with pytest.raises(ValueError, match="without a judgement"):
        JudgedRecords.of([])


def missing_where_unsure(records: int, share_unsure: float, seed: int) -> JudgedRecords:
    """Class 0 in every image. Of what is found with a score near 0.6 half lies beside the mask, or is not found at all;
    near 0.95 a twentieth."""
    rng = np.random.default_rng(seed)
    unsure = rng.random(records) < share_unsure
    score, area = np.where(unsure, 0.6, 0.95), rng.integers(500, 1500, records)
    missed = np.rint(np.where(unsure, 0.5, 0.05) * area).astype(np.int64)
    spilled = np.where(rng.random(records) < 0.5, missed, 0)
    none = np.zeros(records, np.int64)
    columns = [np.column_stack([each, none]) for each in (area, area + missed, area)]
    return JudgedRecords(np.arange(records), none, score, area, spilled, none > 0, area, *columns)


def test_a_model_that_is_less_sure_is_expected_to_miss_more() -> None:
    fitted = InstanceExpectation.fit(missing_where_unsure(300, 0.2, 1))
    assert (np.diff(fitted.beside) <= 0).all()
    others = missing_where_unsure(300, 0.8, 2)
    _, union = fitted.expected(areas(others), records=300)
    assert union[0] == pytest.approx(others.union[:, 0].sum(), rel=0.02)


def test_a_class_that_is_not_found_any_more_is_not_expected_to_be_missed() -> None:
    fitted = InstanceExpectation.fit(judged_instances(300, 1))
    only_first = areas(judged_instances(300, 2)) * np.array([1, 0, 1])[:, None]
    _, union = fitted.expected(only_first, records=300)
    _, both = fitted.expected(areas(judged_instances(300, 2)), records=300)
    assert union[0] == both[0] and union[1] == pytest.approx(300 * fitted.blank[1]) and union[1] < both[1] / 10


def test_what_lies_beside_a_mask_is_the_rest_of_its_label() -> None:
    image = judge_instances(
        predictions([0], [0.9], [rectangle(0, 0, 40, 30)]), labels([0], [rectangle(0, 0, 40, 40)], [False]), 1
    )
    judged = JudgedRecords.of([image])
    assert judged.spilled.tolist() == [400]
    fitted = InstanceExpectation.fit(JudgedRecords.of([image] * 20), prior_records=0)
    assert fitted.beside == pytest.approx(400 / 1200)


def test_without_records_scores_are_taken_at_their_word() -> None:
    empty, none = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
    fitted = InstanceExpectation.fit(
        JudgedRecords(empty, empty, empty / 1, empty, empty, empty > 0, empty, none, none, none)
    )
    assert (fitted.calibration.probability == CENTRES).all() and (fitted.hit == 1).all()
    assert (fitted.beside == 0).all() and (fitted.blank == 0).all()
    blank = JudgedRecords(empty, empty, empty / 1, empty, empty, empty > 0, empty, *np.zeros((3, 9, 2), np.int64))
    intersection, union = InstanceExpectation.fit(blank).expected(np.zeros((3, BINS), np.int64), records=9)
    assert intersection.tolist() == union.tolist() == [0, 0]


def test_bins_are_sixteen_of_equal_width_and_the_highest_cut_again() -> None:
    assert (EDGES[: UNIFORM_BINS - 1] == np.arange(1, 16) / 16).all()
    assert (np.diff(EDGES) > 0).all() and len(CENTRES) == BINS == 20
    assert uniform(np.arange(BINS)).tolist() == [*range(15), 15 + 16 + 17 + 18 + 19]
