"""How soon drift is noticed by detectors that look at every record, all of them equally quiet without drift.

A detector's limit is what gives `RUN_LENGTH` records between false alarms on drift-free streams, as measured; then the
same limit is applied to streams that are shifted from their first record on. Streams end after `CAP` records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bench.drift import contenders, scenarios, segwatch
from bench.drift.judgement import Judgement, first_at_or_above, limit_for
from bench.drift.peers.protocol import climb
from bench.drift.scenarios import Case, Shift
from detectors.sequential import SequentialDetector
from detectors.units import BaselineUnits

RUN_LENGTH, CAP, SHIFTED_CAP = 1_000, 4_000, 1_000
RUNS_PER_BASELINE = 10
SHIFTS = (Shift(1, 1.0), Shift(1, 0.5), Shift(64, 0.25))

Paths = dict[str, dict[Shift | None, Judgement]]
"""By method, then by shift; None: without."""


def cases(runs: int) -> dict[Shift | None, Case]:
    """Drift-free streams, and for every shift half as many of a quarter of their length."""
    case = Case("independent", CAP, runs, stream="run length", per_baseline=RUNS_PER_BASELINE)
    shifted = replace(case, records=SHIFTED_CAP, windows=max(runs // 2, 1), stream="delay")
    return {None: case, **{shift: replace(shifted, shift=shift) for shift in SHIFTS}}


def segwatch_paths(runs: int) -> Paths:
    judged: dict[Shift | None, Judgement] = {}
    for shift, case in cases(runs).items():
        paths = []
        for block in range(case.blocks):
            baseline = segwatch.fit(case, block)
            units = BaselineUnits(baseline)
            for values in scenarios.windows(case, block):
                evidence = SequentialDetector(units, RUN_LENGTH).add_records(baseline.binning.codes(values))
                paths.append(climb(evidence.tolist()))
        judged[shift] = Judgement(len(paths), None, None, None, paths)
    return {"sequential": judged}


def peer_paths(peer: str, runs: int, seconds: float) -> Paths:
    """The peer's online detectors, with twice the time for the drift-free streams, which are longer."""
    judged: Paths = {}
    for shift, case in cases(runs).items():
        said = contenders.judge(peer, case, seconds * (1 if shift else 2), online=True)
        for method, judgement in said.items():
            judged.setdefault(method, {})[shift] = judgement
    return judged


def delays(judged: Paths) -> dict[str, Mapping[str, Any]]:
    """Run length and delays, in records, of each method."""
    return {method: _delays(by_shift) for method, by_shift in judged.items()}


def _delays(by_shift: Mapping[Shift | None, Judgement]) -> Mapping[str, Any]:
    drift_free = by_shift[None]
    failure = "; ".join(dict.fromkeys(one.failure for one in by_shift.values() if one.failure))
    if not drift_free.paths:
        return {"run_length": None, "runs": drift_free.windows, "delays": {}, "failure": failure}
    limit = limit_for(drift_free.paths, RUN_LENGTH, CAP)
    if limit is None:
        return {
            "run_length": None,
            "runs": drift_free.windows,
            "delays": {},
            "failure": failure or "never quiet enough",
        }
    lengths = [first_at_or_above(path, limit, CAP) for path in drift_free.paths]
    found = {}
    for shift, judgement in by_shift.items():
        if shift is not None and judgement.paths:
            reached = [first_at_or_above(path, limit, SHIFTED_CAP) for path in judgement.paths]
            found[f"{shift.sigmas:g} sigma in {shift.dimensions}"] = float(np.mean(reached))
    return {
        "run_length": float(np.mean(lengths)),
        "runs": len(lengths),
        "limit": limit,
        "delays": found,
        "failure": failure,
    }
