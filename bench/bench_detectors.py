"""What drift statistics cost: updating a window, and refreshing its verdict. Prints JSON.

Every ratio is taken side by side in one run, in turns, so that a busy machine slows both sides alike. CPU time of the
process is what counts; run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.layout import Layout
from detectors.score import score_window
from detectors.statistic import PaneStatistic

INPUT_DIMENSIONS, COMPONENTS, BATCH = 512, 32, 32
ALPHA = 0.001


class Bench:
    """A baseline, a projection like the pipeline's, and embeddings to count."""

    def __init__(self, seed: int, records: int) -> None:
        rng = np.random.default_rng(seed)
        self.matrix = np.linalg.qr(rng.normal(size=(INPUT_DIMENSIONS, COMPONENTS)))[0].astype(np.float32)
        self.embeddings = rng.normal(size=(records, INPUT_DIMENSIONS)).astype(np.float32)
        layout = Layout.stacked([("embedding", [f"component_{index}" for index in range(COMPONENTS)])])
        baseline = rng.normal(size=(10_000, INPUT_DIMENSIONS)).astype(np.float32)
        self.baseline = BaselineStatistic.fit(layout, self.project(baseline), [""] * len(baseline))

    def project(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        return (embeddings @ self.matrix).astype(np.float64)

    def window(self) -> PaneStatistic:
        return PaneStatistic(COMPONENTS, self.baseline.binning.bins)

    def count(self, window: PaneStatistic, start: int, stop: int, batch: int, frames: int) -> None:
        """Project, bin and add records ``start`` to ``stop``; ``frames`` to a sequence, 0 for none."""
        for first in range(start, stop, batch):
            last = min(first + batch, stop)
            names = [f"s{row // frames}" if frames else "" for row in range(first, last)]
            window.add(self.baseline.binning.codes(self.project(self.embeddings[first:last])), names)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def update(bench: Bench, frames: int, rounds: int) -> dict[str, float]:
    """CPU time of a sample in batches of 32, into a window of 1,000 and into one of 100,000 records."""
    short, long = bench.window(), bench.window()
    bench.count(short, 0, 1_000, 1_000, frames)
    bench.count(long, 0, 100_000, 1_000, frames)
    samples = 100 * BATCH
    seconds: dict[str, list[float]] = {"short": [], "long": []}
    for turn in range(rounds):
        start = 50 * turn
        # The short window is renewed, or else it would no longer be short.
        fresh = PaneStatistic.merged([short])
        pairs = [("short", fresh), ("long", long)]
        for name, window in pairs if turn % 2 else pairs[::-1]:
            spent = cpu_seconds(lambda w=window, s=start: bench.count(w, s, s + samples, BATCH, frames))  # type: ignore[misc]
            seconds[name].append(spent)
    # Each round's two sides ran one after the other, so their ratio is free of the machine's load.
    ratios = [one / other for one, other in zip(seconds["long"], seconds["short"], strict=True)]
    return {
        "us_per_sample_window_1000": 1e6 * statistics.median(seconds["short"]) / samples,
        "us_per_sample_window_100000": 1e6 * statistics.median(seconds["long"]) / samples,
        "ratio": statistics.median(ratios),
    }


def refresh(bench: Bench, rounds: int) -> dict[str, float]:
    """CPU time of a verdict after 1,000 new records in a window of 100,000, kept up to date or counted anew."""
    kept = bench.window()
    bench.count(kept, 0, 100_000, 1_000, 0)
    score_window(bench.baseline, kept, ALPHA)  # draws the law, once for this shape of window

    leaving = bench.window()  # the pane that slides out: its counts are at hand
    bench.count(leaving, 0, 1_000, 1_000, 0)

    def incremental() -> None:
        bench.count(kept, 0, 1_000, 1_000, 0)
        kept.subtract(leaving)
        score_window(bench.baseline, kept, ALPHA)

    def from_scratch() -> None:
        window = bench.window()
        bench.count(window, 0, 100_000, 10_000, 0)
        score_window(bench.baseline, window, ALPHA)

    pairs = [(cpu_seconds(from_scratch), cpu_seconds(incremental)) for _ in range(rounds)]
    return {
        "from_scratch_ms": 1e3 * statistics.median(one for one, _ in pairs),
        "refreshed_ms": 1e3 * statistics.median(other for _, other in pairs),
        "ratio": statistics.median(one / other for one, other in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    bench = Bench(seed=0, records=110_000)
    warm = bench.window()
    bench.count(warm, 0, 1_000, BATCH, 0)
    score_window(bench.baseline, warm, ALPHA)
    result = {
        "update": update(bench, 0, rounds),
        "update_sequences_of_100": update(bench, 100, rounds),
        "refresh_1000_of_100000": refresh(bench, rounds),
        "statistic_bytes": len(warm.to_bytes()),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
