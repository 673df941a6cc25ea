"""Kafka, segwatch, Prometheus and Alertmanager for real: what happens to a model is told, to whom, when, and how.

Prometheus's time is real, so a day of it cannot be waited for. The SLO's windows are a minute, as an SLO file may say;
the rules' own ``for`` and ``interval`` are shortened by ``hasten``; expressions stay as they are rendered.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from kafka import KafkaProducer

from alerts.slo.promql import parse_duration
from monitor.windows import SECOND_US
from tests.made_labels import after, label, seen, square
from tests.real.alertmanager_server import AlertmanagerServer, quick
from tests.real.component import free_ports, stop
from tests.real.kafka_server import KafkaServer
from tests.real.notified import PEOPLE, Notified
from tests.real.postgres import Postgres
from tests.real.prometheus_server import PrometheusServer
from tests.real.service import command, eventually, start

pytestmark = pytest.mark.slow

FASTER = 60
"""A minute of ``for`` becomes a second."""
WINDOW_S = 20
MODELS = ("street", "yard")
SLO = """
name: iou
kind: class_iou
iou: 0.5
objective: 0.8
blind_after: 1m
windows:
  - {notify: page, long: 1m, short: 1m, factor: 2}
"""
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["*.rules.yml"]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{alertmanager}"]}}]}}]}}
scrape_configs:
  - job_name: segwatch
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{instance: segwatch}}}}]
"""
PAGE = re.compile(
    r"PAGE street: The error budget of an SLO burns fast\. Classes: bus, car\.\n"
    r"(Model street, class \w+, SLO iou \(class_iou\): \S+ ?%.* bad in the last 1m"
    r" \(at least \S+ ?% at 95 % confidence\), of \S+ events; 20 % are allowed\. Budget left of 30d: \S+ ?%\.\n"
    r"Since \w+ \d+ \w+ \d\d:\d\d UTC\.\n\n){2}"
    r"Page: https://segwatch\.example/\?model=street\n"
    r"Dashboard: https://segwatch\.example/\?model=street\n"
    r"Runbook: https://segwatch\.example/runbooks/SegwatchQualityBurnFast\.md"
)
"""What, how sure, what is left, since when, where to look. By then both classes are bad."""


def hasten(rules: str) -> str:
    """The same rules, evaluated each second, with waits of a sixtieth."""
    tree = yaml.safe_load(rules)
    for group in tree["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = f"{max(1, parse_duration(rule['for']) // FASTER)}s"
    return yaml.safe_dump(tree)


class Traffic:
    """Predictions and labels of two models, ten a second each, of buses and cars; nobody labels persons.

    ``off`` (pixels of 10): how far a model's masks lie beside the truth. ``shift``: of its embedding.
    """

    def __init__(self, kafka: KafkaServer, predictions: str, labels: str) -> None:
        self.off = dict.fromkeys(MODELS, 0)
        self.shift = dict.fromkeys(MODELS, 0.0)
        self._topics = predictions, labels
        self._producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(0.2):
            for _ in range(2):
                for index, model in enumerate(MODELS):
                    self._send(2 * number + index, model)
                number += 1

    def _send(self, number: int, model: str) -> None:
        now_us = time.time_ns() // 1000
        predictions, labels = self._topics
        record = made(number, now_us, model, self.shift[model], self.off[model])
        truth = label(number, after(now_us, 0.1), ("bus", square(3)), ("car", square(15)))
        self._producer.send(predictions, msgspec.json.encode(record), partition=number % 2)
        self._producer.send(labels, msgspec.json.encode(truth), partition=0)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._producer.close()


def made(number: int, at_us: int, model: str, shift: float = 0.0, off: int = 0) -> dict[str, object]:
    """A prediction of a bus and a car."""
    scores = np.random.default_rng(number).uniform(0.5, 1.0, 2)
    return seen(
        number,
        at_us,
        ("bus", float(scores[0]), square(3 + off)),
        ("car", float(scores[1]), square(15 + off)),
        model={"name": model, "version": "1"},
        shift=shift,
        sequence=None,
        slices={},
    )


@pytest.fixture
def environ(kafka: KafkaServer, postgres: Postgres, tmp_path: Path) -> dict[str, str]:
    """A service with topics and a database of its own, windows of 20 s, and baselines that know persons."""
    (port,) = free_ports(1)
    environ = {
        "SEGWATCH_STORE_URL": postgres.fresh_database(),
        "SEGWATCH_DATA_DIR": str(tmp_path / "data"),
        "SEGWATCH_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SEGWATCH_KAFKA_PREDICTIONS_TOPIC": kafka.fresh_topic("predictions", partitions=2),
        "SEGWATCH_KAFKA_LABELS_TOPIC": kafka.fresh_topic("labels"),
        "SEGWATCH_KAFKA_DEAD_LETTER_TOPIC": kafka.fresh_topic("dead"),
        "SEGWATCH_KAFKA_ACTIONS_TOPIC": kafka.fresh_topic("actions"),
        "SEGWATCH_KAFKA_GROUP_ID": f"group-{port}",
        "SEGWATCH_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        "SEGWATCH_WINDOWS_PANE_SECONDS": "10",
        "SEGWATCH_WINDOWS_LENGTHS_SECONDS": str(WINDOW_S),
        "SEGWATCH_WINDOWS_CLOSE_DELAY_SECONDS": "2",
        "SEGWATCH_WEB_PORT": str(port),
        "SEGWATCH_WEB_REFRESH_SECONDS": "1",
    }
    began_us = time.time_ns() // 1000 - 50 * 3600 * SECOND_US
    classes = tmp_path / "classes.yaml"
    classes.write_text("names: [bus, car, person]\n")
    for model in MODELS:
        base = tmp_path / f"{model}.jsonl"
        records = [made(1_000_000 + i, began_us + i * 36 * SECOND_US, model) for i in range(2000)]
        base.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        arguments = ["baseline", "build", "--model", model, "--version", "1", "--records", str(base), "--activate"]
        built = command([*arguments, "--classes", str(classes)], environ, tmp_path)
        assert built.returncode == 0, built.stderr
    return environ


@pytest.fixture
def rendered(environ: dict[str, str], tmp_path: Path) -> Iterator[tuple[dict[str, str], Notified]]:
    """What `segwatch rules render` writes, and who is told."""
    (tmp_path / "slo.yaml").write_text(SLO)
    with Notified() as told:
        (tmp_path / "receivers.yaml").write_text(yaml.safe_dump(told.receivers()))
        options = ["--slo", "slo.yaml", "--receivers", "receivers.yaml", "--pages", "https://segwatch.example"]
        done = command(["rules", "render", "--out", "rules", *options], environ, tmp_path)
        assert done.returncode == 0, done.stderr
        yield {path.name: path.read_text() for path in (tmp_path / "rules").iterdir()}, told


def texts(told: Notified, role: str, *parts: str) -> list[str]:
    """What people of a role have read that has all these parts."""
    return [text for text in told.texts(role) if all(part in text for part in parts)]


def silent_classes(prometheus: PrometheusServer) -> set[str]:
    found = prometheus.query('ALERTS{alertname="SegwatchClassSilent",alertstate="firing"}')
    return {one["metric"]["class"] for one in found}


def test_what_happens_to_models_is_told_to_whom_it_concerns(
    kafka: KafkaServer, environ: dict[str, str], rendered: tuple[dict[str, str], Notified], tmp_path: Path
) -> None:
    files, told = rendered
    log = tmp_path / "all.log"
    rules = {name: hasten(text) for name, text in files.items() if name.endswith(".rules.yml")}
    routes = {"alertmanager.yml": quick(files["alertmanager.yml"]), "segwatch.tmpl": files["segwatch.tmpl"]}
    topics = environ["SEGWATCH_KAFKA_PREDICTIONS_TOPIC"], environ["SEGWATCH_KAFKA_LABELS_TOPIC"]
    began_s = time.monotonic()

    def within(bound_s: float, what: str, probe: Callable[[], object]) -> None:
        since = time.monotonic()
        try:
            eventually(what, lambda: probe() or None, bound_s, log)
        except AssertionError as error:
            error.add_note("\n\n".join(f"{role}: {text}" for role in PEOPLE for text in told.texts(role)))
            raise
        print(f"{time.monotonic() - began_s:6.1f} s: {what} after {time.monotonic() - since:.1f} s of {bound_s:g} s")

    service: subprocess.Popen[bytes] = start("all", environ, log)
    with AlertmanagerServer.start(routes) as alertmanager, Traffic(kafka, *topics) as traffic:
        config = PROMETHEUS.format(alertmanager=alertmanager.address, port=environ["SEGWATCH_WEB_PORT"])
        prometheus = PrometheusServer.start(config, rules, arguments=["--rules.alert.resend-delay=1s"])
        try:
            labelled = 'min(increase(segwatch_spotcheck_iou_ratio_count{class=~"bus|car"}[30s])) > 100'
            within(90, "labels are judged", lambda: prometheus.query(labelled))
            within(20, "the heartbeat is heard", lambda: told.to("watchdog"))
            # It must have been expected for ``blind_after``, a minute, and silent for its ``for``, 15 s.
            within(90, "a silent class is a ticket", lambda: texts(told, "tickets", "no data", "class person"))
            within(30, "classes with labels are not", lambda: not silent_classes(prometheus) & {"bus", "car"})
            assert not told.to("ml_oncall"), told.texts("ml_oncall")

            dropped = "PAGE street", "class bus", "class car"
            traffic.off["street"], traffic.shift["yard"] = 8, 1.5
            within(45, "a quality drop pages", lambda: texts(told, "ml_oncall", *dropped))
            shifted = (
                "TICKET yard",
                "the last window is alarmed, embedding",
            )  # or another signal of it, in part of a window
            within(60, "a shift is a ticket", lambda: texts(told, "tickets", *shifted))
            within(10, "labels of the shift are asked for", lambda: told.to("actions"))
            assert PAGE.fullmatch(texts(told, "ml_oncall", *dropped)[-1]), told.texts("ml_oncall")
            within(10, "SRE has a copy", lambda: texts(told, "sre", *dropped))

            traffic.off["street"], traffic.shift["yard"] = 0, 0.0
            within(90, "the page is over", lambda: texts(told, "ml_oncall", "RESOLVED street"))
            within(90, "the ticket is over", lambda: texts(told, "tickets", "RESOLVED yard"))

            assert {one.body["commonLabels"]["model"] for one in told.to("ml_oncall")} == {"street"}, (
                "harmless: no page"
            )

            # It was down before it had started, too.
            down, up = "PAGE: segwatch cannot be scraped", "RESOLVED: segwatch cannot be scraped"
            before = len(texts(told, "sre", down)), len(texts(told, "sre", up))
            service.kill()
            service.wait()
            within(30, "a killed service pages", lambda: len(texts(told, "sre", down)) > before[0])
            assert "No target of job segwatch has answered" in texts(told, "sre", down)[-1]
            service = start("all", environ, log)
            within(60, "its recovery is told", lambda: len(texts(told, "sre", up)) > before[1])

            stop(prometheus.process)
            within(30, "the heartbeat stops", lambda: time.time() - told.to("watchdog")[-1].at_s > 5)
        finally:
            prometheus.stop()
            stop(service)
