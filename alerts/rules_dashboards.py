"""Recorded series for dashboards: SLOs by one name for all windows, and the alerts that fire.

Rules add series up, and what is added up has lost ``job`` and ``instance``. Dashboards choose by these two, so here
they are given back, with the words that say what an SLO is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from alerts.rules import Case, Check, Group, Rule, RuleFile
from alerts.slo import render
from alerts.slo.kinds import static_labels
from alerts.slo.promql import KEPT, duration, number, quote
from alerts.slo.render import PERIOD_BAD, PERIOD_EVENTS, RATIO, REMAINING, of
from alerts.slo.spec import Slo
from alerts.slo.windows import fit

OBJECTIVE: Final = "segwatch:dashboard_slo_objective:ratio"
GOOD: Final = "segwatch:dashboard_slo_good:ratio"
LEFT: Final = "segwatch:dashboard_slo_budget_remaining:ratio"
BURN: Final = "segwatch:dashboard_slo_burn_rate:ratio"
ALERTS: Final = "segwatch:dashboard_alerts:firing"
RECORDED: Final = (OBJECTIVE, GOOD, LEFT, BURN, ALERTS)

SHOWN: Final = "alertname, severity, notify, category, slo, model, version, class, slice, signal, topic"
"""Labels of an alert that a table of alerts shows."""


def rule_file(slos: Sequence[Slo], job: str, instance: str) -> RuleFile:
    """``dashboards.rules.yml``. ``job`` and ``instance``: those that segwatch is scraped under."""
    target = {"job": job, "instance": instance}
    groups = [Group(f"segwatch-dashboards-{slo.name}", _of_slo(slo, target)) for slo in slos]
    firing = f'max by ({SHOWN}) (ALERTS{{alertname=~"Segwatch.+",alertstate="firing"}})'
    groups.append(Group("segwatch-dashboards-alerts", [Rule(firing, record=ALERTS, labels=target)]))
    return RuleFile("dashboards", groups, [*map(_case, slos), *_alert_cases()])


def _of_slo(slo: Slo, target: dict[str, str]) -> list[Rule]:
    labels = {
        **target,
        **static_labels(slo),
        "kind": slo.kind,
        "category": slo.category,
        "period": duration(slo.period_s),
    }
    left, total, bad = (f"last_over_time({of(slo, name)}[{KEPT}])" for name in (REMAINING, PERIOD_EVENTS, PERIOD_BAD))
    rules = [Rule(left, record=LEFT, labels=labels)]
    if slo.objective is not None:
        rules.append(Rule(of(slo, render.OBJECTIVE), record=OBJECTIVE, labels=labels))
        # Both are extrapolated, each for itself.
        rules.append(Rule(f"clamp(1 - {bad} / ({total} > 0), 0, 1)", record=GOOD, labels=labels))
    burns = fit(slo)
    spans = {max(burn.long_s for burn in burns): "long", min(burn.long_s for burn in burns): "short"}
    for size in sorted({size for burn in burns for size in (burn.long_s, burn.short_s)}):
        window = duration(size)
        span = {"span": spans[size]} if size in spans else {}
        burn = f"{of(slo, RATIO + window)} / {number(slo.budget)}"
        rules.append(Rule(burn, record=BURN, labels={**labels, "window": window, **span}))
    return rules


def _case(slo: Slo) -> Case:
    """A tenth of events were bad, and twice the budget in the windows."""
    own = f"{{slo={quote(slo.name)}}}"
    series = {REMAINING + own: "0.5x40", PERIOD_EVENTS + own: "100x40", PERIOD_BAD + own: "10x40"}
    if slo.objective is not None:
        series[render.OBJECTIVE + own] = f"{slo.objective}x40"
    windows = {duration(size) for burn in fit(slo) for size in (burn.long_s, burn.short_s)}
    series |= {RATIO + window + own: f"{2 * slo.budget:.12g}x40" for window in sorted(windows)}
    mine = f'{{slo={quote(slo.name)},job!="",instance!=""}}'
    wanted: dict[str, float | None] = {
        f"sum({LEFT}{mine})": 0.5,
        f"sum({BURN}{mine} > bool 1.99)": len(windows),
        f'count({BURN}{{slo={quote(slo.name)},span="short"}})': 1,
        f"sum({OBJECTIVE}{mine})": slo.objective,
        f"sum({GOOD}{mine})": None if slo.objective is None else 0.9,
    }
    return Case(f"{slo.name} is shown", series, [Check("30m", query, value) for query, value in wanted.items()])


def _alert_cases() -> list[Case]:
    series = {
        'ALERTS{alertname="SegwatchDrift",alertstate="firing",model="street",instance="a",other="1"}': "1x10",
        'ALERTS{alertname="SegwatchDrift",alertstate="firing",model="street",instance="b",other="2"}': "1x10",
        'ALERTS{alertname="SegwatchDrift",alertstate="pending",model="yard"}': "1x10",
        'ALERTS{alertname="Other",alertstate="firing"}': "1x10",
    }
    shown = Check("5m", f'count({ALERTS}{{job!="",instance!=""}})', 1)
    return [Case("alerts that fire are shown once", series, [shown])]
