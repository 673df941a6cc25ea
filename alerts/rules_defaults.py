"""What is watched where no SLO file says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from alerts import rules_blindness, rules_dashboards, rules_drift, rules_ops, rules_service
from alerts.installation import Installation
from alerts.rules import Entry, Group, Links, RuleFile
from alerts.rules_tests import cases
from alerts.slo.parse import parse
from alerts.slo.render import groups
from alerts.slo.spec import Slo

DEFAULT_SLOS: Final = {
    "slos": [
        {
            "name": "default-availability",
            "kind": "availability",
            "objective": 0.99,
            "description": "Of each model: 99 % of inferences end with status ok.",
        },
        {
            "name": "default-class-iou",
            "kind": "class_iou",
            "iou": 0.5,
            "objective": 0.8,
            "description": "Of each model and class: 80 % of spot-checked instances have an IoU above 0.5.",
        },
    ]
}
"""For each model, whatever its name: a start, to be replaced by objectives that somebody has agreed to."""


DEFAULT: Final = Installation()


def default_slos() -> list[Slo]:
    """The packaged SLOs."""
    return parse(DEFAULT_SLOS)


def catalogue(links: Links, installation: Installation = DEFAULT) -> dict[str, list[Entry]]:
    """The alerts that need no SLO, by the file that they go to."""
    return {
        "ops": rules_ops.entries(links, installation),
        "watchdog": [rules_ops.watchdog(links)],
        "blindness": [*rules_blindness.entries(links, installation), *rules_service.devices(links)],  # matters of hours
        "drift": rules_drift.entries(links),
    }


def rule_files(slos: Sequence[Slo], links: Links, installation: Installation = DEFAULT) -> list[RuleFile]:
    """Everything that is rendered."""
    files = [RuleFile(f"slo-{slo.name}", groups(slo, links), cases(slo)) for slo in slos]
    for name, entries in catalogue(links, installation).items():
        tests = [case for entry in entries for case in entry.cases()]
        if name == "watchdog":
            tests = tests[:1]  # it is never silent
        rules = [entry.rule for entry in entries]
        interval = "5m" if name == "blindness" else "1m"  # blindness is a matter of hours
        files.append(RuleFile(name, [Group(f"segwatch-{name}", rules, interval)], tests))
    return [*files, rules_dashboards.rule_file(slos, installation.job, installation.instance)]
