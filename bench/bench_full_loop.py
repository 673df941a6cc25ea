"""The full loop of ``segwatch demo --full-loop`` with several seeds: does it close, how long, what is it worth?

    python -m bench.bench_full_loop [--seeds 3] [--corruption darkness] [--strength 2]

Seeds change all traffic, the choice of labels that follows from it, and the training. Prints a table, and writes
bench-results/full_loop.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.rig import write_result
from monitor.cli import cli
from monitor.errors import CheckFailed
from monitor.full_loop.plan import LoopPlan
from monitor.full_loop.run import run_full_loop
from monitor.full_loop.told import interval


def played(plan: LoopPlan) -> dict[str, Any]:
    """The figures of one loop; ``failed`` says why where it does not close."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run_full_loop(cli, Path(folder) / "loop", plan, serve=False, say=lines.append)
        except CheckFailed as error:
            return {"seed": plan.seed, "failed": str(error), "said": lines}


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    if "failed" in found:
        return f"| {found['seed']} | {found['failed']} | | | | | | | |"
    before, shifted, after = (interval(found[when]) for when in ("before", "shifted", "after"))
    canary, pairs = interval(found["canary"]["mean_iou"], "difference"), found["canary"]["pairs"]
    hours = f"{found['retrain_asked_after_hours']}, {found['canary']['hours']}"
    head = f"| {found['seed']} | {found['examples']} | {before} | {shifted} | {after}"
    return f"{head} | {canary}, {pairs} pairs | {hours} | {found['alarms_after']} | {found['seconds']:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="The full loop with several seeds.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--corruption", default="darkness")
    parser.add_argument("--strength", type=int, default=2)
    arguments = parser.parse_args()
    runs = []
    titles = ("Seed", "labels", "version 1 before", "since the shift", "version 2", "the canary's difference")
    titles += ("hours until retraining was asked for, of canary", "alarms of version 2", "seconds")
    print(f"| {' | '.join(titles)} |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in range(1, arguments.seeds + 1):
        runs.append(played(LoopPlan(corruption=arguments.corruption, strength=arguments.strength, seed=seed)))
        print(row(runs[-1]), flush=True)
    write_result("full_loop", {"corruption": arguments.corruption, "strength": arguments.strength, "runs": runs})


if __name__ == "__main__":
    main()
