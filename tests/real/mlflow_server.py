"""A real MLflow server for the tests: its own environment, SQLite, artifacts in a folder, a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.real.component import await_ready, free_ports, spawn, stop, unavailable

WANTED = "mlflow==3.17.2\n"
FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "peers" / "mlflow"
STAMP = "requirements.txt"


def program() -> Path:
    """MLflow's command, in an environment of its own that is made where it is not there yet.

    Segwatch's own packages stand last on its path, so that the large ones need not be there twice. Skips the test
    (fails it in CI) where pip cannot install it.
    """
    stamp, command = FOLDER / STAMP, FOLDER / "bin" / "mlflow"
    if stamp.exists() and stamp.read_text() == WANTED:
        return command
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
    (site,) = FOLDER.glob("lib/python*/site-packages")
    (site / "segwatch-environment.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    install = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "-q", WANTED.strip()]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable("MLflow", (done.stderr.strip().splitlines() or ["pip says nothing"])[-1])
    stamp.write_text(WANTED)
    return command


@dataclass
class MlflowServer:
    """A running server."""

    url: str
    directory: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, timeout_s: float = 300.0) -> MlflowServer:
        """Start with an empty store."""
        command = program()
        directory = Path(tempfile.mkdtemp(prefix="segwatch-mlflow-"))
        [port] = free_ports(1)
        url, log = f"http://127.0.0.1:{port}", directory / "server.log"
        arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
        arguments += ["--artifacts-destination", str(directory / "artifacts")]
        quiet = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        process = spawn([str(command), *arguments], log, {**os.environ, **quiet, "PATH": path})
        await_ready(process, log, lambda: _answers(url), timeout_s, "MLflow")
        return cls(url, directory, process)

    def stop(self) -> None:
        """End it, and remove its data."""
        stop(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
