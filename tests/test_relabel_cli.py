"""``segwatch relabel`` and ``/api/v1/relabel``: what people and annotation tools see and do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner, Result
from fastapi import FastAPI
from fastapi.testclient import TestClient

from monitor.cli import cli
from monitor.commands.relabel import KINDS, STATES
from monitor.errors import LeaseRefused, SegwatchError, UnknownSample
from monitor.live_settings import LiveSettings
from monitor.settings import Settings
from monitor.store.relabel import Kind, State
from monitor.store.store import Store
from monitor.store.values import SpotCheckRow
from monitor.web_relabel import relabel_router
from tests.test_relabel import wanted
from tests.test_store import HOUR, row


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=str(tmp_path))
    with Store.open(settings, write=True) as store, store.transaction() as tx:
        tx.insert_samples([row(name) for name in "abcd"])
    return settings


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """A spot check, two samples of one shift, one of them for another cause too."""
    with Store.open(settings, write=True) as store:
        leader = store.try_lead()
        assert leader is not None
        leader.record_spot_checks(
            "street", "3", HOUR, [SpotCheckRow("a", "street", "3", HOUR, "uniform", 0.1, "car", 1)]
        )
        leader.queue_samples([wanted("b", rank=0), wanted("b", "quality: bus", "quality"), wanted("c", rank=1)])
        leader.release()
    return settings


def segwatch(settings: Settings, *arguments: str) -> Result:
    config = Path(settings.data_dir) / "segwatch.yaml"
    config.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(settings)))
    return CliRunner().invoke(cli, ["--config", str(config), "relabel", *arguments])


def shown(settings: Settings, *arguments: str) -> Any:
    done = segwatch(settings, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


class TestCommands:
    def test_the_options_offer_every_kind_and_state(self) -> None:
        assert (get_args(Kind), get_args(State)) == (KINDS, STATES)

    def test_the_list_has_what_it_had_and_says_why_and_how_it_stands(self, filled: Settings) -> None:
        items = shown(filled, "list")["items"]
        assert [(one["input_id"], one["kind"], one["state"]) for one in items] == [
            ("a", "spot_check", "open"), ("b", "drift", "open"), ("c", "drift", "open"), ("b", "quality", "open"),
        ]  # fmt: skip
        assert items[0] | {"priority": 0} == {
            "model": "street",
            "version": "3",
            "input_id": "a",
            "event_time": "1970-01-01T01:00:00Z",
            "kind": "spot_check",
            "stream": "uniform",
            "cause": "spot_check",
            "priority": 0,
            "probability": 0.1,
            "reason": "car",
            "chosen": "1970-01-01T00:00:00.000001Z",
            "state": "open",
            "claimed_by": None,
            "lease_until": None,
            "closed": None,
            "closed_by": None,
        }
        assert "because of drift: 02:00" in segwatch(filled, "list").stdout
        assert [one["input_id"] for one in shown(filled, "list", "--kind", "quality")["items"]] == ["b"]
        assert shown(filled, "list", "--state", "done")["items"] == []
        assert len(shown(filled, "list", "--limit", "2")["items"]) == 2

    def test_claimed_samples_come_with_all_their_causes_and_can_be_closed(self, filled: Settings) -> None:
        claim = shown(filled, "claim", "--as", "ann", "-n", "2", "--lease", "2h")
        assert [one["input_id"] for one in claim["items"]] == ["a", "b"]
        assert [one["cause"] for one in claim["items"][1]["causes"]] == ["drift: 02:00", "quality: bus"]
        assert claim["items"][1]["state"] == "claimed" and claim["items"][1]["claimed_by"] == "ann"
        assert [one["input_id"] for one in shown(filled, "claim", "--as", "bob", "-n", "9")["items"]] == ["c"]
        assert segwatch(filled, "claim", "--as", "eve").stdout == "Nothing waits for a label.\n"
        shown(filled, "renew", "a", "--as", "ann", "--token", claim["token"])
        assert shown(filled, "done", "a", "b", "--as", "ann")["items"][0]["state"] == "done"
        shown(filled, "release", "c", "--as", "bob")
        states = {
            (one["input_id"], one["cause"]): one["state"] for one in shown(filled, "list", "--state", "all")["items"]
        }
        assert states == {
            ("a", "spot_check"): "done", ("b", "drift: 02:00"): "done", ("b", "quality: bus"): "done",
            ("c", "drift: 02:00"): "open",
        }  # fmt: skip

    @pytest.mark.parametrize("command", ["renew", "release", "done"])
    def test_a_foreign_lease_is_refused_by_name(self, filled: Settings, command: str) -> None:
        shown(filled, "claim", "--as", "ann")
        done = segwatch(filled, command, "a", "--as", "bob")
        assert isinstance(done.exception, LeaseRefused)
        assert str(done.exception).startswith("a: leased by ann until ")

    def test_what_a_person_wants_labelled_stands_first(self, filled: Settings) -> None:
        assert shown(filled, "add", "d", "b", "--reason", "odd wheel") == {"queued": ["b", "d"]}
        assert shown(filled, "add", "d", "--reason", "odd wheel") == {"queued": []}
        claim = shown(filled, "claim", "--as", "ann", "-n", "2")
        assert [(one["input_id"], one["reason"]) for one in claim["items"]] == [("b", "odd wheel"), ("d", "odd wheel")]
        done = segwatch(filled, "add", "z", "--reason", "odd")
        assert isinstance(done.exception, UnknownSample)

    def test_who_did_what_is_in_the_audit_log(self, filled: Settings) -> None:
        shown(filled, "claim", "--as", "ann")
        with Store.open(filled, write=False) as store:
            assert [(line.what, line.subject) for line in store.read_audit()] == [("relabel.claim", "street")]


@pytest.fixture
def client(filled: Settings) -> Iterator[TestClient]:
    with Store.open(filled, write=True) as store:
        app = FastAPI()
        app.include_router(relabel_router(store, LiveSettings(filled, lambda: filled)))
        with TestClient(app) as asked:
            yield asked


class TestHttp:
    def test_a_tool_lists_claims_and_closes(self, client: TestClient) -> None:
        assert [one["input_id"] for one in client.get("/api/v1/relabel").json()["items"]] == ["a", "b", "c", "b"]
        claim = client.post("/api/v1/relabel/claim", json={"as": "tool", "n": 2, "lease_seconds": 60}).json()
        assert [one["input_id"] for one in claim["items"]] == ["a", "b"]
        change = {"as": "tool", "inputs": ["a"], "token": claim["token"]}
        assert client.post("/api/v1/relabel/renew", json={**change, "lease_seconds": 90}).status_code == 200
        assert client.post("/api/v1/relabel/done", json=change).json()["items"][0]["closed_by"] == "tool"
        assert client.post("/api/v1/relabel/done", json=change).json() == {"items": []}
        assert client.post("/api/v1/relabel/release", json={"as": "tool", "inputs": ["b"]}).status_code == 200
        left = client.get("/api/v1/relabel", params={"state": "open", "kind": "drift"}).json()["items"]
        assert [one["input_id"] for one in left] == ["b", "c"]

    @pytest.mark.parametrize("path", ["renew", "release", "done"])
    def test_a_foreign_lease_is_a_409_that_says_whose(self, client: TestClient, path: str) -> None:
        client.post("/api/v1/relabel/claim", json={"as": "ann"})
        refused = client.post(f"/api/v1/relabel/{path}", json={"as": "bob", "inputs": ["a"]})
        assert refused.status_code == 409
        assert refused.json()["error"].startswith("a: leased by ann until ")

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("claim", {}),
            ("claim", {"as": "", "n": 1}),
            ("claim", {"as": "ann", "n": 0}),
            ("claim", {"as": "ann", "lease_seconds": -1}),
            ("claim", {"as": "ann", "kind": "whim"}),
            ("claim", {"as": "ann", "lease": 5}),
            ("done", {"as": "ann", "inputs": []}),
        ],
    )
    def test_a_bad_question_changes_nothing(self, client: TestClient, path: str, body: dict[str, Any]) -> None:
        before = client.get("/api/v1/relabel").json()
        assert client.post(f"/api/v1/relabel/{path}", json=body).status_code == 422
        assert client.get("/api/v1/relabel").json() == before

    def test_nothing_waits_is_said_plainly(self, client: TestClient) -> None:
        assert client.post("/api/v1/relabel/claim", json={"as": "ann", "model": "yard"}).json() == {
            "token": None, "lease_until": None, "items": [],
        }  # fmt: skip

    def test_a_process_that_only_reads_says_so(self, filled: Settings) -> None:
        with Store.open(filled, write=False) as store:
            app = FastAPI()
            app.include_router(relabel_router(store, LiveSettings(filled, lambda: filled)))
            with TestClient(app) as asked, pytest.raises(SegwatchError, match="opened for reading only"):
                asked.post("/api/v1/relabel/claim", json={"as": "ann"})
