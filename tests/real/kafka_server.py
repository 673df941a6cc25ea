"""A real Apache Kafka broker for the tests: one node in KRaft mode, run from its jars.

    with KafkaServer.start() as kafka:
        kafka.create_topic("segwatch.predictions", partitions=4)
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)

Maven fetches the jars of ``kafka/pom.xml`` once into ``.cache/kafka-<version>``; after that a broker takes
some seconds. Where Java or Maven is missing and a Docker engine answers, the same broker runs in a container.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
import uuid
import xml.etree.ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from monitor.kafka_client import KafkaUnreachable, open_admin
from monitor.settings import KafkaSettings
from tests.real.component import (
    ComponentFailed,
    await_ready,
    docker_answers,
    free_ports,
    port_open,
    spawn,
    stop,
    unavailable,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
POM = HERE / "kafka" / "pom.xml"

# Everything internal is kept at one partition and one replica, and a group's first rebalance does not wait
# for further members (3 s by default): a test starts in seconds.
PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.cleaner.enable": "false",
    # kill -9 must find what was acknowledged in the page cache, and a restart reads it back.
    "log.retention.check.interval.ms": "1000",
    # Deleted topics leave the disk soon.
    "log.segment.delete.delay.ms": "1000",
}

# The heap is small, and the serial collector with the quick compiler starts fastest.
JVM = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class _Engine(Protocol):
    """How the broker is run."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...


@dataclass
class KafkaServer:
    """A running broker. ``kill`` and ``restart`` keep the directory and the port."""

    bootstrap: str
    """``host:port`` of the plain listener."""
    directory: Path
    """The broker's own temporary directory; removed by ``stop``."""
    engine: _Engine = field(repr=False)

    @classmethod
    def start(cls, properties: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> KafkaServer:
        """Start a broker with ``properties`` on top of the tests' own.

        Skips the test (fails it in CI) where neither Java with Maven nor Docker is there.
        A port that somebody else took in the meantime costs another try.
        """
        missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
        if missing and not docker_answers():
            unavailable("Apache Kafka", f"{' and '.join(missing)} not found, and no Docker engine answers")
        for attempt in (1, 2, 3):
            directory = Path(tempfile.mkdtemp(prefix="segwatch-kafka-"))
            port, controller = free_ports(2)
            engine: _Engine
            if missing:
                engine = _Container(port, properties or {}, timeout_s)
            else:
                engine = _Jars(directory, port, controller, properties or {}, timeout_s)
            try:
                engine.start()
            except ComponentFailed as error:
                shutil.rmtree(directory, ignore_errors=True)
                if attempt == 3 or "Address already in use" not in str(error):
                    raise
            else:
                return cls(f"127.0.0.1:{port}", directory, engine)
        raise AssertionError("unreachable")

    def kill(self) -> None:
        """kill -9: no goodbye to anybody. What was acknowledged is in the page cache and survives."""
        self.engine.kill()

    def restart(self) -> None:
        """Start again after ``kill``, with the same data on the same port."""
        self.engine.start()

    def stop(self) -> None:
        """Stop, and remove the data."""
        self.engine.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def admin(self) -> KafkaAdminClient:
        """An admin client; the caller closes it."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic and return its name."""
        admin = self.admin()
        try:
            admin.create_topics(
                {name: {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}},
                wait_for_metadata=True,
            )
        finally:
            admin.close()
        return name

    def fresh_topic(self, prefix: str = "t", partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic whose name no other test has."""
        return self.create_topic(f"{prefix}-{uuid.uuid4().hex[:12]}", partitions, configs)


@dataclass
class _Jars:
    """The broker as a Java process."""

    directory: Path
    port: int
    controller: int
    properties: Mapping[str, str]
    timeout_s: float
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        jars = kafka_jars()
        config = self.directory / "server.properties"
        log = self.directory / "kafka.log"
        java = ["java", *JVM, f"-Dlog4j2.configurationFile={HERE / 'kafka' / 'log4j2.properties'}", "-cp", f"{jars}/*"]
        if not config.exists():
            own = {
                "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
                "controller.quorum.voters": f"1@127.0.0.1:{self.controller}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "log.dirs": str(self.directory / "data"),
            }
            lines = {**PROPERTIES, **own, **self.properties}
            # A listener of a test's own ("SASL_PLAINTEXT://127.0.0.1:1234") comes beside the plain one.
            extra = lines.pop("extra.listeners", "")
            if extra:
                lines["listeners"] = f"{lines['listeners']},{extra}"
                lines["listener.security.protocol.map"] += ",SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL"
            config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
            # Random 16 bytes in base64 for URLs, as Kafka's Uuid prints them; "-" at the start reads as an option.
            cluster = uuid.uuid4().hex[:22]
            with log.open("ab") as output:
                done = subprocess.run(
                    [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)],
                    stdout=output,
                    stderr=output,
                    check=False,
                    timeout=self.timeout_s,
                )
            if done.returncode:
                raise ComponentFailed(f"kafka.tools.StorageTool ended with {done.returncode}:\n{log.read_text()}")
        self.process = spawn([*java, "kafka.Kafka", str(config)], log)
        await_ready(self.process, log, lambda: _answers(self.port), self.timeout_s, "Kafka")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)


@dataclass
class _Container:
    """The broker in a container of the ``apache/kafka`` image, on a fixed port so that it can be restarted."""

    port: int
    properties: Mapping[str, str]
    timeout_s: float
    container: Any = None

    def start(self) -> None:
        if self.container is None:
            from testcontainers.core.container import DockerContainer

            own = {
                "listeners": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
                "controller.quorum.voters": "1@127.0.0.1:9093",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            }
            self.container = DockerContainer(f"apache/kafka:{kafka_version()}").with_bind_ports(9092, self.port)
            for name, value in {**PROPERTIES, **own, **self.properties}.items():
                self.container.with_env(f"KAFKA_{name.replace('.', '_').upper()}", value)
            self.container.start()
        else:
            self.container.get_wrapped_container().start()
        ends = Path(tempfile.gettempdir())
        with subprocess.Popen(["sleep", str(self.timeout_s)]) as clock:
            try:
                await_ready(clock, ends / "no-log", lambda: _answers(self.port), self.timeout_s, "Kafka's container")
            finally:
                clock.kill()

    def kill(self) -> None:
        self.container.get_wrapped_container().kill()

    def stop(self) -> None:
        self.container.stop()


def kafka_version() -> str:
    """The version in the pom, the one place that names it."""
    found = xml.etree.ElementTree.parse(POM).find(".//{*}kafka.version")
    assert found is not None and found.text
    return found.text


def kafka_jars() -> Path:
    """The folder of the broker's jars, fetched by Maven when it is not there yet.

    Safe for several test processes at once: one holds the lock and fetches, the others wait; the folder
    appears under its name only when it is complete.
    """
    folder = ROOT / ".cache" / f"kafka-{kafka_version()}"
    if folder.exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        partial = Path(tempfile.mkdtemp(dir=folder.parent))
        command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={partial}"], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            shutil.rmtree(partial, ignore_errors=True)
            raise ComponentFailed(f"Maven could not fetch Kafka's jars:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        partial.chmod(0o755)
        partial.rename(folder)
    return folder


def _answers(port: int) -> bool:
    """Whether the broker answers an admin client (an open port alone is not yet a broker)."""
    if not port_open(port):
        return False
    try:
        with open_admin(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}"), timeout_s=5.0) as admin:
            return bool(admin.describe_cluster()["brokers"])
    except (KafkaUnreachable, KafkaError):
        return False
