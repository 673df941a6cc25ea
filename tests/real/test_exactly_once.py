"""The guarantee that everything rests on: each record counts once, whatever dies on the way."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from monitor.offline import make_baseline, replay
from monitor.pane_state import PaneState
from monitor.settings import KafkaSettings, Settings, StoreSettings
from monitor.store.store import Store
from monitor.store.values import PaneKey
from monitor.tallies import TallyKey
from monitor.windows import SECOND_US
from tests.made_records import lines, prediction, predictions
from tests.real.component import spawn, stop, tail
from tests.real.kafka_server import KafkaServer
from tests.real.postgres import Postgres

RECORDS, PARTITIONS, WORKERS, KILLS = 6000, 4, 3, 8
pytestmark = pytest.mark.slow


def stored_state(store: Store) -> tuple[dict[PaneKey, bytes], dict[TallyKey, int]]:
    """Every pane's merged state and every tally: what must not depend on who counted, or in which order."""
    panes: dict[PaneKey, list[bytes]] = {}
    for extent in store.pane_extent():
        for pane in store.read_panes(
            extent.model,
            extent.version,
            slice=extent.slice,
            since_us=None,
            until_us=None,
            baseline_id=extent.baseline_id,
        ):
            panes.setdefault(pane.key, []).append(pane.state)
    return {key: PaneState.merged(parts).to_bytes() for key, parts in panes.items()}, store.read_tallies()


def stream(now_us: int) -> list[bytes]:
    """Good, failed, repeated and bad records, in no order."""
    start_us = now_us - 3 * 3600 * SECOND_US
    values = [msgspec.json.encode(record) for record in predictions(RECORDS, start_us, 2.5)]
    values += [
        msgspec.json.encode(prediction(i, start_us, status="timeout", embedding=None)) for i in range(90_000, 90_100)
    ]
    values += [msgspec.json.encode(prediction(i, start_us, version="2")) for i in range(300)]
    values += [
        b"{",
        b"[]",
        b'{"type": "segwatch.prediction.v1"}',
        msgspec.json.encode(prediction(1, start_us, model={"name": "x", "version": "1"})),
    ] * 10
    rng = random.Random(7)
    values += rng.sample(values[:RECORDS], 500)
    rng.shuffle(values)
    return values


def publish(kafka: KafkaServer, topic: str, values: list[bytes], producers: int, hurry: threading.Event) -> None:
    """Slowly, so that workers are killed at work; from ``hurry`` on as fast as it goes."""

    def produce(part: list[bytes], seed: int) -> None:
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", linger_ms=5)
        rng = random.Random(seed)
        for i, value in enumerate(part):
            producer.send(topic, value, partition=rng.randrange(PARTITIONS))
            if i % 5 == 0:
                hurry.wait(0.1)
        producer.flush()
        producer.close()

    threads = [threading.Thread(target=produce, args=(values[i::producers], i)) for i in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def worker(environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from monitor.cli import main; main()", "run", "--role", "ingest"]
    return spawn(command, log, {**os.environ, **environ, "OMP_NUM_THREADS": "1"})


def test_three_workers_of_which_one_is_killed_again_and_again_count_what_one_replay_counts(
    kafka: KafkaServer, postgres: Postgres, tmp_path: Path
) -> None:
    topic = kafka.fresh_topic("predictions", partitions=PARTITIONS)
    dead = kafka.fresh_topic("dead")
    now_us = time.time_ns() // 1000
    url = postgres.fresh_database()
    environ = {
        "SEGWATCH_STORE_URL": url,
        "SEGWATCH_DATA_DIR": str(tmp_path / "service"),
        "SEGWATCH_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SEGWATCH_KAFKA_PREDICTIONS_TOPIC": topic,
        "SEGWATCH_KAFKA_DEAD_LETTER_TOPIC": dead,
        "SEGWATCH_KAFKA_GROUP_ID": f"group-{topic}",
        "SEGWATCH_KAFKA_SESSION_TIMEOUT_SECONDS": "6",
        "SEGWATCH_INGEST_CHUNK_RECORDS": "64",
    }
    base = tmp_path / "baseline.jsonl"
    base.write_bytes(lines(predictions(600, now_us - 30 * 3600 * SECOND_US, 20, first=500_000)))
    alone = Settings(data_dir=str(tmp_path / "alone"))
    service = Settings(
        data_dir=str(tmp_path / "service"),
        store=StoreSettings(url=url),
        kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap, predictions_topic=topic),
    )
    for settings in (alone, service):
        with Store.open(settings, write=True) as store:
            make_baseline(settings, store, [base], model="street", version="1", activate=True)
    values = stream(now_us)
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"\n".join(values) + b"\n")
    replay(alone, [file])
    with Store.open(alone, write=False) as store:
        expected_panes, expected_tallies = stored_state(store)

    logs = [tmp_path / f"worker-{i}.log" for i in range(WORKERS)]
    workers = [worker(environ, log) for log in logs]
    hurry = threading.Event()
    producing = threading.Thread(target=publish, args=(kafka, topic, values, 2, hurry))
    producing.start()
    rng = random.Random(11)
    try:
        kills, until = 0, time.monotonic() + 240
        with Store.open(service, write=False) as store:
            while time.monotonic() < until:
                time.sleep(rng.uniform(2.0, 4.0))
                for process, log in zip(workers, logs, strict=True):
                    assert process.poll() in (None, -9), tail(log)
                progress = store.partition_progress()
                done = sum(one.next_offset for one in progress)
                if kills < KILLS and done > 0:
                    assert done < len(values), "killed too late to matter"
                    victim = rng.randrange(WORKERS)
                    workers[victim].kill()
                    workers[victim].wait()
                    workers[victim] = worker(environ, logs[victim])
                    kills += 1
                    if kills == KILLS:
                        hurry.set()
                elif not producing.is_alive() and done == len(values):
                    break
        producing.join()
        for process in workers:
            stop(process)
        assert kills == KILLS
        with Store.open(service, write=False) as store:
            progress = store.partition_progress()
            assert sum(one.next_offset for one in progress) == len(values), "\n".join(map(tail, logs))
            panes, tallies = stored_state(store)
            outbox = store.outbox_pending()
    finally:
        hurry.set()
        producing.join()
        for process in workers:
            stop(process)
    assert tallies == expected_tallies
    assert panes == expected_panes
    assert sum(count for key, count in tallies.items() if key.series == "records") == len(values)
    assert outbox <= 40
