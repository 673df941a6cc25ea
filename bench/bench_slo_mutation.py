"""Does a promtool test fail for every mutation of every rule that is rendered?

Mutations: a matcher dropped, a threshold times 1.5, a window doubled, a comparison turned (tests/rule_mutations.py).
Rules: the whole catalogue of alerts, the packaged SLOs, and an SLO of each kind.

    python bench/bench_slo_mutation.py [--jobs 2] [--only NAME]...

Prints a table and the survivors, and writes bench-results/slo_mutation.json.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from alerts.rules import Group, RuleFile
from alerts.rules_defaults import catalogue
from bench.rig import write_result
from bench.slo.prometheus import tool
from tests.rule_mutations import mutations
from tests.slo_mutants import LINKS, file_of, mutants, survivors
from tests.test_rules_files import SLOS


def of_slo(name: str) -> dict[str, Any]:
    """An SLO's mutants and which of them survive."""
    (slo,) = (one for one in SLOS if one.name == name)
    file = file_of(slo)
    wanted = mutants(slo, file)
    with tempfile.TemporaryDirectory() as folder:
        left = survivors(file, wanted, Path(folder) / "mutant")
    return {"name": f"SLO {name} ({slo.kind})", "mutants": len(wanted), "survivors": [str(one) for one in left]}


def of_catalogue(name: str) -> dict[str, Any]:
    """Mutants of a file of alerts that need no SLO: each place by itself, each alert with its own tests."""
    count, left = 0, []
    for entry in catalogue(LINKS)[name]:
        for what, changed in mutations(entry.rule.expr):
            count += 1
            rule = replace(entry.rule, expr=changed)
            interval = "5m" if name == "blindness" else "1m"
            file = RuleFile("mutant", [Group("mutant", [rule], interval)], entry.cases())
            if _passes(file):
                left.append(f"{entry.rule.alert}: {what}")
    return {"name": f"alerts: {name}", "mutants": count, "survivors": left}


def _passes(file: RuleFile) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in file.render().items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        names = [name for name in file.render() if name.endswith("_test.yml")]
        done = [
            subprocess.run([tool("promtool"), "test", "rules", one], cwd=folder, capture_output=True, check=False)
            for one in names
        ]
    return not any(one.returncode for one in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", help="an SLO, or a file of alerts")
    options = parser.parse_args()
    jobs = [(of_catalogue, name) for name in catalogue(LINKS)] + [(of_slo, slo.name) for slo in SLOS]
    if options.only:
        jobs = [job for job in jobs if job[1] in options.only]
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for done in [pool.submit(function, name) for function, name in jobs]:
            row = done.result()
            rows.append(row)
            print(f"{row['name']:50} {row['mutants']:5} mutants, {len(row['survivors'])} survive", flush=True)
            for survivor in row["survivors"]:
                print(f"    {survivor}", flush=True)
    total, left = sum(row["mutants"] for row in rows), sum(len(row["survivors"]) for row in rows)
    print(f"{total - left} of {total} killed")
    if not options.only:
        write_result("slo_mutation", {"killed": total - left, "mutants": total, "rows": rows})


if __name__ == "__main__":
    main()
