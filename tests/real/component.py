"""What every real component of the tests needs: a free port, a process that dies with the test, a clear absence."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest


class ComponentFailed(RuntimeError):
    """A component is there but did not start; the message ends with the tail of its log."""


def unavailable(component: str, reason: str) -> NoReturn:
    """Skip the test with the reason; in CI (``CI=true``) fail, so that a missing component never looks like a pass."""
    message = f"{component} cannot be had here: {reason}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def docker_answers() -> bool:
    """Whether a Docker engine is there (the client alone is not enough)."""
    if shutil.which("docker") is None:
        return False
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free now; all are held until the last is found, so none comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def spawn(command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that appends its output to ``log`` and is killed with the process that started it.

    setpriv (util-linux) asks the kernel for that signal, so that a test run that is itself killed
    with -9 leaves no broker behind; where setpriv is missing only an orderly end cleans up.
    """
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with log.open("ab") as output:
        return subprocess.Popen(
            [*prefix, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ and dict(environ)
        )


def await_ready(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], timeout_s: float, name: str
) -> None:
    """Wait until ``ready`` says yes; raises ComponentFailed when the process ends first or time is up."""
    until = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise ComponentFailed(f"{name} ended with {process.returncode}:\n{tail(log)}")
        if time.monotonic() > until:
            stop(process)
            raise ComponentFailed(f"{name} was not ready after {timeout_s:g} s:\n{tail(log)}")
        time.sleep(0.1)


def port_open(port: int) -> bool:
    """Whether something listens on the loopback's port."""
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen[bytes], grace_s: float = 20.0) -> None:
    """SIGTERM, then SIGKILL when that was not heard; no effect on a process that has ended."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def tail(log: Path, lines: int = 30) -> str:
    """The end of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"
