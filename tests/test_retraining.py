"""Retraining: asked for where drift stays and harms, on schedule or after labels; never before labels enough."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from alerts.decisions import DAY_US, Facts, Rules, WindowFact, retrain
from monitor.actions_view import open_text
from monitor.alert_actions import AlertActions, parse_group
from monitor.cli import cli
from monitor.deciding import Retraining
from monitor.evaluate import to_message
from monitor.settings import Settings
from monitor.status import status
from monitor.store.store import Store
from monitor.store.tables import window_score
from monitor.store.values import JudgedRow, LabelRow, ScoreRow
from monitor.windows import END_OF_TIME_US, to_text
from tests.embedded import settings_of
from tests.seeded_store import HOUR_US, NOW_US, seed, verdict
from tests.test_alert_actions import alert, grouped

TOPIC = "segwatch.actions"
RULES = Rules(after_windows=3, every_us=0, after_labels=0, min_labels=10, cooldown_us=DAY_US)


def windows(*alarms: bool | None, harm: str = "likely") -> list[WindowFact]:
    return [WindowFact(number, alarm, harm) for number, alarm in enumerate(alarms)]  # type: ignore[arg-type]


def facts(seen: list[WindowFact], labels: int = 10, requested_us: int | None = None, now_us: int = 5 * DAY_US) -> Facts:
    return Facts(now_us, seen, requested_us, 0, labels)


class TestRules:
    @pytest.mark.parametrize(
        ("seen", "state"),
        [
            (windows(True, True, True), "request"),
            (windows(True, True), "idle"),
            (windows(True, True, False), "idle"),
            (windows(True, True, False, True), "idle"),
            (windows(True, None, True, None, True, None), "request"),
            (windows(True, True, True, harm="unlikely"), "idle"),
            (windows(True, True, True, harm="unknown"), "idle"),
            ([], "idle"),
        ],
    )
    def test_drift_must_stay_and_do_harm(self, seen: list[WindowFact], state: str) -> None:
        assert retrain(RULES, facts(seen)).state == state

    def test_it_waits_for_labels_and_says_how_many_are_missing(self) -> None:
        found = retrain(RULES, facts(windows(True, True, True), labels=4))
        assert (found.state, found.missing, [one.kind for one in found.reasons]) == ("waiting_for_labels", 6, ["drift"])

    def test_it_waits_for_the_cooldown_of_the_last_request(self) -> None:
        found = retrain(RULES, facts(windows(True, True, True), requested_us=5 * DAY_US - 1))
        assert (found.state, found.until_us) == ("cooling_down", 6 * DAY_US - 1)
        assert retrain(RULES, facts(windows(True, True, True), requested_us=4 * DAY_US)).state == "request"

    def test_schedule_counts_from_the_last_request_or_the_baseline(self) -> None:
        rules = Rules(0, 3 * DAY_US, 0, 0, DAY_US)
        assert retrain(rules, facts([])).state == "request"
        assert retrain(rules, facts([], now_us=3 * DAY_US - 1)).state == "idle"
        assert retrain(rules, facts([], requested_us=3 * DAY_US)).state == "idle"

    def test_enough_new_labels_are_a_reason_of_their_own(self) -> None:
        rules = Rules(0, 0, 10, 5, DAY_US)
        assert [retrain(rules, facts([], labels=count)).state for count in (9, 10)] == ["idle", "request"]

    @given(st.lists(st.sampled_from([True, False, None])), st.integers(0, 20), st.integers(0, 10 * DAY_US) | st.none())
    def test_never_before_labels_enough_nor_within_the_cooldown(
        self, alarms: list[bool | None], labels: int, requested_us: int | None
    ) -> None:
        rules = Rules(2, DAY_US, 3, 10, DAY_US)
        found = retrain(rules, facts(windows(*alarms), labels, requested_us))
        if found.state == "request":
            assert labels >= 10 and found.reasons
            assert requested_us is None or requested_us + DAY_US <= 5 * DAY_US


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, actions={"retrain_after_windows": 2, "retrain_min_labels": 3})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=lambda: NOW_US) as opened:
        seed(opened)
        yield opened


class Leading:
    """Steps of the leader at a time of the clock."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.now_us = NOW_US
        leader = store.try_lead()
        assert leader is not None
        self.leader = leader
        self.retraining = self._made(settings)
        self.settings = settings

    def _made(self, settings: Settings) -> Retraining:
        return Retraining(
            self.store,
            settings,
            lambda: self.now_us,
            lambda action: to_message(action, TOPIC, self.now_us),
            lambda model, version, start: f"http://127.0.0.1/?{model}{version}{start}",
        )

    def step(self) -> int:
        return self.retraining.step(self.leader, END_OF_TIME_US, {("street", "3")})

    def drift(self, harm: str = "likely") -> None:
        """Both of the seeded hours have drifted."""
        baseline = self.store.active_baselines()["street", "3"].meta.id
        with self.store._database.write() as connection:  # windows are scored elsewhere
            for start_us in (NOW_US - 2 * HOUR_US, NOW_US - HOUR_US):
                payload = msgspec.json.encode({**verdict(None, start_us, baseline, True), "harm": harm})
                row = ScoreRow(5, True, payload, NOW_US)
                own = (window_score.c.start_us == start_us) & (window_score.c.slice == "")
                connection.execute(window_score.update().where(own).values(alarm=row.alarm, payload=row.payload))

    def label(self, *inputs: str, at_us: int | None = None) -> None:
        at = self.now_us if at_us is None else at_us
        rows = [
            LabelRow(one, "maria", "street", "3", 1, at, "spot_check", 0.25, "judged", "c", "t", 0, 0, b"{}", b"\x90")
            for one in inputs
        ]
        with self.store.transaction() as tx:
            tx.insert_labels(rows)
        self.judge(*inputs, at_us=at, first_us=at)

    def judge(self, *inputs: str, at_us: int, first_us: int | None, version: str = "3") -> None:
        rows = [
            JudgedRow(one, "street", version, at_us, None, "{}", None, at_us, at_us, 0, b"{}", first_us)
            for one in inputs
        ]
        self.leader.record_judged([], rows, {}, {}, [])

    def actions(self) -> list[dict[str, Any]]:
        return [json.loads(one.message.value or b"") for one in self.store.actions.queued(TOPIC)]

    def open(self) -> list[dict[str, Any]]:
        models = status(self.store, self.now_us)["models"]
        found: list[dict[str, Any]] = next(one["open_actions"] for one in models if one["version"] == "3")
        return found


@pytest.fixture
def leading(store: Store, settings: Settings) -> Iterator[Leading]:
    one = Leading(store, settings)
    with one.leader:
        yield one


class TestTheLeader:
    def test_nothing_is_asked_while_nothing_is_wrong(self, leading: Leading) -> None:
        assert leading.step() == 0
        assert not leading.open()

    def test_it_waits_says_what_is_missing_and_asks_once_labels_are_there(self, leading: Leading) -> None:
        leading.drift()
        leading.label("a", "b")
        assert leading.step() == 0
        [waiting] = leading.open()
        assert (waiting["state"], waiting["labels_missing"], waiting["labels_ready"]) == ("waiting_for_labels", 1, 2)
        assert "1 labels are missing" in open_text(waiting)
        leading.label("c")
        assert leading.step() == 1
        [action] = leading.actions()
        assert action["type"] == "segwatch.retrain_requested.v1" and action["kind"] == "drift"
        evidence = action["evidence"]
        assert evidence["labels"] == {"since": None, "ready": 3, "needed": 3, "missing": 0}
        assert {one["input_id"] for one in evidence["samples"]} == {"a", "b", "c"}
        assert {one["selection_probability"] for one in evidence["samples"]} == {0.25}
        assert {one["purpose"] for one in evidence["samples"]} == {"spot_check"}
        assert evidence["thresholds"] == {"embedding": 0.11, "confidence": evidence["thresholds"]["confidence"]}
        assert [one["alarm"] for one in evidence["windows"]] == [True, True]
        assert evidence["versions"] == [{"version": "3", "baseline": evidence["baseline"]}]
        assert [one["id"] for one in leading.open()] == [action["id"]]

    def test_it_asks_once_and_counts_labels_from_there(self, leading: Leading, settings: Settings) -> None:
        leading.drift()
        leading.label("a", "b", "c")
        assert leading.step() == 1
        leading.label("d", "e", "f", at_us=NOW_US + 1)
        leading.now_us += 1
        assert leading.step() == 0
        assert leading.open()[0]["state"] == "cooling_down"
        leading.retraining = leading._made(settings)  # another leader
        leading.now_us += DAY_US
        assert leading.step() == 1
        assert leading.step() == 0
        first, second = sorted(leading.actions(), key=lambda one: one["time"])
        assert first["id"] != second["id"]
        assert {one["input_id"] for one in second["evidence"]["samples"]} == {"d", "e", "f"}

    def test_a_label_of_a_second_version_is_no_new_label(self, leading: Leading) -> None:
        leading.label("a")
        leading.judge("a", at_us=NOW_US + 9, first_us=NOW_US + 9, version="4")
        assert leading.store.actions.labels_ready("street", NOW_US) == 0
        assert leading.store.actions.labels_ready("street", NOW_US - 1) == 1

    def test_what_is_judged_again_is_not_new_again(self, leading: Leading) -> None:
        leading.label("a")
        leading.judge("a", at_us=NOW_US + 9, first_us=NOW_US + 9)
        assert leading.store.actions.labels_ready("street", NOW_US) == 0
        assert [one.input_id for one in leading.store.actions.labelled("street", NOW_US - 1, 10)] == ["a"]

    def test_a_label_that_cannot_be_judged_is_none_and_its_correction_is_new(self, leading: Leading) -> None:
        leading.judge("a", at_us=NOW_US, first_us=None)
        assert leading.store.actions.labels_ready("street", -1) == 0
        leading.judge("a", at_us=NOW_US + 9, first_us=NOW_US + 9)
        assert leading.store.actions.labels_ready("street", NOW_US) == 1

    def test_of_an_alert_at_the_same_moment_and_the_schedule_one_asks(
        self, leading: Leading, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leading.drift()
        leading.label("a", "b", "c")
        group = parse_group(json.dumps(grouped(alert("retrain"))).encode())
        record = leading.leader.record_retrain

        def late(*arguments: Any, **more: Any) -> bool:
            assert AlertActions(leading.store, lambda: settings).take(group, "test").new
            return record(*arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(leading.leader, "record_retrain", late)
            assert leading.step() == 0
        assert [one["kind"] for one in leading.actions()] == ["alert"]
        leading.retraining = leading._made(settings)
        assert leading.step() == 0
        assert leading.open()[0]["state"] == "cooling_down"

    def test_drift_that_does_no_harm_asks_for_nothing(self, leading: Leading) -> None:
        leading.drift(harm="unlikely")
        leading.label("a", "b", "c")
        assert leading.step() == 0 and not leading.open()

    def test_a_leader_that_dies_before_the_commit_asks_under_the_same_id(
        self, leading: Leading, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leading.drift()
        leading.label("a", "b", "c")
        lost: list[str] = []

        def cut_off(row: object, message: Any = None, **_: Any) -> None:
            lost.append(message.id)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(leading.leader, "record_retrain", cut_off)
            with pytest.raises(KeyboardInterrupt):
                leading.step()
        assert not leading.actions()
        leading.retraining = leading._made(settings)
        assert leading.step() == 1
        assert [one["id"] for one in leading.actions()] == lost


class TestTheCommands:
    def run(self, folder: Path, *arguments: str) -> str:
        file = folder / "segwatch.yaml"
        file.write_text(f"data_dir: {folder}\n")
        done = CliRunner().invoke(cli, ["--config", str(file), *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def test_list_and_show_say_what_was_asked_and_how_far_it_came(self, leading: Leading, tmp_path: Path) -> None:
        store = leading.store
        store.deliveries.register(["trainer"])
        leading.drift()
        leading.label("a", "b", "c")
        leading.step()
        store.deliveries.spread("trainer", TOPIC, lambda _: True)
        claimed = store.deliveries.claim("trainer", 1)
        assert claimed is not None
        store.deliveries.failed(claimed, "status 500: out of memory", NOW_US + HOUR_US)
        [one] = json.loads(self.run(tmp_path, "actions", "list", "--json"))["actions"]
        assert (one["kind"], one["model"], one["version"], one["state"]) == ("drift", "street", "3", "waiting")
        [outbox, trainer] = one["deliveries"]
        assert (outbox["receiver"], outbox["state"]) == ("outbox", "waiting")
        assert (trainer["attempts"], trainer["error"]) == (1, "status 500: out of memory")
        assert trainer["next"] == to_text(NOW_US + HOUR_US)
        text = self.run(tmp_path, "actions", "list")
        assert one["id"] in text and "status 500: out of memory" in text
        shown = json.loads(self.run(tmp_path, "actions", "show", one["id"][:8], "--json"))
        assert shown["data"]["evidence"]["labels"]["ready"] == 3
        assert "retrain requested (drift) of street 3" in self.run(tmp_path, "actions", "show", one["id"])
        assert "action: retrain requested (drift)" in self.run(tmp_path, "status")

    def test_an_unknown_id_is_refused_by_name(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(Exception, match="no action has the id"):
            self.run(tmp_path, "actions", "show", "ffff")
