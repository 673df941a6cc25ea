"""Actions to receivers: signed, tried again, once where the other side knows the id, and nobody waits for another."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alerts.actions import Action
from monitor import receivers as table
from monitor.delivering import REQUESTS, Deliverer, deliver, register
from monitor.errors import SettingsError
from monitor.evaluate import to_message
from monitor.receivers.events import cloud_event, cut
from monitor.receivers.files import load_receivers, make_receiver
from monitor.receivers.http import Http
from monitor.receivers.protocol import ReceiverError, ReceiverSettings
from monitor.store.store import Store
from monitor.tallies import DELIVERED, DELIVERIES
from monitor.windows import SECOND_US
from tests.embedded import NOW_US, eventually, settings_of
from tests.made_receiver import Got, MadeReceiver, receiver

TOPIC = "segwatch.actions"
SECRET = "whsec_" + base64.b64encode(b"a secret of the tests").decode()
ID = "11111111-2222-5333-8444-555555555555"


class Clock:
    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(settings_of(tmp_path), write=True, clock=clock) as opened:
        yield opened


@pytest.fixture
def made() -> Iterator[MadeReceiver]:
    with receiver() as one:
        yield one


def action(identity: str = ID, kind: str = "retrain", model: str = "street", **evidence: Any) -> Action:
    data = {
        "kind": "drift",
        "model": {"name": model, "version": "3"},
        "evidence": {"window": {"start": "2026-09-22T00:00:00Z", "end": "2026-09-22T01:00:00Z"}, **evidence},
        "link": "http://127.0.0.1:8600/?model=street",
    }
    return Action(identity, f"segwatch.{kind}_requested.v1", f"{model}/3", data)


def queue(store: Store, *actions: Action) -> None:
    with store.transaction() as tx:
        tx.add_outbox([to_message(one, TOPIC, store.now_us()) for one in actions])


def settings(folder: Path, url: str, **fields: Any) -> ReceiverSettings:
    secret, token = folder / "secret", folder / "token"
    secret.write_text(SECRET + "\n")
    token.write_text("a-token\n")
    entry: dict[str, Any] = {"name": "trainer", "url": url, **fields}
    if entry.get("preset", "generic") == "generic":
        entry.setdefault("secret_file", str(secret))
    else:
        entry.setdefault("token_file", str(token))
    file = folder / f"{entry['name']}.yml"
    file.write_text(json.dumps({"receivers": [entry]}))
    return load_receivers(str(file))[0]


def deliverer(store: Store, folder: Path, url: str, **fields: Any) -> Deliverer:
    own = settings(folder, url, **fields)
    store.deliveries.register([own.name])
    return Deliverer(store, own, TOPIC, chance=lambda: 1.0)


def state(store: Store, identity: str = ID) -> tuple[str, int, str]:
    [row] = store.deliveries.of([identity])[identity]
    return row.state, row.attempts, row.error


def next_us(store: Store) -> int:
    [row] = store.deliveries.of([ID])[ID]
    return row.next_us


class TestWebhooks:
    def test_it_is_a_signed_cloud_event_with_an_idempotency_key(
        self, store: Store, tmp_path: Path, made: MadeReceiver
    ) -> None:
        one = deliverer(store, tmp_path, made.url)
        queue(store, action())
        assert one.once() == "delivered"
        [got] = made.got
        event = got.json()
        assert got.headers["content-type"].startswith("application/cloudevents+json")
        assert (event["specversion"], event["id"], event["type"]) == ("1.0", ID, "segwatch.retrain_requested.v1")
        assert event["data"]["evidence"]["window"]["start"] == "2026-09-22T00:00:00Z"
        assert got.headers["idempotency-key"] == got.headers["webhook-id"] == ID
        signed = f"{ID}.{got.headers['webhook-timestamp']}.".encode() + got.body
        expected = base64.b64encode(hmac.new(b"a secret of the tests", signed, hashlib.sha256).digest()).decode()
        assert got.headers["webhook-signature"] == f"v1,{expected}"
        assert state(store) == ("delivered", 1, "")

    def test_in_binary_mode_attributes_are_headers(self, store: Store, tmp_path: Path, made: MadeReceiver) -> None:
        one = deliverer(store, tmp_path, made.url, mode="binary")
        queue(store, action(model="straße"))
        one.once()
        [got] = made.got
        assert got.headers["ce-id"] == ID and got.headers["ce-subject"] == "stra%C3%9Fe/3"
        assert got.json()["model"]["name"] == "straße"

    def test_while_a_secret_is_changed_there_are_two_signatures(
        self, store: Store, tmp_path: Path, made: MadeReceiver
    ) -> None:
        one = deliverer(store, tmp_path, made.url)
        (tmp_path / "secret").write_text(f"{SECRET}\nthe next one\n")
        queue(store, action())
        one.once()
        assert len(made.got[0].headers["webhook-signature"].split()) == 2

    def test_only_what_it_takes_of_the_models_it_is_for(self, store: Store, tmp_path: Path, made: MadeReceiver) -> None:
        one = deliverer(store, tmp_path, made.url, actions=["rollback"], models=["street"])
        queue(store, action("a", "retrain"), action("b", "rollback"), action("c", "rollback", "yard"))
        assert [one.once() for _ in range(2)] == ["delivered", "nothing"]
        assert [got.json()["id"] for got in made.got] == ["b"]

    def test_what_was_asked_before_it_was_registered_is_not_delivered(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock
    ) -> None:
        queue(store, action("before"))
        clock.now_us += SECOND_US
        one = deliverer(store, tmp_path, made.url)
        queue(store, action("after"))
        while one.once() == "delivered":
            pass
        assert [got.json()["id"] for got in made.got] == ["after"]

    def test_a_purged_action_is_left_out(self, store: Store, tmp_path: Path, made: MadeReceiver) -> None:
        one = deliverer(store, tmp_path, made.url)
        queue(store, action(samples=[{"input_id": "secret-1"}, {"input_id": "b"}]))
        store.purge(["secret-1"], None, "test", "asked", lambda state, _: state)
        assert one.once() == "delivered"
        assert made.got[0].json()["data"]["evidence"]["samples"] == [{"input_id": "b"}]


class TestAgain:
    def test_a_failure_is_tried_again_later_and_later_with_the_same_id(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock
    ) -> None:
        answers = iter([(500, {"error": "out of\nmemory"}), (503, None), (200, None)])
        made.say = lambda _: next(answers)
        one = deliverer(store, tmp_path, made.url)
        queue(store, action())
        assert one.once() == "failed" and one.once() == "nothing"
        assert "status 500" in state(store)[2] and "memory" in state(store)[2]
        clock.now_us += 4 * SECOND_US
        assert one.once() == "nothing"
        clock.now_us += SECOND_US
        assert one.once() == "failed"
        clock.now_us += 10 * SECOND_US
        assert one.once() == "delivered"
        assert {got.headers["idempotency-key"] for got in made.got} == {ID}
        assert len({got.body for got in made.got}) == 1
        assert state(store)[:2] == ("delivered", 3)
        counted = {key.bucket: value for key, value in store.read_tallies().items() if key.series == DELIVERIES}
        assert {DELIVERED[bucket]: value for bucket, value in counted.items()} == {"failed": 2, "delivered": 1}

    def test_after_so_many_attempts_it_is_given_up(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock
    ) -> None:
        made.say = lambda _: (500, None)
        one = deliverer(store, tmp_path, made.url, attempts=2)
        queue(store, action())
        for _ in range(5):
            one.once()
            clock.now_us += 3600 * SECOND_US
        assert len(made.got) == 2
        assert state(store)[:2] == ("given_up", 2)

    def test_a_receiver_that_asks_for_patience_gets_it(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock
    ) -> None:
        made.say = lambda _: (429, None, {"retry-after": "120"})
        one = deliverer(store, tmp_path, made.url)
        queue(store, action())
        one.once()
        clock.now_us += 119 * SECOND_US
        assert one.once() == "nothing"
        clock.now_us += SECOND_US
        assert one.once() == "failed"

    def test_a_process_that_dies_between_delivery_and_note_delivers_again_with_the_same_id(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = deliverer(store, tmp_path, made.url)
        queue(store, action())
        with monkeypatch.context() as patched:
            patched.setattr("monitor.store.deliveries.Deliveries.delivered", _die)
            with pytest.raises(KeyboardInterrupt):
                one.once()
        other = deliverer(store, tmp_path, made.url)
        assert other.once() == "nothing"  # the lease of the dead one
        clock.now_us += 31 * SECOND_US
        assert other.once() == "delivered"
        assert [got.headers["idempotency-key"] for got in made.got] == [ID, ID]
        assert state(store)[:2] == ("delivered", 2)

    def test_a_delivery_that_goes_on_keeps_its_claim(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monitor.delivering.RENEW_S", 0.05)
        free = threading.Event()
        made.say = lambda _: (204, None) if free.wait(20) else (500, None)
        one, other = (deliverer(store, tmp_path, made.url) for _ in range(2))
        queue(store, action())
        thread = threading.Thread(target=one.once)
        thread.start()
        try:
            eventually("it has come", lambda: len(made.got) == 1)
            for _ in range(3):
                clock.now_us += 29 * SECOND_US
                eventually("renewed", lambda: next_us(store) == clock.now_us + 30 * SECOND_US)
                assert other.once() == "nothing"
        finally:
            free.set()
            thread.join(20)
        assert len(made.got) == 1 and state(store) == ("delivered", 1, "")

    def test_who_has_lost_a_claim_does_not_renew_it(self, store: Store, clock: Clock) -> None:
        store.deliveries.register(["trainer"])
        queue(store, action())
        store.deliveries.spread("trainer", TOPIC, lambda _: True)
        lost = store.deliveries.claim("trainer", SECOND_US)
        clock.now_us += SECOND_US
        own = store.deliveries.claim("trainer", SECOND_US)
        assert lost is not None and own is not None
        assert not store.deliveries.renew(lost, 9 * SECOND_US) and store.deliveries.renew(own, 9 * SECOND_US)

    def test_two_processes_do_not_deliver_the_same_action_side_by_side(
        self, store: Store, tmp_path: Path, made: MadeReceiver
    ) -> None:
        ones = [deliverer(store, tmp_path, made.url) for _ in range(3)]
        queue(store, *(action(f"id-{number}") for number in range(30)))

        def work(one: Deliverer) -> None:
            while one.once() == "delivered":
                pass

        threads = [threading.Thread(target=work, args=(one,)) for one in ones]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(got.json()["id"] for got in made.got) == sorted(f"id-{number}" for number in range(30))

    def test_one_that_hangs_delays_nobody_else(self, store: Store, tmp_path: Path, made: MadeReceiver) -> None:
        free = threading.Event()

        def hang(_: Got) -> tuple[int, Any]:
            free.wait(20)
            return 204, None

        with receiver(hang) as stuck:
            own = [settings(tmp_path, stuck.url, name="stuck"), settings(tmp_path, made.url, name="well")]
            store.deliveries.register([one.name for one in own])
            queue(store, action())
            stop = threading.Event()
            threads = [threading.Thread(target=deliver, args=(store, one, TOPIC, stop)) for one in own]
            for thread in threads:
                thread.start()
            try:
                eventually("delivered", lambda: len(made.got) == 1 and len(stuck.got) == 1)
                eventually(
                    "noted",
                    lambda: {one.receiver: one.state for one in store.deliveries.of([ID])[ID]}["well"] == "delivered",
                )
                assert {one.receiver: one.state for one in store.deliveries.of([ID])[ID]}["stuck"] == "waiting"
            finally:
                free.set()
                stop.set()
                for thread in threads:
                    thread.join(20)


class TestBack:
    """A receiver that was taken out of the file and is put back."""

    def other_process(self, store: Store, clock: Clock, minutes: int, *names: str) -> None:
        """A process that runs so long with these receivers in its file."""
        for _ in range(minutes):
            store.deliveries.note_running(names)
            clock.now_us += 60 * SECOND_US

    def test_it_gets_what_is_asked_from_then_on(
        self,
        store: Store,
        tmp_path: Path,
        made: MadeReceiver,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made.say = lambda _: (500, None)
        one = deliverer(store, tmp_path, made.url)
        queue(store, action("waiting"))
        assert one.once() == "failed"
        self.other_process(store, clock, 10)
        queue(store, action("while-it-was-away"))
        self.other_process(store, clock, 10)
        made.say = lambda _: (200, None)
        register(store, [settings(tmp_path, made.url)])
        assert "trainer is back" in caplog.text and "1 waiting actions skipped" in caplog.text
        queue(store, action("new"))
        while one.once() == "delivered":
            pass
        assert [got.json()["id"] for got in made.got] == ["waiting", "new"]

    def test_where_nothing_ran_meanwhile_it_gets_everything(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock
    ) -> None:
        deliverer(store, tmp_path, made.url)
        self.other_process(store, clock, 3, "trainer")
        queue(store, action())
        clock.now_us += 86_400 * SECOND_US  # killed, and started the next day
        assert deliverer(store, tmp_path, made.url).once() == "delivered"

    def test_a_file_that_is_changed_process_by_process_loses_nothing(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock
    ) -> None:
        deliverer(store, tmp_path, made.url)
        for _ in range(30):  # one process has it, another has it no more
            self.other_process(store, clock, 1, "trainer")
            self.other_process(store, clock, 1, "another")
        queue(store, action())
        assert deliverer(store, tmp_path, made.url).once() == "delivered"


class TestTooOld:
    def test_what_nobody_took_in_time_is_given_up_and_counted(
        self, store: Store, tmp_path: Path, made: MadeReceiver, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        made.say = lambda _: (500, None)
        deliverer(store, tmp_path, made.url)
        one = Deliverer(
            store, settings(tmp_path, made.url), TOPIC, most_age_us=48 * 3600 * SECOND_US, chance=lambda: 1.0
        )
        queue(store, action("old", "rollback"))
        assert one.once() == "failed"
        clock.now_us += 47 * 3600 * SECOND_US
        queue(store, action("young", "rollback"))
        assert one.once() == "failed"
        clock.now_us += 2 * 3600 * SECOND_US
        made.say = lambda _: (200, None)
        assert one.once() == "delivered"
        assert state(store, "old") == ("given_up", 2, "too old to be delivered")
        assert state(store, "young")[0] == "delivered"
        assert "old is given up: too old" in caplog.text
        counted = {key.bucket: value for key, value in store.read_tallies().items() if key.series == DELIVERIES}
        assert counted[DELIVERED.index("given_up")] == 1


def _die(*_: object) -> None:
    raise KeyboardInterrupt


class TestHttp:
    def test_a_redirect_is_not_followed(self, tmp_path: Path, made: MadeReceiver) -> None:
        with receiver() as elsewhere:
            made.say = lambda _: (307, None, {"location": elsewhere.url})
            with pytest.raises(ReceiverError, match="status 307"):
                Http(settings(tmp_path, made.url)).send("POST", "/x", {})
            assert not elsewhere.got

    def test_nobody_at_home_and_no_answer_in_time_are_failures(self, tmp_path: Path, made: MadeReceiver) -> None:
        free = threading.Event()
        made.say = lambda _: ((free.wait(10) and 204) or 204, None)
        with pytest.raises(ReceiverError, match="no answer in time"):
            Http(settings(tmp_path, made.url, timeout_seconds=0.2)).send("POST")
        free.set()
        with pytest.raises(ReceiverError, match=r"127\.0\.0\.1: no connection"):
            Http(settings(tmp_path, "http://127.0.0.1:9", timeout_seconds=2)).send("POST")

    def test_an_endless_answer_is_cut_off(self, tmp_path: Path, made: MadeReceiver) -> None:
        made.say = lambda _: (200, "x" * (5 * 1024 * 1024))
        with pytest.raises(ReceiverError, match="more than"):
            Http(settings(tmp_path, made.url)).send("GET")


class TestPresets:
    def deliver(self, folder: Path, url: str, preset: str, sent: Action, **fields: Any) -> str:
        message = to_message(sent, TOPIC, NOW_US)
        one = make_receiver(settings(folder, url, preset=preset, **fields))
        try:
            return one.deliver(cloud_event(message))
        finally:
            one.close()

    def test_every_module_of_the_folder_with_settings_is_in_the_table(self) -> None:
        folder = Path(table.__file__).parent
        found = {file.stem for file in folder.glob("*.py") if "class Settings(" in file.read_text()}
        assert found == set(table.PRESETS)

    def test_airflow_gets_the_id_as_run_id_and_a_conflict_means_that_it_is_there(
        self, tmp_path: Path, made: MadeReceiver
    ) -> None:
        made.say = lambda _: (200 if len(made.got) == 1 else 409, {})
        told = [self.deliver(tmp_path, made.url, "airflow", action(), dag="retrain street") for _ in range(2)]
        assert told == [f"run {ID} of retrain street", f"run {ID} of retrain street was there"]
        got = made.got[0]
        assert got.path == "/api/v2/dags/retrain%20street/dagRuns"
        assert got.headers["authorization"] == "Bearer a-token"
        run = got.json()
        assert (run["dag_run_id"], run["logical_date"], run["conf"]["id"]) == (ID, None, ID)

    def test_airflow_without_a_token_signs_in(self, tmp_path: Path, made: MadeReceiver) -> None:
        (tmp_path / "password").write_text("geheim")
        made.say = lambda got: (201, {"access_token": "fresh"}) if got.path == "/auth/token" else (200, {})
        fields = {"username": "segwatch", "password_file": str(tmp_path / "password"), "token_file": ""}
        self.deliver(tmp_path, made.url, "airflow", action(), dag="retrain", **fields)
        assert made.got[0].json() == {"username": "segwatch", "password": "geheim"}
        assert made.got[1].headers["authorization"] == "Bearer fresh"

    def test_argo_asks_first_and_submits_under_a_name_of_the_id(self, tmp_path: Path, made: MadeReceiver) -> None:
        there: set[str] = set()

        def say(got: Got) -> tuple[int, Any]:
            if got.method == "GET":
                return (200 if there else 404), {}
            there.add(got.json()["submitOptions"]["name"])
            return 200, {}

        made.say = say
        told = [self.deliver(tmp_path, made.url, "argo", action(), namespace="ml", template="retrain") for _ in "ab"]
        assert told == [f"workflow segwatch-{ID}", f"workflow segwatch-{ID} was there"]
        [got] = made.of("POST", "/api/v1/workflows/ml/submit")
        asked = got.json()
        assert (asked["resourceKind"], asked["resourceName"]) == ("WorkflowTemplate", "retrain")
        name, _, value = asked["submitOptions"]["parameters"][0].partition("=")
        assert (name, json.loads(value)["id"]) == ("event", ID)

    @pytest.mark.parametrize("there_after", [True, False])
    def test_argo_looks_again_where_a_submission_fails(
        self, tmp_path: Path, made: MadeReceiver, there_after: bool
    ) -> None:
        def say(got: Got) -> tuple[int, Any]:
            if got.method == "POST":
                return 409, {"message": "a quota, or the name: who can tell"}
            return (200 if there_after and len(made.got) > 1 else 404), {}

        made.say = say
        if there_after:
            assert self.deliver(tmp_path, made.url, "argo", action(), namespace="ml", template="retrain")
        else:
            with pytest.raises(ReceiverError, match="409"):
                self.deliver(tmp_path, made.url, "argo", action(), namespace="ml", template="retrain")

    def test_github_gets_a_dispatch_that_it_can_take(self, tmp_path: Path, made: MadeReceiver) -> None:
        many = [{"input_id": f"cam7-{number:09d}", "selection_probability": None} for number in range(5000)]
        self.deliver(tmp_path, made.url, "github", action(samples=many), repository="acme/models")
        [got] = made.got
        asked = got.json()
        assert (got.method, got.path) == ("POST", "/repos/acme/models/dispatches")
        assert got.headers["authorization"] == "Bearer a-token" and "user-agent" in got.headers
        assert asked["event_type"] == "segwatch.retrain_requested.v1"
        payload = asked["client_payload"]
        assert len(payload) <= 10 and len(json.dumps(payload)) < 65_535
        evidence = payload["event"]["data"]["evidence"]
        assert len(evidence["samples"]) + evidence["samples_omitted"] == 5000

    def test_mlflow_completes_a_run_that_was_cut_off_instead_of_making_a_second(
        self, tmp_path: Path, made: MadeReceiver
    ) -> None:
        runs: dict[str, dict[str, Any]] = {}
        broken = True

        def say(got: Got) -> tuple[int, Any]:
            nonlocal broken
            call = got.path.partition("?")[0].removeprefix("/api/2.0/mlflow")
            if call == "/experiments/get-by-name":
                return 200, {"experiment": {"experiment_id": "7"}}
            if call == "/runs/search":
                return 200, {"runs": list(runs.values())}
            if call == "/runs/create":
                made_run = {"info": {"run_id": "r1", "status": "RUNNING", "artifact_uri": "s3://b/r1"}}
                runs["r1"] = made_run
                return 200, {"run": made_run}
            if call == "/runs/update":
                runs["r1"]["info"]["status"] = "FINISHED"
                return 200, {}
            if call == "/runs/log-batch" and broken:
                broken = False
                return 500, {}
            if call == "/model-versions/get":
                return 200, {"model_version": {"version": "3"}}
            return 200, {}

        made.say = say
        sent = action(scores=[{"signal": "embedding", "js": 0.25, "p_value": None, "threshold": 0.1}])
        with pytest.raises(ReceiverError, match="500"):
            self.deliver(tmp_path, made.url, "mlflow", sent)
        for _ in range(2):
            assert self.deliver(tmp_path, made.url, "mlflow", sent) == "run r1; tagged version 3 of street"
        assert len(made.of("POST", "/api/2.0/mlflow/runs/create")) == 1
        assert len(made.of("POST", "/api/2.0/mlflow/runs/update")) == 1
        [tag] = made.of("POST", "/api/2.0/mlflow/runs/set-tag")  # its artifacts are not the server's
        assert json.loads(tag.json()["value"])["id"] == ID

    def test_mlflow_keeps_one_run_where_two_processes_made_one_and_no_lease_ends_before_that(
        self, tmp_path: Path, made: MadeReceiver
    ) -> None:
        info = {"status": "RUNNING", "artifact_uri": "mlflow-artifacts:/7/r"}
        other, own = ({"info": {"run_id": f"r{i}", "start_time": i, **info}} for i in range(2))
        there: list[bool] = []
        runs: list[dict[str, Any]] = []

        def say(got: Got) -> tuple[int, Any]:  # whatever takes a further request
            call = got.path.partition("?")[0].removeprefix("/api/2.0/mlflow")
            if call == "/experiments/get-by-name":
                return (200, {"experiment": {"experiment_id": "7"}}) if there else (404, {})
            if call == "/experiments/create":
                there.append(True)
                return 400, {}
            if call == "/runs/search":
                return 200, {"runs": runs}
            if call == "/runs/create":
                runs.extend([own, other])
                return 200, {"run": own}
            if call == "/runs/delete":
                runs.remove(own)
                return 200, {}
            if call == "/model-versions/get":
                return 404, {}
            if call == "/model-versions/search":
                tags = [[{"key": "segwatch.version", "value": version}] for version in "23"]
                found = [{"name": "street", "version": f"1{i}", "tags": own} for i, own in enumerate(tags)]
                return 200, {"model_versions": found}
            return 200, {}

        made.say = say
        scores = [{"signal": "embedding", "js": 0.25, "p_value": None, "threshold": 0.1}]
        asked = action(kind="rollback", scores=scores)
        sent = replace(asked, data={**asked.data, "stable": "2"})
        told = self.deliver(tmp_path, made.url, "mlflow", sent, alias="champion")
        assert told == "run r0; tagged version 11 of street; alias champion is version 10"
        assert runs == [other]
        assert len(made.got) == REQUESTS  # nothing takes more: every branch here is the longer one


class TestTheFile:
    def write(self, folder: Path, *entries: Mapping[str, Any] | str) -> str:
        file = folder / "receivers.yml"
        file.write_text(json.dumps({"receivers": list(entries)}))
        return str(file)

    @pytest.mark.parametrize(
        ("entry", "named"),
        [
            ({"name": "Upper", "url": "http://x"}, "name"),
            ({"name": "a", "url": "file:///etc/passwd"}, "url"),
            ({"name": "a", "url": "http://user:pass@x"}, "url"),
            ({"name": "a", "url": "http://x/#part"}, "url"),
            ({"name": "a"}, "url"),
            ({"name": "a", "url": "http://x", "secret": "in the clear"}, "secret"),
            ({"name": "a", "url": "http://x", "preset": "jenkins"}, "preset"),
            ({"name": "a", "url": "http://x", "actions": ["reboot"]}, "actions"),
            ({"name": "a", "url": "http://x", "preset": "airflow"}, "dag"),
            ({"name": "a", "url": "http://x", "preset": "github", "repository": "../.."}, "repository"),
            ("text", "receivers"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, entry: Mapping[str, Any] | str, named: str) -> None:
        with pytest.raises(SettingsError, match=named):
            load_receivers(self.write(tmp_path, entry))

    def test_a_name_may_come_once_only(self, tmp_path: Path) -> None:
        entry = {"name": "a", "url": "http://x"}
        with pytest.raises(SettingsError, match="twice"):
            load_receivers(self.write(tmp_path, entry, entry))

    def test_without_a_secret_nothing_is_signed_so_that_is_refused(self, tmp_path: Path) -> None:
        [one] = load_receivers(self.write(tmp_path, {"name": "a", "url": "http://x"}))
        with pytest.raises(SettingsError, match="secret"):
            make_receiver(one)
        [one] = load_receivers(self.write(tmp_path, {"name": "a", "url": "http://x", "secret_file": "/missing"}))
        with pytest.raises(SettingsError, match="/missing"):
            make_receiver(one)


def test_an_event_is_cut_until_it_fits_and_says_so() -> None:
    event = {"id": "1", "data": {"link": "/", "model": "street", "evidence": {"windows": ["x" * 500] * 20}}}
    small = cut(event, 1000)
    assert len(json.dumps(small)) < 1000
    assert small["data"] == {"link": "/", "model": "street", "evidence_omitted": True}
    assert cut(event, 100_000) == event
