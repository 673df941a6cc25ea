"""The rendered configuration on a real Alertmanager: who is told, what is kept back, and in which words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from alerts.alertmanager.config import render_alertmanager
from alerts.alertmanager.maintenance import parse_maintenance
from alerts.alertmanager.receivers import parse_receivers
from alerts.rules import Rule
from tests.real.alertmanager_server import AlertmanagerServer, quick
from tests.real.notified import Notified
from tests.real.service import eventually
from tests.test_alertmanager import all_alerts, wanted

pytestmark = pytest.mark.slow

RULES: dict[tuple[str, str], Rule] = {(rule.alert, rule.labels["category"]): rule for rule in all_alerts()}
OUTAGES = ("SegwatchDown", "SegwatchTotalsOld", "SegwatchIngestStalled", "SegwatchNoLeader")
QUIET_S = 3.0
"""More than the quickened waits together: whoever was not told by then is not told."""


@contextmanager
def running(told: Notified, maintenance: Mapping[str, Any] | None = None) -> Iterator[AlertmanagerServer]:
    windows = parse_maintenance(maintenance) if maintenance else []
    files = render_alertmanager(parse_receivers(told.receivers(), "http://segwatch.example"), windows)
    with AlertmanagerServer.start({**files, "alertmanager.yml": quick(files["alertmanager.yml"])}) as server:
        yield server


@pytest.fixture
def told() -> Iterator[Notified]:
    with Notified() as server:
        yield server


@pytest.fixture
def server(told: Notified) -> Iterator[AlertmanagerServer]:
    with running(told) as started:
        yield started


def now() -> str:
    return datetime.now(UTC).isoformat()


def fired(name: str, category: str = "", **more: str) -> dict[str, Any]:
    """The alert as Prometheus would send it, with the labels and texts of its rule; ``class_`` is its class.

    It starts now: one older than its group's wait is told at once, without the others that came along.
    """
    labels = {key.rstrip("_"): value for key, value in more.items()}
    (rule,) = [rule for (alert, kind), rule in RULES.items() if alert == name and category in ("", kind)]
    own = {key: value for key, value in rule.labels.items() if "{{" not in value}
    texts = {**rule.annotations, "description": f"{name} of {labels}."}
    return {"labels": {**own, "alertname": name, **labels}, "annotations": texts, "startsAt": now()}


def ended(alert: dict[str, Any]) -> dict[str, Any]:
    return {**alert, "endsAt": now()}


def names(told: Notified, role: str) -> set[str]:
    return {name for notification in told.to(role) for name in notification.names()}


def waits(what: str, probe: Callable[[], object], timeout_s: float = 10.0) -> None:
    eventually(what, lambda: probe() or None, timeout_s)


def test_each_alert_of_the_catalogue_arrives_at_its_receivers_and_nowhere_else(told: Notified) -> None:
    """Each on a running Alertmanager of its own cause: no other alert is there to inhibit it."""
    with running(told) as server:
        expected: dict[str, set[str]] = {}
        for number, rule in enumerate(RULES.values()):
            # Of another model, class and SLO each, and outages of everything later: nothing is kept back.
            if rule.alert in OUTAGES:
                continue
            mark = {"model": f"m{number}", "class_": "c", "version": "1", "slo": f"s{number}"}
            server.post([fired(rule.alert, rule.labels["category"], **mark)])
            for role in wanted(rule):
                expected.setdefault(role, set()).add(rule.alert)
        until = time.monotonic() + 15.0
        while time.monotonic() < until and any(alerts - names(told, role) for role, alerts in expected.items()):
            time.sleep(0.2)
        time.sleep(QUIET_S)
        assert {role: names(told, role) for role in expected} == expected
    for name in OUTAGES:
        with running(told) as server:
            server.post([fired(name)])
            waits(f"{name} pages SRE", lambda name=name: name in names(told, "sre"))  # type: ignore[misc]


def test_one_cause_is_one_notification(told: Notified, server: AlertmanagerServer) -> None:
    server.post(
        [
            fired("SegwatchQualityBurnFast", model="street", slo="iou", class_="bus"),
            fired("SegwatchQualityBurnFast", model="street", slo="iou", class_="car"),
            fired("SegwatchDriftHarmful", model="street", version="1"),
            *(
                fired("SegwatchDrift", model="street", version="1", slice=f"camera={i}", shift="input")
                for i in range(9)
            ),
            fired("SegwatchDrift", model="street", version="1", slice="camera=5", shift="prediction"),
        ]
    )
    waits("tickets", lambda: len(told.to("tickets")) >= 2)
    time.sleep(QUIET_S)
    (page,) = told.to("ml_oncall")
    assert page.names() == ["SegwatchDriftHarmful", "SegwatchQualityBurnFast", "SegwatchQualityBurnFast"]
    (copy,) = told.to("sre")
    assert copy.names() == page.names()
    assert sorted(len(one.body["alerts"]) for one in told.to("tickets")) == [1, 9]
    assert sorted(one.names()[0] for one in told.to("actions")) == ["SegwatchDrift"] * 2 + ["SegwatchDriftHarmful"]


def test_a_page_keeps_back_the_ticket_of_the_same_objective_alone(told: Notified, server: AlertmanagerServer) -> None:
    same = {"model": "street", "slo": "iou", "class_": "bus"}
    server.post([fired("SegwatchQualityBurnFast", **same)])
    waits("the page", lambda: told.to("ml_oncall"))
    server.post(
        [
            fired("SegwatchQualityBurnSlow", **same),
            fired("SegwatchBudgetExhausted", "quality", **same),
            fired("SegwatchQualityBurnSlow", **{**same, "class_": "car"}),
            fired("SegwatchQualityBurnSlow", **{**same, "slo": "recall"}),
            fired("SegwatchQualityBurnSlow", **{**same, "model": "yard"}),
            fired("SegwatchClassSilent", "quality", **same),
        ]
    )
    waits("the others' tickets", lambda: len(told.to("tickets")) >= 3)
    time.sleep(QUIET_S)
    tickets = [alert["labels"] for one in told.to("tickets") for alert in one.body["alerts"]]
    found = {(one["alertname"], one["model"], one["slo"], one["class"]) for one in tickets}
    assert found == {
        ("SegwatchQualityBurnSlow", "street", "iou", "car"),
        ("SegwatchQualityBurnSlow", "street", "recall", "bus"),
        ("SegwatchQualityBurnSlow", "yard", "iou", "bus"),
        ("SegwatchClassSilent", "street", "iou", "bus"),  # that it is blind is news, page or not
    }


@pytest.mark.parametrize("outage", ["SegwatchDown", "SegwatchTotalsOld", "SegwatchIngestStalled"])
def test_an_outage_of_the_service_keeps_back_what_depends_on_it_and_nothing_else(
    told: Notified, server: AlertmanagerServer, outage: str
) -> None:
    server.post([fired(outage)])
    waits("the outage pages", lambda: outage in names(told, "sre"))
    server.post(
        [
            fired("SegwatchQualityBurnFast", model="street", slo="iou"),
            fired("SegwatchDrift", model="yard", version="1", shift="input"),
            fired("SegwatchModelSilent", model="yard"),
            fired("SegwatchServiceBurnFast", model="street", slo="availability"),
            # Somebody else's counters go on, and so do Alertmanager's own troubles.
            fired("SegwatchServiceBurnFast", slo="triton", kind="ratio"),
            fired("SegwatchNotificationsFailing"),
        ]
    )
    free = {outage, "SegwatchNotificationsFailing", "SegwatchServiceBurnFast"}
    waits("what does not depend on it", lambda: names(told, "sre") >= free)
    time.sleep(QUIET_S)
    assert names(told, "sre") == free
    assert objectives(told, "sre") == {"triton"}
    assert not told.to("ml_oncall") and not told.to("tickets") and not told.to("actions")
    server.post([ended(fired(outage))])
    waits("quality pages once the outage is over", lambda: told.to("ml_oncall"))


def test_where_labels_alone_are_not_read_drift_and_availability_are_told(
    told: Notified, server: AlertmanagerServer
) -> None:
    server.post([fired("SegwatchIngestStalled", topic="segwatch.labels", stream="labels")])
    waits("the outage pages", lambda: names(told, "sre"))
    server.post(
        [
            fired("SegwatchQualityBurnFast", model="street", slo="iou"),
            fired("SegwatchDrift", model="street", version="1", shift="input"),
            fired("SegwatchServiceBurnFast", model="street", slo="availability"),
        ]
    )
    waits("drift", lambda: "SegwatchDrift" in names(told, "tickets"))
    waits("availability", lambda: "SegwatchServiceBurnFast" in names(told, "sre"))
    time.sleep(QUIET_S)
    assert not told.to("ml_oncall")


def test_without_a_leader_nothing_judged_is_told_and_availability_is(
    told: Notified, server: AlertmanagerServer
) -> None:
    server.post([fired("SegwatchNoLeader")])
    waits("the outage pages", lambda: names(told, "sre"))
    server.post(
        [
            fired("SegwatchQualityBurnFast", model="street", slo="iou"),
            fired("SegwatchServiceBurnFast", model="street", slo="availability"),
        ]
    )
    waits("availability pages", lambda: "SegwatchServiceBurnFast" in names(told, "sre"))
    time.sleep(QUIET_S)
    assert not told.to("ml_oncall")


def objectives(told: Notified, role: str) -> set[str]:
    alerts = [alert for one in told.to(role) for alert in one.body["alerts"]]
    return {alert["labels"]["slo"] for alert in alerts if "slo" in alert["labels"]}


def test_the_outage_of_a_model_keeps_back_the_quality_of_that_model_alone(
    told: Notified, server: AlertmanagerServer
) -> None:
    server.post([fired("SegwatchModelSilent", model="street")])
    waits("the outage is a ticket", lambda: told.to("tickets"))
    server.post(
        [
            fired("SegwatchQualityBurnFast", model="street", slo="iou"),
            fired("SegwatchClassSilent", "quality", model="street", slo="iou"),
            fired("SegwatchServiceBurnFast", model="street", slo="availability"),
            fired("SegwatchQualityBurnFast", model="yard", slo="iou"),
            fired("SegwatchQualityBurnFast", slo="mine"),
        ]
    )
    waits("the other model's page and the one without a model", lambda: len(told.to("ml_oncall")) >= 2)
    time.sleep(QUIET_S)
    models = [one.body["commonLabels"].get("model") for one in told.to("ml_oncall")]
    assert sorted(models, key=str) == [None, "yard"]
    assert names(told, "tickets") == {"SegwatchModelSilent"}
    # It may have failed before it died.
    assert names(told, "sre") == {"SegwatchQualityBurnFast", "SegwatchServiceBurnFast"}


def test_the_shift_that_is_certain_replaces_the_early_one_and_a_silent_class_is_told_once(
    told: Notified, server: AlertmanagerServer
) -> None:
    server.post([fired("SegwatchDrift", model="street", version="1", shift="input")])
    server.post([fired("SegwatchClassSilent", "quality", model="street", slo="iou", class_="bus")])
    waits("tickets", lambda: len(told.to("tickets")) >= 2)
    server.post(
        [
            fired("SegwatchDriftEarly", model="street", version="1"),
            fired("SegwatchDriftEarly", model="street", version="2"),
            fired("SegwatchLabelsStale", model="street", class_="bus"),
            fired("SegwatchLabelsStale", model="street", class_="car"),
        ]
    )
    waits("the others", lambda: len(told.to("tickets")) >= 4)
    time.sleep(QUIET_S)
    found = [alert["labels"] for one in told.to("tickets") for alert in one.body["alerts"]]
    assert [one["version"] for one in found if one["alertname"] == "SegwatchDriftEarly"] == ["2"]
    assert [one["class"] for one in found if one["alertname"] == "SegwatchLabelsStale"] == ["car"]


def test_maintenance_keeps_quiet_what_it_names_and_never_the_watchdog(told: Notified) -> None:
    always, never = [{"weekdays": ["sunday:saturday"]}], [{"years": ["1999"]}]
    maintenance = {
        "maintenance": [
            {"name": "one", "models": ["street"], "categories": ["quality", "drift"], "time_intervals": always},
            {"name": "two", "models": ["yard"], "time_intervals": never},
            {"name": "three", "categories": ["ops"], "time_intervals": always},
        ]
    }
    with running(told, maintenance) as server:
        server.post(
            [
                fired("SegwatchWatchdog"),
                fired("SegwatchQualityBurnFast", model="street", slo="iou"),
                fired("SegwatchDriftHarmful", model="street", version="1"),
                fired("SegwatchQualityBurnFast", model="yard", slo="iou"),
                fired("SegwatchDriftHarmful", model="yard", version="1"),
                fired("SegwatchServiceBurnFast", model="street", slo="availability"),
            ]
        )
        waits("the watchdog", lambda: told.to("watchdog"))
        waits("the other model", lambda: told.to("ml_oncall") and told.to("sre") and told.to("actions"))
        time.sleep(QUIET_S)
        (page,) = told.to("ml_oncall")
        assert page.body["groupLabels"] == {"model": "yard"}
        assert page.names() == ["SegwatchDriftHarmful", "SegwatchQualityBurnFast"], "quiet or not, a cause is a group"
        assert [one.body["commonLabels"]["model"] for one in told.to("sre")] == ["yard"]
        assert [one.body["commonLabels"]["model"] for one in told.to("actions")] == ["yard"]


def test_the_watchdog_is_heard_at_every_interval(told: Notified, server: AlertmanagerServer) -> None:
    server.post([fired("SegwatchWatchdog")])
    waits("heartbeats", lambda: len(told.to("watchdog")) >= 5)
    times = [one.at_s for one in told.to("watchdog")]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) < 1.9, "every second interval is left out"


def test_the_text_is_what_a_person_needs(told: Notified, server: AlertmanagerServer) -> None:
    alert = fired("SegwatchQualityBurnFast", model="street", slo="iou", class_="bus")
    alert["annotations"] |= {
        "description": "Model street, class bus, SLO iou (class_iou): 71% <bad> & more.",
        "page_url": "https://segwatch.example/?model=street",
        "dashboard_url": "https://grafana.example/d/q?var-model=street",
    }
    server.post([alert])
    waits("the page", lambda: told.texts("ml_oncall"))
    (text,) = told.texts("ml_oncall")
    since = datetime.fromisoformat(alert["startsAt"]).strftime("%a %-d %b %H:%M")
    assert text == (
        "PAGE street: The error budget of an SLO burns fast. Classes: bus.\n"
        "Model street, class bus, SLO iou (class_iou): 71% <bad> & more.\n"
        f"Since {since} UTC.\n\n"
        "Page: https://segwatch.example/?model=street\n"
        "Dashboard: https://grafana.example/d/q?var-model=street\n"
        "Runbook: https://example.org/runbooks/SegwatchQualityBurnFast.md"
    )
    server.post([ended(alert)])
    waits("the end", lambda: len(told.texts("ml_oncall")) == 2)
    last = told.texts("ml_oncall")[-1]
    assert last.startswith("RESOLVED street: The error budget of an SLO burns fast.")
    assert re.search(rf"^From {since} to .* UTC", last, re.MULTILINE)
