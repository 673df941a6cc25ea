"""Beside the frozen baseline: windows against the last days tell a sudden shift from a slow one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import xlogy

from detectors import rolling as rolling_detector
from detectors.baseline import BaselineStatistic
from detectors.divergence import cumulative_statistic, g_statistic
from detectors.layout import Layout
from detectors.rolling import FEWEST_WINDOWS, MOST_UNITS, RollingScore, score_rolling
from detectors.statistic import PaneStatistic
from monitor import rolling
from monitor.drift import ScoredWindow, alpha_per_window, drift_windows
from monitor.evaluate import Evaluator
from monitor.present import drift_table
from monitor.settings import DriftSettings, Settings, WindowSettings
from monitor.sources.files import FileSource
from monitor.store.store import Store
from monitor.store.values import StoredScore
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, ingest_of, open_store, run, settings_of
from tests.made_records import lines, predictions

FLOAT = NDArray[np.float64]
WIDTH, PANES = 6, 12
LAYOUT = Layout.stacked([("embedding", [f"component_{i}" for i in range(4)]), ("input", ["brightness", "noise"])])
BEGAN_US = NOW_US - NOW_US % DAY_US - 40 * DAY_US


@cache
def frozen() -> BaselineStatistic:
    values = np.random.default_rng(0).normal(size=(6000, WIDTH))
    return BaselineStatistic.fit(LAYOUT, values, [""] * len(values))


def hour(
    rng: np.random.Generator, *, shift: float = 0.0, count: int = 60, frames: int = 1, broken: bool = False
) -> list[PaneStatistic]:
    """An hour's panes; ``frames`` above 1: sequences of as many, AR(1) 0.9."""
    values = rng.normal(size=(count // frames, frames, WIDTH))
    for frame in range(1, frames):
        values[:, frame] = 0.9 * values[:, frame - 1] + np.sqrt(0.19) * values[:, frame]
    values = values.reshape(-1, WIDTH)
    values[:, 0] += shift
    if broken:
        values[:, 4] = np.nan
    name = rng.integers(1 << 40)
    names = [f"{name}-{i // frames}" if frames > 1 else "" for i in range(len(values))]
    codes, panes = frozen().binning.codes(values), []
    for part in np.array_split(np.arange(len(values)), PANES):
        panes.append(PaneStatistic(WIDTH, 16))
        panes[-1].add(codes[part], [names[i] for i in part.tolist()])
    return panes


def days(seed: int, windows: int = 30, **more: Any) -> list[list[PaneStatistic]]:
    rng = np.random.default_rng([seed, 1])
    return [hour(rng, **more) for _ in range(windows)]


def verdict(seed: int, alpha: float = 0.01, before: float = 0.0, **more: Any) -> RollingScore:
    own = {key: value for key, value in more.items() if key in ("count", "frames")}
    window = hour(np.random.default_rng([seed, 2]), **more)
    return score_rolling(frozen(), window, days(seed, shift=before, **own), alpha)


class TestVerdict:
    def test_its_statistics_are_those_of_the_divergences(self) -> None:
        rng = np.random.default_rng(1)
        everything = rng.integers(0, 9, (3, 5, 17)) * np.array([1, 1, 1, 1, 0])[:, None]
        inside = rng.binomial(everything, 0.3)[:1].repeat(2, 0)
        inside[1] = rng.binomial(everything[0], 0.5)
        whole = everything[0]
        numbers = np.arange(40.0)
        g, a = rolling_detector._statistics(inside, whole, np.zeros(5, dtype=bool), xlogy(numbers, numbers))
        assert g == pytest.approx(np.nan_to_num(g_statistic(inside, whole - inside)), abs=1e-9)
        assert a == pytest.approx(np.nan_to_num(cumulative_statistic(inside, whole - inside)), abs=1e-9)

    @pytest.mark.parametrize("frames", [1, 10])
    def test_without_drift_p_values_are_as_rare_as_they_say(self, frames: int) -> None:
        p_values = np.array([one.p_value for seed in range(100) for one in verdict(seed, frames=frames).scores])
        assert len(p_values) == 200
        assert (p_values <= 0.1).sum() <= 36  # 20 expected, 4.2 their deviation
        assert (p_values <= 0.01).sum() <= 8  # 2 and 1.4

    def test_a_sudden_shift_is_found_whatever_stands_already(self) -> None:
        for standing in (0.0, 1.0):
            found = [verdict(seed, before=standing, shift=standing + 1.2) for seed in range(8)]
            assert all(one.alarm for one in found)
            assert all(one.scores[0].alarm and not one.scores[1].alarm for one in found)

    def test_what_stands_for_long_is_no_shift_any_more(self) -> None:
        found = [verdict(seed, before=2.0, shift=2.0) for seed in range(20)]
        assert sum(one.alarm for one in found) <= 2

    def test_a_shift_in_sequences_is_found(self) -> None:
        assert sum(verdict(seed, frames=5, count=120, shift=2.0).alarm for seed in range(6)) >= 5

    def test_a_decay_moves_on_less_than_twice_as_far_as_its_days_differ(self) -> None:
        rng = np.random.default_rng(3)
        before = [hour(rng, shift=0.05 * number, count=2400) for number in range(8)]
        found = score_rolling(frozen(), hour(rng, shift=0.45, count=2400), before, 0.01)
        assert found.scores[0].p_value <= 0.005  # significant it is
        assert not found.alarm

    def test_too_little_history_or_too_few_records_give_no_verdict(self) -> None:
        before = days(0, FEWEST_WINDOWS - 1)
        found = score_rolling(frozen(), hour(np.random.default_rng(1)), before, 0.01)
        assert (found.status, found.scores, found.alarm, found.p_value) == ("too few windows", (), False, None)
        few = [PaneStatistic(WIDTH, 16) for _ in range(2)]
        few[0].add(frozen().binning.codes(np.zeros((4, WIDTH))), [""] * 4)
        assert score_rolling(frozen(), few, days(0), 0.01).status == "too few records"

    def test_it_is_the_same_each_time_and_many_units_are_added_up(self) -> None:
        window = hour(np.random.default_rng(5), frames=2, count=400)
        before = days(5, 10, frames=2, count=400)
        assert window[0].sequences * PANES > 2 * MOST_UNITS
        assert score_rolling(frozen(), window, before, 0.01) == score_rolling(frozen(), window, before, 0.01)

    def test_values_that_are_not_finite_are_left_to_the_frozen_baseline(self) -> None:
        found = verdict(4, broken=True)
        assert all(np.isfinite(one.js) and 0 < one.p_value <= 1 for one in found.scores)


class TestShare:
    def test_nothing_is_taken_while_it_is_off(self) -> None:
        windows = WindowSettings(lengths_seconds=(3600,))
        off, on = DriftSettings(), DriftSettings(rolling_days=7)
        for slices in (0, 5):
            whole = alpha_per_window(3600 * SECOND_US, off, windows, "", slices)
            assert alpha_per_window(3600 * SECOND_US, on, windows, "", slices) == pytest.approx(0.75 * whole)
        name = "camera=1"
        assert alpha_per_window(3600 * SECOND_US, on, windows, name, 5) == alpha_per_window(
            3600 * SECOND_US, off, windows, name, 5
        )
        assert rolling.SHARE == 0.25


def stored(start_us: int, alarm: bool, records: int = 10) -> StoredScore:
    return StoredScore("m", "1", "", HOUR_US, start_us, "b", 0, records, alarm, b"{}", 0)


class TestHistory:
    def test_windows_that_alarmed_are_left_out_until_they_are_the_most(self) -> None:
        quiet = [stored(hour * HOUR_US, False) for hour in range(10)]
        loud = [stored((10 + hour) * HOUR_US, True) for hour in range(11)]
        assert rolling._majority([*quiet, *loud[:10]]) == quiet
        assert rolling._majority([*quiet, *loud]) == loud

    def test_neighbouring_windows_read_nearly_the_same_history(self) -> None:
        history = [stored(hour * HOUR_US, False) for hour in range(170)]
        first, second = rolling._chosen(history[:168]), rolling._chosen(history[1:169])
        assert len(first) == rolling.MOST_WINDOWS
        assert len(set(first) & set(second)) >= rolling.MOST_WINDOWS - 2
        assert [one.start_us for one in first] == sorted(one.start_us for one in first)


def view(store: Store, settings: Settings, **more: Any) -> list[ScoredWindow]:
    asked: dict[str, Any] = {"model": "street", "version": "1", "slice_key": "", "since_us": None, "until_us": None}
    asked |= {"length_us": HOUR_US, "alpha": None, **more}
    return drift_windows(store, settings.windows, settings.drift, **asked)


class TestService:
    @pytest.mark.slow
    def test_a_shift_is_sudden_and_then_it_stands(self, tmp_path: Path) -> None:
        """Six hours of history: six quiet hours, then a shift that stands."""
        settings = settings_of(tmp_path, windows={"lengths_seconds": [3600]}, drift={"rolling_days": 0.25})
        with open_store(settings) as store:
            for number in range(13):
                shift = 1.5 if number >= 6 else 0.0
                file = tmp_path / "records.jsonl"
                at_us = BEGAN_US + number * HOUR_US
                made = predictions(60, at_us, 1, first=1000 * number, shift=shift, sequence=None, slices={})
                file.write_bytes(lines(made))
                run(ingest_of(store, settings), FileSource([file], 1 << 20))
            evaluator = Evaluator(store, settings)
            evaluator.finish()
            evaluator.close()
            shown = [json.loads(one.payload) for one in store.scores("street", "1", length_us=HOUR_US)]
            assert [one["alarm"] for one in shown] == [False] * 6 + [True] * 7
            assert [one["rolling"]["status"] for one in shown[:6]] == ["too_few_windows"] * 5 + ["ok"]
            assert [one["pace"] for one in shown[5:9]] == [None, "sudden", "sudden", "sudden"]
            assert shown[6]["rolling"]["records"] == 300
            assert shown[6]["rolling"]["until"] == to_text(BEGAN_US + 5 * HOUR_US)
            # From the eleventh hour on four of the six earlier ones have alarmed: the shift is what is normal.
            assert [one["pace"] for one in shown[11:]] == ["slow", "slow"]
            assert not shown[11]["rolling"]["alarm"]
            asked = [one.to_json() for one in view(store, settings)]
            assert json.loads(json.dumps(asked)) == shown
            assert all(one["alpha"] == pytest.approx(0.75 * 0.8 / 720 / 2) for one in asked)
            assert all(one["rolling"]["alpha"] == pytest.approx(0.25 * 0.8 / 720 / 2) for one in asked)
            assert "last days (embedding" in drift_table(asked)
            # Only lengths that are scored as they close have a history, and slices have none.
            assert view(store, settings, length_us=2 * HOUR_US)[3].rolling is None

    def test_off_it_is_not_there(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, windows={"lengths_seconds": [3600]})
        with open_store(settings) as store:
            file = tmp_path / "records.jsonl"
            file.write_bytes(lines(predictions(60, BEGAN_US, 1)))
            run(ingest_of(store, settings), FileSource([file], 1 << 20))
            [window] = view(store, settings)
            assert (window.rolling, window.pace) == (None, None)
            assert window.to_json()["rolling"] is None
