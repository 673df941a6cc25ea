"""How long sequential detection runs without drift, and how soon it sees some. Prints a table, writes JSON.

Every run has a baseline of its own, of 10,000 records in 64 columns: independent ones, or 50 sequences of 200 frames,
AR(1) 0.9. The run length asked for is 10,000 records. Runs without an alarm end at ``CAP`` records and count as that
long, which makes the mean too small. Drift is a shift, in standard deviations, from the first record on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.rig import RESULTS, write_result
from detectors.baseline import BaselineStatistic
from detectors.layout import Layout
from detectors.sequential import SequentialDetector
from detectors.units import BaselineUnits, count

COLUMNS, RECORDS, FRAMES, RUN_LENGTH, CAP = 64, 10_000, 200, 10_000, 30_000
SHIFTS = tuple((size, columns) for columns in (1, COLUMNS) for size in (1.0, 0.5, 0.25))
STREAMS = ("independent", "sequences", "common_scale")


@dataclass(frozen=True)
class Stream:
    """Records like the baseline's, as many as wanted."""

    name: str
    rng: np.random.Generator

    def values(self, sequences: int, length: int) -> NDArray[np.float64]:
        """(sequences, length, COLUMNS)"""
        shape = (sequences, length, COLUMNS)
        if self.name == "independent":
            return self.rng.normal(size=shape)
        if self.name == "common_scale":  # columns that depend on each other, a third of their values exactly 0
            mixed = self.rng.normal(size=shape) * np.exp(0.5 * self.rng.normal(size=(sequences, length, 1)))
            return np.maximum(mixed + 0.4, 0.0)
        out, x = np.empty(shape), self.rng.normal(size=(sequences, COLUMNS))
        for frame in range(length):
            x = 0.9 * x + math.sqrt(1 - 0.81) * self.rng.normal(size=x.shape)
            out[:, frame] = x
        return out

    @property
    def in_sequences(self) -> bool:
        return self.name == "sequences"

    def baseline(self) -> BaselineStatistic:
        values = self.values(RECORDS // FRAMES, FRAMES).reshape(-1, COLUMNS)
        names = [f"s{row // FRAMES}" if self.in_sequences else "" for row in range(len(values))]
        layout = Layout.stacked([("embedding", [f"component_{index}" for index in range(COLUMNS)])])
        return BaselineStatistic.fit(layout, values, names)

    def runs(self, first: int) -> Iterator[NDArray[np.float64]]:
        """Sequences, each (FRAMES, COLUMNS), without end; ``first`` so many at once, then ever more."""
        while True:
            yield from self.values(first, FRAMES)
            first = min(2 * first, 16)


def run_length(stream: Stream, units: BaselineUnits, shift: NDArray[np.float64]) -> int:
    """Records until the alarm, at most CAP."""
    detector = SequentialDetector(units, RUN_LENGTH)
    binning = units.baseline.binning
    for values in stream.runs(2):
        codes = binning.codes(values + shift)
        if stream.in_sequences:
            detector.add_group(count(codes, binning.cells), sequence=True)
        else:
            detector.add_records(codes)
        if detector.alarm_at is not None or detector.records >= CAP:
            return detector.alarm_at or CAP
    raise AssertionError("a stream has no end")


def one_run(name: str, seed: int) -> list[int]:
    """The run length without drift, then the delay of every shift."""
    stream = Stream(name, np.random.default_rng([STREAMS.index(name), seed]))
    units = BaselineUnits(stream.baseline())
    lengths = [run_length(stream, units, np.zeros(COLUMNS))]
    for size, columns in SHIFTS if name != "common_scale" else ():
        lengths.append(run_length(stream, units, np.where(np.arange(COLUMNS) < columns, size, 0.0)))
    return lengths


def figures(lengths: NDArray[np.int64]) -> dict[str, float]:
    return {
        "mean": float(lengths.mean()),
        "standard_error": float(lengths.std(ddof=1) / math.sqrt(len(lengths))),
        "median": float(np.median(lengths)),
        "p90": float(np.quantile(lengths, 0.9)),
        "share_without_alarm": float((lengths >= CAP).mean()),
    }


def cost() -> dict[str, float]:
    """CPU time of a record in batches of 1,000, alone, and of a sequence of 200 frames; bytes of state."""
    result: dict[str, float] = {}
    for name in ("independent", "sequences"):
        stream = Stream(name, np.random.default_rng(0))
        units = BaselineUnits(stream.baseline())
        detector = SequentialDetector(units, RUN_LENGTH)
        codes = units.baseline.binning.codes(stream.values(25, FRAMES).reshape(-1, COLUMNS))
        counts = [count(frames, units.baseline.binning.cells) for frames in codes.reshape(25, FRAMES, COLUMNS)]
        for _ in range(2):  # the first compiles
            started = time.process_time()
            if name == "sequences":
                for held in counts:
                    detector.add_group(held, sequence=True)
                result["us_per_sequence"] = 1e6 * (time.process_time() - started) / len(counts)
            else:
                for start in range(0, 5000, 1000):
                    detector.add_records(codes[start : start + 1000])
                result["us_per_record_in_batches"] = 1e6 * (time.process_time() - started) / 5000
                started = time.process_time()
                for row in range(200):
                    detector.add_records(codes[row : row + 1])
                result["us_per_record_alone"] = 1e6 * (time.process_time() - started) / 200
        result[f"state_bytes_{name}"] = len(detector.to_bytes())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=STREAMS, help="others keep their figures")
    arguments = parser.parse_args()
    before = RESULTS / "sequential.json"
    result = json.loads(before.read_text()) if before.exists() else {}
    result |= {"run_length_asked_for": RUN_LENGTH, "cost": cost()}
    with ProcessPoolExecutor(arguments.workers) as pool:
        for name in arguments.streams:
            every = np.array(list(pool.map(one_run, [name] * arguments.runs, range(arguments.runs))))
            labels = ["without_drift", *(f"{size:g}_sigma_in_{columns}" for size, columns in SHIFTS)]
            table = {label: figures(column) for label, column in zip(labels, every.T, strict=False)}
            result[name] = {"runs": arguments.runs, "cap": CAP, **table}
            for label, row in table.items():
                shown = "  ".join(f"{key} {value:.4g}" for key, value in row.items())
                print(f"{name:15}{label:20}{shown}", flush=True)
            write_result("sequential", result)


if __name__ == "__main__":
    main()
