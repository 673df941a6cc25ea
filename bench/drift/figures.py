"""The figures of the table: each makes rows of a contender's verdicts, case by case."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.drift import contenders, delay, month, segwatch, state
from bench.drift.judgement import Judgement, binomial_error, power
from bench.drift.scenarios import Case, Embedding, Shift
from detectors.units import BaselineUnits

SEGWATCH = "segwatch"
ALPHA = segwatch.ALPHA
EMBEDDINGS: tuple[Embedding, ...] = ("raw", "relu", "l2")
SIZES = (30, 50, 100, 200, 500, 1000)
SEQUENCES = (1, 2, 3, 5)
"""Sequences of 200 frames in a window of correlated frames."""
CORRELATED_BASELINES = (10_000, 32_000)
SHIFTS = ((100, Shift(1, 0.5)), (300, Shift(64, 0.1)))

Row = dict[str, Any]
"""``figure``, ``contender``, ``method``, ``case`` and what was measured."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    windows: int = 5_000
    """Of each case, for segwatch."""
    repetitions: int = 1_000
    """Drift-free and drifted windows for power."""
    peer_windows: int = 200
    peer_repetitions: int = 1_000
    peer_seconds: float = 60.0
    """CPU time of one method on one case: 18 cases make at most 18 minutes."""
    months: int = 20
    hours: int = month.HOURS
    sizes: tuple[int, ...] = SIZES
    rounds: int = 15
    runs: int = 100
    """Streams for the delay of detection."""
    long_runs: int = 400
    samples: int = 10_000_000
    """Into one window, for its memory."""


def identical(contender: str, options: Options) -> Iterator[Row]:
    """Share of p <= 0.01 and of alarms in windows that come from where the baseline does."""
    count = options.windows if contender == SEGWATCH else options.peer_windows
    cases = [Case(embedding, records, count) for embedding in EMBEDDINGS for records in options.sizes]
    yield from _rates("identical", contender, cases, options)


def correlated(contender: str, options: Options) -> Iterator[Row]:
    """The same for windows of AR(1) frames in sequences of 200."""
    count = options.windows // 5 if contender == SEGWATCH else options.peer_windows
    sequences = SEQUENCES if contender == SEGWATCH else (1, 5)
    cases = [
        Case("independent", 200 * number, count, ar=ar, baseline_records=records)
        for ar in (0.9, 0.95)
        for records in (CORRELATED_BASELINES if contender == SEGWATCH else CORRELATED_BASELINES[:1])
        for number in sequences
    ]
    yield from _rates("correlated", contender, cases, options)


def powers(contender: str, options: Options) -> Iterator[Row]:
    """Share of shifted windows found, at thresholds that raise 1 % false alarms in other, drift-free windows."""
    count = options.repetitions if contender == SEGWATCH else options.peer_repetitions
    for records, shift in SHIFTS:
        drift_free = Case("independent", records, count, stream="threshold")
        drifted = replace(drift_free, stream="drifted", shift=shift)
        before, after = (_judge(contender, case, options, score_only=True) for case in (drift_free, drifted))
        for method, judgement in before.items():
            yield {
                "figure": "power",
                "contender": contender,
                "method": method,
                "case": f"{shift.sigmas:g} sigma in {shift.dimensions} of 64, n={records}",
                "windows": after[method].windows,
                "drift_free_windows": judgement.windows,
                "power": power(judgement, after[method], ALPHA),
                "failure": judgement.failure or after[method].failure,
            }


def month_rows(contender: str, options: Options) -> Iterator[Row]:
    """False drift alarms in 30 days, over all windows, slices and signals."""
    made = [month.simulate(number, options.hours) for number in range(options.months)]
    alarms = np.array([one.all_records + one.slices for one in made]) * (month.HOURS / options.hours)
    yield {
        "figure": "months",
        "contender": contender,
        "method": "",
        "case": "30 days, hourly, 256 components, 20 classes, 5 slices",
        "months": len(made),
        "hours": options.hours,
        "alarms": float(alarms.mean()),
        "standard_error": float(alarms.std(ddof=1) / np.sqrt(len(made))) if len(made) > 1 else None,
        "on_all_records": float(np.mean([one.all_records for one in made])),
        "on_slices": float(np.mean([one.slices for one in made])),
        "most_in_a_month": float(alarms.max()),
        "signals": dict(sum((Counter(one.signals) for one in made), Counter())),
    }


def state_rows(contender: str, options: Options) -> Iterator[Row]:
    """Bytes of a pane's state, and whether merging commutes."""
    measured = state.measure()
    yield {
        "figure": "state",
        "contender": contender,
        "method": "",
        "case": f"{state.DIMENSIONS} dimensions, {state.BINS} bins",
        "pooled_bytes": {str(records): size for records, size in measured.pooled.items()},
        "bytes_per_sequence": {str(frames): size for frames, size in measured.per_sequence.items()},
        "merging_identical": measured.identical,
    }


def cost_rows(contender: str, options: Options) -> Iterator[Row]:
    """CPU time of a sample in a window, short and long."""
    from bench.bench_detectors import Bench, update

    bench = Bench(seed=0, records=110_000)
    for case, frames in (("512 dimensions", 0), ("512 dimensions, sequences of 100", 100)):
        spent = update(bench, frames, options.rounds)
        yield {"figure": "cost", "contender": contender, "method": "", "case": case, **spent}


def memory_rows(contender: str, options: Options) -> Iterator[Row]:
    """Resident memory while one window takes 10^7 samples, batch by batch."""
    from bench.bench_detectors import BATCH, Bench

    records = 100_000
    bench, few, many = Bench(seed=0, records=records), options.samples // 100, options.samples
    window, resident = bench.window(), {}
    for done in range(0, many, records):
        bench.count(window, 0, min(records, many - done), BATCH, 0)
        resident[done + records] = resident_bytes()
    yield {
        "figure": "memory",
        "contender": contender,
        "method": "",
        "case": "512 dimensions, batches of 32",
        "samples": many,
        "resident_mib": {str(at): resident[at] / 2**20 for at in (max(few, records), many)},
        "serialised_bytes": len(window.to_bytes()),
    }


def resident_bytes() -> int:
    """Of this process, as Linux tells it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def delay_rows(contender: str, options: Options) -> Iterator[Row]:
    """Records until drift is noticed, at limits that give one false alarm in `delay.RUN_LENGTH` records."""
    if contender == SEGWATCH:
        judged = delay.segwatch_paths(options.runs)
    else:
        judged = delay.peer_paths(contender, options.runs, options.peer_seconds)
    for method, fields in delay.delays(judged).items():
        yield {
            "figure": "delay",
            "contender": contender,
            "method": method,
            "case": "independent, 64 dimensions",
            **fields,
        }


def run_length_rows(contender: str, options: Options) -> Iterator[Row]:
    """Records until a false alarm of the sequential detector, set to a run length, each run with its own baseline."""
    from bench.bench_sequential import CAP, COLUMNS, RUN_LENGTH, Stream, run_length

    for name in ("independent", "sequences"):
        lengths = []
        for seed in range(options.long_runs):
            stream = Stream(name, np.random.default_rng([seed, len(name)]))
            lengths.append(run_length(stream, BaselineUnits(stream.baseline()), np.zeros(COLUMNS)))
        yield {
            "figure": "run_length",
            "contender": contender,
            "method": "sequential",
            "case": "independent records" if name == "independent" else "AR 0.9, sequences of 200",
            "asked_for": RUN_LENGTH,
            "cap": CAP,
            "runs": len(lengths),
            "mean": float(np.mean(lengths)),
            "standard_error": float(np.std(lengths) / np.sqrt(len(lengths))),
        }


FIGURES: Mapping[str, Callable[[str, Options], Iterator[Row]]] = {
    "state": state_rows,
    "cost": cost_rows,
    "memory": memory_rows,
    "identical": identical,
    "correlated": correlated,
    "power": powers,
    "delay": delay_rows,
    "run_length": run_length_rows,
    "months": month_rows,
}
OWN = ("state", "cost", "memory", "run_length", "months")
"""Figures that only segwatch has."""


def _judge(contender: str, case: Case, options: Options, *, score_only: bool = False) -> dict[str, Judgement]:
    if contender == SEGWATCH:
        return {"": segwatch.judge(case).judgement}
    return contenders.judge(contender, case, options.peer_seconds, score_only=score_only)


def _rates(figure: str, contender: str, cases: list[Case], options: Options) -> Iterator[Row]:
    for case in cases:
        begun = time.process_time()
        if contender == SEGWATCH:
            verdicts = segwatch.judge(case)
            said = {"": verdicts.judgement}
            more: Row = {
                "supported_alpha": verdicts.supported_alpha,
                "statuses": list(verdicts.statuses),
                "cpu_seconds": time.process_time() - begun,
            }
        else:
            said, more = contenders.judge(contender, case, options.peer_seconds), {}
        for method, judgement in said.items():
            share, alarms = judgement.share_of_small_p(ALPHA), judgement.alarm_rate()
            yield {
                "figure": figure,
                "contender": contender,
                "method": method,
                "case": case.name,
                "embedding": case.embedding,
                "records": case.records,
                "ar": case.ar,
                "baseline_records": case.baseline_records,
                "windows": judgement.windows,
                "p_share": share,
                "p_share_error": binomial_error(share, judgement.windows) if share is not None else None,
                "alarm_rate": alarms,
                "failure": judgement.failure,
                **more,
            }
