"""What the end-to-end benchmarks stand on: real Kafka and PostgreSQL, a worker as users start it, and its clock.

A figure is taken from outside: the offsets that a contender has committed are read again and again, and its rate
is that of the records between the first commit after the warm-up and the last one. CPU time is that of the contender's
process alone; the broker and the database are there for both sides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from monitor.settings import Settings
from monitor.store.store import Store
from tests.real.component import spawn, stop, tail
from tests.real.kafka_server import KafkaServer
from tests.real.postgres import Postgres

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench-results"
PEERS = ROOT / "bench" / "peers.txt"
PARTITIONS = 4
LOOK_EVERY_S = 0.02
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Message:
    """One record as it lies on Kafka."""

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp_us: int


@dataclass(frozen=True)
class Rate:
    """How fast a contender was between its first commit after the warm-up and its last one."""

    records: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of the process, in milliseconds a record."""
        return 1e3 * self.cpu_seconds / self.records

    def to_json(self) -> dict[str, float]:
        return {
            "records": self.records,
            "seconds": self.seconds,
            "records_per_second": self.per_second,
            "cpu_ms_per_record": self.cpu_ms,
        }


class Rig:
    """One broker and one database server, a topic or a database for each measurement."""

    def __init__(self, kafka: KafkaServer, postgres: Postgres, folder: Path) -> None:
        self.kafka = kafka
        self.postgres = postgres
        self.folder = folder

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Rig]:
        with (
            KafkaServer.start() as kafka,
            Postgres.start() as postgres,
            tempfile.TemporaryDirectory(prefix="segwatch-bench-") as folder,
        ):
            yield cls(kafka, postgres, Path(folder))

    def publish(self, messages: Sequence[Message], prefix: str) -> str:
        """Put the messages on a topic of their own, partition by partition in turn; returns its name."""
        topic = self.kafka.fresh_topic(prefix, PARTITIONS)
        producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap, acks="all", linger_ms=20, batch_size=1 << 18)
        for number, message in enumerate(messages):
            producer.send(
                topic,
                message.value,
                key=message.key,
                headers=list(message.headers),
                partition=number % PARTITIONS,
                timestamp_ms=message.timestamp_us // 1000,
            )
        producer.flush()
        producer.close()
        return topic

    def environ(self, topic: str, url: str, changes: Mapping[str, str]) -> dict[str, str]:
        """The environment of a worker on this topic and database."""
        return {
            "SEGWATCH_STORE_URL": url,
            "SEGWATCH_DATA_DIR": str(self.folder / "data"),
            "SEGWATCH_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
            "SEGWATCH_KAFKA_PREDICTIONS_TOPIC": topic,
            "SEGWATCH_KAFKA_GROUP_ID": f"group-{topic}-{time.monotonic_ns()}",
            **changes,
        }


def segwatch_rate(
    rig: Rig, settings: Settings, environ: Mapping[str, str], records: int, warm_up: int, timeout_s: float = 600.0
) -> Rate:
    """The rate of ``segwatch run --role ingest``, which must count every record as ``ok``."""
    log = rig.folder / f"worker-{time.monotonic_ns()}.log"
    command = [sys.executable, "-c", "from monitor.cli import main; main()", "run", "--role", "ingest"]
    with Store.open(settings, write=False) as store:

        def committed() -> int:
            return sum(progress.next_offset for progress in store.partition_progress())

        worker = spawn(command, log, {**os.environ, "PYTHONPATH": str(ROOT), **environ})
        try:
            rate = rate_of(worker, committed, records, warm_up, log, timeout_s)
        finally:
            stop(worker)
        counted = {key.label: count for key, count in store.read_tallies().items() if key.series == "records"}
    if counted.get("ok") != records:
        raise SystemExit(f"expected {records} records to be counted, got {counted}\n{tail(log)}")
    return rate


def rate_of(
    process: subprocess.Popen[bytes],
    committed: Callable[[], int],
    records: int,
    warm_up: int,
    log: Path,
    timeout_s: float,
) -> Rate:
    """Watch ``committed`` grow to ``records``; the clock starts when it first changes beyond ``warm_up``."""
    first: tuple[int, float, float] | None = None
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        count = committed()
        now = time.perf_counter()
        if first is None and count > warm_up:
            first = count, now, cpu_seconds(process.pid)
        if count >= records and first is not None:
            if first[0] == count:
                raise SystemExit(f"{records} records came in one commit: take more")
            return Rate(count - first[0], now - first[1], cpu_seconds(process.pid) - first[2])
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}:\n{tail(log)}")
        time.sleep(LOOK_EVERY_S)
    raise SystemExit(f"{committed()} of {records} records after {timeout_s:g} s:\n{tail(log)}")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has taken so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peers_python() -> Path:
    """The environment of the peers, made once under ``.cache``.

    Evidently needs an older pandas than anything else here wants, so it lives apart. Torch and what else both sides
    use come from segwatch's own environment, which stands last on the path: the same binaries, and 5 GB less.
    """
    folder = ROOT / ".cache" / "peers" / "evidently"
    python = folder / "bin" / "python"
    stamp = folder / "peers.txt"
    if stamp.exists() and stamp.read_text() == PEERS.read_text():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "segwatch-environment.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(PEERS)], check=True)
    stamp.write_text(PEERS.read_text())
    return python


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """``bench-results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
