"""Actions into a real MLflow server: one run for each action, however often it is delivered, and marked versions."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alerts.actions import Action
from monitor.delivering import Deliverer
from monitor.evaluate import to_message
from monitor.receivers.files import load_receivers
from monitor.receivers.http import Http
from monitor.store.store import Store
from monitor.windows import SECOND_US
from tests.embedded import NOW_US, settings_of
from tests.real.mlflow_server import MlflowServer

TOPIC = "segwatch.actions"


class Clock:
    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture(scope="module")
def mlflow() -> Iterator[MlflowServer]:
    with MlflowServer.start() as server:
        call(server, "registered-models/create", name="street")
        for _ in range(2):
            call(server, "model-versions/create", name="street", source="s3://models/street")
        call(
            server,
            "model-versions/create",
            name="street",
            source="s3://models/street",
            tags=[{"key": "segwatch.version", "value": "2026-11"}],
        )
        yield server


def call(server: MlflowServer, path: str, **value: Any) -> dict[str, Any]:
    url = f"{server.url}/api/2.0/mlflow/{path}"
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(value).encode(), headers)) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def get(server: MlflowServer, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/api/2.0/mlflow/{path}") as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def action(identity: str, kind: str, version: str, **data: Any) -> Action:
    evidence = {
        "window": {"start": "2026-09-22T00:00:00Z", "end": "2026-09-22T01:00:00Z"},
        "scores": [{"signal": "embedding", "js": 0.25, "kl_nats": None, "p_value": 0.001, "threshold": 0.1}],
        "quality": [
            {
                "class": "straße (nass)",
                "metric": "iou",
                "estimator": "spotcheck",
                "point": 0.5,
                "lower": 0.4,
                "upper": 0.6,
            }
        ],
        "samples": [{"input_id": f"cam7-{number}", "selection_probability": 0.1} for number in range(1000)],
    }
    about = {"kind": "test", "model": {"name": "street", "version": version}, "evidence": evidence, "link": "http://x/"}
    return Action(identity, f"segwatch.{kind}_requested.v1", f"street/{version}", {**about, **data})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(settings_of(tmp_path), write=True, clock=clock) as opened:
        yield opened


def deliverer(store: Store, folder: Path, server: MlflowServer, **fields: Any) -> Deliverer:
    file = folder / "receivers.yml"
    entry = {"name": "tracking", "preset": "mlflow", "url": server.url, "timeout_seconds": 60, **fields}
    file.write_text(json.dumps({"receivers": [entry]}))
    [own] = load_receivers(str(file))
    store.deliveries.register([own.name])
    return Deliverer(store, own, TOPIC)


def queue(store: Store, *actions: Action) -> None:
    with store.transaction() as tx:
        tx.add_outbox([to_message(one, TOPIC, store.now_us()) for one in actions])


def runs_of(server: MlflowServer, identity: str) -> list[dict[str, Any]]:
    experiment = get(server, "experiments/get-by-name?experiment_name=segwatch")["experiment"]["experiment_id"]
    asked = {"experiment_ids": [experiment], "filter": f"tags.`segwatch.action_id` = '{identity}'"}
    found: list[dict[str, Any]] = call(server, "runs/search", **asked).get("runs", [])
    return found


def test_the_evidence_is_a_run_with_the_id_and_the_version_is_tagged(
    mlflow: MlflowServer, store: Store, tmp_path: Path
) -> None:
    one = deliverer(store, tmp_path, mlflow)
    queue(store, action("a-1", "retrain", "2", reasons=[{"kind": "drift", "text": "3 windows have drifted"}]))
    assert one.once() == "delivered"
    [run] = runs_of(mlflow, "a-1")
    assert run["info"]["status"] == "FINISHED"
    metrics = {one["key"]: one["value"] for one in run["data"]["metrics"]}
    assert metrics["drift embedding js"] == 0.25 and "drift embedding kl_nats" not in metrics
    assert metrics["iou stra_e _nass_ spotcheck lower"] == 0.4
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    assert tags["segwatch.window_start"] == "2026-09-22T00:00:00Z"
    assert "3 windows have drifted" in tags["mlflow.note.content"]
    [file] = (mlflow.directory / "artifacts").rglob("evidence.json")
    event = json.loads(file.read_text())
    assert event["id"] == "a-1" and len(event["data"]["evidence"]["samples"]) == 1000
    version = get(mlflow, "model-versions/get?name=street&version=2")["model_version"]
    assert {"key": "segwatch.retrain_requested", "value": "a-1"} in version["tags"]
    [row] = store.deliveries.of(["a-1"])["a-1"]
    assert row.told == f"run {run['info']['run_id']}; tagged version 2 of street"


def test_a_delivery_that_was_not_noted_makes_no_second_run(
    mlflow: MlflowServer, store: Store, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = deliverer(store, tmp_path, mlflow)
    queue(store, action("a-2", "relabel", "2026-11"))

    for requests in range(1, 6):  # after the last of these the run is FINISHED
        die_after(monkeypatch, requests)
        with pytest.raises(KeyboardInterrupt):
            one.once()
        monkeypatch.undo()
        clock.now_us += 3600 * SECOND_US
    monkeypatch.setattr("monitor.store.deliveries.Deliveries.delivered", die)
    with pytest.raises(KeyboardInterrupt):
        one.once()
    monkeypatch.undo()
    clock.now_us += 3600 * SECOND_US
    assert one.once() == "delivered"
    [run] = runs_of(mlflow, "a-2")
    assert run["info"]["status"] == "FINISHED"
    [row] = store.deliveries.of(["a-2"])["a-2"]
    assert "tagged version 3 of street" in row.told  # by its tag segwatch.version


def die(*_: object) -> None:
    raise KeyboardInterrupt


def die_after(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    """Be killed once so many requests have been answered."""
    send, left = Http.send, requests

    def counted(self: Http, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        answer = send(self, *arguments, **named)
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Http, "send", counted)


def test_a_rollback_moves_the_alias_back(mlflow: MlflowServer, store: Store, tmp_path: Path) -> None:
    call(mlflow, "registered-models/alias", name="street", alias="champion", version="2")
    one = deliverer(store, tmp_path, mlflow, alias="champion")
    queue(store, action("a-3", "rollback", "2", stable="1"))
    assert one.once() == "delivered"
    found = get(mlflow, "registered-models/alias?name=street&alias=champion")["model_version"]
    assert found["version"] == "1"


def test_a_version_that_the_registry_has_not_is_said(mlflow: MlflowServer, store: Store, tmp_path: Path) -> None:
    one = deliverer(store, tmp_path, mlflow)
    queue(store, action("a-4", "retrain", "77"))
    assert one.once() == "delivered"
    [row] = store.deliveries.of(["a-4"])["a-4"]
    assert "no version 77 of street" in row.told
