"""The whole loop through ``segwatch run``, on a real Kafka, PostgreSQL and MLflow; the service is killed at each step.

The parts that no product can bring (cameras and model, annotator, trainer) are the demo's; the network learns really.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaConsumer

from monitor.cli import cli
from monitor.full_loop.annotator import annotate
from monitor.full_loop.inference import Inference
from monitor.full_loop.plan import MODEL, NEW, OLD, LoopPlan
from monitor.full_loop.shell import Shell
from monitor.full_loop.trainer import examples, retrain
from monitor.receivers.events import TAKES
from monitor.settings import KafkaSettings, Settings, StoreSettings
from monitor.store.store import Store
from monitor.tallies import LABEL_JOINS, LABELS, RECORDS
from monitor.windows import to_text, to_us
from tests.made_receiver import Got, MadeReceiver, receiver
from tests.real.component import free_ports, spawn, stop
from tests.real.kafka_server import KafkaServer
from tests.real.mlflow_server import MlflowServer
from tests.real.postgres import Postgres
from tests.real.service import SEGWATCH, eventually
from tests.real.test_mlflow import call, get

pytestmark = pytest.mark.slow

HOUR_RECORDS, STEPS, MOST_CANARY_HOURS = 60, 100, 6
PATIENCE_S = 240.0


class Rig:
    """The servers, one process of segwatch, and the parts that are played."""

    def __init__(self, kafka: KafkaServer, postgres: Postgres, mlflow: MlflowServer, hook: str, folder: Path) -> None:
        (port,) = free_ports(1)
        (folder / "secret").write_text("a secret of the test's own")
        receivers: list[dict[str, Any]] = [
            {"name": "trainer", "url": hook, "timeout_seconds": 2, "secret_file": str(folder / "secret")},
            {"name": "tracking", "preset": "mlflow", "url": mlflow.url, "timeout_seconds": 5, "alias": "champion"},
        ]
        (folder / "receivers.yml").write_text(json.dumps({"receivers": receivers}))
        self.topic = kafka.fresh_topic("actions")
        tree: dict[str, Any] = {
            "data_dir": str(folder / "data"),
            "store": {"url": postgres.fresh_database()},
            "kafka": {
                "bootstrap_servers": kafka.bootstrap,
                "predictions_topic": kafka.fresh_topic("predictions"),
                "labels_topic": kafka.fresh_topic("labels"),
                "dead_letter_topic": kafka.fresh_topic("dead"),
                "actions_topic": self.topic,
                "group_id": f"group-{port}",
                "session_timeout_seconds": 6,
            },
            "web": {"port": port},
            "windows": {"lengths_seconds": [3600], "close_delay_seconds": 1},
            "embedding": {"backbone": "segmenter", "input_size": 128},
            "quality": {"spot_checks_per_day": HOUR_RECORDS * 24 / 2},
            "relabel": {"budget_per_day": 60},
            "canary": {"watch": [f"{MODEL}:{OLD}:{NEW}"], "check_seconds": 1},
            "actions": {
                "receivers_file": str(folder / "receivers.yml"),
                "retrain_after_windows": 2,
                "retrain_min_labels": 60,
            },
        }
        config = folder / "segwatch.yaml"
        config.write_text(yaml.safe_dump(tree))
        self.log = folder / "service.log"
        self.segwatch = Shell(cli, config, lambda _: None)
        kafka_settings = KafkaSettings(actions_topic=self.topic)
        self.store = Store.open(Settings(store=StoreSettings(tree["store"]["url"]), kafka=kafka_settings), write=True)
        self.kills = 0
        self.labelled: set[str] = set()
        self.batches: list[Path] = []
        self.folder = folder
        began = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        self.plan = LoopPlan(
            start=began - timedelta(hours=20),
            records_per_hour=HOUR_RECORDS,
            frames=1,
            baseline_hours=4,
            calm_hours=1,
        )
        self.inference = Inference(folder, OLD)
        self.hours = 0
        self._command = [*SEGWATCH, "--config", str(config), "run", "--role", "all"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = spawn(self._command, self.log, {**os.environ, "OMP_NUM_THREADS": "1"})

    def kill(self) -> None:
        """kill -9; whoever waits for something starts it again, as a supervisor would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def close(self) -> None:
        if self._process is not None:
            stop(self._process)
        self.store.close()

    def eventually(self, what: str, probe: Callable[[], Any]) -> Any:
        def looked() -> Any:
            if self._process is not None and self._process.poll() is not None:
                self.start()
            return probe() or None  # an empty list is no answer either

        return eventually(what, looked, PATIENCE_S, self.log)

    def hour(self) -> None:
        """Publish one hour's traffic, all versions in service, and wait until it is counted."""
        file, count = self.inference.log(self.plan.hour(self.hours), f"traffic-{self.hours:02d}")
        self.hours += 1
        before = self.counted(RECORDS, "ok")
        self.segwatch("publish", file, show=False)
        self.eventually("the hour is counted", lambda: self.counted(RECORDS, "ok") == before + count)

    def counted(self, series: str, label: str) -> int:
        found = self.store.read_tallies().items()
        return sum(count for key, count in found if (key.series, key.label) == (series, label))

    def alarms(self) -> int:
        return sum(one.alarm is True and not one.slice for one in self.store.scores(MODEL))

    def label(self) -> None:
        """The annotator works off the queue, once the newest hour's spot checks stand in it."""
        since = to_text(to_us(self.plan.at(self.hours - 1)))

        def chosen() -> bool:
            return any(one["kind"] == "spot_check" and one["event_time"] >= since for one in self.waiting())

        self.eventually("the hour's spot checks wait for a label", chosen)
        batch = self.folder / f"batch-{len(self.batches)}"
        batch.mkdir()
        self.segwatch("relabel", "export", "--format", "coco", "--claim-as", "ann", "--out", batch, show=False)
        done = annotate(batch, [self.plan.hour(number) for number in range(self.hours)])
        self.segwatch("labels", "import", done, "--annotator", "ann", show=False)
        self.batches.append(batch)
        self.labelled |= {str(one["input_id"]) for one in json.loads(done.read_text())["images"]}

    def waiting(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.segwatch.json("relabel", "list", "--state", "open")["items"]
        return found

    def asked(self, kind: str) -> list[dict[str, Any]]:
        found = self.store.actions.queued(self.topic)
        told = [json.loads(one.message.value or b"") for one in found]
        return [one for one in told if TAKES[one["type"]] == kind]

    def delivered(self) -> bool:
        """Whether every action has arrived at both receivers and on Kafka."""
        queued = self.store.actions.queued(self.topic)
        states = self.store.deliveries.of([one.message.id for one in queued])
        wanted = [one.message.id for one in queued if b"segwatch.alert.v1" not in (one.message.value or b"")]
        there = all({row.state for row in states.get(name, [])} == {"delivered"} for name in wanted)
        return there and all(len(states[name]) == 2 for name in wanted) and all(one.sent_us for one in queued)


@pytest.fixture(scope="module")
def mlflow() -> Iterator[MlflowServer]:
    with MlflowServer.start() as server:
        call(server, "registered-models/create", name=MODEL)
        for _ in (OLD, NEW):
            call(server, "model-versions/create", name=MODEL, source="s3://models/digits")
        call(server, "registered-models/alias", name=MODEL, alias="champion", version=OLD)
        yield server


class Trainer:
    """What receives the webhooks: the first request to retrain kills its sender before it hears an answer."""

    def __init__(self) -> None:
        self.got: dict[str, list[str]] = defaultdict(list)
        self.kill: Callable[[], None] | None = None
        self.died_in_delivery = False

    def take(self, got: Got) -> tuple[int, Any]:
        event = json.loads(got.body)
        assert got.headers["idempotency-key"] == event["id"]
        self.got[TAKES[event["type"]]].append(event["id"])
        if TAKES[event["type"]] == "retrain" and self.kill is not None and not self.died_in_delivery:
            self.died_in_delivery = True
            self.kill()
        return 204, None


@pytest.fixture
def hook() -> Iterator[tuple[Trainer, MadeReceiver]]:
    trainer = Trainer()
    with receiver(trainer.take) as made:
        yield trainer, made


def ids_on(kafka: KafkaServer, topic: str, count: int) -> list[str]:
    """Ids of the first ``count`` messages of a topic, waited for."""
    with closing(
        KafkaConsumer(
            topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
        )
    ) as consumer:
        return [dict(message.headers)["ce_id"].decode() for message in islice(consumer, count)]


def test_the_loop_closes_and_no_kill_loses_or_doubles_anything(
    kafka: KafkaServer,
    postgres: Postgres,
    mlflow: MlflowServer,
    hook: tuple[Trainer, MadeReceiver],
    tmp_path: Path,
) -> None:
    trainer, made = hook
    rig = Rig(kafka, postgres, mlflow, f"{made.url}/hook", tmp_path)
    try:
        play(rig, trainer)
        check(rig, trainer, kafka, mlflow)
    finally:
        rig.close()


def play(rig: Rig, trainer: Trainer) -> None:
    baseline, _ = rig.inference.log(rig.plan.baseline(), "baseline")
    build = ("baseline", "build", "--model", MODEL, "--version", OLD, "--records", baseline, "--activate")
    rig.segwatch(*build, show=False)
    rig.start()
    rig.hour()
    rig.label()
    assert rig.alarms() == 0
    rig.hour()
    rig.eventually("the shift is noticed", lambda: rig.alarms() == 1)
    rig.kill()  # after the alarm
    rig.label()
    rig.kill()  # after labels
    trainer.kill = rig.kill
    rig.hour()
    rig.label()
    # After the request, during its delivery.
    rig.eventually("the trainer hears of it, and its sender dies", lambda: trainer.died_in_delivery)
    rig.eventually("all is delivered", rig.delivered)
    [request] = rig.asked("retrain")
    rig.segwatch("labels", "export", "--format", "coco", "--out", rig.folder / "labels.json", show=False)
    wanted = {one["input_id"] for one in request["evidence"]["samples"]}
    given = examples(rig.folder / "labels.json", [batch / "images" for batch in rig.batches], wanted)
    assert {*wanted} <= rig.labelled and len(given) == len(wanted) >= 60
    retrain(given, rig.folder / "new.safetensors", steps=STEPS, seed=1)
    rig.inference.bring_in(NEW, rig.folder / "new.safetensors")
    for number in range(MOST_CANARY_HOURS):
        rig.hour()
        rig.label()
        rig.eventually("the canary is judged", lambda: rig.store.canaries.verdicts())
        if not number:
            rig.kill()  # during the canary
        shown = rig.segwatch.json(*COMPARE)
        if rig.asked("promote") or shown["promote"]:
            break
    assert rig.asked("promote") or shown["promote"], json.dumps({**shown, "worst": []})[:8000]
    rig.eventually("the promotion is requested", lambda: rig.asked("promote"))
    rig.kill()  # after that request
    rig.eventually("all is delivered", rig.delivered)
    rig.eventually("all labels are judged", lambda: rig.store.actions.labels_ready(MODEL, -1) == len(rig.labelled))


COMPARE = ("canary", "compare", "--model", MODEL, "--stable", OLD, "--canary", NEW)


def check(rig: Rig, trainer: Trainer, kafka: KafkaServer, mlflow: MlflowServer) -> None:
    assert rig.kills == 5
    asked = {kind: [one["id"] for one in rig.asked(kind)] for kind in ("relabel", "retrain", "promote", "rollback")}
    assert len(asked["retrain"]) == len(asked["promote"]) == 1
    assert asked["rollback"] == []
    assert len(asked["relabel"]) >= 2
    [promotion] = rig.asked("promote")
    assert (promotion["stable"], promotion["model"]["version"]) == (OLD, NEW)

    # A receiver that can be asked has each once; one that cannot has each at least once, under the same id.
    for kind, identities in asked.items():
        assert set(trainer.got[kind]) == set(identities)
    assert trainer.got["retrain"].count(asked["retrain"][0]) >= 2
    runs = Counter(runs_of(mlflow))
    assert runs == Counter(name for identities in asked.values() for name in identities)
    alias = get(mlflow, f"registered-models/alias?name={MODEL}&alias=champion")["model_version"]
    assert alias["version"] == NEW

    # Kafka has what was decided, and nothing else.
    queued = {one.message.id for one in rig.store.actions.queued(rig.topic)}
    assert set(ids_on(kafka, rig.topic, len(queued))) == queued

    # Every record and every label counted once, whatever died.
    hours = rig.hours + rig.hours - 3  # the first three with one version
    assert rig.counted(RECORDS, "ok") == HOUR_RECORDS * hours
    assert rig.counted(LABELS, "accepted") == len(rig.labelled)
    shared = sum(name in seen_by_both(rig) for name in rig.labelled)
    assert rig.counted(LABEL_JOINS, "joined") == len(rig.labelled) + shared
    pairs = rig.segwatch.json(*COMPARE)["pairs"]
    assert 30 <= pairs <= shared


def seen_by_both(rig: Rig) -> set[str]:
    found: set[str] = set()
    for number in range(3, rig.hours):
        lines = (rig.folder / f"traffic-{number:02d}.jsonl").read_text().splitlines()
        found |= {json.loads(line)["input_id"] for line in lines}
    return found


def runs_of(mlflow: MlflowServer) -> list[str]:
    """Of every run in segwatch's experiment the action that it is of."""
    experiment = get(mlflow, "experiments/get-by-name?experiment_name=segwatch")["experiment"]["experiment_id"]
    found = call(mlflow, "runs/search", experiment_ids=[experiment], max_results=1000).get("runs", [])
    tags = [{one["key"]: one["value"] for one in run["data"]["tags"]} for run in found]
    assert all(run["info"]["status"] == "FINISHED" for run in found)
    return [one["segwatch.action_id"] for one in tags]
