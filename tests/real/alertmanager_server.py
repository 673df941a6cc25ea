"""A real Alertmanager for the tests, on a free port, with its data in a directory of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.real.component import ComponentFailed, await_ready, free_ports, spawn, stop, unavailable


def quick(config: str) -> str:
    """The same configuration with waits of a second or so: nothing but durations of routes changes."""
    tree = yaml.safe_load(config)

    def hurry(route: dict[str, Any]) -> None:
        if "group_interval" in route:
            repeat = "800ms" if route["repeat_interval"] == "50s" else "1h"
            route |= {"group_wait": "1s", "group_interval": "1s", "repeat_interval": repeat}
        for child in route.get("routes", ()):
            hurry(child)

    hurry(tree["route"])
    return yaml.safe_dump(tree)


@dataclass
class AlertmanagerServer:
    """A running Alertmanager."""

    url: str
    directory: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, files: Mapping[str, str], timeout_s: float = 30.0) -> AlertmanagerServer:
        """Start with these files, ``alertmanager.yml`` among them. Skips the test (fails it in CI) without one."""
        program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        if program is None:
            unavailable("Alertmanager", "not on the PATH (Debian's package prometheus-alertmanager has it)")
        directory = Path(tempfile.mkdtemp(prefix="segwatch-alertmanager-"))
        for name, text in files.items():
            (directory / name).write_text(text)
        log = directory / "alertmanager.log"
        for attempt in (1, 2, 3):
            (port,) = free_ports(1)
            process = spawn(
                [
                    program,
                    f"--config.file={directory / 'alertmanager.yml'}",
                    f"--storage.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--cluster.listen-address=",  # alone: no waiting for peers
                ],
                log,
            )
            server = cls(f"http://127.0.0.1:{port}", directory, process)
            try:
                await_ready(process, log, server.ready, timeout_s, "Alertmanager")
            except ComponentFailed as error:
                if attempt == 3 or "address already in use" not in str(error):
                    shutil.rmtree(directory, ignore_errors=True)
                    raise
            else:
                return server
        raise AssertionError("unreachable")

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Alerts as Prometheus sends them."""
        body = json.dumps(list(alerts)).encode()
        request = urllib.request.Request(f"{self.url}/api/v2/alerts", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

    def alerts(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def stop(self) -> None:
        """Stop, and remove the data."""
        stop(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
