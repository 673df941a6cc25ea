"""Verdicts: calibrated without drift, seen with it, attributed, and never fooled by one odd value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import betabinom, binomtest, permutation_test

from detectors.baseline import BaselineStatistic
from detectors.binning import Binning
from detectors.divergence import cumulative_statistic, g_statistic, jensen_shannon
from detectors.layout import Layout
from detectors.nulls import SignalLaw, laws, lowest_p_value, missing_p_value
from detectors.permutation import exchange
from detectors.resampling import WindowShape, coarse, draw
from detectors.sample import Sample
from detectors.score import WindowScore, score_window
from detectors.statistic import PaneStatistic

K = 8
LAYOUT = Layout.stacked([("embedding", [f"component_{k}" for k in range(K)]), ("instances", ["count"])])


def records(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.column_stack([rng.normal(size=(n, K)), rng.poisson(3.0, size=n)])


def frames(rng: np.random.Generator, sequences: int, length: int, phi: float = 0.9) -> NDArray[np.float64]:
    """AR(1) video: ``sequences`` independent runs, one after the other."""
    x = rng.normal(size=(sequences, K + 1))
    out = np.empty((sequences, length, K + 1))
    for t in range(length):
        x = phi * x + math.sqrt(1 - phi**2) * rng.normal(size=x.shape)
        out[:, t] = x
    return out.reshape(-1, K + 1)


def window_of(
    baseline: BaselineStatistic, values: NDArray[np.float64], names: list[str] | None = None
) -> PaneStatistic:
    window = PaneStatistic(baseline.layout.width, baseline.binning.bins)
    window.add(baseline.binning.codes(values), names or [""] * len(values))
    return window


def verdict(baseline: BaselineStatistic, values: NDArray[np.float64], alpha: float = 0.01) -> WindowScore:
    return score_window(baseline, window_of(baseline, values), alpha)


@pytest.fixture(scope="module")
def baseline() -> BaselineStatistic:
    return BaselineStatistic.fit(LAYOUT, records(np.random.default_rng(0), 5000), [""] * 5000)


@pytest.fixture(scope="module")
def video() -> BaselineStatistic:
    """40 sequences of 100 frames."""
    values = frames(np.random.default_rng(0), 40, 100)
    return BaselineStatistic.fit(LAYOUT, values, [f"s{i // 100}" for i in range(4000)])


@pytest.mark.parametrize("n", [30, 200])
def test_without_drift_the_rate_of_false_alarms_is_the_one_asked_for(n: int) -> None:
    alarms = looks = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        fresh = BaselineStatistic.fit(LAYOUT, records(rng, 5000), [""] * 5000)
        for _ in range(100):
            alarms += verdict(fresh, records(rng, n), alpha=0.1).alarm
            looks += 1
    # Bonferroni over two signals makes it a little less than 0.1.
    assert binomtest(alarms, looks, 0.095).pvalue > 0.001


@pytest.mark.parametrize("frames_seen", [50, 300])
def test_frames_of_a_sequence_do_not_multiply_false_alarms(video: BaselineStatistic, frames_seen: int) -> None:
    rng = np.random.default_rng(1)
    names = [f"w{i // 100}" for i in range(frames_seen)]
    p_values, naive = [], []
    for _ in range(100):
        values = frames(rng, 3, 100)[:frames_seen]
        p_values += [score.p_value for score in score_window(video, window_of(video, values, names), 0.1).scores]
        naive += [score.p_value for score in verdict(video, values, 0.1).scores]
    assert np.mean([p is not None and p <= 0.1 for p in p_values]) <= 0.2
    if frames_seen == 300:
        assert np.mean([p is not None and p <= 0.1 for p in naive]) >= 0.5


def test_half_a_sigma_in_one_component_is_seen_in_200_records(baseline: BaselineStatistic) -> None:
    rng = np.random.default_rng(2)
    shift = np.zeros(K + 1)
    shift[3] = 0.5
    verdicts = [verdict(baseline, records(rng, 200) + shift) for _ in range(40)]
    assert np.mean([v.scores[0].alarm for v in verdicts]) >= 0.9
    worst = [min(v.scores[0].dimensions, key=lambda d: d.p_value).dimension for v in verdicts]
    assert worst.count("component_3") >= 36


def test_a_tenth_of_a_sigma_in_every_component_adds_up(baseline: BaselineStatistic) -> None:
    rng = np.random.default_rng(3)
    shift = np.r_[np.full(K, 0.2), 0]
    assert np.mean([verdict(baseline, records(rng, 300) + shift).scores[0].alarm for _ in range(40)]) >= 0.9


def test_the_alarm_is_put_down_to_the_signal_that_moved(baseline: BaselineStatistic) -> None:
    values = records(np.random.default_rng(4), 500)
    values[:, K] += 2
    result = verdict(baseline, values)
    assert result.alarm
    assert result.attribution[0][0] == "instances"
    assert result.attribution[0][1] > 0.9
    assert sum(share for _, share in result.attribution) == pytest.approx(1)
    assert not verdict(baseline, records(np.random.default_rng(5), 500)).attribution


def test_js_and_kl_are_those_of_the_dimension_that_moved_most(baseline: BaselineStatistic) -> None:
    values = records(np.random.default_rng(6), 400)
    values[:, 5] += 1
    window = window_of(baseline, values)
    score = score_window(baseline, window, 0.01).scores[0]
    js = jensen_shannon(window.counts(), baseline.counts)
    assert score.js == js[5] == max(d.js for d in score.dimensions)
    assert score.kl_nats > 0


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, 0.3, 0.5, 2.0])
@pytest.mark.parametrize("n", [20, 300])
def test_the_threshold_never_contradicts_the_alarm(baseline: BaselineStatistic, shift: float, n: int) -> None:
    result = verdict(baseline, records(np.random.default_rng(7), n) + shift)
    for score in result.scores:
        assert score.threshold is not None
        assert score.alarm == (score.js > 0 and score.js >= score.threshold)
        assert score.p_value is not None
        assert not score.alarm or score.p_value <= 0.01 / 2
    assert result.alarm == any(score.alarm for score in result.scores)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e6])
def test_one_odd_value_in_a_thousand_moves_no_score_by_a_hundredth(baseline: BaselineStatistic, odd: float) -> None:
    values = records(np.random.default_rng(8), 1000)
    before = verdict(baseline, values)
    values[17, :K] = odd
    after = verdict(baseline, values)
    for one, other in zip(before.scores, after.scores, strict=True):
        assert abs(one.js - other.js) <= 0.01
        assert abs(one.kl_nats - other.kl_nats) <= 0.01
    assert before.alarm == after.alarm


def test_an_outlier_does_not_hide_a_shift_of_three_sigma(baseline: BaselineStatistic) -> None:
    values = records(np.random.default_rng(9), 100) + 3
    values[0] = 1e6
    assert verdict(baseline, values).scores[0].js > 0.5


def test_a_broken_embedding_is_seen_once_it_is_no_single_one(baseline: BaselineStatistic) -> None:
    values = records(np.random.default_rng(10), 100)
    values[0, :K] = np.nan
    assert not verdict(baseline, values).alarm
    values[:6, :K] = np.nan
    assert verdict(baseline, values).scores[0].alarm
    values[:, :K] = np.nan
    assert verdict(baseline, values).scores[0].js == pytest.approx(1, abs=0.05)


def test_a_constant_that_moves_alarms_and_one_that_stays_does_not() -> None:
    layout = Layout.stacked([("instances", ["count"])])
    constant = BaselineStatistic.fit(layout, np.full((500, 1), 3.0), [""] * 500)
    assert not verdict(constant, np.full((50, 1), 3.0)).alarm
    assert verdict(constant, np.full((50, 1), 3.0)).scores[0].p_value == 1
    assert verdict(constant, np.full((50, 1), 2.0)).alarm
    assert verdict(constant, np.full((50, 1), 4.0)).alarm


@pytest.mark.parametrize(
    ("n", "status", "scores"), [(0, "empty", 0), (1, "too few records", 2), (4, "too few records", 2), (5, "ok", 2)]
)
def test_too_few_records_is_said(baseline: BaselineStatistic, n: int, status: str, scores: int) -> None:
    result = verdict(baseline, records(np.random.default_rng(11), n) + 9)
    assert (result.status, len(result.scores), result.records) == (status, scores, n)
    assert result.alarm == (status == "ok")
    assert all((score.p_value is None) == (status != "ok") for score in result.scores)


def test_a_baseline_of_50_records_gives_an_answer() -> None:
    rng = np.random.default_rng(12)
    small = BaselineStatistic.fit(LAYOUT, records(rng, 50), [""] * 50)
    false_alarms = np.mean([verdict(small, records(rng, 40), 0.1).alarm for _ in range(150)])
    assert false_alarms <= 0.2
    assert verdict(small, records(rng, 40) + 3).alarm


def test_without_sequences_in_the_baseline_each_sequence_counts_as_one_record(baseline: BaselineStatistic) -> None:
    values = np.repeat(records(np.random.default_rng(13), 6), 50, axis=0)
    names = [f"w{i // 50}" for i in range(300)]
    assert verdict(baseline, values).alarm
    result = score_window(baseline, window_of(baseline, values, names), 0.01)
    assert not result.alarm
    assert result.sequences == 6
    few = score_window(baseline, window_of(baseline, values[:200], names[:200]), 0.01)
    assert (few.status, few.scores[0].p_value) == ("too few sequences", None)


def test_a_rate_that_the_sequences_cannot_support_is_said(video: BaselineStatistic) -> None:
    values = frames(np.random.default_rng(14), 1, 100) + 5
    one = score_window(video, window_of(video, values, ["w"] * 100), 0.001)
    assert one.supported_alpha == pytest.approx(2 / 41)  # two signals, one sequence against 40
    assert one.alarm
    small = BaselineStatistic.fit(LAYOUT, frames(np.random.default_rng(0), 9, 50), [f"s{i // 50}" for i in range(450)])
    unsupported = score_window(small, window_of(small, values, ["w"] * 100), 0.001)
    assert (unsupported.status, unsupported.alarm) == ("unsupported", False)
    assert unsupported.scores[0].p_value == pytest.approx(1 / 10)


def test_two_evaluators_find_identical_numbers(baseline: BaselineStatistic) -> None:
    values = records(np.random.default_rng(15), 150)
    first = verdict(baseline, values)
    laws.cache_clear()
    assert verdict(BaselineStatistic.from_bytes(baseline.to_bytes()), values) == first


def test_windows_on_other_bins_and_impossible_rates_are_refused(baseline: BaselineStatistic) -> None:
    with pytest.raises(ValueError, match="baseline has 9 dimensions of 16 bins, window has 9 of 8"):
        score_window(baseline, PaneStatistic(9, 8), 0.01)
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
        score_window(baseline, PaneStatistic(9, 16), 0.0)


def test_drawn_statistics_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(16)
    layout = Layout.stacked([("embedding", ["component_0"])])
    tiny = BaselineStatistic.fit(layout, rng.normal(size=(4000, 1)), [""] * 4000, bins=4)
    drawn = draw(tiny, WindowShape(400, ()), 4000)
    # Four bins, 100 records in each: chi-square with 3 degrees of freedom, and A's mean is its number of cuts.
    assert drawn.g.mean() == pytest.approx(3, abs=0.15)
    assert drawn.g.var() == pytest.approx(6, rel=0.15)
    assert drawn.a.mean() == pytest.approx(3, abs=0.15)
    rows = Sample(np.array([[0], [0], [1], [1]], dtype=np.uint8), 4, np.empty(0, dtype=np.int64))
    whole = BaselineStatistic(layout, Binning(np.array([[0.0]])), np.array([[2, 2, 0]]), 4, 0, 4, rows)
    possible = {
        (round(float(g_statistic(c, [2, 2])) * 5 / 3, 6), round(float(cumulative_statistic(c, [2, 2])) * 5 / 3, 6))
        for c in ([0, 3], [1, 2], [2, 1], [3, 0])
    }
    few = draw(whole, WindowShape(3, ()), 200)
    assert {(round(float(g), 6), round(float(a), 6)) for g, a in zip(few.g[:, 0], few.a[:, 0], strict=True)} == possible


def test_exchanging_two_sequences_is_scipys_permutation_test() -> None:
    rng = np.random.default_rng(17)
    layout = Layout.stacked([("embedding", ["component_0"])])
    levels = rng.normal(size=14) + np.r_[1, 1, np.zeros(12)]
    values = np.repeat(levels, 20)[:, None] + 0.1 * rng.normal(size=(280, 1))
    base = BaselineStatistic.fit(layout, values[40:], [f"s{i // 20}" for i in range(240)])
    window = [window_of(base, part).counts() for part in (values[:20], values[20:40])]
    everyone = [window_of(base, values[i * 20 : i * 20 + 20]).counts() for i in range(14)]

    def statistic(x: NDArray[np.int64], y: NDArray[np.int64]) -> float:
        inside, outside = (sum(everyone[int(i)] for i in side) for side in (x, y))
        return float(g_statistic(inside, outside)[0])

    expected = permutation_test(
        (np.arange(2), np.arange(2, 14)),
        statistic,
        permutation_type="independent",
        alternative="greater",
        n_resamples=np.inf,
        vectorized=False,
    )
    exchanged = exchange(base, window)
    assert len(exchanged.g) == math.comb(14, 2)
    assert exchanged.g[0, 0] == pytest.approx(expected.statistic)
    # SciPy counts values within rounding of the observed one as equal.
    assert (exchanged.g[:, 0] >= exchanged.g[0, 0] * (1 - 1e-9)).mean() == pytest.approx(expected.pvalue)
    p_value = SignalLaw.exact(exchanged, 0, 1).p_value(exchanged.g[0], exchanged.a[0])
    assert p_value * math.comb(14, 2) == pytest.approx(round(p_value * math.comb(14, 2)))


@pytest.mark.parametrize(("c", "n", "m"), [(1, 10, 50), (3, 1000, 10_000), (10, 10, 100)])
def test_missing_values_are_judged_by_scipys_beta_binomial(c: int, n: int, m: int) -> None:
    assert missing_p_value(c, n, m) == pytest.approx(betabinom.sf(c - 1, n, 0.5, m + 0.5), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 49), (3, 20), (500, 10_000), (100, 70)])
def test_the_lowest_p_value_is_one_over_the_number_of_ways(n: int, m: int) -> None:
    ways = math.comb(n + m, n)
    assert math.log(lowest_p_value(n, m)) == pytest.approx(-min(math.log(ways), 744.44), rel=1e-6)


def test_shapes_are_rounded_so_that_laws_can_be_kept() -> None:
    assert coarse(WindowShape(31, (7, 9))) == WindowShape(31, (7, 9))
    assert coarse(WindowShape(1001, (1001, 17))) == WindowShape(992, (16, 960))


def test_a_baseline_survives_its_bytes_and_has_a_name_of_its_own(video: BaselineStatistic) -> None:
    data = video.to_bytes()
    back = BaselineStatistic.from_bytes(data)
    assert back == video
    assert back.digest == video.digest
    assert back.to_bytes() == data
    assert (back.records, back.sequences, back.independent_records) == (4000, 40, 0)
    np.testing.assert_array_equal(back.counts, video.counts)
    with pytest.raises(ValueError, match="format 9, this release reads format 2"):
        BaselineStatistic.from_bytes(data[:4] + b"\x09" + data[5:])
    for at in range(5, len(data), len(data) // 40):
        with pytest.raises(ValueError, match="baseline statistic"):
            BaselineStatistic.from_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
    with pytest.raises(ValueError, match="baseline statistic"):
        BaselineStatistic.from_bytes(data[: len(data) // 2])


def test_a_baselines_sample_keeps_runs_of_sequences_in_order() -> None:
    layout = Layout.stacked([("embedding", ["component_0"])])
    values = np.arange(1200.0)[:, None]
    names = [["", "a", "b", "c"][i % 4] for i in range(1200)]
    base = BaselineStatistic.fit(layout, values, names, bins=255, sample_rows=400)
    sample = base.sample
    assert sample.independent == 100
    assert len(sample.codes) <= 400
    start = sample.independent
    for length in sample.lengths:
        run = sample.codes[start : start + length, 0].astype(int)
        assert (np.diff(run) >= 0).all()
        assert run[-1] - run[0] <= length * 4 * 255 / 1200 + 1
        start += length


def test_a_baseline_of_no_records_or_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        BaselineStatistic.fit(LAYOUT, np.empty((0, K + 1)), [])
    with pytest.raises(ValueError, match="10 records in 9 columns"):
        BaselineStatistic.fit(LAYOUT, np.zeros((10, 3)), [""] * 10)
