"""``segwatch drift``: windows of any multiple of the pane, scored when they are asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor import early
from monitor.drift import ScoredWindow, alpha_per_window, drift_windows
from monitor.errors import BaselineError
from monitor.evaluate import Evaluator
from monitor.settings import DriftSettings, Settings, WindowSettings
from monitor.sources.files import FileSource
from monitor.store.store import Store
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, add_baseline, ingest_of, open_store, run, settings_of
from tests.made_records import lines, predictions

BEGAN_US = NOW_US - NOW_US % DAY_US
PANE_US = 300 * SECOND_US
KEYS = {
    "model", "version", "slice", "start", "end", "records", "sequences", "alarm", "harm", "alpha", "supported_alpha",
    "scores", "attribution", "dimensions", "slices", "sequences_needed",
}  # fmt: skip
SCORE_KEYS = {"signal", "js", "kl_nats", "p_value", "threshold", "baseline_js", "alarm"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("drift"))


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[Store]:
    """Four hours of 30 records each, of which the last one is shifted; the first hour also of a version 2."""
    with open_store(settings) as opened:
        for hour in range(4):
            read(opened, settings, 30, hour, first=1000 * hour, shift=2.0 if hour == 3 else 0.0)
        read(opened, settings, 30, 0, version="2")
        yield opened


def read(store: Store, settings: Settings, count: int, hour: int, **more: Any) -> None:
    file = Path(settings.data_dir) / "records.jsonl"
    file.write_bytes(lines(predictions(count, BEGAN_US + hour * HOUR_US, 1, **more)))
    run(ingest_of(store, settings), FileSource([file], 1 << 20))


def view(store: Store, settings: Settings, **more: Any) -> list[ScoredWindow]:
    asked: dict[str, Any] = {
        "model": "street",
        "version": "1",
        "slice_key": "",
        "since_us": None,
        "until_us": None,
        "length_us": HOUR_US,
        "alpha": None,
    }
    return drift_windows(store, settings.windows, settings.drift, **{**asked, **more})


def spans(windows: list[ScoredWindow]) -> list[tuple[float, float, int]]:
    """(start, end) in hours since the beginning, and records."""
    return [
        ((one.window.start_us - BEGAN_US) / HOUR_US, (one.window.end_us - BEGAN_US) / HOUR_US, one.records)
        for one in windows
    ]


class TestWindows:
    def test_hours(self, store: Store, settings: Settings) -> None:
        assert spans(view(store, settings)) == [(0, 1, 30), (1, 2, 30), (2, 3, 30), (3, 4, 30)]

    @pytest.mark.parametrize(("panes", "windows"), [(1, 48), (2, 24), (6, 8), (12, 4), (24, 2), (288, 1)])
    def test_any_multiple_of_the_pane_holds_every_record_once(
        self, store: Store, settings: Settings, panes: int, windows: int
    ) -> None:
        found = view(store, settings, length_us=panes * PANE_US)
        assert len(found) == windows
        assert sum(one.records for one in found) == 120
        assert all(one.window.length_us == panes * PANE_US for one in found)

    def test_all_is_one_window_from_the_first_pane_to_the_end_of_the_last(
        self, store: Store, settings: Settings
    ) -> None:
        assert spans(view(store, settings, length_us=None)) == [(0, 4, 120)]

    def test_a_window_of_two_hours_counts_the_same_as_its_two_hours_merged(
        self, store: Store, settings: Settings
    ) -> None:
        first, second = view(store, settings, length_us=2 * HOUR_US)
        hours = view(store, settings)
        assert first.records == hours[0].records + hours[1].records
        assert second.records == hours[2].records + hours[3].records

    @pytest.mark.parametrize(
        ("since", "until", "hours"),
        [
            (1.0, 3.0, [1, 2]),
            (0.5, 2.5, [1, 2]),
            (1.0, None, [1, 2, 3]),
            (None, 1.0, [0]),
            (None, 1.25, [0, 1]),
            (7.0, 9.0, []),
            (2.25, 2.75, []),
        ],
    )
    def test_those_that_begin_in_the_range_are_shown_and_whole(
        self, store: Store, settings: Settings, since: float | None, until: float | None, hours: list[int]
    ) -> None:
        found = view(
            store,
            settings,
            since_us=None if since is None else BEGAN_US + round(since * HOUR_US),
            until_us=None if until is None else BEGAN_US + round(until * HOUR_US),
        )
        assert spans(found) == [(hour, hour + 1, 30) for hour in hours]

    def test_all_of_a_range_is_what_begins_in_it(self, store: Store, settings: Settings) -> None:
        found = view(store, settings, length_us=None, since_us=BEGAN_US + HOUR_US, until_us=BEGAN_US + 3 * HOUR_US)
        assert spans(found) == [(1, 3, 60)]

    def test_a_slice_has_windows_of_its_own(self, store: Store, settings: Settings) -> None:
        cameras = [view(store, settings, slice_key=f"camera={number}") for number in range(3)]
        assert [sum(one.records for one in windows) for windows in cameras] == [40, 40, 40]
        assert {one.slice for one in cameras[0]} == {"camera=0"}
        assert view(store, settings, slice_key="camera=9") == []

    def test_without_a_version_all_are_shown(self, store: Store, settings: Settings) -> None:
        found = view(store, settings, version=None, length_us=None)
        assert [(one.version, one.records) for one in found] == [("1", 120), ("2", 30)]


class TestScores:
    def test_the_shifted_hour_is_the_one_that_alarms(self, store: Store, settings: Settings) -> None:
        assert [one.score.alarm for one in view(store, settings) if one.score] == [False, False, False, True]

    def test_a_version_without_a_baseline_is_never_scored_against_another_ones(
        self, store: Store, settings: Settings
    ) -> None:
        [window] = view(store, settings, version="2", length_us=None)
        assert window.score is None
        assert window.baseline_id == ""
        shown = window.to_json()
        assert (shown["records"], shown["status"], shown["scores"]) == (30, "no_baseline", [])
        assert (shown["alarm"], shown["harm"], shown["alpha"]) == (False, "unknown", None)

    def test_alpha_is_the_windows_share_of_the_budget_unless_given(self, store: Store, settings: Settings) -> None:
        # One false alarm in 30 days, less a fifth, over two lengths: 720 hours share a half of that, of which the three
        # cameras take half.
        assert [one.to_json()["alpha"] for one in view(store, settings)] == [pytest.approx(0.8 / 2 / 720 / 2)] * 4
        of_camera = [one.to_json()["alpha"] for one in view(store, settings, slice_key="camera=1")]
        assert of_camera == [pytest.approx(0.8 / 2 / 720 / 6)] * 4
        assert {one.to_json()["alpha"] for one in view(store, settings, alpha=0.2)} == {0.2}

    def test_a_higher_alpha_never_takes_an_alarm_away(self, store: Store, settings: Settings) -> None:
        alarms = [
            {one.window for one in view(store, settings, alpha=alpha) if one.score and one.score.alarm}
            for alpha in (1e-9, 1e-3, 0.05, 0.5, 0.999)
        ]
        assert all(fewer <= more for fewer, more in itertools.pairwise(alarms))
        assert len(alarms[0]) < len(alarms[-1])

    def test_the_shares_of_all_windows_add_up_to_the_budget(self) -> None:
        windows = WindowSettings(lengths_seconds=(3600, 7200, 86400))
        drift = DriftSettings(false_alarms_per_30_days=2.0)
        total = sum(
            alpha_per_window(length * SECOND_US, drift, windows) * 30 * 86400 / length
            for length in windows.lengths_seconds
        )
        assert total == pytest.approx(2.0 * (1 - early.SHARE))  # the rest is the sequential test's
        whole, part = (alpha_per_window(3600 * SECOND_US, drift, windows, name, slices=5) for name in ("", "a=b"))
        assert whole + 5 * part == pytest.approx(alpha_per_window(3600 * SECOND_US, drift, windows))
        assert alpha_per_window(3000 * DAY_US, drift, windows) == 0.5

    def test_what_is_asked_for_equals_what_the_evaluator_stored(self, store: Store, settings: Settings) -> None:
        evaluator = Evaluator(store, settings)
        evaluator.finish()
        evaluator.close()
        stored = [json.loads(one.payload) for one in store.scores("street", "1", length_us=HOUR_US)]
        assert stored == [one.to_json() for one in view(store, settings)]

    def test_folding_changes_nothing(self, settings: Settings, tmp_path: Path) -> None:
        own = settings_of(tmp_path)
        with open_store(own) as store:
            read(store, own, 40, 0, shift=0.5)
            before = [one.to_json() for one in view(store, own)]
            evaluator = Evaluator(store, own)
            evaluator.finish()
            evaluator.close()
            after = [one.to_json() for one in view(store, own)]
            # What is new is when the sequential test alarmed, which nobody knew before it was fed.
            assert [{**one, "early": None} for one in after] == before

    def test_records_under_an_earlier_baseline_are_left_out(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        with open_store(settings) as store:
            read(store, settings, 30, 0, version="2")
            identity = add_baseline(store, "street", "2")
            assert view(store, settings, version="2") == []
            read(store, settings, 20, 1, version="2", first=500)
            [window] = view(store, settings, version="2")
            assert (window.records, window.baseline_id) == (20, identity)


class TestJson:
    def test_it_has_every_key_of_the_contract_and_no_nan(self, store: Store, settings: Settings) -> None:
        windows = view(store, settings, version=None) + view(store, settings, slice_key="camera=1")
        text = json.dumps([one.to_json() for one in windows], allow_nan=False)
        for shown in json.loads(text):
            assert shown.keys() >= KEYS
            assert shown["slice"] in (None, "camera=1")
            assert shown["harm"] in ("likely", "unlikely", "unknown")
            assert shown["start"].endswith("Z") and shown["start"] < shown["end"]
            for score in shown["scores"]:
                assert score.keys() == SCORE_KEYS
                assert 0 <= score["js"] <= 1 and score["kl_nats"] >= 0
                assert score["p_value"] is None or 0 <= score["p_value"] <= 1
            for kind in ("attribution", "dimensions"):
                shares = [one["share"] for one in shown[kind]]
                assert not shares or sum(shares) == pytest.approx(1)
                assert bool(shares) == shown["alarm"]

    def test_times_are_rfc_3339(self, store: Store, settings: Settings) -> None:
        shown = view(store, settings)[0].to_json()
        assert (shown["start"], shown["end"]) == (to_text(BEGAN_US), to_text(BEGAN_US + HOUR_US))

    def test_few_or_broken_values_make_no_nan_either(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        with open_store(settings) as store:
            read(store, settings, 1, 0)
            read(store, settings, 30, 1, first=100, embedding=[1e300] * 16, instances=[])
            read(store, settings, 30, 2, first=200, sequence="one")
            shown = [one.to_json() for one in view(store, settings, alpha=0.01)]
        json.dumps(shown, allow_nan=False)
        assert [one["status"] for one in shown][:2] == ["too_few_records", "alarm"]
        assert shown[1]["scores"][0]["p_value"] < 1e-6  # the embedding: all values are infinite


class TestUnknown:
    def test_a_model_that_was_never_seen_is_named(self, store: Store, settings: Settings) -> None:
        with pytest.raises(BaselineError, match="model 'strete'"):
            view(store, settings, model="strete", version=None)

    def test_a_version_that_was_never_seen_is_named(self, store: Store, settings: Settings) -> None:
        with pytest.raises(BaselineError, match="model 'street' version '3'"):
            view(store, settings, version="3")

    def test_a_version_with_a_baseline_and_without_records_has_no_windows(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        with open_store(settings) as store:
            assert view(store, settings) == []
