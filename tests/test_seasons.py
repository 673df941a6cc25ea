"""Seasons: hours and weekdays are told apart where the data shows it, and windows are compared with their like."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.calendar import DAY_US, HOUR_US, NOWHERE, Calendar, local_times, zone_of
from detectors.layout import Layout
from detectors.rhythm import FEWEST_DAYS, LEVEL
from detectors.score import score_window
from detectors.seasons import FEWEST_OF_PART
from detectors.statistic import PaneStatistic
from monitor.baseline import Baseline
from monitor.drift import score_panes
from monitor.evaluate import Evaluator
from monitor.offline import make_baseline
from monitor.pane_state import PaneState
from monitor.seasonal import in_season
from monitor.sources.files import FileSource
from monitor.store.store import Store
from monitor.store.values import PaneKey, StoredPane
from monitor.windows import SECOND_US, Window
from tests.embedded import baseline_of, ingest_of, run, settings_of
from tests.made_records import lines, prediction

FLOAT = NDArray[np.float64]
WIDTH = 8
LAYOUT = Layout.stacked([("embedding", [f"component_{i}" for i in range(5)]), ("input", ["brightness", "noise", "x"])])
MONDAY_US = 18_519 * DAY_US
"""14 September 2020, a Monday, at midnight UTC."""


def records(
    days: int, *, rhythm: float = 0.0, weekend: float = 0.0, per_hour: int = 40, seed: int = 0
) -> tuple[FLOAT, NDArray[np.int64]]:
    """Values and times; brightness is high from 08:00 to 20:00, and a component differs on weekends."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, days * DAY_US, days * 24 * per_hour)) + MONDAY_US
    values = rng.normal(size=(len(times), WIDTH))
    values[:, 5] += rhythm * by_day(times)
    values[:, 0] += weekend * ((times // DAY_US + 3) % 7 >= 5)
    return values, times


def by_day(times: NDArray[np.int64]) -> NDArray[np.bool_]:
    hours = times // HOUR_US % 24
    return (hours >= 8) & (hours < 20)


@cache
def fitted(days: int, rhythm: float = 0.0, weekend: float = 0.0, zone: str = "UTC") -> BaselineStatistic:
    values, times = records(days, rhythm=rhythm, weekend=weekend)
    return BaselineStatistic.fit(LAYOUT, values, [""] * len(times), times_us=times, zone=zone)


def names(baseline: BaselineStatistic) -> list[str]:
    assert baseline.seasons is not None
    calendar = baseline.seasons.rhythm.calendar
    return [] if calendar is None else [calendar.name(part) for part in range(calendar.parts)]


def panes_of(
    baseline: BaselineStatistic, values: FLOAT, times: NDArray[np.int64], minutes: int = 5
) -> list[StoredPane]:
    """Panes as the store has them."""
    codes, found = baseline.binning.codes(values), []
    starts = times - times % (minutes * 60 * SECOND_US)
    for start in np.unique(starts).tolist():
        state = PaneState.empty(WIDTH, baseline.binning.bins)
        state.statistic.add(codes[starts == start], [""] * int((starts == start).sum()))
        found.append(StoredPane(PaneKey("m", "1", "", start, "b"), state.statistic.records, state.to_bytes()))
    return found


def night(seed: int, *, hour: int = 3, day: int = 1, count: int = 60, shift: float = 0.0) -> tuple[FLOAT, Any]:
    rng = np.random.default_rng([seed, hour])
    times = np.sort(rng.integers(0, HOUR_US, count)) + MONDAY_US + day * DAY_US + hour * HOUR_US
    values = rng.normal(size=(count, WIDTH))
    values[:, 5] += 2.0 * by_day(times)
    values[:, 1] += shift
    return values, times


class TestCalendar:
    def test_local_hours_and_weekdays_follow_the_zone_through_summer_time(self) -> None:
        # 25 October 2020, a Sunday: at 01:00 UTC clocks in Berlin went back from 03:00 to 02:00.
        times = np.array([MONDAY_US + 41 * DAY_US + hour * HOUR_US for hour in (-2, -1, 0, 1, 2)])
        local = local_times(times, "Europe/Berlin")
        assert local.hour.tolist() == [0, 1, 2, 2, 3]
        assert local.weekday.tolist() == [6, 6, 6, 6, 6]
        assert local_times(times, "UTC").weekday.tolist() == [5, 5, 6, 6, 6]

    def test_zones_off_by_a_quarter_of_an_hour(self) -> None:
        assert local_times(np.array([MONDAY_US + HOUR_US // 4]), "Asia/Kathmandu").hour.tolist() == [6]
        assert local_times(np.array([MONDAY_US + HOUR_US // 4 - 1]), "Asia/Kathmandu").hour.tolist() == [5]

    def test_an_unknown_zone_is_named(self) -> None:
        with pytest.raises(ValueError, match="Mars/Olympus"):
            zone_of("Mars/Olympus")

    def test_hours_that_the_baseline_lacks_are_of_no_part(self) -> None:
        calendar = Calendar("UTC", (NOWHERE,) * 8 + (0,) * 8 + (1,) * 8, (0,) * 7)
        times = MONDAY_US + np.arange(0, 24, 8) * HOUR_US
        assert calendar.of(times).tolist() == [NOWHERE, 0, 1]
        assert (calendar.name(0), calendar.name(1)) == ("08:00-16:00", "16:00-00:00")


class TestLearning:
    def test_day_and_night_are_told_apart(self) -> None:
        found = fitted(10, 2.0)
        assert len(names(found)) >= 2
        calendar = found.seasons.rhythm.calendar  # type: ignore[union-attr]
        assert calendar is not None
        day, dark = {calendar.hours[hour] for hour in range(8, 20)}, {calendar.hours[hour] for hour in (*range(8), 23)}
        assert not day & dark

    def test_weekends_are_told_apart_from_four_weeks_on(self) -> None:
        assert names(fitted(28, 0.0, 0.7))[-1] == "Sat-Sun"  # a split too many among the others costs little
        short = fitted(14, 0.0, 0.7).seasons
        assert short is not None and short.rhythm.p_weekdays is None and short.rhythm.calendar is None

    def test_a_week_is_the_least(self) -> None:
        found = fitted(FEWEST_DAYS - 1, 2.0).seasons
        assert found is not None and found.rhythm.calendar is None
        assert found.rhythm.describe() == "none: records of 6 days, 7 are needed"
        assert names(fitted(FEWEST_DAYS, 2.0))

    def test_data_without_a_rhythm_hardly_ever_shows_one(self) -> None:
        learnt = 0
        for seed in range(60):
            values, times = records(8, per_hour=6, seed=seed)
            levels = np.random.default_rng([seed, 1]).normal(size=8)  # days differ, hours of a day do not
            values[:, 5] += levels[(times - MONDAY_US) // DAY_US]
            seasons = BaselineStatistic.fit(LAYOUT, values, [""] * len(times), times_us=times).seasons
            assert seasons is not None
            learnt += seasons.rhythm.calendar is not None
        assert learnt <= 3  # at a level of 1 %: 4 or more of 60 in one case of 300
        assert LEVEL == 0.01

    def test_without_times_nothing_is_learnt(self) -> None:
        values, times = records(10, rhythm=2.0)
        assert BaselineStatistic.fit(LAYOUT, values, [""] * len(times)).seasons is None


class TestParts:
    def test_counts_of_the_parts_add_up_to_all(self) -> None:
        baseline = fitted(28, 2.0, 0.7)
        seasons = baseline.seasons
        assert seasons is not None
        assert (seasons.counts.sum(0, dtype=np.int64) == baseline.counts).all()
        assert int(seasons.records.sum()) == baseline.records
        assert len(seasons.rows) == len(baseline.sample.codes)
        for part in range(len(seasons.records)):
            alone = baseline.in_season(tuple(int(part == other) for other in range(len(seasons.records))))
            assert (alone.counts == seasons.counts[part]).all()
            assert alone.records == alone.independent_records == seasons.records[part]

    def test_a_mixture_has_the_windows_proportions(self) -> None:
        baseline = fitted(10, 2.0)
        seasons = baseline.seasons
        assert seasons is not None
        inside = [0] * (len(seasons.records) + 1)
        inside[0], inside[1] = 900, 100
        mixture = seasons.mixture(inside)
        assert mixture is not None
        assert mixture[0] / sum(mixture) == pytest.approx(0.9, abs=1 / 64)
        mixed = baseline.in_season(mixture)
        expected = sum(
            weight / sum(mixture) * seasons.counts[part] / seasons.records[part]
            for part, weight in enumerate(mixture)
            if weight
        )
        assert mixed.counts / mixed.records == pytest.approx(expected, abs=1.01 / mixed.records)
        assert len(mixed.sample.codes) > 100

    def test_windows_in_the_baselines_own_proportions_share_one_mixture(self) -> None:
        baseline = fitted(10, 2.0)
        seasons = baseline.seasons
        assert seasons is not None
        rng = np.random.default_rng(0)
        drawn = [rng.poisson(seasons.records / 10).tolist() for _ in range(20)]
        assert len({seasons.mixture([*one, 0]) for one in drawn}) <= 3
        whole = seasons.mixture([*(seasons.records // 10).tolist(), 0])
        assert whole is not None and (baseline.in_season(whole).counts == baseline.counts).all()

    def test_times_that_the_baseline_does_not_know_make_no_mixture(self) -> None:
        seasons = fitted(10, 2.0).seasons
        assert seasons is not None
        nothing = [0] * len(seasons.records)
        assert seasons.mixture([*nothing, 10]) is None
        assert seasons.mixture([95, *nothing[1:], 5]) is not None
        assert seasons.mixture([80, *nothing[1:], 20]) is None

    def test_seasons_survive_their_bytes_and_change_the_baselines_name(self) -> None:
        baseline = fitted(28, 2.0, 0.7)
        data = baseline.to_bytes()
        back = BaselineStatistic.from_bytes(data)
        assert back == baseline and back.to_bytes() == data
        assert back.seasons is not None and baseline.seasons is not None
        assert back.seasons.rhythm == baseline.seasons.rhythm
        assert (back.seasons.counts == baseline.seasons.counts).all()
        values, times = records(28, rhythm=2.0, weekend=0.7)
        plain = BaselineStatistic.fit(LAYOUT, values, [""] * len(times))
        assert plain != baseline and plain.to_bytes()[4] == 1
        assert BaselineStatistic.from_bytes(plain.to_bytes()).seasons is None

    def test_sequences_are_cut_where_the_part_changes(self) -> None:
        values, times = records(10, rhythm=2.0)
        sequences = [f"s{i // 30}" for i in range(len(times))]
        baseline = BaselineStatistic.fit(LAYOUT, values, sequences, times_us=times)
        seasons = baseline.seasons
        assert seasons is not None and len(seasons.records) > 1
        alone = baseline.in_season((1,) + (0,) * (len(seasons.records) - 1))
        assert alone.independent_records == 0
        assert 0 < alone.sequences < baseline.sequences
        assert alone.sample.independent == 0
        assert int(alone.sample.lengths.sum()) == len(alone.sample.codes) <= alone.records
        assert int(alone.sample.lengths.max()) <= 30


class TestWindows:
    def test_a_night_is_compared_with_nights(self) -> None:
        baseline = fitted(10, 2.0)
        plain = BaselineStatistic.from_bytes(baseline.to_bytes())
        seasonal = whole = 0
        for seed in range(40):
            values, times = night(seed, day=seed % 5)
            window = PaneStatistic(WIDTH, 16)
            window.add(baseline.binning.codes(values), [""] * len(times))
            own = in_season(baseline, panes_of(baseline, values, times))
            assert own.baseline is not None and own.names is not None and len(own.names) == 1
            seasonal += score_window(own.baseline, window, 0.01).alarm
            whole += score_window(plain, window, 0.01).alarm
        assert seasonal <= 3
        assert whole >= 38

    def test_a_shift_at_night_is_found(self) -> None:
        baseline = fitted(10, 2.0)
        for seed in range(10):
            values, times = night(seed, shift=1.2)
            window = PaneStatistic(WIDTH, 16)
            window.add(baseline.binning.codes(values), [""] * len(times))
            own = in_season(baseline, panes_of(baseline, values, times)).baseline
            assert own is not None and score_window(own, window, 0.001).alarm

    def test_a_day_that_is_like_a_night_is_found(self) -> None:
        baseline = fitted(10, 2.0)
        values, times = night(0, hour=3)
        noon = times + 9 * HOUR_US
        window = PaneStatistic(WIDTH, 16)
        window.add(baseline.binning.codes(values), [""] * len(times))
        own = in_season(baseline, panes_of(baseline, values, noon)).baseline
        assert own is not None and score_window(own, window, 0.001).alarm

    def test_a_window_at_hours_that_the_baseline_lacks_is_counted_and_not_scored(self) -> None:
        values, times = records(10, rhythm=2.0)
        busy = (times // HOUR_US % 24 >= 5) & (times // HOUR_US % 24 < 23)
        statistic = BaselineStatistic.fit(LAYOUT, values[busy], [""] * int(busy.sum()), times_us=times[busy])
        street = baseline_of("street")
        baseline = Baseline(
            "m", "1", "", street.classes, street.plan, street.backbone, street.projection, statistic, {}, None
        )
        late, at = night(0)
        window = Window(MONDAY_US + DAY_US + 3 * HOUR_US, MONDAY_US + DAY_US + 4 * HOUR_US)
        scored = score_panes(panes_of(statistic, late, at), window, baseline, 0.01)
        assert scored is not None
        shown = scored.to_json()
        assert (shown["status"], shown["records"], shown["alarm"], shown["season"]) == ("unknown_season", 60, False, ())
        seen = score_panes(panes_of(statistic, late, at + 3 * HOUR_US), window, baseline, 0.01)
        assert seen is not None and seen.score is not None and seen.to_json()["season"]

    def test_fewer_than_fifty_records_are_no_part_to_compare_with(self) -> None:
        values, times = records(10, rhythm=2.0)
        baseline = fitted(10, 2.0)
        assert baseline.seasons is not None
        few = np.flatnonzero(~by_day(times))[: FEWEST_OF_PART - 1]
        some = np.sort(np.r_[few, np.flatnonzero(by_day(times))[:500]])
        part = BaselineStatistic.counted(
            LAYOUT,
            baseline.binning,
            values,
            [""] * len(times),
            some,
            times_us=times,
            rhythm=baseline.seasons.rhythm,
        )
        dark, at = night(0)
        assert in_season(part, panes_of(baseline, dark, at)).baseline is None


def embedded_records(days: int, first: int, began_us: int, *, per_hour: int = 4) -> bytes:
    """Records whose embedding follows the hour."""

    def made() -> Any:
        for number in range(days * 24 * per_hour):
            at_us = began_us + number * HOUR_US // per_hour
            rng = np.random.default_rng(first + number)
            shift = 1.5 * bool(by_day(np.array([at_us]))[0])
            yield prediction(first + number, at_us, rng=rng, shift=shift, sequence=None)

    return lines(made())


class TestService:
    @pytest.mark.slow
    def test_a_baseline_learns_its_seasons_and_windows_are_compared_with_them(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, windows={"lengths_seconds": [3600]})
        file = tmp_path / "train.jsonl"
        file.write_bytes(embedded_records(9, 0, MONDAY_US, per_hour=12))
        with Store.open(settings, write=True) as store:
            identity, built, _ = make_baseline(settings, store, [file], model="street", version="1")
            store.activate(identity)
            assert names(built.statistic)
            assert all(one.seasons is not None for one in built.slices.values())
            later = tmp_path / "later.jsonl"
            later.write_bytes(embedded_records(1, 100_000, MONDAY_US + 14 * DAY_US, per_hour=30))
            run(ingest_of(store, settings), FileSource([later], 1 << 20))
            scored: list[Any] = []
            evaluator = Evaluator(store, settings, on_score=scored.append)
            evaluator.finish()
            evaluator.close()
            whole = [one for one in scored if not one.slice]
            assert len(whole) == 24
            assert all(one.season and len(one.season) == 1 for one in whole)
            assert not any(one.score.alarm for one in whole)
            assert store.early_readings() == []  # the sequential test knows no seasons

    def test_a_baseline_of_one_day_has_none(self) -> None:
        statistic = baseline_of("street").statistic
        assert statistic.seasons is not None
        assert statistic.seasons.rhythm.calendar is None
        assert statistic.seasons.rhythm.describe().startswith("none: records of ")

    def test_the_zone_is_the_settings_and_an_unknown_one_is_refused(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, drift={"season_time_zone": "Asia/Tokyo"})
        file = tmp_path / "train.jsonl"
        file.write_bytes(embedded_records(8, 0, MONDAY_US, per_hour=10))
        with Store.open(settings, write=True) as store:
            _, built, _ = make_baseline(settings, store, [file], model="street", version="1")
        assert built.statistic.seasons is not None
        calendar = built.statistic.seasons.rhythm.calendar
        assert calendar is not None and calendar.zone == "Asia/Tokyo"
        assert calendar.hours[16] != calendar.hours[18]  # 08:00 UTC is 17:00 in Tokyo
        with pytest.raises(ValueError, match="Mars/Olympus"):
            settings_of(tmp_path, drift={"season_time_zone": "Mars/Olympus"})
