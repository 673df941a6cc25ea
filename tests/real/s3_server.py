"""A private S3 server for the tests: moto's (Apache-2.0), in an environment of its own.

Of its own, because it brings botocore, which wants an older python-dateutil than constraints.txt has. It is made once,
under ``.cache``; SEGWATCH_TEST_MOTO_SERVER names another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.real.component import await_ready, free_ports, port_open, spawn, stop, unavailable

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "s3-server"
PACKAGES = ("moto[server]==5.2.5",)
KEY, SECRET = "tester", "a-secret-for-tests"


@dataclass
class S3Server:
    """A running server without any objects."""

    port: int
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls) -> S3Server:
        """Start one. Skips the test (fails it in CI) where it can neither be found nor installed."""
        program = _program()
        (port,) = free_ports(1)
        log = Path(tempfile.mkdtemp(prefix="segwatch-s3-")) / "server.log"
        process = spawn([str(program), "-H", "127.0.0.1", "-p", str(port)], log)
        await_ready(process, log, lambda: port_open(port), 60.0, "S3 server")
        return cls(port, process)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self, name: str) -> str:
        """Make an empty bucket; returns its name."""
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT"), timeout=10).close()
        return name

    def stop(self) -> None:
        stop(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _program() -> Path:
    named = os.environ.get("SEGWATCH_TEST_MOTO_SERVER")
    if named:
        return Path(named)
    program, stamp = FOLDER / "bin" / "moto_server", FOLDER / "packages.txt"
    if program.exists() and stamp.exists() and stamp.read_text() == "\n".join(PACKAGES):
        return program
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
    install = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "-q", *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable("S3 server", f"pip cannot install {PACKAGES[0]}: {done.stderr.strip().splitlines()[-1:]}")
    stamp.write_text("\n".join(PACKAGES))
    return program
