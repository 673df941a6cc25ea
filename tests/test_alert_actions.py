"""Alertmanager's webhook: alerts with a label ``action`` become actions, each firing once."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from monitor.alert_actions import AlertActions, Outcome, parse_group
from monitor.http_server import serve
from monitor.live_settings import LiveSettings
from monitor.schemas import read_schema
from monitor.settings import Settings, load_settings
from monitor.store.canary import StoredCanary
from monitor.store.store import Store
from monitor.store.values import OutboxMessage, StoredQuality
from monitor.web import create_app
from monitor.web_alerts import MOST_BYTES, alerts_router
from monitor.web_state import StoreState
from monitor.windows import SECOND_US
from tests.seeded_store import HOUR_US, NOW_US, seed

PATH = "/webhooks/alertmanager"
TOKEN = "a-token-of-the-test"
TOPIC = "segwatch.actions"


class Clock:
    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@dataclass
class Service:
    store: Store
    client: httpx.Client
    clock: Clock

    def post(self, *alerts: dict[str, Any], **group: Any) -> dict[str, Any]:
        answer = self.client.post(PATH, json=grouped(*alerts, **group))
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def actions(self) -> list[dict[str, Any]]:
        return [json.loads(one.message.value or b"") for one in self.store.actions.queued(TOPIC)]


def start(folder: Path, text: str = "", *, write: bool = True) -> Iterator[Service]:
    file = folder / "segwatch.yaml"
    file.write_text(f"data_dir: {folder}\n{text}")
    clock = Clock()
    live = LiveSettings(load_settings(file, {}), lambda: load_settings(file, {}))
    with Store.open(live.current, write=True, clock=clock) as filled:
        seed(filled)
        leader = filled.try_lead()
        assert leader is not None
        with leader:
            figures = {"classes": [{"class": "car", "metric": "iou", "point": 0.5}, {"class": "bus", "metric": "iou"}]}
            leader.record_quality("street", [StoredQuality("street", "3", 0, 1, 1, json.dumps(figures).encode())])
        if not write:
            filled.close()
        with Store.open(live.current, write=False) if not write else filled as store:
            state = StoreState(store, live)
            server = serve(create_app(state, "127.0.0.1", [alerts_router(store, live)]), "127.0.0.1", 0)
            try:
                with httpx.Client(base_url=server.address, trust_env=False, timeout=20) as client:
                    yield Service(store, client, clock)
            finally:
                server.stop()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    yield from start(tmp_path)


def alert(action: str | None = "relabel", fingerprint: str = "f1", **changes: Any) -> dict[str, Any]:
    labels = {"alertname": "SegwatchDrift", "model": "street", "version": "3", **changes.pop("labels", {})}
    if action is not None:
        labels["action"] = action
    return {
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": "The inputs have shifted."},
        "startsAt": "2026-11-22T23:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
        **changes,
    }


def grouped(*alerts: dict[str, Any], **group: Any) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "actions",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
        **group,
    }


class TestOnce:
    def test_an_alert_becomes_an_action_with_what_the_store_knows(self, service: Service) -> None:
        [identity] = service.post(alert(labels={"class": "car", "slice": "camera=7"}))["actions"]
        [action] = service.actions()
        jsonschema.Draft202012Validator(read_schema("segwatch.relabel_requested.v1")).validate(action)
        assert (action["id"], action["type"]) == (identity, "segwatch.relabel_requested.v1")
        assert action["model"] == {"name": "street", "version": "3"}
        evidence = action["evidence"]
        assert evidence["window"]["records"] == 5 and evidence["baseline"]
        assert {one["signal"]: one["js"] for one in evidence["scores"]}["embedding"] == 0.31
        assert evidence["thresholds"]["embedding"] == 0.11
        assert [one["alarm"] for one in evidence["windows"]] == [False, True]
        assert [one["class"] for one in evidence["quality"]] == ["car"] and evidence["classes"] == ["car"]
        assert "camera=7" in evidence["slices"]
        assert evidence["alert"]["name"] == "SegwatchDrift"
        assert evidence["alert"]["annotations"] == {"summary": "The inputs have shifted."}
        [line] = service.store.read_audit(what="action.relabel")
        assert line.subject == "street" and line.detail["id"] == identity and "alertmanager" in line.who

    def test_repeats_resent_groups_and_the_end_make_no_second(self, service: Service) -> None:
        first = service.post(alert())["actions"]
        again = service.post(alert(), alert(annotations={"summary": "said otherwise"}))
        assert (again["actions"], again["known"]) == ([], first * 2)
        assert service.post(alert(status="resolved"), status="resolved")["ignored"][0]["reason"] == "resolved"
        other_zone = service.post(alert(startsAt="2026-11-23T00:00:00.123456789+01:00"))
        assert other_zone["known"] == first
        assert len(service.actions()) == 1

    def test_an_alert_that_was_never_told_while_it_fired_asks_for_nothing(self, service: Service) -> None:
        service.post(alert(status="resolved"))
        assert not service.actions()

    def test_another_firing_another_alert_and_another_action_are_others(self, service: Service) -> None:
        told = service.post(
            alert(),
            alert(startsAt="2026-11-22T23:30:00Z"),
            alert(fingerprint="f2"),
            alert("retrain"),
            alert("rollback"),
        )
        assert len(set(told["actions"])) == 5
        assert {one["type"].split(".")[1] for one in service.actions()} == {
            "relabel_requested",
            "retrain_requested",
            "rollback_requested",
        }

    def test_a_retraining_says_how_many_labels_are_missing(self, service: Service) -> None:
        service.post(alert("retrain"))
        [action] = service.actions()
        assert action["evidence"]["labels"] == {"since": None, "ready": 0, "needed": 100, "missing": 100}

    def test_ten_alerts_are_one_training_within_the_cooldown(self, service: Service) -> None:
        told = service.post(*(alert("retrain", f"f{number}") for number in range(10)))
        assert len(told["actions"]) == 1 and len(told["ignored"]) == 9
        assert "cooling down until" in told["ignored"][0]["reason"]
        service.clock.now_us += 24 * HOUR_US + SECOND_US
        assert len(service.post(alert("retrain", "f5"))["actions"]) == 1

    def test_a_rollback_of_another_version_does_not_wait(self, service: Service) -> None:
        assert len(service.post(alert("rollback", "a"), alert("rollback", "b"))["actions"]) == 1
        assert len(service.post(alert("rollback", "c", labels={"version": "4"}))["actions"]) == 1


class TestAtOnce:
    @pytest.mark.parametrize(
        ("first", "second", "count"),
        [
            (("retrain", "f1"), ("retrain", "f2"), 1),
            (("rollback", "f1"), ("rollback", "f2"), 1),
            (("relabel", "f1"), ("relabel", "f1"), 1),
            (("relabel", "f1"), ("relabel", "f2"), 2),
        ],
    )
    def test_of_two_processes_one_asks(
        self, service: Service, first: tuple[str, str], second: tuple[str, str], count: int, tmp_path: Path
    ) -> None:
        settings = load_settings(tmp_path / "segwatch.yaml", {})
        together(service.store, service.store, settings, first, second, count)

    def test_a_rollback_that_the_canary_asked_for_is_not_asked_for_again(self, service: Service) -> None:
        assert canary_asks(service.store, cooldown_us=24 * HOUR_US)
        told = service.post(alert("rollback"))
        assert "after canary-1" in told["ignored"][0]["reason"]
        service.clock.now_us += 24 * HOUR_US
        assert service.post(alert("rollback"))["actions"]

    def test_nor_does_the_canary_ask_for_one_that_an_alert_asked_for(self, service: Service) -> None:
        service.post(alert("rollback"))
        assert not canary_asks(service.store, cooldown_us=24 * HOUR_US)
        assert len(service.actions()) == 1
        [stored] = service.store.canaries.verdicts()
        assert stored.requested_at_us is None  # so that it asks once the cooldown is over
        service.clock.now_us += 24 * HOUR_US
        assert canary_asks(service.store, cooldown_us=24 * HOUR_US)

    def test_what_a_canarys_request_names_may_have_been_purged_since(self, service: Service) -> None:
        service.store.purge(["secret-1"], None, "test", "asked", lambda state, _: state)
        canary_asks(service.store, cooldown_us=0)
        assert service.actions()[0]["evidence"]["samples"] == [{"input_id": "b"}]


def canary_asks(store: Store, cooldown_us: int) -> bool:
    """Whether a canary's request to roll version 3 back goes out."""
    now_us = store.now_us()
    evidence = {"samples": [{"input_id": "secret-1"}, {"input_id": "b"}]}
    value = json.dumps({"type": "segwatch.rollback_requested.v1", "evidence": evidence}).encode()
    message = OutboxMessage(f"canary-{len(store.actions.queued(TOPIC)) + 1}", TOPIC, None, value)
    leader = store.try_lead()
    assert leader is not None
    with leader:
        row = StoredCanary("street", "2", "3", now_us, now_us, b"{}")
        return leader.record_canary(row, [message], cooldown_us=cooldown_us)


def together(
    store: Store, other: Store, settings: Settings, first: tuple[str, str], second: tuple[str, str], count: int
) -> None:
    """Two web processes get an alert each, (action, fingerprint), and look at the store before either has asked."""
    meet = threading.Barrier(2, timeout=30)
    outcomes: list[Outcome] = []

    def take(own: Store, action: str, fingerprint: str) -> None:
        actions = AlertActions(own, lambda: settings)
        evidence = actions._evidence

        def meeting(*arguments: Any) -> dict[str, Any]:
            meet.wait()
            return evidence(*arguments)

        actions._evidence = meeting  # type: ignore[method-assign]
        group = parse_group(json.dumps(grouped(alert(action, fingerprint))).encode())
        outcomes.append(actions.take(group, "test"))

    both = ((store, *first), (other, *second))
    threads = [threading.Thread(target=take, args=arguments) for arguments in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 2
    assert len(store.actions.queued(TOPIC)) == sum(len(one.new) for one in outcomes) == count
    assert len(store.read_audit(what=f"action.{first[0]}")) == count
    if count == 1 and first[1] == second[1]:
        assert sum(len(one.known) for one in outcomes) == 1
    elif count == 1:
        [left] = [one for outcome in outcomes for one in outcome.ignored]
        assert "cooling down until" in left["reason"]


class TestLeftOut:
    @pytest.mark.parametrize(
        ("one", "reason"),
        [
            (alert(None), "no action"),
            (alert("reboot"), "no action that segwatch knows"),
            (alert(labels={"model": "nobody"}), "no model has the name"),
            (alert(labels={"model": ""}), "no model"),
            (alert(labels={"model": "a\x00b"}), "no model has the name"),
            (alert(labels={"version": "99"}), "no version"),
        ],
    )
    def test_it_says_why_and_the_others_of_the_group_count(
        self, service: Service, one: dict[str, Any], reason: str
    ) -> None:
        told = service.post(one, alert(fingerprint="good"))
        assert reason in told["ignored"][0]["reason"]
        assert len(told["actions"]) == 1

    def test_without_a_version_it_is_the_one_in_use(self, service: Service) -> None:
        service.post(alert(labels={"version": ""}))
        assert service.actions()[0]["model"]["version"] == "3"


class TestBadBodies:
    @pytest.mark.parametrize(
        ("body", "named"),
        [
            (b"", "body"),
            (b"no json", "body"),
            (b"[]", "body"),
            (b"\xff\xfe", "body"),
            (b"[" * 100_000, "body"),
            (json.dumps({"version": "4"}).encode(), "alerts"),
            (json.dumps(grouped(version="3")).encode(), "version"),
            (json.dumps(grouped({**alert(), "fingerprint": ""})).encode(), r"alerts\[0\].fingerprint"),
            (json.dumps(grouped(alert(), {**alert(), "startsAt": "soon"})).encode(), r"alerts\[1\].startsAt"),
            (json.dumps(grouped({**alert(), "labels": {"model": 3}})).encode(), r"alerts\[0\].labels"),
            (json.dumps(grouped({**alert(), "status": "broken"})).encode(), r"alerts\[0\].status"),
        ],
    )
    def test_it_is_refused_by_name_and_nothing_changes(self, service: Service, body: bytes, named: str) -> None:
        answer = service.client.post(PATH, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert re.search(named, answer.json()["error"])
        assert not service.actions() and not service.store.read_audit()

    def test_a_body_that_is_too_large_is_not_read(self, service: Service) -> None:
        assert service.client.post(PATH, content=b"x" * (MOST_BYTES + 1)).status_code == 413
        endless = service.client.post(PATH, content=(b"x" * 65536 for _ in range(MOST_BYTES // 65536 + 2)))
        assert endless.status_code == 413


def test_with_a_token_it_wants_the_token(tmp_path: Path) -> None:
    for service in start(tmp_path, f"web: {{token: {TOKEN}}}\n"):
        assert service.client.post(PATH, json=grouped(alert())).status_code == 401
        assert not service.actions()
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert service.client.post(PATH, json=grouped(alert()), headers=bearer).json()["actions"]


def test_a_process_that_only_reads_says_so_and_alertmanager_tries_again(tmp_path: Path) -> None:
    for service in start(tmp_path, write=False):
        assert service.client.post(PATH, json=grouped(alert())).status_code == 503
