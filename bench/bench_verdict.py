"""A drift verdict refreshed after 1,000 new records, in a window of 100,000 records of 512 dimensions.

Against Evidently's drift of embeddings by the ratio of drifted components, each tested by Jensen-Shannon: the method
alone, on a ready table, without the report around it. Evidently has no state, so a fresh verdict takes the whole
window again. And against segwatch's own statistic, counted anew. CPU time of the processes, in turns.

    python bench/bench_verdict.py [--rounds 5]

Prints a table, and writes bench-results/verdict.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time

WINDOW, BASELINE, DIMENSIONS = 100_000, 10_000, 512
TARGET_EVIDENTLY, TARGET_AGAIN = 200.0, 30.0


def evidently_seconds(rounds: int) -> None:
    """The peer, in its own environment: CPU seconds of each verdict, as JSON on stdout."""
    import numpy as np
    import pandas
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import ratio

    rng = np.random.default_rng(0)
    columns = [f"e{index}" for index in range(DIMENSIONS)]
    window, baseline = (
        pandas.DataFrame(rng.normal(size=(rows, DIMENSIONS)).astype(np.float32), columns=columns)
        for rows in (WINDOW, BASELINE)
    )
    method = ratio(component_stattest="jensenshannon")
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        method(window, baseline)
        taken.append(time.process_time() - begun)
    print(json.dumps(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_peer:
        evidently_seconds(options.rounds)
        return
    from bench.bench_detectors import Bench, refresh
    from bench.rig import peers_python, write_result

    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [str(peers_python()), __file__, "--as-peer", "--rounds", "1"]
    bench = Bench(seed=0, records=WINDOW + BASELINE)
    theirs, ours = [], []
    for _ in range(options.rounds):
        theirs += json.loads(subprocess.run(command, check=True, capture_output=True, env=environ).stdout)
        ours.append(refresh(bench, 1))
    result = {
        "evidently_ms": 1e3 * statistics.median(theirs),
        "from_scratch_ms": statistics.median(each["from_scratch_ms"] for each in ours),
        "refreshed_ms": statistics.median(each["refreshed_ms"] for each in ours),
        "ratio_evidently": statistics.median(
            1e3 * one / each["refreshed_ms"] for one, each in zip(theirs, ours, strict=True)
        ),
        "ratio_from_scratch": statistics.median(each["ratio"] for each in ours),
        "target_evidently": TARGET_EVIDENTLY,
        "target_from_scratch": TARGET_AGAIN,
    }
    print(f"{'verdict on 100,000 records':<34} {'CPU ms':>9} {'refreshed is':>13} {'target':>8}")
    print(f"{'segwatch, 1,000 new records':<34} {result['refreshed_ms']:>9.2f}")
    for name, taken, ratio, target in (
        ("segwatch, all counted again", "from_scratch_ms", "ratio_from_scratch", TARGET_AGAIN),
        ("Evidently, ratio of JS", "evidently_ms", "ratio_evidently", TARGET_EVIDENTLY),
    ):
        print(f"{name:<34} {result[taken]:>9.0f} {result[ratio]:>12.0f}x {target:>7.0f}x")
    write_result("verdict", result)


if __name__ == "__main__":
    main()
