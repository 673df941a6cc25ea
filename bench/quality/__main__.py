"""``make bench-quality``: coverage, labels saved, means, precision, and drops found, over seeded repetitions.

    python -m bench.quality [--repetitions 2000] [--only FIGURE,...] [--families NAME,...] [--write-docs]

What is measured replaces the same figure of the same families in bench-results/quality.json, case by case as it is
ready; the rest stays. ``--write-docs`` writes the table page in docs/.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.quality import coverage, drops, means, scenarios, table
from bench.quality.coverage import Row

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "bench-results" / "quality.json"
DOCS = ROOT / "docs" / "quality-benchmark.md"
FIGURES = ("coverage", "assisted", "means", "precision", "drops")
STORE_EVERY_S = 5.0


def measure(figure: str, families: list[str], repetitions: int) -> Iterator[Row]:
    """The figure's rows, case by case."""
    if figure == "drops":
        rows = drops.drop_rows(repetitions)
    elif figure == "means":
        rows = means.mean_rows(families, repetitions)
    elif figure == "precision":
        rows = means.precision_rows(repetitions)
    elif figure == "coverage":
        rows = coverage.coverage_rows(families, repetitions)
    else:
        rows = coverage.assisted_rows(families, repetitions)
    for row in rows:
        yield {"figure": figure, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--only", default=",".join(FIGURES), help="figures, of: " + ", ".join(FIGURES))
    parser.add_argument("--families", default=",".join(scenarios.FAMILIES), help="of: " + ", ".join(scenarios.FAMILIES))
    parser.add_argument("--write-docs", action="store_true", help="write docs/quality-benchmark.md")
    given = parser.parse_args()
    figures, families = given.only.split(","), given.families.split(",")
    unknown = {*figures, *families} - {*FIGURES, *scenarios.FAMILIES, ""}
    if unknown:
        parser.error(f"no figure or family of this name: {', '.join(sorted(unknown))}")
    if given.repetitions < coverage.POPULATIONS:
        parser.error(f"repetitions are shared among {coverage.POPULATIONS} populations")
    for figure in filter(None, figures):
        begun = stored = time.monotonic()
        rows: list[Row] = []
        for row in measure(figure, families, given.repetitions):
            rows.append(row)
            if time.monotonic() - stored > STORE_EVERY_S:
                _store(rows)
                stored = time.monotonic()
        _store(rows)
        print(f"{figure}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    page = table.page(_stored())
    print(page)
    if given.write_docs:
        DOCS.write_text(page)


def _identity(row: Row) -> tuple[object, ...]:
    names = ("figure", "family", "frequency", "iou", "correlation", "labels", "estimand", "choice", "quality", "areas")
    return tuple(row.get(name) for name in (*names, "classes", "of", "metric"))


def _stored() -> list[Row]:
    rows: list[Row] = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    return rows


def _store(rows: list[Row]) -> None:
    """Read again each time: two runs of different families may go on side by side."""
    measured = {_identity(row) for row in rows}
    kept = [row for row in _stored() if _identity(row) not in measured]
    ordered = sorted(kept + rows, key=lambda row: [str(part) for part in _identity(row)])
    RESULT.parent.mkdir(exist_ok=True)
    fresh = RESULT.with_suffix(f".{os.getpid()}")
    fresh.write_text('{"rows": [\n' + ",\n".join(json.dumps(row) for row in ordered) + "\n]}\n")
    fresh.replace(RESULT)


if __name__ == "__main__":
    main()
