"""Quality from few labels: points agree with survey sampling's formulas, intervals cover, and nothing is made up."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.quality import coverage, drops, scenarios, table
from bench.quality.scenarios import Setting
from detectors.quality.assisted import Expectation, assisted, cross_fitted
from detectors.quality.contrast import drop_evidence, dropped
from detectors.quality.intervals import Shape, bounds, bounds_by_level, degrees, unseen_size
from detectors.quality.labelfree import CalibrationError, labelfree
from detectors.quality.ratio import Estimate, RatioSample, expansion, more_units
from detectors.quality.spotcheck import design, spotcheck


def some(seed: int = 0, count: int = 60, share: float = 1.0, weights: bool = False) -> RatioSample:
    """Lognormal unions, beta IoU; ``share`` of the records have the class."""
    rng = np.random.default_rng(seed)
    union = rng.lognormal(5, 0.7, count) * (rng.random(count) < share)
    weight = rng.uniform(2, 40, count) if weights else np.full(count, 20.0)
    return RatioSample.of(union * rng.beta(6, 2, count), union, weight, np.arange(count))


def from_spread(lower: float | None, point: float | None, upper: float | None) -> Estimate:
    return Estimate(point, lower, upper, 100, 100.0, 100, "ok", 0, "spotcheck", 1.0)


class TestRatioSample:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"denominator": np.ones(3)}, "denominator has shape"),
            ({"numerator": np.array([1.0, np.nan])}, "not finite"),
            ({"denominator": np.array([1.0, -1.0])}, "negative"),
            ({"weights": np.array([0.5, 2.0])}, "cannot be below 1"),
        ],
    )
    def test_what_does_not_fit_is_refused_by_name(self, change: dict[str, np.ndarray], message: str) -> None:
        sample = RatioSample.uniform([1, 1], [2, 2])
        with pytest.raises(ValueError, match=message):
            replace(sample, **change)

    def test_no_denominator_is_no_number(self) -> None:
        assert RatioSample.uniform([0, 0], [0, 0]).ratio() is None
        assert RatioSample.uniform([], []).ratio() is None

    @given(st.lists(st.floats(1, 1000), min_size=1, max_size=30), st.integers(0, 5000))
    def test_weights_add_up_to_the_population_and_certain_records_stand_for_themselves(
        self, weights: list[float], unlabelled: int
    ) -> None:
        given_weights = np.array([1.0, *weights])
        scaled = expansion(given_weights, len(given_weights) + unlabelled)
        assert scaled.sum() == pytest.approx(len(given_weights) + unlabelled)
        assert (scaled >= 1 - 1e-12).all()
        if max(weights) > 1:
            assert scaled[0] == pytest.approx(1)

    def test_more_labels_than_records_are_refused(self) -> None:
        with pytest.raises(ValueError, match="60 labels in a window of 59"):
            spotcheck(some(), 59)


class TestPoint:
    def test_is_the_weighted_ratio_of_sums_not_the_mean_of_ratios(self) -> None:
        sample = RatioSample.of([100, 0], [100, 900], [2, 4], [0, 1])
        assert spotcheck(sample).point == pytest.approx(200 / 3800)

    def test_labels_picked_because_they_looked_bad_do_not_bias_it(self) -> None:
        rng = np.random.default_rng(3)
        setting = Setting("lognormal", 1.0, 0.8)
        intersection, union = (values[0] for values in scenarios.draw(setting, rng, 1, np.arange(2000) // 15))
        chance = scenarios.probabilities(intersection, union, 200, "biased", rng)
        truth = intersection.sum() / union.sum()
        weighted, naive = [], []
        for _ in range(400):
            chosen = np.flatnonzero(rng.random(2000) < chance)
            sample = RatioSample.of(intersection[chosen], union[chosen], 1 / chance[chosen], chosen)
            weighted.append(spotcheck(sample, 2000).point)
            naive.append(intersection[chosen].sum() / union[chosen].sum())
        error = np.std(weighted) / 20
        assert abs(np.mean(weighted) - truth) < 0.005 + 3 * error
        assert np.mean(naive) < truth - 0.02

    def test_uniform_weights_count_for_nothing(self) -> None:
        sample = some()
        other = replace(sample, weights=np.ones(len(sample)))
        assert spotcheck(sample, 700).point == pytest.approx(spotcheck(other, 700).point)
        assert spotcheck(sample, 700).lower == pytest.approx(spotcheck(other, 700).lower)


class TestVariance:
    def test_is_cochrans_ratio_estimator_for_simple_random_samples(self) -> None:
        sample = some(count=80)
        units = design(sample, sample.numerator, sample.denominator, 500)
        residuals = sample.numerator - units.ratio * sample.denominator
        cochran = (1 - 80 / 500) / 80 * (residuals @ residuals / 80) / sample.denominator.mean() ** 2
        assert units.variance(units.ratio) == pytest.approx(cochran)

    def test_sequences_are_units_of_the_process_and_records_of_the_window(self) -> None:
        sample = replace(some(), clusters=np.arange(60) // 6)
        assert len(design(sample, sample.numerator, sample.denominator, None).size) == 10
        assert len(design(sample, sample.numerator, sample.denominator, 600).size) == 60
        assert len(design(sample, sample.numerator, sample.denominator, 600, "sequences").size) == 10

    def test_frames_that_repeat_each_other_count_once_in_the_process(self) -> None:
        one = some(count=15)
        thrice = RatioSample.of(*(np.repeat(values, 3) for values in (one.numerator, one.denominator, one.weights)),
                                np.repeat(one.clusters, 3))  # fmt: skip
        estimate = spotcheck(thrice)
        assert estimate.design_effect == pytest.approx(3)
        assert estimate.effective_labels == pytest.approx(15)
        assert estimate.clusters == 15
        single, repeated = (design(s, s.numerator, s.denominator, None) for s in (one, thrice))
        assert single.variance(single.ratio) == pytest.approx(repeated.variance(repeated.ratio))

    def test_degrees_of_freedom_fall_with_uneven_sizes(self) -> None:
        even = RatioSample.uniform(np.linspace(40, 80, 30), np.full(30, 100.0))
        units = design(even, even.numerator, even.denominator, None)
        uneven = replace(units, size=np.r_[units.size[0] * 20, units.size[1:]])
        residuals = units.numerator - units.ratio * units.denominator
        assert degrees(units, np.sign(residuals)) == pytest.approx(29)
        assert degrees(uneven, residuals) < 6

    def test_the_record_that_is_missing_is_large_and_had_a_small_chance(self) -> None:
        union, weights = np.array([1.0, 1.0, 10.0]), np.array([1.0, 1.0, 1.0])
        assert unseen_size(weights, union) == pytest.approx(102 / 12)
        assert unseen_size(np.array([1.0, 1.0, 20.0]), np.ones(3)) > 19
        assert unseen_size(np.ones(2), np.zeros(2)) == 0


class TestInterval:
    def test_all_labelled_has_no_width(self) -> None:
        sample = some(weights=True)
        for drawn in ("records", "sequences"):
            estimate = spotcheck(sample, 60, drawn=drawn)  # type: ignore[arg-type]
            assert estimate.lower == estimate.point == estimate.upper

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1), st.floats(1, 50)), min_size=1, max_size=40),
        st.booleans(),
        st.integers(1, 5),
    )
    def test_never_outside_0_to_1_and_never_a_nan(
        self, records: list[tuple[int, float, float]], process: bool, frames: int
    ) -> None:
        union = np.array([float(record[0]) for record in records])
        sample = RatioSample.of(
            union * [record[1] for record in records], union, [record[2] for record in records],
            np.arange(len(records)) // frames,
        )  # fmt: skip
        estimate = spotcheck(sample, None if process else len(records) + 100)
        if estimate.status == "ok":
            assert estimate.point is not None and estimate.lower is not None and estimate.upper is not None
            assert 0 <= estimate.lower <= estimate.point <= estimate.upper <= 1
            assert estimate.needed == 0
        else:
            assert (estimate.point, estimate.lower, estimate.upper) == (None, None, None)
            assert estimate.needed > 0
        assert math.isfinite(estimate.effective_labels)

    def test_perfect_labels_still_leave_room_for_what_was_not_seen(self) -> None:
        union = np.random.default_rng(0).lognormal(5, 0.5, 50)
        estimate = spotcheck(RatioSample.uniform(union, union), 2000)
        assert (estimate.point, estimate.upper) == (1, 1)
        exact = stats.beta.ppf(0.025, 50, 1)  # Clopper and Pearson, as if all areas were equal
        assert estimate.lower is not None and 0.7 < estimate.lower < exact
        mirrored = spotcheck(RatioSample.uniform(np.zeros(50), union), 2000)
        assert mirrored.upper == pytest.approx(1 - estimate.lower)

    def test_narrows_with_labels_and_with_a_lower_level(self) -> None:
        widths = [spotcheck(some(1, count), 5000).width or 0 for count in (20, 100, 1000)]
        assert widths[0] > 1.5 * widths[1] > 1.5 * 1.5 * widths[2] > 0
        narrow, wide = (spotcheck(some(), 5000, level=level).width for level in (0.8, 0.99))
        assert narrow is not None and wide is not None and narrow < wide

    def test_large_samples_agree_with_the_textbook(self) -> None:
        sample = some(4, 20_000)
        units = design(sample, sample.numerator, sample.denominator, None)
        step = stats.norm.ppf(0.975) * units.variance(units.ratio) ** 0.5
        assert bounds(units, 0.95) == pytest.approx((units.ratio - step, units.ratio + step), rel=2e-3)

    def test_labels_that_show_no_miss_narrow_the_lower_side_alone(self) -> None:
        rng = np.random.default_rng(0)
        union = rng.lognormal(5, 0.5, 100)
        good = RatioSample.uniform(union * rng.uniform(0.95, 1, 100), union)
        units = design(good, good.numerator, good.denominator, 2000)
        assert not units.missed
        (lower, upper), (lower_missed, upper_missed) = bounds(units, 0.95), bounds(replace(units, missed=True), 0.95)
        assert units.ratio - lower < 0.95 * (units.ratio - lower_missed)
        assert upper == upper_missed
        one_miss = replace(good, numerator=np.r_[0.49 * union[0], good.numerator[1:]])
        assert design(one_miss, one_miss.numerator, one_miss.denominator, 2000).missed
        assert not design(good, good.numerator - 0.9 * union, good.denominator, 2000).missed  # assisted: as labelled

    def test_where_large_records_are_better_the_upper_bound_is_further_away(self) -> None:
        union = np.linspace(1, 40, 40)
        quality = 0.5 + 0.01 * union
        better, worse = (RatioSample.uniform(union * iou, union) for iou in (quality, quality[::-1].copy()))
        tilted = design(better, better.numerator, better.denominator, None)
        residuals = tilted.numerator - tilted.ratio * tilted.denominator
        cosine = residuals @ union / np.linalg.norm(residuals) / np.linalg.norm(union)
        assert tilted.tilt == pytest.approx(cosine) and cosine > 0.3
        assert design(worse, worse.numerator, worse.denominator, None).tilt < 0
        alike = bounds_by_level(tilted)(0.95)
        lower, upper = bounds(tilted, 0.95)
        assert lower < alike[0] and upper > alike[1]
        flat = RatioSample.uniform(0.9 * union, union)
        assert design(flat, flat.numerator, flat.denominator, None).tilt == pytest.approx(0, abs=1e-6)

    def test_sides_become_alike_with_many_units(self) -> None:
        sample = some(4, 20_000)
        units = design(sample, sample.numerator, sample.denominator, None)
        shape = Shape.of(units, 1.0)
        assert (shape.below, shape.above) == pytest.approx((1, 1), abs=0.02)
        few = Shape.of(design(some(4, 12), some(4, 12).numerator, some(4, 12).denominator, None), 1.0)
        assert few.below > 1.1
        assert Shape.of(units, 100.0).below - 1 == pytest.approx((shape.below - 1) / 10, rel=0.02)  # planned labels

    def test_metrics_above_1_are_not_clipped(self) -> None:
        rng = np.random.default_rng(0)
        counts = rng.poisson(3.0, (300, 200))
        estimates = [spotcheck(RatioSample.uniform(row, np.ones(200)), bounded=False) for row in counts]
        assert 0.91 < np.mean([(one.lower or 9) <= 3 <= (one.upper or 0) for one in estimates]) < 0.99
        none = spotcheck(RatioSample.uniform(np.zeros(200), np.ones(200)), bounded=False)
        assert (none.point, none.lower) == (0, 0)
        assert none.upper == pytest.approx(stats.chi2.ppf(0.975, 2) / 2 / 200)  # exact Poisson bound for a count of 0
        signed = spotcheck(RatioSample.uniform(rng.normal(-1, 1, 200), np.ones(200)), bounded=False)
        assert signed.lower is not None and -1.2 < signed.lower < -1

    def test_one_event_has_the_exact_bounds_of_a_poisson_count_of_1(self) -> None:
        one = spotcheck(RatioSample.uniform([1] + 1999 * [0], np.ones(2000)), bounded=False)
        sure = stats.t.ppf(0.975, 3) / stats.norm.ppf(0.975)  # what few degrees of freedom add
        assert one.lower is not None and one.upper is not None
        assert 0 < one.lower * 2000 < stats.chi2.ppf(0.025, 2) / 2
        assert stats.chi2.ppf(0.975, 4) / 2 < one.upper * 2000 < sure * stats.chi2.ppf(0.975, 4) / 2

    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 0.98])
    @pytest.mark.parametrize("count", [2, 5, 10, 20])
    def test_records_that_are_all_alike_do_not_make_a_count_certain(
        self, count: int, share: float, signed: bool
    ) -> None:
        rng, missed = np.random.default_rng(count), 0
        for _ in range(300):
            errors = rng.binomial(1, share, count)
            one = spotcheck(RatioSample.uniform(errors, np.ones(count), weight=1 / 0.07), bounded=False, signed=signed)
            assert one.lower is not None and one.upper is not None and one.point is not None
            assert one.lower <= one.point <= one.upper
            missed += not one.lower - 1e-9 <= share <= one.upper + 1e-9
        assert missed <= 0.08 * 300

    def test_a_rate_of_few_uneven_records_has_no_absurd_bound(self) -> None:
        rng = np.random.default_rng(1)
        for _ in range(200):
            labels = rng.poisson(0.3, 50)
            error = np.where(labels > 0, rng.random(50) < 0.1, rng.random(50) < 0.02) * 1.0
            one = spotcheck(RatioSample.uniform(error, labels, weight=12.0), 600, bounded=False)
            if one.lower is not None and one.upper is not None and one.point is not None:
                assert 0 <= one.lower <= one.point <= one.upper < 20

    def test_a_difference_may_be_negative_even_where_no_label_shows_it(self) -> None:
        surplus, ones = np.array([1.0, 1, 1] + 47 * [0]), np.ones(50)
        one = spotcheck(RatioSample.uniform(surplus, ones, weight=12.0), 600, bounded=False, signed=True)
        assert one.lower is not None and one.upper is not None and one.point is not None
        assert one.lower < 0 < one.point < one.upper
        none = spotcheck(RatioSample.uniform(0 * ones, ones, weight=12.0), 600, bounded=False, signed=True)
        assert none.lower is not None and none.upper is not None
        assert none.lower == pytest.approx(-none.upper) and none.upper > 0
        short = spotcheck(RatioSample.uniform([-1, -1, 0], [1, 1, 1], weight=9.0), 27, bounded=False, signed=True)
        assert short.lower == -1  # there cannot be fewer predictions than none
        assert spotcheck(RatioSample.uniform(surplus, ones), 50, bounded=False, signed=True).width == 0

    def test_intervals_of_differences_cover(self) -> None:
        rng, hits = np.random.default_rng(8), []
        for _ in range(20):
            labels = rng.poisson(0.8, 600)
            surplus = rng.poisson(0.08, 600) - rng.binomial(labels, 0.03)
            for _ in range(20):
                chosen = rng.choice(600, 50, replace=False)
                sample = RatioSample.uniform(surplus[chosen], labels[chosen], weight=12.0)
                one = spotcheck(sample, 600, bounded=False, signed=True)
                assert one.lower is not None and one.upper is not None
                hits.append(one.lower <= surplus.sum() / labels.sum() <= one.upper)
        assert 0.93 < np.mean(hits) < 0.99

    def test_a_numerator_above_its_denominator_is_refused_where_the_metric_is_bounded(self) -> None:
        with pytest.raises(ValueError, match="bounded metric"):
            spotcheck(RatioSample.uniform([3, 1], [2, 2]))


class TestRefusals:
    def test_one_record_with_the_class_says_how_many_more_are_needed(self) -> None:
        estimate = spotcheck(RatioSample.uniform([9] + [0] * 19, [10] + [0] * 19), 2000)
        assert (estimate.status, estimate.needed, estimate.needed_of) == ("too few labels", 20, "labels")
        assert estimate.point is None and estimate.width is None

    def test_the_process_needs_sequences(self) -> None:
        sample = RatioSample.uniform([9, 8, 7], [10, 10, 10], clusters=[4, 4, 4])
        estimate = spotcheck(sample)
        assert (estimate.status, estimate.needed, estimate.needed_of) == ("too few labels", 1, "sequences")

    def test_fifty_labels_in_ten_sequences_get_a_number_even_from_one_sequence(self) -> None:
        union = np.r_[np.full(5, 10.0), np.zeros(45)]
        estimate = spotcheck(RatioSample.uniform(0.8 * union, union, clusters=np.arange(50) // 5))
        assert estimate.status == "ok"
        assert (estimate.lower, estimate.upper) == pytest.approx((0.02, 0.995))

    def test_nothing_labelled_is_too_few_and_all_labelled_without_the_class_is_absent(self) -> None:
        assert spotcheck(RatioSample.uniform([], []), 100).status == "too few labels"
        assert spotcheck(RatioSample.uniform([0] * 30, [0] * 30), 30).status == "absent"
        assert spotcheck(RatioSample.uniform([0] * 30, [0] * 30), 31).status == "too few labels"

    def test_a_class_never_seen_needs_more_the_longer_one_looked(self) -> None:
        assert more_units(100, 0) > more_units(10, 0) > more_units(10, 1) > 0


class TestAssisted:
    def setup_method(self) -> None:
        rng = np.random.default_rng(5)
        self.union = rng.lognormal(5, 0.5, 2000)
        self.intersection = self.union * rng.beta(6, 2, 2000)
        self.truth = float(self.intersection.sum() / self.union.sum())
        self.rng = rng

    def sample(self, count: int = 60) -> tuple[RatioSample, np.ndarray]:
        chosen = self.rng.choice(2000, count, replace=False)
        weights = np.full(count, 2000 / count)
        return RatioSample.of(self.intersection[chosen], self.union[chosen], weights, chosen), chosen

    def expectation(self, intersection: np.ndarray, union: np.ndarray, chosen: np.ndarray) -> Expectation:
        return Expectation(intersection[chosen], union[chosen], float(intersection.sum()), float(union.sum()))

    def test_perfect_expectations_give_the_windows_own_value(self) -> None:
        sample, chosen = self.sample()
        estimate = assisted(sample, self.expectation(self.intersection, self.union, chosen), 2000)
        assert estimate.point == pytest.approx(self.truth, abs=1e-3)
        assert estimate.width is not None and estimate.width < 0.01
        assert estimate.effective_labels <= 2000 + 1e-6

    def test_wrong_expectations_bias_nothing(self) -> None:
        errors = []
        for _ in range(200):
            sample, chosen = self.sample()
            half = self.expectation(0.5 * self.intersection, self.union, chosen)
            estimate = assisted(sample, half, 2000)
            assert estimate.point is not None
            errors.append(estimate.point - self.truth)
        assert abs(np.mean(errors)) < 3 * np.std(errors) / 200**0.5 + 0.002

    def test_useless_expectations_cost_next_to_nothing(self) -> None:
        ratios = []
        for _ in range(200):
            sample, chosen = self.sample(50)
            noise = self.rng.permutation(self.intersection), self.rng.permutation(self.union)
            helped, plain = assisted(sample, self.expectation(*noise, chosen), 2000), spotcheck(sample, 2000)
            assert helped.width is not None and plain.width is not None
            ratios.append(helped.width / plain.width)
        assert np.mean(ratios) < 1.05

    def test_slopes_come_from_other_sequences_and_stay_in_0_to_1(self) -> None:
        sample, chosen = self.sample()
        centred = self.intersection[chosen] - self.intersection.mean(), self.union[chosen] - self.union.mean()
        for factor in (1.0, -1.0, 0.3):
            slopes = cross_fitted(sample, factor * centred[0], factor * centred[1], sample.weights, by_sequence=False)
            assert ((slopes >= 0) & (slopes <= 1)).all()
        together = replace(sample, clusters=np.arange(60) // 30)
        slopes = cross_fitted(together, *centred, sample.weights, by_sequence=False)
        assert len(np.unique(slopes)) <= 2

    def test_in_the_process_what_the_window_happens_to_hold_cannot_be_helped(self) -> None:
        sample, chosen = self.sample()
        expectation = self.expectation(self.intersection, self.union, chosen)
        window = assisted(sample, expectation, 2000)
        process = assisted(sample, expectation, 2000, process=True)
        few = assisted(sample, expectation, 2000, process=True, population_clusters=60)
        plain = spotcheck(sample)
        assert window.width and process.width and few.width and plain.width
        assert window.width < process.width < few.width
        assert few.width == pytest.approx(plain.width, rel=0.05)
        assert process.estimand == "process"

    def test_refuses_as_spot_checks_do(self) -> None:
        sample = RatioSample.uniform([9] + [0] * 19, [10] + [0] * 19)
        estimate = assisted(sample, Expectation(np.ones(20), np.ones(20), 10.0, 20.0), 2000)
        assert (estimate.status, estimate.needed) == ("too few labels", 20)
        assert assisted(RatioSample.uniform([], []), Expectation(np.ones(0), np.ones(0), 1.0, 1.0), 9).point is None

    def test_expectations_of_other_records_or_without_end_are_refused(self) -> None:
        sample, chosen = self.sample()
        with pytest.raises(ValueError, match="60 labels, but expectations"):
            assisted(sample, self.expectation(self.intersection, self.union, chosen[:5]), 2000)
        expectation = self.expectation(self.intersection, self.union, chosen)
        with pytest.raises(ValueError, match="total is not finite"):
            assisted(sample, replace(expectation, total_numerator=math.inf), 2000)


class TestLabelfree:
    def error(self, count: int = 300, bias: float = 0.0) -> CalibrationError:
        rng = np.random.default_rng(0)
        union = rng.lognormal(5, 0.7, count)
        quality = rng.beta(8, 2, count)
        sample = RatioSample.uniform(union * quality, union, clusters=np.arange(count) // 3)
        return CalibrationError.of(sample, union * np.clip(0.8 + bias, 0, 1), union)

    def test_is_marked_and_its_interval_comes_from_the_calibrations_own_errors(self) -> None:
        estimate = labelfree(80, 100, 5000, self.error())
        assert (estimate.estimator, estimate.labels, estimate.point) == ("labelfree", 0, 0.8)
        wider = labelfree(80, 100, 5000, self.error(30))
        biased = labelfree(80, 100, 5000, self.error(bias=0.1))
        assert estimate.width and wider.width and biased.width
        assert estimate.width < wider.width
        assert biased.width > estimate.width + 0.1

    @pytest.mark.parametrize("harm", ["likely", "unlikely", "unknown"])
    def test_withdrawn_under_drift_unless_harm_is_unlikely(self, harm: str) -> None:
        estimate = labelfree(80, 100, 5000, self.error(), drifted=True, harm=harm)  # type: ignore[arg-type]
        assert (estimate.status == "ok") == (harm == "unlikely")
        assert (estimate.point is None) == (harm != "unlikely")
        assert labelfree(80, 100, 5000, self.error(), drifted=False, harm=harm).status == "ok"  # type: ignore[arg-type]

    def test_withdrawn_where_spot_checks_contradict_it(self) -> None:
        for spot, contradicted in (
            (from_spread(0.4, 0.5, 0.6), True),
            (from_spread(0.9, 0.95, 0.99), True),
            (from_spread(0.7, 0.78, 0.85), False),
            (from_spread(None, None, None), False),
        ):
            estimate = labelfree(80, 100, 5000, self.error(), last_spotcheck=spot)
            assert (estimate.status == "withdrawn") == contradicted
            assert ("spot checks say" in estimate.reason) == contradicted

    def test_nothing_expected_is_absent_and_one_calibration_sequence_too_few(self) -> None:
        assert labelfree(0, 0, 100, self.error()).status == "absent"
        few = labelfree(80, 100, 100, self.error(3))
        assert (few.status, few.needed, few.needed_of) == ("too few labels", 1, "sequences")
        assert labelfree(100, 100, 100, self.error()).upper == 1.0
        with pytest.raises(ValueError, match="expected"):
            labelfree(5, 4, 100, self.error())


class TestContrast:
    def test_an_uncertain_baseline_widens_the_difference(self) -> None:
        sample = some(7, 200)
        point = spotcheck(sample).point
        assert point is not None
        target = point + 0.06
        sure, unsure = dropped(sample, target), dropped(sample, from_spread(target - 0.08, target, target + 0.08))
        assert sure.found and not unsure.found
        assert sure.drop == unsure.drop == pytest.approx(0.06)
        assert sure.p_value is not None and unsure.p_value is not None and sure.p_value < 0.01 < unsure.p_value
        assert unsure.lower is not None and sure.lower is not None and unsure.lower < sure.lower
        assert dropped(sample, target, tolerance=0.05).found is False

    def test_found_where_the_p_value_is_at_most_alpha(self) -> None:
        sample = some(7, 200)
        for reference in np.linspace(0.7, 0.9, 15):
            contrast = dropped(sample, float(reference))
            assert contrast.p_value is not None
            assert contrast.found == (contrast.p_value <= 0.01)

    def test_one_sequence_alone_finds_nothing_that_markov_would_not(self) -> None:
        union = np.r_[np.full(5, 10.0), np.zeros(45)]
        sample = RatioSample.uniform(0.8 * union, union, clusters=np.arange(50) // 5)
        contrast = dropped(sample, 0.9)
        assert not contrast.found
        assert contrast.lower is not None and contrast.lower == pytest.approx(0.9 - 0.995)
        assert contrast.p_value is not None and contrast.p_value > 0.4

    def test_no_number_no_finding(self) -> None:
        few = dropped(RatioSample.uniform([0, 1], [0, 2]), 0.9, 50)
        assert (few.found, few.status, few.drop, few.p_value) == (False, "too few labels", None, None)
        unknown = Estimate(None, None, None, 3, 0.0, 3, "withdrawn", 0, "labelfree", 1.0)
        assert dropped(some(), unknown).status == "withdrawn"

    @pytest.mark.slow
    def test_a_drop_of_a_twentieth_is_found_and_none_is_invented(self) -> None:
        for row in drops.drop_rows(100):
            assert row["found_once"] >= 0.8
            assert row["false_once"] <= 0.01 + 3 * (0.01 * 0.99 / row["false_repetitions"]) ** 0.5
            assert row["false_anytime"] <= 0.01 + 3 * (0.01 * 0.99 / row["false_repetitions"]) ** 0.5

    def test_evidence_may_be_looked_at_after_every_label(self) -> None:
        intersections, unions = drops.draw(np.random.default_rng(1), 1000, 0.8, 0.0)
        assert np.mean(self.most(intersections, unions) >= 20) <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
        worse, areas = drops.draw(np.random.default_rng(2), 200, 0.75, 0.0)
        assert np.mean(self.most(worse, areas) >= 100) >= 0.8

    def most(self, intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
        pairs = zip(intersections, unions, strict=True)
        return np.array([drop_evidence(RatioSample.uniform(one, other), 0.8, 1.0).max() for one, other in pairs])

    def test_evidence_needs_a_bound_that_holds(self) -> None:
        with pytest.raises(ValueError, match="largest was said"):
            drop_evidence(RatioSample.uniform([1], [2]), 0.5, 1.0)
        assert len(drop_evidence(RatioSample.uniform([], []), 0.5, 1.0)) == 0


class TestCoverage:
    """The benchmark in small; ``docs/quality-benchmark.md`` has 2,000 repetitions of every case."""

    @pytest.mark.slow
    @pytest.mark.parametrize("family", ["lognormal", "counts", "video"])
    @pytest.mark.parametrize("choice", ["uniform", "biased"])
    def test_windows(self, family: str, choice: scenarios.Choice) -> None:
        row = coverage.window_coverage(Setting(family, 1.0, 0.8), 100, choice, 1000)
        assert row["coverage"] >= 0.93 - 3 * (0.93 * 0.07 / 1000) ** 0.5
        assert row["refused"] == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("choice", ["uniform", "biased"])
    def test_good_classes_are_not_covered_at_any_price(self, choice: scenarios.Choice) -> None:
        row = coverage.window_coverage(Setting("lognormal", 1.0, 0.97), 100, choice, 1000)
        assert row["coverage"] >= 0.93 - 3 * (0.93 * 0.07 / 1000) ** 0.5
        assert row["width"] < 0.03

    @pytest.mark.slow
    def test_processes(self) -> None:
        row = coverage.process_coverage(Setting("video", 0.5, 0.6, 0.3), 100, 1000)
        assert row["coverage"] >= 0.93 - 3 * (0.93 * 0.07 / 1000) ** 0.5

    @pytest.mark.slow
    def test_good_expectations_save_labels_and_still_cover(self) -> None:
        row = coverage.help_of_expectations(Setting("video", 1.0, 0.8), 100, 0.9, 400)
        assert row["labels_saved"] >= 4
        assert row["coverage"] >= 0.9


class TestScenarios:
    @pytest.mark.parametrize("family", scenarios.FAMILIES)
    def test_populations_are_what_they_are_called(self, family: str) -> None:
        setting = Setting(family, 0.5, 0.8)
        rng, sequences = setting.generator("test"), np.arange(3000) // 15
        intersection, union = scenarios.draw(setting, rng, 5, sequences)
        assert ((intersection >= 0) & (intersection <= union)).all()
        assert 0.35 < (union > 0).mean() < 0.62
        assert 0.55 < intersection.sum() / union.sum() < 0.95
        present = (union > 0).reshape(5, -1, 15)
        assert present.mean(2).var() > 2 * present.mean() * (1 - present.mean()) / 15  # alike within sequences
        again = scenarios.draw(setting, setting.generator("test"), 5, sequences)
        np.testing.assert_array_equal(again[1], union)

    def test_expectations_correlate_as_they_are_said_to(self) -> None:
        setting = Setting("counts", 1.0, 0.8)
        rng = setting.generator("correlation")
        intersection, union = (values[0] for values in scenarios.draw(setting, rng, 1, np.arange(20_000) // 15))
        ratio = intersection.sum() / union.sum()
        for quality in (0.0, 0.8, 0.9):
            numerator, denominator = scenarios.expectations(intersection, union, quality, rng)
            found = np.corrcoef(numerator - ratio * denominator, intersection - ratio * union)[0, 1]
            assert found == pytest.approx(quality, abs=0.03)

    def test_biased_choice_prefers_what_looks_bad_and_keeps_its_floor(self) -> None:
        rng = np.random.default_rng(0)
        union = np.full(2000, 10.0)
        intersection = np.linspace(0, 10, 2000)
        chance = scenarios.probabilities(intersection, union, 100, "biased", rng)
        assert chance.sum() == pytest.approx(100, rel=1e-3)
        assert chance.min() >= 0.25 * 100 / 2000 - 1e-9
        assert chance[:500].mean() > 2 * chance[-500:].mean()


class TestTable:
    def test_shows_what_was_measured_and_marks_what_is_out_of_its_band(self) -> None:
        rows = [
            {"figure": "coverage", **coverage.window_coverage(Setting("counts", 1.0, 0.8), labels, "uniform", 200)}
            for labels in (50, 100)
        ]
        rows[0]["coverage"], rows[1]["coverage"] = 0.9, 0.95
        page = table.page(rows)
        assert "**90.0**" in page
        assert "| 95.0 /" in page or " 95.0 / " in page
        assert "1 of 2 inside, 1 below, 0 above" in page
        assert "Assisted" not in page.replace("assisted", "")

    def test_rare_cases_have_the_wider_band(self) -> None:
        row = {"labels": 50, "frequency": 0.05, "coverage": 0.985}
        assert table.rare(row) and table.within(row)
        assert not table.within({**row, "frequency": 1.0})
