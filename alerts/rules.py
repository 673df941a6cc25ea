"""Prometheus rules and their promtool tests as frozen values, and how they are written as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml

MARK: Final = "# Rendered by segwatch; rendering again replaces it."
"""First line of every file: those that are no longer rendered can be told from the user's own, and removed."""

WHO: Final = (
    "Model {{ $labels.model }}{{ with $labels.version }} version {{ . }}{{ end }}"
    "{{ with $labels.class }}, class {{ . }}{{ end }}{{ with $labels.slice }}, slice {{ . }}{{ end }}"
)
"""Begin of a description: what it is about, from whatever labels there are."""

OF_MODEL: Final = "{{ with $labels.model }}?model={{ . | urlquery }}{{ end }}"


@dataclass(frozen=True, slots=True)
class Links:
    """``runbooks``: address of the folder of runbooks. ``pages``: address of segwatch's pages.

    ``dashboard``: address of a Grafana dashboard with a variable ``model``; empty: segwatch's pages stand in for it.
    """

    runbooks: str
    pages: str
    dashboard: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule (``record``) or an alerting rule (``alert``)."""

    expr: str
    record: str = ""
    alert: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    wait: str = ""
    """``for``: how long the condition must hold."""
    keep: str = ""
    """``keep_firing_for``: how long it fires on."""

    def to_dict(self) -> dict[str, Any]:
        tree = {
            "record": self.record,
            "alert": self.alert,
            "expr": self.expr,
            "for": self.wait,
            "keep_firing_for": self.keep,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
        }
        return {key: value for key, value in tree.items() if value}


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated in order, every ``interval``."""

    name: str
    rules: Sequence[Rule]
    interval: str = "1m"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "interval": self.interval, "rules": [rule.to_dict() for rule in self.rules]}


@dataclass(frozen=True, slots=True)
class Check:
    """At ``at`` the query yields ``value``, or nothing (None)."""

    at: str
    query: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Case:
    """One promtool test: series in promtool's notation (``0+1x60``), and what must be seen."""

    name: str
    series: Mapping[str, str]
    checks: Sequence[Check]
    interval: str = "1m"
    every: str = ""
    """How often rules are evaluated, where that is seldom: windows of weeks are then tested in no time."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "interval": self.interval,
            "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
            "promql_expr_test": [
                {
                    "expr": check.query,
                    "eval_time": check.at,
                    "exp_samples": [] if check.value is None else [{"labels": "{}", "value": check.value}],
                }
                for check in self.checks
            ],
        }


@dataclass(frozen=True, slots=True)
class RuleFile:
    """``NAME.rules.yml``, and ``NAME.rules_test.yml`` with the tests; ``NAME.EVERY.rules_test.yml`` for seldom ones."""

    name: str
    groups: Sequence[Group]
    cases: Sequence[Case]

    def render(self) -> dict[str, str]:
        """File name to text."""
        rules = {"groups": [group.to_dict() for group in self.groups]}
        files = {f"{self.name}.rules.yml": _dump(rules)}
        for every in dict.fromkeys(case.every for case in self.cases):
            tests = {
                "rule_files": [f"{self.name}.rules.yml"],
                "evaluation_interval": every or min(group.interval for group in self.groups),
                "group_eval_order": [group.name for group in self.groups],
                "tests": [case.to_dict() for case in self.cases if case.every == every],
            }
            files[f"{self.name}{every and '.'}{every}.rules_test.yml"] = _dump(tests)
        return files


def _dump(tree: Any) -> str:
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10_000)
    return f"{MARK}\n{text}"


@dataclass(frozen=True, slots=True)
class Entry:
    """An alert of the catalogue with the series that make it fire, and those that do not, each until ``at``."""

    rule: Rule
    fires: Mapping[str, str]
    silent: Mapping[str, str]
    at: str = "30m"
    also_fires: Sequence[Mapping[str, str]] = ()
    also_silent: Sequence[Mapping[str, str]] = ()

    def cases(self) -> list[Case]:
        name = self.rule.alert
        query = firing(name)
        fires = [Case(f"{name} fires", one, [Check(self.at, query, 1)]) for one in (self.fires, *self.also_fires)]
        silent = (self.silent, *self.also_silent)
        return fires + [Case(f"{name} stays silent", one, [Check(self.at, query, None)]) for one in silent]


def firing(alert: str, *matchers: str) -> str:
    """A query that is 1 while the alert fires, and empty while it does not."""
    inner = ",".join((f'alertname="{alert}"', 'alertstate="firing"', *matchers))
    return f"max(ALERTS{{{inner}}})"


def alert(
    links: Links,
    name: str,
    expr: str,
    *,
    notify: Literal["page", "ticket", "watchdog"],
    category: Literal["quality", "drift", "ops"],
    summary: str,
    description: str,
    action: str = "",
    wait: str = "",
    keep: str = "",
    labels: Mapping[str, str] | None = None,
) -> Rule:
    """An alerting rule with the labels and annotations that every alert has. ``severity`` follows from ``notify``."""
    if len(name) > 40:
        raise ValueError(f"{name}: an alert's name has at most 40 characters")
    page = f"{links.pages.rstrip('/')}/{OF_MODEL}"
    of_variable = OF_MODEL.replace("?", "&var-" if "?" in links.dashboard else "?var-")
    severity = {"page": "critical", "ticket": "warning", "watchdog": "info"}[notify]
    own = {"severity": severity, "notify": notify, "category": category}
    if action:
        own["action"] = action
    return Rule(
        expr,
        alert=name,
        labels={**own, **(labels or {})},
        annotations={
            "summary": summary,
            "description": description,
            "runbook_url": f"{links.runbooks.rstrip('/')}/{name}.md",
            "page_url": page,
            "dashboard_url": links.dashboard + of_variable if links.dashboard else page,
        },
        wait=wait,
        keep=keep,
    )
