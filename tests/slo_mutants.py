"""Mutants of an SLO's rules, and which of them its promtool tests kill.

Mutants of rules that do not depend on each other are tried together, and one counts as killed only where a check on its
own series fails; so the tests run some 60 times for an SLO and not some 250 times. What that leaves is tried alone.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alerts.rules import Case, Links, Rule, RuleFile
from alerts.rules_defaults import rule_files
from alerts.rules_tests_limits import bound
from alerts.slo.kinds import born_over_s, events
from alerts.slo.promql import DOUBTED, FIRST, duration, tile_s
from alerts.slo.spec import Slo
from tests.rule_mutations import rule_mutations

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
QUICK = 60
"""Tests of up to so many simulated minutes are tried first; the longest of the others take half a minute."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule of a file with another expression."""

    group: int
    rule: int
    name: str
    what: str
    expr: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


def file_of(slo: Slo) -> RuleFile:
    """The rules and tests of one SLO."""
    return rule_files([slo], LINKS)[0]


def mutants(slo: Slo, file: RuleFile) -> list[Mutant]:
    """All mutants of a file's rules that mean something else than the rules do."""
    found = [
        Mutant(group, index, rule.record or rule.alert, one.what, one.expr)
        for group, rules in enumerate(file.groups)
        for index, rule in enumerate(rules.rules)
        for one in rule_mutations(rule.expr)
    ]
    return [one for one in found if not equivalent(slo, one)]


def equivalent(slo: Slo, one: Mutant) -> bool:
    """Whether a mutant says the same in all circumstances.

    The images behind events are joined to them by model, so that a matcher of the model only saves work; what a
    newborn series had is joined to births by all labels, and the least or most of all tiles does not depend on their
    length. Which births are in a sum does not matter where it is multiplied by 0. A floor of events is of no account
    where the lower bound cannot exceed its limit with half as many again either.
    """
    if "design_effect" in one.name and one.what.startswith(("model=", "model!=")):
        return True
    if one.name in (FIRST, DOUBTED):
        if one.what == f"{duration(tile_s(born_over_s(slo)))} doubled":
            return True
        if one.what.endswith(" dropped") and not one.what.startswith("slo="):
            return True
    if "bad_events" in one.name and one.what.startswith("counter="):
        found = events(slo)
        return one.what.removesuffix(" dropped") not in found.bad("1h").replace(f"{found.total('1h')} * 0", "")
    grown = re.search(r"-> > (\d+(?:\.\d+)?)$", one.what)
    at = re.search(r" at (\d+) ", one.what)
    if not grown or not at:
        return False
    before = one.expr[: int(at[1])]
    counted = re.search(r"segwatch:slo_(bad_)?events:increase\w+\{[^{}]*\} $", before)
    limits = re.findall(r"segwatch:slo_error_ratio:ratio\w+\{[^{}]*\} > ([\d.e-]+)", before)
    if not counted or not limits:
        return False
    value, floor = float(grown[1]), slo.min_events - 0.5
    bad, total = (value, floor) if counted[1] else (value if slo.bounded else math.inf, value)
    return bound(slo, bad, total) <= float(limits[-1])


def survivors(file: RuleFile, wanted: Sequence[Mutant], folder: Path) -> list[Mutant]:
    """The mutants that no test notices."""
    left = list(wanted)
    for batch in _batches(wanted):
        killed = _killed(mutated(_about(file, batch), batch), batch, folder)
        left = [one for one in left if one not in killed]
    return [one for one in left if not _fails(mutated(file, [one]), folder)]


def _about(file: RuleFile, batch: Sequence[Mutant]) -> RuleFile:
    """The file with those quick tests alone that look at one of the mutants."""
    names = {one.name for one in batch}
    cases = [
        case
        for case in file.cases
        if _quick(case) and any(_of(name, one.query) for one in case.checks for name in names)
    ]
    return replace(file, cases=cases)


def _of(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w:]){re.escape(name)}(?!\w)", text) is not None


def _quick(case: Case) -> bool:
    return bool(case.every) or all(_minutes(check.at) <= QUICK for check in case.checks)


def mutated(file: RuleFile, changed: Iterable[Mutant]) -> RuleFile:
    """The file with the rules of some mutants."""
    by_place = {(one.group, one.rule): one.expr for one in changed}

    def rule(group: int, index: int, old: Rule) -> Rule:
        return replace(old, expr=by_place.get((group, index), old.expr))

    groups = [
        replace(group, rules=[rule(number, index, old) for index, old in enumerate(group.rules)])
        for number, group in enumerate(file.groups)
    ]
    return replace(file, groups=groups)


def _layer(name: str) -> str:
    """Rules of one layer do not depend on each other."""
    if not name.startswith("segwatch"):
        return "alerts"
    return re.sub(r"(increase|ratio)\d\w*$", r"\1", name)


def _batches(wanted: Iterable[Mutant]) -> Iterator[list[Mutant]]:
    layers: dict[str, dict[str, list[Mutant]]] = defaultdict(lambda: defaultdict(list))
    for one in wanted:
        layers[_layer(one.name)][one.name].append(one)
    for rules in layers.values():
        for index in range(max(map(len, rules.values()))):
            yield [found[index] for found in rules.values() if index < len(found)]


def _run(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    assert tool is not None
    command = [tool, "test", "rules", name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def _write(file: RuleFile, folder: Path) -> list[str]:
    """Writes rules and tests, and names the tests, the quickest first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = []
    for part in ("quick", "slow"):
        cases = [case for case in file.cases if _quick(case) == (part == "quick")]
        for name, text in replace(file, name=part, cases=cases).render().items():
            (folder / name).write_text(text, encoding="utf-8")
            if name.endswith("_test.yml"):
                names.append(name)
    return sorted(names, key=lambda name: (name.startswith("slow"), name.count(".") == 2))


def _minutes(at: str) -> int:
    return int(at.removesuffix("m"))


def _killed(file: RuleFile, batch: Sequence[Mutant], folder: Path) -> list[Mutant]:
    """Those of a batch that the quick tests notice, each by itself."""
    text = ""
    for name in _write(file, folder):
        if name.startswith("quick"):
            done = _run(folder, name)
            text += done.stdout + done.stderr
        if all(_named(one, text) for one in batch):
            break
    return [one for one in batch if _named(one, text)]


def _named(one: Mutant, failed: str) -> bool:
    """Whether a check on the mutant's own series failed, or the mutant itself could not be evaluated."""
    lines = [line for line in failed.splitlines() if line.lstrip().startswith(("expr:", "rule:"))]
    return any(_of(one.name, line) for line in lines)


def _fails(file: RuleFile, folder: Path) -> bool:
    return any(_run(folder, name).returncode for name in _write(file, folder))
