"""What it takes to judge a canary that has seen many inputs: time and memory, for the leader and for who asks.

A SQLite store with 600 labelled pairs and ever more inputs of both versions without labels, a week of them. Each
measurement is a process of its own: its CPU time (SQLite is part of it), and its resident memory at the peak less what
it was before the comparison.

    python -m bench.bench_canary_inputs [--inputs 20000 100000 500000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from bench.rig import write_result
from monitor.canary import Asked, compare
from monitor.drift import Baselines
from monitor.evaluate import Evaluator
from monitor.settings import Settings
from monitor.store.database import Database, parse_url
from monitor.store.store import Store
from monitor.windows import DAY_US, SECOND_US
from tests.embedded import NOW_US, encode, feed, open_store, settings_of
from tests.made_canary import START_US, both, labels, offsets

LABELLED = 600
SPAN_US = 7 * DAY_US
PANE_US = 300 * SECOND_US

# Copies of the first input's records, evenly over the days before it.
SAMPLES = """
WITH RECURSIVE number(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM number WHERE i + 1 < {inputs})
INSERT INTO sample (input_id, model, version, event_time_us, received_us, sequence, slices, status,
    sampling_probability, confidence, topic, number, "offset", masks, sketch)
SELECT printf('camera-%09d', i), model, version, {start_us} + i * {step_us}, received_us, sequence, slices, status,
    sampling_probability, confidence, topic, number, "offset", masks, sketch
FROM number, sample WHERE input_id = 'input-000000'
"""
PANES = """
WITH RECURSIVE number(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM number WHERE i + 1 < {panes})
INSERT INTO pane (model, version, slice, start_us, baseline_id, records, state)
SELECT model, version, slice, {start_us} + i * {pane_us}, baseline_id, {records}, state
FROM number, (SELECT * FROM pane WHERE slice = '' GROUP BY version)
"""


def fill(settings: Settings, inputs: int) -> None:
    """Labelled pairs as they come in, then the many."""
    with open_store(settings) as store:
        records = [*both(offsets(LABELLED, 2.0, 1), offsets(LABELLED, 2.2, 2)), *labels(range(LABELLED))]
        feed(store, settings, [encode(record) for record in records])
        evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
        evaluator.finish()
        evaluator.close()
    panes = SPAN_US // PANE_US
    start_us = START_US // PANE_US * PANE_US - SPAN_US
    asked = {"inputs": inputs, "start_us": start_us, "step_us": SPAN_US // inputs}
    database = Database(parse_url(f"sqlite:///{settings.data_dir}/segwatch.db", ""), write=True)
    with database.write() as connection:
        connection.execute(text(SAMPLES.format(**asked)))
        more = {"panes": panes, "pane_us": PANE_US, "records": inputs // panes}
        connection.execute(text(PANES.format(**asked, **more)))
    database.close()


def judge(folder: Path, masks: bool) -> dict[str, float]:
    """In this process: one comparison, as the leader makes it, or with ``masks`` as somebody asks for it."""
    settings = settings_of(folder)
    with Store.open(settings, write=False) as store:
        baselines = Baselines(store)
        baselines.of(store.active_baselines()["street", "1"].meta.id)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
        before, begun = peak_kib(), time.process_time()
        shown = compare(store, settings, Asked("street", "1", "2"), baselines, masks=masks)
        took = time.process_time() - begun
    assert shown["pairs"] == LABELLED
    return {"cpu_seconds": round(took, 2), "mebibytes": round((peak_kib() - before) / 1024, 1)}


def peak_kib() -> int:
    """Resident memory of this process at its peak; ``getrusage`` would tell its parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, nargs="+", default=[20_000, 100_000, 500_000])
    parser.add_argument("--judge", nargs=2, metavar=("FOLDER", "MASKS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.judge:
        print(json.dumps(judge(Path(given.judge[0]), given.judge[1] == "masks")))
        return
    result: dict[str, dict[str, object]] = {}
    for inputs in given.inputs:
        with tempfile.TemporaryDirectory(prefix="segwatch-") as name:
            fill(settings_of(Path(name)), inputs)
            for masks in ("none", "masks"):
                command = [sys.executable, "-m", "bench.bench_canary_inputs", "--judge", name, masks]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                result.setdefault(masks, {})[str(inputs)] = found = json.loads(done.stdout)
                print(
                    f"{inputs} shared inputs, {masks}: {found['cpu_seconds']} s, {found['mebibytes']} MiB", flush=True
                )
    write_result("canary_inputs", {"labelled": LABELLED, "leader": result["none"], "with_masks": result["masks"]})


if __name__ == "__main__":
    main()
