"""``make bench-drift``: every library on the same windows, seeds and baselines.

    python -m bench.drift [--quick] [--only FIGURE,...] [--contenders NAME,...] [--write-docs]

What is measured replaces the same figure of the same contender in bench-results/drift.json, case by case as it is
ready; the rest stays. So a run that was cut short loses little, and goes on with ``--only``. ``--write-docs`` copies
table and figures into docs/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from bench.drift import table
from bench.drift.environments import ROOT, PeerMissing, peers
from bench.drift.figures import FIGURES, OWN, SEGWATCH, Options, Row

RESULT = ROOT / "bench-results" / "drift.json"
DOCS = ROOT / "docs" / "drift-benchmark.md"
QUICK = Options(200, 200, 20, 40, 5.0, 2, 24, (30, 200), 3, 10, 10, 200_000)


def measure(figure: str, contender: str, options: Options) -> Iterator[Row]:
    """The figure's rows for one contender; a row that says why where the peer cannot be run."""
    try:
        yield from FIGURES[figure](contender, options)
    except PeerMissing as error:
        yield {"figure": figure, "contender": contender, "method": "", "case": "", "failure": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--only", default=",".join(FIGURES), help="figures, of: " + ", ".join(FIGURES))
    parser.add_argument("--contenders", default=",".join([SEGWATCH, *peers()]), help="of: " + ", ".join(peers()))
    for name in ("windows", "repetitions", "peer-windows", "peer-repetitions", "months", "runs", "long-runs"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--peer-seconds", type=float, help="CPU time of one method on one case")
    parser.add_argument("--sizes", help="records of a window, as in 30,1000")
    parser.add_argument("--write-docs", action="store_true", help="write docs/drift-benchmark.md and .json")
    given = vars(parser.parse_args())
    options = QUICK if given["quick"] else Options()
    for name in (
        "windows",
        "repetitions",
        "peer_windows",
        "peer_repetitions",
        "months",
        "runs",
        "long_runs",
        "peer_seconds",
    ):
        if given[name] is not None:
            options = replace(options, **{name: given[name]})
    if given["sizes"]:
        options = replace(options, sizes=tuple(int(size) for size in given["sizes"].split(",")))
    figures, contenders = ([*filter(None, given[name].split(","))] for name in ("only", "contenders"))
    unknown = {*figures, *contenders} - {*FIGURES, SEGWATCH, *peers()}
    if unknown:
        parser.error(f"no figure or contender of this name: {', '.join(sorted(unknown))}")
    for figure in figures:
        for contender in contenders:
            if contender == SEGWATCH or figure not in OWN:
                begun = time.monotonic()
                rows: list[Row] = []
                for row in measure(figure, contender, options):
                    rows.append(row)
                    _store(rows)
                print(f"{figure} {contender}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    stored = _stored()
    page = table.page(stored)
    print(page)
    if given["write_docs"]:
        DOCS.write_text(page)
        DOCS.with_suffix(".json").write_text(_text(stored))


def _stored() -> list[Row]:
    rows: list[Row] = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    return rows


def _store(rows: list[Row]) -> None:
    """Read again each time: two runs of different figures may go on side by side."""
    measured = {(row["figure"], row["contender"]) for row in rows}
    kept = [row for row in _stored() if (row["figure"], row["contender"]) not in measured]
    RESULT.parent.mkdir(exist_ok=True)
    fresh = RESULT.with_suffix(f".{os.getpid()}")
    fresh.write_text(_text(kept + rows))
    fresh.replace(RESULT)


def _text(rows: list[Row]) -> str:
    """One row a line, so that a change of one figure is one line's change."""
    ordered = sorted(rows, key=lambda row: (row["figure"], row["contender"]))
    return '{"rows": [\n' + ",\n".join(json.dumps(row) for row in ordered) + "\n]}\n"


if __name__ == "__main__":
    main()
