"""What alerts say at three in the morning, as Prometheus writes it: which topic, receiver or model, and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from alerts.rules import Entry, Group, Links, RuleFile
from alerts.rules_alerting import FAILED, FAILED_WEBHOOK
from alerts.rules_defaults import catalogue
from alerts.rules_drift import EARLY, MODEL
from alerts.rules_reading import LAG, LAG_SECONDS, OFFSET
from alerts.rules_service import LEADERS, OLDEST, REFUSED, RELOADED, TAKEN
from tests.test_rules_files import promtool, write

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
ENTRIES = {entry.rule.alert: entry for entries in catalogue(LINKS).values() for entry in entries}
SAID = re.compile(r'description="((?:[^"\\]|\\.)*)"')


def texts(folder: Path, entries: Sequence[Entry], asked: Sequence[tuple[str, str, Mapping[str, str]]]) -> list[str]:
    """Descriptions of the alerts that fire: of each (alert, time, series). promtool shows what it did not expect."""
    write(folder, RuleFile("texts", [Group("texts", [entry.rule for entry in entries])], []))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": []}],
        }
        for alert, at, series in asked
    ]
    tree = {"rule_files": ["texts.rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "texts.yml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    done = promtool(folder, "test", "rules", "texts.yml")
    found = SAID.findall(done.stdout + done.stderr)
    assert len(found) == len(asked), done.stdout + done.stderr
    return found


@pytest.mark.parametrize("name", ["ops", "drift"])
def test_no_text_has_a_gap(tmp_path: Path, name: str) -> None:
    entries = catalogue(LINKS)[name]
    for text in texts(tmp_path, entries, [(one.rule.alert, one.at, one.fires) for one in entries]):
        assert text.endswith("."), text
        assert not re.search(r"error expanding|<no value>|%!|  | [.,;:]|\{\{", text), text


def of_labels(series: str) -> str:
    return series.replace("segwatch.predictions", "segwatch.labels")


def other(series: str) -> str:
    return series.replace('partition="0"', 'partition="1"')


CASES: list[tuple[str, str, dict[str, str], str]] = [
    (
        "SegwatchIngestStalled",
        "40m",
        {
            of_labels(LAG_SECONDS): "3600+60x40",
            of_labels(LAG): "2500x40",
            of_labels(OFFSET): "7x40",
            other(of_labels(LAG_SECONDS)): "5x40",
            other(of_labels(OFFSET)): "0+7x40",
        },
        "Topic segwatch.labels: nothing has been read from 1 of its partitions in 15 minutes; what is counted ends"
        " 1h 40m 0s ago. At least 2.5k records wait. Nothing is lost until the topic's retention deletes it.",
    ),
    (
        "SegwatchNotificationsFailing",
        "60m",
        {'up{job="segwatch"}': "1x60", FAILED: "0x30 2x30"},
        "Alertmanager gave up 2 notifications by email in the last 35 minutes, after trying again and again.",
    ),
    (
        "SegwatchNotificationsFailing",
        "60m",
        {'up{job="segwatch"}': "1x60", FAILED_WEBHOOK: "0x40 3x40"},
        "Alertmanager gave up 3 notifications by webhook in the last 35 minutes, after trying again and again. Segwatch"
        " takes actions by webhook, too: check its token.",
    ),
    (
        "SegwatchReloadFailed",
        "30m",
        {RELOADED: "0x30", 'segwatch_settings_reload_timestamp_seconds{instance="segwatch"}': "600x30"},
        "What is written in the settings is not what runs at segwatch: it runs on what was read 20m 0s ago.",
    ),
    (
        "SegwatchActionsWaiting",
        "90m",
        {TAKEN: "0x90", 'segwatch_actions_waiting{receiver="trainer"}': "3x90"},
        "Receiver trainer has not taken an action for 1h 30m 0s; 3 wait for it. They are tried again until they are"
        " given up.",
    ),
    (
        "SegwatchOutboxStuck",
        "40m",
        {OLDEST: "0x40", "segwatch_outbox_pending_messages": "12x40"},
        "A message has waited for 40m 0s, and 12 wait in all. Messages are kept until they can be delivered.",
    ),
    (
        "SegwatchNoLeader",
        "30m",
        {LEADERS: "0x30", "segwatch_leader_timestamp_seconds": "600x30"},
        "The last one was heard of 20m 0s ago.",
    ),
    (
        "SegwatchSeriesOmitted",
        "30m",
        {"segwatch_omitted_series": "40x30", "segwatch_exported_series_limit": "20000x30"},
        "40 series are left out of /metrics, which has at most 20000 (web.max_series). Slices are left out first, then"
        " classes, then model versions.",
    ),
    (
        "SegwatchUnauthorisedRequests",
        "30m",
        {REFUSED.replace("401", "421"): "0x14 0+8x16"},
        "120 requests were refused in 15 minutes with status 421 (under a name that segwatch does not answer to).",
    ),
    (
        "SegwatchDriftEarly",
        "30m",
        {EARLY: "0x20 1x10", f"segwatch_last_early_alarm_timestamp_seconds{{{MODEL}}}": "_x20 1140x10"},
        "Model street version 1: the records of late differ from the baseline; the test alarmed at records of 11m 0s"
        " ago. Whether the model suffers is for labels to say.",
    ),
]


@pytest.mark.parametrize(("alert", "at", "series", "said"), CASES)
def test_what_is_said(tmp_path: Path, alert: str, at: str, series: dict[str, str], said: str) -> None:
    assert texts(tmp_path, [ENTRIES[alert]], [(alert, at, series)]) == [said]
