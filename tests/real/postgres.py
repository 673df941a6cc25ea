"""A private PostgreSQL for the tests: own data directory, free port, nothing shared with one that may be installed.

    with Postgres.start() as server:
        settings = Settings(store=StoreSettings(url=server.fresh_database()))

It comes from the distribution's package; where that is missing and a Docker engine answers, from a container.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pg8000.dbapi

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

USER = "segwatch"
IMAGE = "postgres:15"
# A test's data need not survive the machine, so nothing waits for the disk.
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass
class Postgres:
    """A running server. ``kill`` is kill -9; ``restart`` brings the same data back on the same port."""

    port: int
    directory: Path
    engine: _Package | _Container
    timeout_s: float

    @classmethod
    def start(cls, timeout_s: float = 60.0) -> Postgres:
        """Start a server. Skips the test (fails it in CI) where neither the package nor Docker is there."""
        programs = _programs()
        if programs is None and not docker_answers():
            unavailable("PostgreSQL", "no initdb on the PATH or in /usr/lib/postgresql, and no Docker engine answers")
        for attempt in (1, 2, 3):  # somebody else may take the port in the meantime
            directory = Path(tempfile.mkdtemp(prefix="segwatch-postgres-"))
            (port,) = free_ports(1)
            engine = _Container(port) if programs is None else _Package(programs, directory, port)
            server = cls(port, directory, engine, timeout_s)
            try:
                server.restart()
            except ComponentFailed:
                server.stop()
                if attempt == 3:
                    raise
            else:
                return server
        raise AssertionError("unreachable")

    @property
    def url(self) -> str:
        """Of the database that every server has; give each test one of its own with ``fresh_database``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+pg8000://{USER}@127.0.0.1:{self.port}/{database}"

    def fresh_database(self, prefix: str = "t") -> str:
        """Create an empty database; returns its URL."""
        name = f"{prefix}_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement by itself, as the server's superuser; returns its rows."""
        connection = pg8000.dbapi.connect(USER, host="127.0.0.1", port=self.port, database=database, ssl_context=False)
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def kill(self) -> None:
        """kill -9 of the server: connections break, and what was not committed is gone."""
        self.engine.kill()

    def restart(self) -> None:
        """Start the server on its data; also what starts it for the first time."""
        self.engine.start(self.ready, self.timeout_s)

    def ready(self) -> bool:
        """Whether it answers queries."""
        if not port_open(self.port):
            return False
        try:
            return len(self.execute("SELECT 1")) == 1
        except (pg8000.dbapi.Error, OSError):
            return False  # it is still starting, or recovering from a kill

    def stop(self) -> None:
        """Stop the server and remove its data."""
        self.engine.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass
class _Package:
    """The server of the distribution's package, as a process."""

    programs: Path
    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Any, timeout_s: float) -> None:
        data, log = self.directory / "data", self.directory / "server.log"
        if not data.exists():
            self._initialise(data)
        own = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        arguments = [part for name, value in {**OPTIONS, **own}.items() for part in ("-c", f"{name}={value}")]
        command = [
            *_as_server_user("--pdeathsig", "KILL"),
            str(self.programs / "postgres"),
            "-D",
            str(data),
            *arguments,
        ]
        until = time.monotonic() + timeout_s
        while True:
            self.process = spawn(command, log)
            try:
                return await_ready(self.process, log, ready, timeout_s, "PostgreSQL")
            except ComponentFailed as error:
                # After a kill the orphaned backends take a moment to notice and let go of the shared memory.
                if "shared memory block" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def _initialise(self, data: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.directory, _server_user())
        command = [str(self.programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*_as_server_user(), *command, "--locale=C.UTF-8", "--no-sync"], capture_output=True, cwd="/", check=False
        )
        if done.returncode != 0:
            raise ComponentFailed(f"initdb ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGQUIT)  # at once: nobody needs the data any more
            stop(self.process)


@dataclass
class _Container:
    """The server in a container, on a fixed port so that it can be restarted."""

    port: int
    container: Any = None

    def start(self, ready: Any, timeout_s: float) -> None:
        if self.container is None:
            from testcontainers.core.container import DockerContainer

            options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
            self.container = DockerContainer(IMAGE).with_bind_ports(5432, self.port).with_command(options)
            trust = {"POSTGRES_USER": USER, "POSTGRES_DB": "postgres", "POSTGRES_HOST_AUTH_METHOD": "trust"}
            for name, value in trust.items():
                self.container.with_env(name, value)
            self.container.start()
        else:
            self.container.get_wrapped_container().start()
        until = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > until:
                raise ComponentFailed(f"PostgreSQL's container was not ready after {timeout_s:g} s")
            time.sleep(0.2)

    def kill(self) -> None:
        self.container.get_wrapped_container().kill()

    def stop(self) -> None:
        if self.container is not None:
            self.container.stop()


def _programs() -> Path | None:
    """Where initdb and postgres are: on the PATH, or where Debian puts them (the newest version)."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(versions, key=lambda path: int(path.parent.name), default=None)


def _server_user() -> str:
    """Who the server runs as where the tests run as root, which PostgreSQL refuses."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as_server_user(*options: str) -> list[str]:
    """Prefix of a command that root hands over to an unprivileged user.

    ``options`` are setpriv's: a change of user clears the signal that ``spawn`` asked for, so it is asked for again.
    """
    if os.geteuid() != 0:
        return []
    entry = pwd.getpwnam(_server_user())
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *options]
