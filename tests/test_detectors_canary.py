"""The canary's mathematics against brute force, resampling and known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.bench_canary import first_crossing, of_records, sequences, skewed
from detectors.canary.difference import Difference, paired, paired_mean, unpaired
from detectors.canary.histogram import Histogram, compare_means, compare_quantile, compare_shares
from detectors.canary.sequential import LOSSES, Differences, confidence_sequence, log_evidence
from detectors.canary.units import VersionSums, by_sequence, units_of
from detectors.canary.verdict import Evidence, Rule, decide, gather
from detectors.quality.ratio import RatioSample

RULE = Rule()


def pair(
    rng: np.random.Generator,
    count: int,
    loss: float,
    clusters: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None,
) -> tuple[RatioSample, RatioSample]:
    union = rng.lognormal(7, 0.5, count)
    quality = np.clip(rng.normal(0.8, 0.1, count), 0, 1)
    worse = np.clip(quality - loss + rng.normal(0, 0.05, count), 0, 1)
    return RatioSample.uniform(quality * union, union, clusters), RatioSample.uniform(worse * union, union, clusters)


class TestDifference:
    def test_the_interval_is_as_wide_as_resampled_sequences_say(self) -> None:
        rng = np.random.default_rng(1)
        clusters = np.repeat(np.arange(80), 5)
        stable, canary = pair(rng, 400, 0.04, clusters)
        found = paired(stable, canary)
        resampled = []
        for _ in range(2000):
            chosen = rng.integers(80, size=80)
            at = (chosen[:, None] * 5 + np.arange(5)).ravel()
            ratios = [one.numerator[at].sum() / one.denominator[at].sum() for one in (stable, canary)]
            resampled.append(ratios[1] - ratios[0])
        low, high = np.quantile(resampled, [0.025, 0.975])
        assert found.lower is not None
        assert found.upper is not None
        assert found.difference == pytest.approx(float(canary.ratio() or 0) - float(stable.ratio() or 0))
        assert 1.0 <= (found.upper - found.lower) / (high - low) < 1.35

    def test_weights_count_records_as_often_as_they_say(self) -> None:
        rng = np.random.default_rng(2)
        stable, canary = pair(rng, 60, 0.05)
        weights = rng.integers(1, 4, 60)
        at = np.repeat(np.arange(60), weights)
        weighted = [RatioSample.of(one.numerator, one.denominator, weights, one.clusters) for one in (stable, canary)]
        repeated = [RatioSample.uniform(one.numerator[at], one.denominator[at], at) for one in (stable, canary)]
        first, second = paired(weighted[0], weighted[1]), paired(repeated[0], repeated[1])
        assert first.difference == pytest.approx(second.difference)
        assert first.lower == pytest.approx(second.lower, abs=0.01)

    def test_versions_that_never_differed_still_have_a_width(self) -> None:
        stable, _ = pair(np.random.default_rng(3), 50, 0)
        found = paired(stable, stable)
        assert found.difference == 0
        assert found.lower is not None
        assert -0.05 < found.lower < -0.005

    def test_pairs_say_more_than_the_same_records_unpaired(self) -> None:
        stable, canary = pair(np.random.default_rng(4), 200, 0.04)
        together, apart = paired(stable, canary), unpaired(stable, canary)
        assert together.difference == pytest.approx(apart.difference)
        assert _width(together) < 0.7 * _width(apart)

    def test_a_single_sequence_gives_no_number(self) -> None:
        stable, canary = pair(np.random.default_rng(5), 30, 0.04, np.zeros(30, np.int64))
        found = paired(stable, canary)
        assert (found.difference, found.status, found.labels, found.sequences) == (None, "too few labels", 30, 1)
        nothing = RatioSample.uniform([0, 0], [0, 0])
        assert paired(nothing, nothing).status == "absent"

    def test_the_mean_over_classes_is_the_mean_of_their_differences(self) -> None:
        rng = np.random.default_rng(6)
        first, second = pair(rng, 100, 0.02), pair(rng, 100, 0.06)
        mean = paired_mean([first[0], second[0]], [first[1], second[1]])
        each = [paired(*one).difference or 0.0 for one in (first, second)]
        assert mean.difference == pytest.approx(np.mean(each))
        assert _width(mean) < max(_width(paired(*first)), _width(paired(*second)))

    def test_records_that_do_not_match_are_refused(self) -> None:
        stable, canary = pair(np.random.default_rng(7), 10, 0)
        with pytest.raises(ValueError, match="records of the stable version"):
            paired(stable, RatioSample.uniform(canary.numerator[:9], canary.denominator[:9]))


def _width(one: Difference) -> float:
    assert one.lower is not None
    assert one.upper is not None
    return one.upper - one.lower


class TestSequential:
    def test_evidence_follows_from_its_formula(self) -> None:
        rng = np.random.default_rng(1)
        units = Differences(rng.normal(-0.1, 0.2, 30).clip(-1, 1), rng.uniform(1, 9, 30), rng.integers(1, 6, 30))
        wealth = dict(LOSSES)
        squares, images, capped, shares = 0.0, 0.0, [], []
        for k in range(30):
            images += units.images[k]
            usual = images / (k + 1)
            before = units.size[: max(k, 1)]
            capped.append(min(1.0, units.size[k] / (0.1 * (before**2).sum() / before.sum())))
            shares.append(capped[k] / np.mean(capped[: max(k, 1)]))
            x = -shares[k] * units.difference[k]
            guess = 0.04 * (0.2 + 0.8 / usual) * max(1.0, float(np.mean(np.square(shares))))
            slow, quick = ((weight * guess + squares) / (weight + k) for weight in (120 / usual, 10))
            moment = max(slow, quick)
            for target in wealth:
                y = target / moment * x
                factor = 1 + y + y * y / 2 if y >= 0 else 1 / (1 - y + y * y / 2)
                wealth[target] *= factor / (1 + target**2 / moment / 2)
            squares += x * x
            assert log_evidence(units)[k] == pytest.approx(math.log(sum(wealth.values())))

    @pytest.mark.parametrize(
        "made", [lambda r, n, m: of_records(r.normal(m, 0.2, n)), skewed(1, 1.0), skewed(-1, 1.0), sequences(5, 0.5)]
    )
    def test_a_canary_that_loses_nothing_is_rarely_ever_rolled_back(self, made: object) -> None:
        rng = np.random.default_rng(8)
        assert callable(made)
        wrong = [first_crossing(log_evidence(made(rng, 1000, 0.0)), RULE.wrong_rollback) for _ in range(400)]
        assert sum(one is not None for one in wrong) / 400 < 0.02  # 0.2 to 0.7 % in bench_canary's 2,000 runs

    def test_a_loss_of_five_points_is_found_within_300_pairs(self) -> None:
        rng = np.random.default_rng(9)
        found = [
            first_crossing(log_evidence(of_records(rng.normal(-0.05, 0.2, 300))), RULE.wrong_rollback)
            for _ in range(300)
        ]
        assert sum(one is not None for one in found) / 300 > 0.8

    def test_an_image_of_any_size_and_difference_moves_evidence_by_little(self) -> None:
        before = log_evidence(Differences.of_records(np.zeros(50)))[-1]
        shock = Differences(np.append(np.zeros(50), -1.0), np.append(np.ones(50), 1e9), np.ones(51, np.int64))
        assert log_evidence(shock)[-1] - before < math.log(1 / RULE.wrong_rollback)

    def test_the_confidence_sequence_holds_the_truth_and_narrows(self) -> None:
        rng = np.random.default_rng(10)
        differences = rng.normal(-0.03, 0.1, 2000)
        widths = []
        for count in (200, 2000):
            lower, upper = confidence_sequence(Differences.of_records(differences[:count]), 0.025)
            assert lower is not None
            assert upper is not None
            assert lower < -0.03 < upper
            widths.append(upper - lower)
        assert widths[1] < widths[0]
        assert confidence_sequence(Differences.of_records(np.zeros(0)), 0.025) == (None, None)

    def test_what_cannot_be_is_refused(self) -> None:
        one = np.ones(2, np.int64)
        with pytest.raises(ValueError, match=r"-1\.\.1"):
            Differences(np.array([0.0, 2.0]), np.ones(2), one)
        with pytest.raises(ValueError, match="without size"):
            Differences(np.zeros(2), np.array([1.0, 0.0]), one)
        with pytest.raises(ValueError, match="shapes"):
            Differences(np.zeros(2), np.ones(3), one)


def sums(numerator: list[list[float]], denominator: list[list[float]]) -> VersionSums:
    values = np.array(numerator, np.float64), np.array(denominator, np.float64)
    return by_sequence(*values, np.ones(len(numerator)), np.arange(len(numerator)))


class TestUnits:
    def test_swapping_the_versions_turns_the_sign_and_nothing_else(self) -> None:
        rng = np.random.default_rng(1)
        sides = []
        for _ in range(2):
            union = rng.uniform(0, 9, (20, 3)) * (rng.random((20, 3)) < 0.7)
            sides.append(sums((union * rng.random((20, 3))).tolist(), union.tolist()))
        for is_paired in (True, False):
            there, mean = units_of(sides[0], sides[1], paired=is_paired)
            back, mean_back = units_of(sides[1], sides[0], paired=is_paired)
            for one, other in zip([*there, mean], [*back, mean_back], strict=True):
                assert np.allclose(one.differences.difference, -other.differences.difference)
                assert np.array_equal(one.differences.size, other.differences.size)
                assert np.array_equal(one.places, other.places)

    def test_a_few_invented_pixels_count_as_few(self) -> None:
        stable = sums([[90.0, 0.0]] * 10, [[100.0, 0.0]] * 10)
        canary = sums([[90.0, 0.0]] * 10, [[100.0, 0.0]] * 5 + [[100.0, 1.0]] * 5)
        stable.numerator[0, 1] = stable.denominator[0, 1] = canary.numerator[0, 1] = canary.denominator[0, 1] = 100.0
        _, mean = units_of(stable, canary, paired=True)
        assert -0.15 < mean.differences.difference.min() < 0  # -0.5, if both classes had the same say

    def test_sequences_come_in_the_order_of_their_first_record(self) -> None:
        found = by_sequence(
            np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1)), np.array([1.0, 1.0, 2.0]), np.array([5, 2, 5])
        )
        assert found.numerator.tolist() == [[9.0], [2.0]]


class TestVerdict:
    def judged(
        self, loss: dict[str, float], count: int = 400, critical: frozenset[str] = frozenset()
    ) -> tuple[Evidence, str]:
        rng = np.random.default_rng(11)
        names = list(loss)
        union = rng.uniform(50, 150, (count, len(names)))
        old = np.clip(rng.normal(0.8, 0.05, union.shape), 0, 1)
        new = np.clip(old - np.array([loss[name] for name in names]) + rng.normal(0, 0.03, union.shape), 0, 1)
        each = [by_sequence(one * union, union, np.ones(count), np.arange(count)) for one in (old, new)]
        classes, mean = units_of(each[0], each[1], paired=True)
        evidence = gather(names, classes, mean, count, critical, RULE.margin)
        return evidence, decide(evidence, RULE, count, {}, critical).decision

    def test_one_class_of_many_that_loses_is_enough(self) -> None:
        evidence, decision = self.judged({"car": 0.0, "bus": 0.0, "person": 0.08, "sky": 0.0})
        assert decision == "roll back"
        assert evidence.classes["person"].max() > math.log(200) > evidence.classes["car"].max()

    def test_all_as_good_is_promoted_and_a_critical_class_that_is_not_seen_is_not(self) -> None:
        assert self.judged({"car": 0.0, "bus": 0.0}, 900)[1] == "promote"
        evidence, decision = self.judged({"car": 0.0}, 900, frozenset({"pedestrian"}))
        assert decision == "continue"
        assert "pedestrian" in decide(evidence, RULE, 900, {}, frozenset({"pedestrian"})).missing[0]

    def test_a_canary_that_fails_more_often_is_not_promoted(self) -> None:
        evidence, _ = self.judged({"car": 0.0}, 900)
        verdict = decide(evidence, RULE, 900, {}, frozenset(), ["fails more often"])
        assert (verdict.decision, verdict.reasons[0]) == ("continue", "fails more often")

    def test_the_average_of_evidence_is_never_above_the_largest(self) -> None:
        evidence, _ = self.judged({"car": 0.02, "bus": 0.04})
        highest = np.max([evidence.mean, *evidence.classes.values()], axis=0)
        assert (evidence.path <= highest + 1e-9).all()

    def test_where_the_loss_began_is_told(self) -> None:
        differences = np.concatenate([np.random.default_rng(1).normal(0, 0.05, 200), np.full(100, -0.2)])
        path = log_evidence(Differences.of_records(differences))
        evidence = Evidence(path, path, {}, {})
        crossed = evidence.crossed(RULE.wrong_rollback)
        assert crossed is not None
        assert 190 <= evidence.began(crossed) <= 201 < crossed


class TestHistogram:
    def test_intervals_hold_what_the_values_themselves_say(self) -> None:
        rng = np.random.default_rng(1)
        bounds = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0)
        held = 0
        for _ in range(200):
            values = [rng.gamma(2, 0.05, 300), rng.gamma(2, 0.06, 300)]
            one, two = (
                Histogram(np.bincount(np.searchsorted(bounds, each), minlength=8), bounds, float(each.sum()))
                for each in values
            )
            found = compare_means(one, two)
            assert found.difference == pytest.approx(values[1].mean() - values[0].mean())
            assert found.lower is not None
            assert found.upper is not None
            held += found.lower < 0.02 < found.upper
            median = compare_quantile(one, two, 0.5)
            assert median.lower is not None
            assert median.upper is not None
            assert median.lower <= np.median(values[1]) - np.median(values[0]) <= median.upper
        assert held >= 185

    def test_what_lies_above_the_last_bound_has_no_upper_bound(self) -> None:
        slow = Histogram(np.array([1, 9]), (0.1,), 20.0)
        quick = Histogram(np.array([10, 0]), (0.1,), 0.5)
        assert compare_means(quick, slow).upper is None
        assert compare_quantile(quick, slow, 0.5).difference is None
        assert compare_means(Histogram(np.zeros(2, np.int64), (0.1,), 0.0), quick).difference is None

    def test_shares_without_records_are_not_known(self) -> None:
        assert compare_shares((0, 0), (1, 10)).difference is None
        assert compare_shares((0, 10), (0, 10)).upper == pytest.approx(0.2775, abs=1e-3)
