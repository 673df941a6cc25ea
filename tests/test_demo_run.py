"""``segwatch demo``: the main job on its own traffic, small enough here for a test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from monitor.demo import run as demo
from monitor.demo.run import MARKER, run_demo
from monitor.errors import InputError
from monitor.settings import load_settings
from monitor.store.store import Store

HOURS, SHIFT_AFTER_HOURS, RECORDS_PER_HOUR, BASELINE_HOURS = 4, 2, 24, 4


@dataclass(frozen=True)
class Shown:
    folder: Path
    lines: list[str]
    summary: dict[str, Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(demo, "HOURS", HOURS)
    patch.setattr(demo, "SHIFT_AFTER_HOURS", SHIFT_AFTER_HOURS)
    patch.setattr(demo, "RECORDS_PER_HOUR", RECORDS_PER_HOUR)
    patch.setattr(demo, "BASELINE_HOURS", BASELINE_HOURS)


def show(folder: Path) -> Shown:
    lines: list[str] = []
    run_demo(folder, corruption="darkness", strength=3, serve=False, say=lines.append)
    return Shown(folder, lines, json.loads((folder / MARKER).read_text()))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield show(tmp_path_factory.mktemp("demo") / "new")


class TestTheStory:
    def test_every_record_is_counted_once(self, shown: Shown) -> None:
        assert shown.summary["outcomes"] == {"ok": HOURS * RECORDS_PER_HOUR}

    def test_every_hour_is_a_window_before_or_after_the_shift(self, shown: Shown) -> None:
        summary = shown.summary
        assert (summary["windows_before"], summary["windows_after"]) == (2, 2)
        assert summary["shift_at"] == "2026-11-01T02:00:00Z"

    def test_the_shift_is_detected_at_the_close_of_its_first_window(self, shown: Shown) -> None:
        summary = shown.summary
        assert summary["detected_at"] == "2026-11-01T03:00:00Z"
        assert summary["delay_seconds"] == 3600
        assert summary["alarms_after"] == 2
        assert summary["attribution"][0]["signal"] == "embedding"
        assert sum(one["share"] for one in summary["attribution"]) == pytest.approx(1)

    def test_it_is_told_line_by_line(self, shown: Shown) -> None:
        hours = [line for line in shown.lines if line[:5] in ("00:00", "01:00", "02:00", "03:00")]
        assert len(hours) == 4
        assert ["shifted" in line for line in hours] == [False, False, True, True]
        assert ["ALARM" in line for line in hours] == [one.endswith("ALARM") for one in hours]
        text = "\n".join(shown.lines)
        assert "2026-11-01T02:00:00Z" in text and "60 minutes later" in text
        assert "http://127.0.0.1:8600/" in text

    def test_what_it_says_is_what_the_store_holds(self, shown: Shown) -> None:
        with Store.open(load_settings(shown.folder / "segwatch.yaml"), write=False) as store:
            windows = store.scores("digits")
            assert [window.records for window in windows] == [RECORDS_PER_HOUR] * 4
            assert sum(window.alarm is True for window in windows) == (
                shown.summary["false_alarms"] + shown.summary["alarms_after"]
            )
        actions = [json.loads(line) for line in (shown.folder / "actions.jsonl").read_text().splitlines()]
        alerts = [one for one in actions if one["type"] == "segwatch.alert.v1"]
        assert len(alerts) == shown.summary["false_alarms"] + shown.summary["alarms_after"]

    def test_its_settings_lead_there_from_any_folder(
        self, shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert Path(load_settings(shown.folder / "segwatch.yaml").data_dir) == shown.folder


class TestTheFolder:
    def test_one_that_holds_something_else_is_refused_and_left_alone(self, small: None, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(InputError, match=f"--dir {tmp_path}"):
            show(tmp_path)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_one_that_cannot_be_made_is_named(self, small: None, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(InputError, match="--dir .*/file/below"):
            show(file / "below")

    @pytest.mark.slow
    def test_an_earlier_demo_is_made_anew_with_the_same_result(self, small: None, shown: Shown) -> None:
        (shown.folder / "left-over.jsonl").write_text("")
        again = show(shown.folder)
        assert again.summary == shown.summary
        assert again.lines == shown.lines
        assert not (shown.folder / "left-over.jsonl").exists()
