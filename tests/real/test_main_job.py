"""The main job on real components: records on Kafka become drift series in Prometheus, also when processes die."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer

from monitor.windows import SECOND_US
from tests.made_records import lines, prediction, predictions
from tests.real.component import free_ports, stop
from tests.real.kafka_server import KafkaServer
from tests.real.postgres import Postgres
from tests.real.prometheus_server import PrometheusServer
from tests.real.service import command, eventually, start

pytestmark = pytest.mark.slow

WINDOW_S = 20
SCRAPE = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: segwatch
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture
def environ(kafka: KafkaServer, postgres: Postgres, tmp_path: Path) -> dict[str, str]:
    """Settings of a service with topics and a database of its own, windows of 20 s, and an active baseline."""
    (port,) = free_ports(1)
    environ = {
        "SEGWATCH_STORE_URL": postgres.fresh_database(),
        "SEGWATCH_DATA_DIR": str(tmp_path / "data"),
        "SEGWATCH_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SEGWATCH_KAFKA_PREDICTIONS_TOPIC": kafka.fresh_topic("predictions", partitions=2),
        "SEGWATCH_KAFKA_DEAD_LETTER_TOPIC": kafka.fresh_topic("dead"),
        "SEGWATCH_KAFKA_ACTIONS_TOPIC": kafka.fresh_topic("actions"),
        "SEGWATCH_KAFKA_GROUP_ID": f"group-{port}",
        "SEGWATCH_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        "SEGWATCH_WINDOWS_PANE_SECONDS": "10",
        "SEGWATCH_WINDOWS_LENGTHS_SECONDS": str(WINDOW_S),
        "SEGWATCH_WINDOWS_CLOSE_DELAY_SECONDS": "3",
        "SEGWATCH_WEB_PORT": str(port),
        "SEGWATCH_WEB_REFRESH_SECONDS": "1",
    }
    base = tmp_path / "baseline.jsonl"
    base.write_bytes(lines(predictions(2000, time.time_ns() // 1000 - 50 * 3600 * SECOND_US, 20, first=500_000)))
    built = command(
        ["baseline", "build", "--model", "street", "--version", "1", "--records", str(base), "--activate"],
        environ,
        tmp_path,
    )
    assert built.returncode == 0, built.stderr
    return environ


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Whatever a test starts, stopped at its end."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        stop(process)


def first_message(
    kafka: KafkaServer, topic: str, ce_type: bytes | None = None
) -> tuple[dict[str, bytes], bytes | None]:
    """The first message of a topic, of a type if one is given, waited for."""
    with closing(
        KafkaConsumer(
            topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=60_000
        )
    ) as consumer:
        for message in consumer:
            headers = dict(message.headers)
            if ce_type is None or headers["ce_type"] == ce_type:
                return headers, message.value
    raise AssertionError(f"no message in {topic}")


def test_a_shift_is_in_prometheus_within_a_minute_of_its_windows_close(
    kafka: KafkaServer, environ: dict[str, str], tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    log = tmp_path / "all.log"
    processes.append(start("all", environ, log))
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    topic = environ["SEGWATCH_KAFKA_PREDICTIONS_TOPIC"]
    port = int(environ["SEGWATCH_WEB_PORT"])
    with PrometheusServer.start(SCRAPE.format(port=port)) as prometheus:
        eventually("segwatch is scraped", lambda: prometheus.query('up{job="segwatch"} == 1') or None, 60, log)
        began_s = time.time()
        # One whole window at least, in real time, far from the baseline.
        number = 0
        while time.time() < began_s + 2 * WINDOW_S:
            for _ in range(20):
                record = prediction(number, time.time_ns() // 1000, shift=1.5)
                producer.send(topic, msgspec.json.encode(record), partition=number % 2)
                number += 1
            time.sleep(0.5)
        producer.send(topic, b"not a record")
        producer.flush()
        end_s = (int(time.time()) // WINDOW_S) * WINDOW_S  # the last window that is full

        def shown() -> float | None:
            closed = prometheus.query(f'segwatch_last_drift_window_timestamp_seconds{{model="street"}} >= {end_s}')
            drift = prometheus.query(
                'segwatch_drift_divergence_ratio{model="street",version="1",signal="embedding",method="js",slice=""}'
            )
            return float(drift[0]["value"][1]) if closed and drift else None

        js = eventually("the drift series", shown, 60 - (time.time() - end_s), log)
        assert js > 0.05
        alarm = 'segwatch_drift_alarm{model="street",signal="embedding",slice=""} == 1'
        assert eventually("the alarm stands", lambda: prometheus.query(alarm) or None, 30, log)
        total = eventually(
            "all records are counted",
            lambda: prometheus.query(f'segwatch_records_total{{model="street",outcome="ok"}} == {number}') or None,
            30,
            log,
        )
        assert total
        # The bad record's partition may be committed, and scraped, after the other one.
        dead = "sum(segwatch_dead_letter_records_total)"
        assert eventually("the dead letter is counted", lambda: prometheus.query(f"{dead} == 1") or None, 30, log)
        assert prometheus.query('segwatch_records_total{outcome="duplicate",model="street"} == 0')
    headers, value = first_message(kafka, environ["SEGWATCH_KAFKA_DEAD_LETTER_TOPIC"])
    assert value == b"not a record"
    assert headers["segwatch_reason"] == b"not_json"
    assert headers["segwatch_topic"] == topic.encode()
    # Early alarms may ask for labels, more than once, before the window's alert is sent.
    headers, value = first_message(kafka, environ["SEGWATCH_KAFKA_ACTIONS_TOPIC"], b"segwatch.alert.v1")
    action = msgspec.json.decode(value or b"")
    assert action["id"].encode() == headers["ce_id"]
    assert action["evidence"]["attribution"][0]["signal"] == "embedding"
    processes[0].send_signal(signal.SIGTERM)
    assert processes[0].wait(30) == 0


def test_when_the_leading_evaluator_is_killed_the_other_one_goes_on(
    kafka: KafkaServer, environ: dict[str, str], tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    logs = [tmp_path / name for name in ("ingest.log", "one.log", "two.log")]
    processes.append(start("ingest", environ, logs[0]))
    processes.append(start("evaluate", environ, logs[1]))
    eventually("the first evaluator leads", lambda: "leading" in logs[1].read_text() or None, 60, *logs)
    processes.append(start("evaluate", environ, logs[2]))
    eventually("the second one runs", lambda: "running" in logs[2].read_text() or None, 60, *logs)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    now_us = time.time_ns() // 1000
    for number, record in enumerate(predictions(400, now_us - 300 * SECOND_US, 0.05)):
        producer.send(environ["SEGWATCH_KAFKA_PREDICTIONS_TOPIC"], msgspec.json.encode(record), partition=number % 2)
    producer.flush()

    def windows() -> int:
        shown = command(["status", "--json"], environ, tmp_path)
        models = msgspec.json.decode(shown.stdout)["models"]
        return sum(window["records"] for model in models for window in model["windows"])

    eventually("windows are scored", lambda: windows() or None, 60, *logs)
    assert "leading" not in logs[2].read_text()
    processes[1].kill()
    eventually("the second one leads", lambda: "leading" in logs[2].read_text() or None, 30, *logs)
    for number, record in enumerate(predictions(100, now_us - 100 * SECOND_US, 0.005, first=9000)):
        producer.send(environ["SEGWATCH_KAFKA_PREDICTIONS_TOPIC"], msgspec.json.encode(record), partition=number % 2)
    producer.flush()

    def counted() -> bool | None:
        shown = command(["drift", "--model", "street", "--window", "all", "--json"], environ, tmp_path)
        return msgspec.json.decode(shown.stdout)["windows"][0]["records"] == 500 or None

    eventually("everything is counted once", counted, 60, *logs)
