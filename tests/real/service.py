"""Starts ``segwatch run`` as users do: a process of its own, set up by environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tests.real.component import spawn, tail

T = TypeVar("T")

SEGWATCH = (sys.executable, "-c", "from monitor.cli import main; main()")


def start(role: str, environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """One process of this role; one thread for numerics, since several share the machine."""
    return spawn([*SEGWATCH, "run", "--role", role], log, {**os.environ, "OMP_NUM_THREADS": "1", **environ})


def command(arguments: list[str], environ: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [*SEGWATCH, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()), **environ},
        timeout=120,
        check=False,
    )


def eventually(what: str, probe: Callable[[], T | None], timeout_s: float, *logs: Path) -> T:
    """The first answer of ``probe`` that is neither None nor False; fails with the logs' ends when there is none."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        answer = probe()
        if answer is not None and answer is not False:
            return answer
        time.sleep(0.25)
    raise AssertionError(f"{what}: not within {timeout_s:g} s\n" + "\n".join(map(tail, logs)))
