"""A real Prometheus for the tests, on a free port, with its data in a directory of its own.

with PrometheusServer.start(config_text) as prometheus:
    series = prometheus.query('segwatch_records_total{outcome="ok"}')
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.real.component import ComponentFailed, await_ready, free_ports, spawn, stop, unavailable


@dataclass
class PrometheusServer:
    """A running Prometheus."""

    url: str
    directory: Path
    """Holds ``prometheus.yml``, rule files, data and log; removed by ``stop``."""
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        config: str,
        files: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        arguments: Sequence[str] = (),
    ) -> PrometheusServer:
        """Start with ``config`` as prometheus.yml and ``files`` (name -> text, such as rules) beside it.

        ``arguments``: more of the command line.

        Skips the test (fails it in CI) where there is no prometheus on the PATH.
        """
        program = shutil.which("prometheus")
        if program is None:
            unavailable("Prometheus", "no prometheus on the PATH (Debian's package has it)")
        directory = Path(tempfile.mkdtemp(prefix="segwatch-prometheus-"))
        for name, text in {**(files or {}), "prometheus.yml": config}.items():
            (directory / name).write_text(text)
        log = directory / "prometheus.log"
        for attempt in (1, 2, 3):
            (port,) = free_ports(1)
            server = cls(f"http://127.0.0.1:{port}", directory, _spawn([program, *arguments], directory, port, log))
            try:
                await_ready(server.process, log, server.ready, timeout_s, "Prometheus")
            except ComponentFailed as error:
                if attempt == 3 or "address already in use" not in str(error):
                    shutil.rmtree(directory, ignore_errors=True)
                    raise
            else:
                return server
        raise AssertionError("unreachable")

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of the HTTP API, for example ``get("/api/v1/targets")``; a refusal raises its text."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ComponentFailed(f"{path}?{query}: {error.read().decode(errors='replace')}") from None

    def query(self, expression: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """Instant vector of ``expression`` as ``[{"metric": {...}, "value": [time, "text"]}]``."""
        when = {} if at_s is None else {"time": str(at_s)}
        result: list[dict[str, Any]] = self.get("/api/v1/query", query=expression, **when)["result"]
        return result

    def reload(self) -> None:
        """Read the configuration and rule files again."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/-/reload", method="POST"), timeout=10).close()

    def stop(self) -> None:
        """Stop, and remove the data."""
        stop(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _spawn(program: Sequence[str], directory: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    return spawn(
        [
            *program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-lifecycle",
        ],
        log,
    )
