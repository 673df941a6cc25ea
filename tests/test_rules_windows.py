"""Alerts on drift windows follow the settings: a window of a day is not late after three hours."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from alerts.installation import Installation
from alerts.rules import Group, Links, RuleFile
from alerts.rules_windows import entries
from monitor.rules import Options, installation, render
from monitor.settings import KafkaSettings, Settings, WindowSettings
from tests.test_rules_files import promtool, write

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")


def waits(tmp_path: Path, length_s: int) -> dict[str, tuple[str, str]]:
    """Of each alert that is rendered its expression and its ``for``."""
    settings = Settings(windows=WindowSettings(lengths_seconds=(length_s,)), kafka=KafkaSettings(labels_topic="truth"))
    render(settings, Options(), tmp_path, lambda _: None)
    rules = [
        rule
        for name in ("blindness", "ops")
        for group in yaml.safe_load((tmp_path / f"{name}.rules.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]
    assert any('eq $labels.topic "truth"' in rule["labels"].get("stream", "") for rule in rules)
    return {rule["alert"]: (rule["expr"], rule.get("for", "")) for rule in rules}


@pytest.mark.parametrize(("length_s", "due", "first"), [(3600, "1h31m", "3h"), (86_400, "1d31m", "2d1h")])
def test_thresholds_are_those_of_the_settings(tmp_path: Path, length_s: int, due: str, first: str) -> None:
    found = waits(tmp_path, length_s)
    assert found["SegwatchDriftWindowsStale"][1] == due
    assert found["SegwatchDriftWindowsMissing"][1] == first
    assert f"[{first}]" in found["SegwatchDriftWindowsMissing"][0]
    assert f"> {86_400 + length_s})" in found["SegwatchSliceSilent"][0]


def test_the_installation_is_that_of_the_settings_and_of_the_command_line() -> None:
    settings = Settings(windows=WindowSettings(pane_seconds=60, lengths_seconds=(600, 3600), close_delay_seconds=90.5))
    found = installation(settings, Options(job="watch", instance="a"))
    assert found == Installation("watch", "a", 600, 90.5, "segwatch.labels")
    assert found.scored_within_s == 2520  # 600 + 90.5 + 1800, in whole minutes


@pytest.mark.parametrize("length_s", [300, pytest.param(86_400, marks=pytest.mark.slow)])
def test_alerts_fire_and_stay_silent_with_windows_of_other_lengths(tmp_path: Path, length_s: int) -> None:
    found = entries(LINKS, Installation(window_s=length_s))
    cases = [case for entry in found for case in entry.cases()]
    write(tmp_path, RuleFile("windows", [Group("windows", [entry.rule for entry in found], "5m")], cases))
    done = promtool(tmp_path, "test", "rules", "windows.rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
