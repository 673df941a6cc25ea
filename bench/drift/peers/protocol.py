"""How a peer's runner gets its windows and gives its verdicts. Runs under the peer's own Python: numpy alone.

    python -P -m bench.drift.peers.NAME RESULT.json SECONDS CASE.npz...

A case holds ``baselines`` (B, m, D), ``windows`` (W, n, D), ``per_baseline`` (how many windows each baseline has),
``score_only`` (whether p-values and alarms may be left out, for methods whose permutations take most of their time) and
``online`` (whether windows are streams, to be read record by record).
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Setting:
    """What a method may know of a case beforehand."""

    records: int
    """n, the records of a window."""
    score_only: bool


@dataclass(frozen=True)
class Verdict:
    """None: the method gives no such."""

    alarm: bool | None
    p_value: float | None
    score: float | None
    """Larger is further from the baseline."""
    path: list[tuple[int, float]] | None = None
    """Of an online detector: at how many records its statistic was larger than ever before, and how large."""


Values = NDArray[np.float32]
Judge = Callable[[Values], Verdict]
Fit = Callable[[Values, Setting], Judge]
"""From a baseline (m, D) to what judges a window (n, D)."""


def bonferroni(p_values: NDArray[np.floating]) -> float:
    """One p-value over all dimensions."""
    return float(min(1.0, p_values.min() * p_values.size))


def climb(statistics: Iterable[float]) -> list[tuple[int, float]]:
    """The records of a running statistic, from which its alarm follows for every threshold.

    >>> climb([0.0, 2.0, 1.0, 3.0])
    [(1, 0.0), (2, 2.0), (4, 3.0)]
    """
    path: list[tuple[int, float]] = []
    for seen, value in enumerate(statistics, start=1):
        if not path or value > path[-1][1]:
            path.append((seen, float(value)))
    return path


def run(methods: Mapping[str, Fit], online: Mapping[str, Fit] | None = None) -> None:
    """Judge the cases that the command line names, each method for ``SECONDS`` of CPU time a case at most.

    ``online`` are the detectors for cases whose windows are streams.
    """
    warnings.simplefilter("ignore")
    result, seconds, *cases = sys.argv[1:]
    said = {}
    for case in cases:
        with np.load(case) as held:
            wanted = (online or {}) if held["online"] else methods
        said[Path(case).stem] = {name: judge(fit, Path(case), float(seconds)) for name, fit in wanted.items()}
    Path(result).write_text(json.dumps(said))


def judge(fit: Fit, case: Path, seconds: float) -> dict[str, Any]:
    """A method's verdicts on a case, as fields of `bench.drift.judgement.Judgement`."""
    verdicts: list[Verdict] = []
    failure = ""
    with np.load(case) as held:
        baselines, windows, per_baseline = held["baselines"], held["windows"], int(held["per_baseline"])
        setting = Setting(windows.shape[1], bool(held["score_only"]))
    begun = time.process_time()
    judge_window: Judge | None = None
    try:
        for index, window in enumerate(windows):
            if index % per_baseline == 0:
                judge_window = fit(baselines[index // per_baseline], setting)
            assert judge_window is not None
            verdicts.append(judge_window(window))
            if time.process_time() - begun > seconds:
                break
    except Exception as error:  # a peer that breaks on one case is reported, and the others go on
        failure = f"{type(error).__name__}: {error}"[:200]
    return {
        "windows": len(verdicts),
        "alarms": _column([verdict.alarm for verdict in verdicts], bool),
        "p_values": _column([verdict.p_value for verdict in verdicts], float),
        "scores": _column([verdict.score for verdict in verdicts], float),
        "paths": [verdict.path or [] for verdict in verdicts] if any(verdict.path for verdict in verdicts) else None,
        "failure": failure,
    }


def _column(values: list[Any], kind: type) -> list[Any] | None:
    return [kind(value) for value in values] if values and all(value is not None for value in values) else None
