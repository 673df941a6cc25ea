"""Months of labels of many classes through an SLO's rules, on a real Prometheus.

Each run is a model of its own, so that one query judges them all. Rules are evaluated in the order of a rule file,
each layer over all of the time before the next: events and bad events by window, then the budget, and then the page,
in which ratios and bounds stand with their definitions.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerts.rules import Links, Rule
from alerts.slo.parse import parse
from alerts.slo.render import PERIOD_BAD, PERIOD_EVENTS, REMAINING, groups
from alerts.slo.spec import Slo
from bench.slo.prometheus import backfill, over_time, served, write_series

PERIOD_STEP_S = 3600
EPOCH = 1_700_000_000 // 3600 * 3600
RECORD = re.compile(r'segwatch:[\w:]+(?:\{slo="[^"]*"\})')
METRIC = "segwatch_spotcheck_iou_ratio"


@dataclass(frozen=True)
class Labels:
    """Labels that came within each step, (runs, steps), and how many of them are bad.

    ``step_s``: between samples, and between evaluations. With 300 an event is in a window of 5 minutes at just one of
    them, with 60 at five.
    """

    events: NDArray[np.int64]
    bad: NDArray[np.int64]
    step_s: int


def slo(name: str, objective: float, **more: Any) -> Slo:
    """Of one class of each model; no alert is held, so that each interruption counts as another page."""
    own = {"name": name, "kind": "class_iou", "iou": 0.5, "objective": objective, "design_effect": 1, "hold": False}
    (found,) = parse({**own, **more})
    return found


def workbook(name: str, objective: float) -> Slo:
    """The pairs of the SRE workbook that page, on the point estimate."""
    windows = [
        {"notify": "page", "long": "1h", "short": "5m", "factor": 14.4},
        {"notify": "page", "long": "6h", "short": "30m", "factor": 6},
    ]
    return slo(name, objective, guard=False, windows=windows)


def pages(labels: Labels, slos: Sequence[Slo]) -> dict[str, NDArray[np.bool_]]:
    """Whether each SLO pages, (runs, steps), by its name."""
    runs, steps = labels.events.shape
    times = EPOCH + labels.step_s * np.arange(steps)
    found: dict[str, NDArray[np.bool_]] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        recorded = _recorded(folder / "counters", _counters(labels), slos, times)
        (folder / "recorded").mkdir()
        write_series(folder / "recorded" / "series.om", times.tolist(), recorded)
        backfill(folder / "recorded" / "series.om", folder / "recorded" / "data")
        with served(folder / "recorded") as base:
            for one in slos:
                state = np.zeros((runs, steps), dtype=bool)
                for names, values in over_time(base, page(one), times).items():
                    state[int(dict(names)["model"])] |= ~np.isnan(values)
                found[one.name] = state
    return found


def _counters(labels: Labels) -> dict[str, NDArray[np.float64]]:
    """Series as a scrape has them, and that the target was up."""
    where = 'job="segwatch",instance="segwatch"'
    series: dict[str, NDArray[np.float64]] = {f"up{{{where}}}": np.ones(labels.events.shape[1])}
    for run, (events, bad) in enumerate(zip(labels.events, labels.bad, strict=True)):
        own = f'{where},model="{run}",version="1",class="car"'
        series[f"{METRIC}_count{{{own}}}"] = np.cumsum(events).astype(float)
        series[f'{METRIC}_bucket{{{own},le="0.5"}}'] = np.cumsum(bad).astype(float)
    return series


def rules_of(one: Slo) -> list[Rule]:
    """All rules, in their order."""
    return [rule for group in groups(one, Links("", "")) for rule in group.rules]


def _recorded(
    folder: Path, counters: Mapping[str, NDArray[np.float64]], slos: Sequence[Slo], times: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """The series that the first layer records, and each SLO's budget."""
    folder.mkdir(parents=True)
    write_series(folder / "series.om", times.tolist(), counters)
    backfill(folder / "series.om", folder / "data")
    wanted: dict[str, list[tuple[Slo, Rule]]] = {}
    for one in slos:
        page_text = _expanded(one)
        for rule in rules_of(one):
            if rule.record and "increase" in rule.record and (rule.record in page_text or _of_budget(rule, page_text)):
                wanted.setdefault(rule.expr, []).append((one, rule))
    seldom = PERIOD_STEP_S // int(times[1] - times[0])
    series: dict[str, NDArray[np.float64]] = {}
    periods: dict[tuple[str, str, str], NDArray[np.float64]] = {}
    with served(folder) as base:
        for expr, users in wanted.items():
            slow = users[0][1].record in (PERIOD_EVENTS, PERIOD_BAD)
            found = over_time(base, expr, times[::seldom] if slow else times)
            for names, values in found.items():
                model = dict(names)["model"]
                for one, rule in users:
                    full = np.repeat(values, seldom)[: len(times)] if slow else values
                    if slow:
                        periods[one.name, model, rule.record] = full
                    else:
                        series[f'{rule.record}{{slo="{one.name}",model="{model}",class="car"}}'] = full
    budgets = {one.name: one.budget for one in slos}
    for name, model, metric in list(periods):
        if metric == PERIOD_EVENTS:
            total, bad = periods[name, model, PERIOD_EVENTS], periods[name, model, PERIOD_BAD]
            with np.errstate(all="ignore"):
                left = np.where(total > 0, 1 - bad / total / budgets[name], np.nan)
            series[f'{REMAINING}{{slo="{name}",model="{model}",class="car"}}'] = left
    return series


def _of_budget(rule: Rule, text: str) -> bool:
    return rule.record in (PERIOD_EVENTS, PERIOD_BAD) and REMAINING in text


def page(one: Slo) -> str:
    """The expression of the page, over events and the budget alone."""
    return _expanded(one)


def _expanded(one: Slo) -> str:
    rules = rules_of(one)
    by_name = {rule.record: rule.expr for rule in rules if "ratio" in rule.record and rule.record != REMAINING}
    (text,) = (rule.expr for rule in rules if rule.alert.endswith("BurnFast"))

    def definition(found: re.Match[str]) -> str:
        expr = by_name.get(found[0].partition("{")[0])
        return f"({RECORD.sub(definition, expr)})" if expr else found[0]

    return RECORD.sub(definition, text)


def episodes(state: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each run began to page."""
    begun = state[:, 1:] & ~state[:, :-1]
    return np.asarray(begun.sum(axis=1) + state[:, 0])
