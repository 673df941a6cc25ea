"""The peers' verdicts: each runner under its own Python, on the windows that segwatch is given."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.drift import scenarios
from bench.drift.environments import ROOT, PeerMissing, environ, python_of
from bench.drift.judgement import Judgement
from bench.drift.scenarios import Case

MOST_METHODS = 5
WALL_SECONDS_PER_CPU_SECOND = 8
START_SECONDS = 600.0
"""Imports, fits and a window that is judged when the time is up come on top of the time that a method has."""


def judge(
    peer: str, case: Case, seconds: float, *, score_only: bool = False, online: bool = False
) -> dict[str, Judgement]:
    """What each of the peer's methods says of the case; ``seconds`` of CPU time is for one method.

    Raises:
        PeerMissing: its environment cannot be made, or its runner ends without a result.
    """
    python = python_of(peer)
    with tempfile.TemporaryDirectory(prefix="segwatch-drift-") as folder:
        windows, result = Path(folder) / "case.npz", Path(folder) / "result.json"
        blocks = list(scenarios.all_blocks(case))
        np.savez(
            windows,
            baselines=np.stack([baseline for baseline, _ in blocks]),
            windows=np.concatenate([part for _, part in blocks]),
            per_baseline=case.per_baseline,
            score_only=score_only,
            online=online,
        )
        # -P: a runner is named like the library that it imports, and must not find itself.
        command = [str(python), "-P", "-m", f"bench.drift.peers.{peer}", str(result), str(seconds), str(windows)]
        limit = MOST_METHODS * WALL_SECONDS_PER_CPU_SECOND * seconds + START_SECONDS
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise PeerMissing(f"no result within {limit:g} s") from None
        if done.returncode or not result.exists():
            raise PeerMissing((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1])
        (methods,) = json.loads(result.read_text()).values()
        return {name: Judgement(**fields) for name, fields in methods.items()}
