"""Frechet's distance in a verdict: its law, what only it sees, what it costs the others, and how its state travels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.exemplars import Exemplars
from detectors.frechet import SIGNAL, FrechetReading, independent_distance, score_with_frechet, shift_js, unevenness
from detectors.frechet_law import draw, frechet_law
from detectors.layout import Layout
from detectors.moments import LIMIT, Moments, frechet_distance
from detectors.moments_baseline import SAMPLE_STEPS, MomentsBaseline
from detectors.resampling import WindowShape
from detectors.score import WindowScore, score_window
from detectors.statistic import PaneStatistic
from detectors.wire import Writer
from monitor.baseline import Baseline
from monitor.drift import drift_windows
from monitor.metrics import DriftReading, SignalReading, Totals, families
from monitor.pane_state import MAGIC, PaneState
from tests.embedded import HOUR_US, NOW_US, baseline_of, encode, feed, open_store, settings_of
from tests.made_records import predictions

K, OTHER = 8, 2
COLUMNS = [("embedding", [f"component_{i}" for i in range(K)]), ("input", [f"column_{i}" for i in range(OTHER)])]
ALPHA = 0.01


def made(seed: int, records: int, rho: float = 0.0, input_shift: float = 0.0) -> NDArray[np.float64]:
    """Components, of which 2 and 5 have correlation ``rho``, and columns of another signal."""
    values = np.random.default_rng(seed).normal(size=(records, K + OTHER))
    values[:, 5] = rho * values[:, 2] + np.sqrt(1 - rho**2) * values[:, 5]
    values[:, K] += input_shift
    return values


BASE = made(0, 4000)
BASELINE = BaselineStatistic.fit(Layout.stacked(COLUMNS), BASE, [""] * len(BASE))
OWN = MomentsBaseline.fit(BASE[:, :K], [""] * len(BASE))
assert OWN is not None


def moments_of(values: NDArray[np.float64]) -> Moments:
    moments = Moments(K)
    moments.add(values[:, :K])
    return moments


def statistic_of(values: NDArray[np.float64], sequences: Sequence[str] | None = None) -> PaneStatistic:
    window = PaneStatistic(K + OTHER, 16)
    window.add(BASELINE.binning.codes(values), sequences or [""] * len(values))
    return window


def judged(values: NDArray[np.float64], alpha: float = ALPHA) -> tuple[WindowScore, FrechetReading]:
    score, reading = score_with_frechet(BASELINE, OWN, statistic_of(values), moments_of(values), alpha)
    assert reading is not None
    return score, reading


class TestTheLaw:
    @pytest.mark.parametrize("heavy", [False, True])
    def test_windows_without_drift_are_as_far_as_it_says(self, heavy: bool) -> None:
        rng = np.random.default_rng(1)

        def sample(records: int) -> NDArray[np.float64]:
            z = rng.normal(size=(records, K))
            return z * np.sqrt(3 / rng.chisquare(5, size=(records, 1))) if heavy else z

        rates = []
        for _ in range(3):
            own = MomentsBaseline.fit(sample(4000), [""] * 4000)
            assert own is not None
            law = frechet_law(own, WindowShape(100, ()))
            p_values = [law.p_value(frechet_distance(own.moments, moments_of(sample(100)))) for _ in range(200)]
            rates += [p_value <= 0.1 for p_value in p_values]
        # 600 windows: 10 % has a standard error of 1.2 %, and each baseline is off by a little itself.
        assert 0.05 < np.mean(rates) < 0.16

    def test_records_of_a_sequence_are_never_taken_as_independent(self) -> None:
        rng = np.random.default_rng(2)

        def frames(sequences: int) -> NDArray[np.float64]:
            return np.repeat(rng.normal(size=(sequences, K)), 10, axis=0) + 0.1 * rng.normal(size=(10 * sequences, K))

        own = MomentsBaseline.fit(frames(200), [f"video {i // 10}" for i in range(2000)])
        assert own is not None
        right, wrong = frechet_law(own, WindowShape(0, (10,) * 8)), frechet_law(own, WindowShape(80, ()))
        found = [frechet_distance(own.moments, moments_of(frames(8))) for _ in range(100)]
        assert np.mean([right.p_value(one) <= 0.05 for one in found]) <= 0.12
        assert np.mean([wrong.p_value(one) <= 0.05 for one in found]) > 0.9

    def test_a_window_as_large_as_none_that_is_drawn_has_the_law_of_its_own_size(self) -> None:
        assert OWN is not None
        for records in (3000, 20_000):
            expected = independent_distance(K, records, len(BASE))
            assert frechet_law(OWN, WindowShape(records, ())).mean == pytest.approx(expected, rel=0.15)

    def test_critical_is_the_inverse_of_the_p_value(self) -> None:
        assert OWN is not None
        law = frechet_law(OWN, WindowShape(100, ()))
        for p_value in (0.04, 0.01, 1e-5, 1e-9):
            assert law.p_value(law.critical(p_value)) == pytest.approx(p_value, rel=0.02)

    def test_equal_baselines_draw_the_same_windows(self) -> None:
        assert OWN is not None
        shape = WindowShape(40, ())
        again = MomentsBaseline.from_bytes(OWN.to_bytes())
        assert (draw(OWN, shape, 50)[0] == draw(again, shape, 50)[0]).all()

    def test_sequences_cannot_be_drawn_from_a_baseline_without_any(self) -> None:
        assert OWN is not None
        with pytest.raises(ValueError, match="the baseline has none to draw from"):
            draw(OWN, WindowShape(0, (5, 5)))


class TestTheVerdict:
    def test_components_that_begin_to_move_together_are_found_by_it_alone(self) -> None:
        score, reading = judged(made(3, 300, rho=0.6))
        alarms = {one.signal: one.alarm for one in score.scores}
        assert alarms == {"embedding": False, "input": False, SIGNAL: True}
        assert score.alarm
        assert score.attribution == (("embedding", 1.0),)
        assert {column.dimension for column in score.dimensions[:2]} == {"component_2", "component_5"}
        assert sum(column.share for column in score.dimensions) == pytest.approx(1.0)
        assert reading.distance > reading.baseline

    def test_without_drift_nothing_alarms_and_the_distance_is_small(self) -> None:
        for seed in range(10, 20):
            score, reading = judged(made(seed, 300), alpha=0.001)
            assert not score.alarm
            assert score.attribution == ()
            assert reading.distance < 0.05
            assert reading.without_drift == pytest.approx(independent_distance(K, 300, len(BASE)), rel=0.2)

    def test_it_alarms_exactly_where_js_reaches_the_threshold(self) -> None:
        seen = set()
        for seed, rho in enumerate(np.linspace(0, 0.9, 20)):
            one = judged(made(100 + seed, 150, rho=float(rho)))[0].scores[-1]
            assert one.signal == SIGNAL
            assert one.threshold is not None
            assert one.alarm == (one.js > 0 and one.js >= one.threshold)
            seen.add(one.alarm)
        assert seen == {True, False}

    def test_all_signals_share_alpha_alike(self) -> None:
        values = made(5, 200)
        score, _ = judged(values)
        without = score_window(BASELINE, statistic_of(values), ALPHA * 2 / 3)
        assert score.alpha == ALPHA
        assert score.scores[:-1] == without.scores
        assert score.supported_alpha == pytest.approx(without.supported_alpha * 3 / 2)

    def test_shares_of_an_alarm_that_another_signal_raises_too_add_up(self) -> None:
        score, _ = judged(made(6, 300, rho=0.6, input_shift=0.6))
        assert [one.alarm for one in score.scores] == [False, True, True]
        shares = dict(score.attribution)
        assert set(shares) == {"embedding", "input"}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert min(shares.values()) > 0.1
        by_signal = {name: sum(one.share for one in score.dimensions if one.signal == name) for name in shares}
        assert by_signal == pytest.approx(shares)
        assert [one.share for one in score.dimensions] == sorted((one.share for one in score.dimensions), reverse=True)

    def test_a_shift_that_the_embedding_shows_is_counted_once(self) -> None:
        values = made(7, 300)
        values[:, 3] += 1.0
        score, _ = judged(values)
        assert [one.alarm for one in score.scores] == [True, False, True]
        without = score_window(BASELINE, statistic_of(values), ALPHA * 2 / 3)
        assert (score.attribution, score.dimensions) == (without.attribution, without.dimensions)

    def test_one_outlier_or_nan_among_a_thousand_changes_little(self) -> None:
        values = made(8, 1000)
        before = judged(values)[1]
        for broken in (1e6, np.nan, np.inf):
            spoilt = values.copy()
            spoilt[0, :K] = broken
            after = judged(spoilt)[1]
            assert after.distance + after.without_drift == pytest.approx(
                before.distance + before.without_drift, rel=0.02
            )

    @pytest.mark.parametrize(
        "case", ["no moments", "no moments in the baseline", "other components", "few records", "two sequences"]
    )
    def test_where_it_cannot_be_judged_it_takes_no_share_of_alpha(self, case: str) -> None:
        values = made(9, K - 1 if case == "few records" else 200)
        moments: Moments | None = moments_of(values)
        own, baseline, window = OWN, BASELINE, statistic_of(values)
        if case == "no moments":
            moments = None
        elif case == "no moments in the baseline":
            own = None
        elif case == "other components":
            moments = Moments(K - 1)
            moments.add(values[:, : K - 1])
        elif case == "two sequences":
            names = [f"s{i // 40}" for i in range(len(BASE))]
            baseline = BaselineStatistic.fit(Layout.stacked(COLUMNS), BASE, names)
            own = MomentsBaseline.fit(BASE[:, :K], names)
            window = statistic_of(values, ["a"] * 100 + ["b"] * 100)
        score, reading = score_with_frechet(baseline, own, window, moments, ALPHA)
        assert reading is None
        assert score == score_window(baseline, window, ALPHA)

    def test_an_empty_window_has_no_distance(self) -> None:
        score, reading = score_with_frechet(BASELINE, OWN, PaneStatistic(K + OTHER, 16), Moments(K), ALPHA)
        assert (score.status, reading) == ("empty", None)

    def test_the_js_shown_is_that_of_a_shift_as_far(self) -> None:
        x = np.linspace(-12, 14, 200_001)
        for distance in (0.01, 0.3, 4.0):
            p, q = (np.exp(-((x - mean) ** 2) / 2) / np.sqrt(2 * np.pi) for mean in (0.0, np.sqrt(distance)))
            mixed = (p + q) / 2
            expected = np.trapezoid((p * np.log2(p / mixed) + q * np.log2(q / mixed)) / 2, x)
            assert shift_js(distance) == pytest.approx(expected, abs=1e-6)
        assert shift_js(-1.0) == shift_js(0.0) == 0.0

    def test_blocks_of_an_uneven_baseline_are_far_from_the_rest(self) -> None:
        drifting = BASE[:, :K] + np.linspace(-1, 1, len(BASE))[:, None]
        uneven = MomentsBaseline.fit(drifting, [""] * len(BASE))
        assert OWN is not None
        assert uneven is not None
        assert unevenness(OWN) < 0.02
        assert unevenness(uneven) > 1.0


class TestTheBaselinesSide:
    def test_it_survives_a_round_trip(self) -> None:
        names = ["", "a", "b", "a"] * 25
        own = MomentsBaseline.fit(BASE[:100, :K], names, sample_rows=60)
        assert own is not None
        read = MomentsBaseline.from_bytes(own.to_bytes())
        assert read == own
        assert hash(read) == hash(own)
        assert read.to_bytes() == own.to_bytes()
        assert (own.moments.records, own.independent_records, own.sequences) == (100, 25, 2)
        assert len(own.rows) == own.independent + own.lengths.sum() <= 61

    def test_its_sample_holds_the_components(self) -> None:
        own = MomentsBaseline.fit(BASE[:50, :K], [""] * 50)
        assert own is not None
        assert np.abs(own.rows / SAMPLE_STEPS - BASE[:50, :K]).max() <= 0.51 / SAMPLE_STEPS
        assert np.abs(own.rows).max() <= LIMIT * SAMPLE_STEPS

    def test_records_that_are_not_finite_are_left_out(self) -> None:
        values = BASE[:50, :K].copy()
        values[7, 3] = np.nan
        own = MomentsBaseline.fit(values, [""] * 50)
        assert own == MomentsBaseline.fit(np.delete(values, 7, axis=0), [""] * 49)
        assert MomentsBaseline.fit(np.full((50, K), np.nan), [""] * 50) is None

    def test_damage_is_refused(self) -> None:
        own = MomentsBaseline.fit(BASE[:20, :K], [""] * 20)
        assert own is not None
        data = own.to_bytes()
        for end in range(0, len(data), 7):
            with pytest.raises(ValueError, match="baseline of moments"):
                MomentsBaseline.from_bytes(data[:end])

    def test_a_baseline_carries_it_and_an_older_one_loads_without(self) -> None:
        baseline = baseline_of("street")
        assert baseline.moments is not None
        assert baseline.moments.moments.records == baseline.statistic.records
        tree = msgspec.msgpack.decode(baseline.to_bytes())
        del tree["moments"]
        older = Baseline.from_bytes(msgspec.msgpack.encode({**tree, "format": 2}))
        assert older.moments is None
        assert older.statistic == baseline.statistic


class TestPanes:
    def state(self, values: NDArray[np.float64], first: int) -> PaneState:
        state = PaneState.empty(K + OTHER, 16, K)
        assert state.moments is not None
        codes = BASELINE.binning.codes(values)
        state.statistic.add(codes, [f"s{i % 3}" for i in range(len(values))])
        state.exemplars.add([f"record {first + i}" for i in range(len(values))], codes)
        state.moments.add(values[:, :K])
        return state

    def test_parts_of_eight_workers_merge_to_the_same_bytes_in_any_order(self) -> None:
        values = made(11, 800)
        parts = [self.state(values[start : start + 100], start).to_bytes() for start in range(0, 800, 100)]
        whole = PaneState.merged(parts).to_bytes()
        merged = PaneState.from_bytes(whole)
        assert merged.moments == moments_of(values)
        for seed in range(5):
            random.Random(seed).shuffle(parts)
            half = PaneState.merged(parts[:3]).to_bytes()
            assert PaneState.merged([half, *parts[3:]]).to_bytes() == whole

    def test_a_pane_of_format_1_is_read_and_leaves_its_window_without_moments(self) -> None:
        state = self.state(made(12, 40), 0)
        writer = Writer()
        writer.raw(MAGIC + b"\x01")
        writer.block(state.exemplars.to_bytes())
        writer.raw(state.statistic.to_bytes())
        older = PaneState.from_bytes(writer.data())
        assert (older.statistic, older.exemplars, older.moments) == (state.statistic, state.exemplars, None)
        for parts in ([writer.data(), state.to_bytes()], [state.to_bytes(), writer.data()]):
            both = PaneState.merged(parts)
            assert both.moments is None
            assert both.statistic.records == 80
            assert PaneState.from_bytes(both.to_bytes()).moments is None

    def test_panes_of_slices_have_a_statistic_alone(self) -> None:
        state = PaneState.empty(2, 4)
        state.statistic.add(np.array([[0, 1]], dtype=np.uint8), [""])
        read = PaneState.from_bytes(state.to_bytes())
        assert (read.moments, read.exemplars) == (None, Exemplars(2))
        assert len(state.to_bytes()) == len(MAGIC) + 2 + len(state.statistic.to_bytes())

    def test_what_this_release_does_not_know_is_refused_by_name(self) -> None:
        data = self.state(made(13, 5), 0).to_bytes()
        with pytest.raises(ValueError, match="pane has format 3, this release reads up to 2"):
            PaneState.from_bytes(MAGIC + b"\x03" + data[5:])
        writer = Writer()
        writer.raw(MAGIC + b"\x02\x01")
        writer.text("weather")
        writer.block(b"rain")
        with pytest.raises(ValueError, match="pane has 'weather', which this release does not know"):
            PaneState.from_bytes(writer.data())
        for end in range(0, len(data), 97):
            with pytest.raises(ValueError, match=r"pane|exemplars|moment"):
                PaneState.from_bytes(data[:end])

    def test_blocks_out_of_order_are_refused(self) -> None:
        writer = Writer()
        writer.raw(MAGIC + b"\x02\x02")
        for name in ("moments", "exemplars"):
            writer.text(name)
            writer.block(b"")
        with pytest.raises(ValueError, match="blocks are not in order"):
            PaneState.from_bytes(writer.data())


def test_the_distance_is_a_metric_where_there_is_one() -> None:
    signal = SignalReading(SIGNAL, 0.1, 0.2, 0.03, False)
    reading = DriftReading("street", "3", "", NOW_US, 300, (signal,), 0.25)
    for one, expected in ((reading, [(("street", "3"), 0.25)]), (replace(reading, frechet=None), [])):
        page = {family.name: series for family, series in families(Totals(NOW_US, drift=[one]), 1000)}
        assert [(series.labels, series.value) for series in page["segwatch_drift_frechet_distance"]] == expected


def test_a_window_of_the_store_shows_it_for_all_records_and_for_no_slice(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with open_store(settings) as store:
        feed(store, settings, [encode(one) for one in predictions(60, NOW_US - HOUR_US, 1)])
        common = {
            "model": "street",
            "version": "1",
            "since_us": None,
            "until_us": None,
            "length_us": None,
            "alpha": 0.1,
        }
        [whole] = drift_windows(store, settings.windows, settings.drift, slice_key="", **common)  # type: ignore[arg-type]
        [camera] = drift_windows(
            store,
            settings.windows,
            settings.drift,
            slice_key="camera=1",
            **common,  # type: ignore[arg-type]
        )
    shown = whole.to_json()
    assert set(shown["frechet"]) == {"distance", "without_drift", "baseline"}
    assert shown["scores"][-1]["signal"] == SIGNAL
    assert shown["scores"][-1]["p_value"] is not None
    of_slice = camera.to_json()
    assert of_slice["frechet"] is None
    assert SIGNAL not in [one["signal"] for one in of_slice["scores"]]
