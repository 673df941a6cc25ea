"""promtool tests of an SLO's recorded series: at a steady pace each window has its share, and nothing else is counted.

Rules are evaluated once, at the end of two periods, so that a month costs no more than an hour.
"""

from __future__ import annotations

import re
from typing import Final

from alerts.rules import Case, Check
from alerts.slo.kinds import STATE, Example, events, example_series, identity, parts
from alerts.slo.promql import duration, number, quote, selector
from alerts.slo.render import (
    BAD,
    DESIGN,
    EVENTS,
    INFO,
    LOWER,
    OBJECTIVE,
    PERIOD_BAD,
    PERIOD_DESIGN,
    PERIOD_EVENTS,
    RATIO,
    REMAINING,
    clustered,
    guarded,
    inventory_metric,
    of,
    windows,
)
from alerts.slo.spec import CostPerInference, Freshness, Ratio, Slo
from alerts.slo.windows import HOUR, Z, fit

PACE: Final = 2.0
"""Events a minute."""
AN_IMAGE: Final = 5
"""Events an image, where images are behind them: a design effect of 1 + 0.5 (5 - 1) = 3."""
DECOY: Final = "decoy"


SHORT: Final = 8 * HOUR
"""Moment at which short windows are looked at; long ones are at the end of two of the longest."""
BEGIN: Final = "1"
"""A sample at the begin: promtool refuses samples that are much older than the first that it happens to read."""
SAMPLES: Final = 20
"""Samples of a window; promtool reads at most 10,000 for a query."""


def moment(slo: Slo, needed_s: int) -> int:
    """When everything is looked at that needs so many seconds."""
    return SHORT if needed_s <= SHORT else 2 * max(slo.period_s, *windows(slo, fit(slo)))


def cases(slo: Slo) -> list[Case]:
    """Tests of what an SLO records."""
    found = [_steady(slo, size) for size in (*windows(slo, fit(slo)), 0)]
    if inventory_metric(slo):
        found.append(_forgotten(slo))
    return found + (_states(slo) if slo.timed else [])


def labels_of(text: str) -> dict[str, str]:
    """The labels of a series or selector, as they are written.

    >>> labels_of('a{b="c",d=~"e|f"}')
    {'b': 'c', 'd': 'e|f'}
    """
    return dict(re.findall(r'(\w+)\s*=~?\s*"((?:[^"\\]|\\.)*)"', text))


def written(metric: str, labels: dict[str, str]) -> str:
    """A series whose label values are already escaped."""
    return metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def own_labels(slo: Slo, name: str = "") -> dict[str, str]:
    """Labels of the SLO's recorded series in a test, or of one of another name."""
    example = labels_of(example_series(slo, "x"))
    kept = {key: example[key] for key in identity(slo) if key in example}
    if isinstance(slo.source, Ratio) and not slo.model:
        kept.pop("model", None)
    return {"slo": quote(name or slo.name)[1:-1], **kept}


def decoys(slo: Slo, series: str) -> list[str]:
    """Series that differ in one label from one that counts, and must not."""
    metric, labels = series.partition("{")[0], labels_of(series)
    free = set() if isinstance(slo.source, Ratio) else ({"version"} if not slo.version else set())
    if slo.by_class and not slo.classes:
        free.add("class")
    found = []
    for name in labels:
        if name in free or (isinstance(slo.source, Ratio) and _in_total(slo.source, metric, name)):
            continue
        other = {**labels, name: DECOY}
        if name == "model" and not slo.model and not isinstance(slo.source, Ratio):
            del other["model"]  # any model counts, and what has none is of the service itself
        found.append(written(metric, other))
        if "class" in free & set(labels):
            found.append(written(metric, {**other, "class": DECOY}))  # nor is there another class for it
    return found


def _in_total(source: Ratio, metric: str, name: str) -> bool:
    """Whether all events take in series whatever that label says."""
    return any(part.partition("{")[0].strip() == metric and name not in labels_of(part) for part in parts(source.total))


def single(query: str, value: float) -> str:
    """1 where the query yields one series, within a fifth of the value."""
    low, high = sorted((0.8 * value, 1.25 * value))
    return f"count({query} >= {number(low)} <= {number(high)}) * count({query})"


def wilson(bad: float, total: float, deff: float) -> float:
    """One-sided 95 % lower bound of a share."""
    n, share = total / deff, min(bad / total, 1.0)
    spread = Z * ((share * (1 - share) / n + Z**2 / 4 / n**2) ** 0.5)
    return float(max((share + Z**2 / 2 / n - spread) / (1 + Z**2 / n), 0.0))


def pace(example: Example) -> float:
    """Steps a minute when one event of four is bad."""
    step = PACE * (0.75 * example.healthy[1] + 0.25 * example.failing[1])
    return step / AN_IMAGE if example.images else step


def bad_pace(slo: Slo, examples: tuple[Example, ...]) -> float:
    """Bad events a minute, where one of four is bad."""
    if slo.timed:
        return 1.0
    if slo.bounded:
        return 0.25 * PACE
    amount = next(one for one in examples if one.failing[1] not in (0, 1))
    return pace(amount)


def _steady(slo: Slo, size: int) -> Case:
    """Twice the window at one pace, so that a window of twice the length, or one label less, is seen. 0: the period."""
    length = size or slo.period_s
    step, at = length // SAMPLES, moment(slo, 2 * length)
    before, samples = (at - 2 * length) // step, 2 * SAMPLES
    examples = events(slo).examples
    series: dict[str, str] = {}

    def steady(a_minute: float) -> str:
        return (
            f"_x{before} 0+{a_minute * step / 60:.10g}x{samples}"
            if before
            else f"0+{a_minute * step / 60:.10g}x{samples}"
        )

    if slo.timed:
        states = f"_x{before} 1x{samples}" if before else f"1x{samples}"
        series = dict.fromkeys((written(STATE, own_labels(slo)), written(STATE, own_labels(slo, DECOY))), states)
        total, bad = 60 / step, 60 / step
    else:
        for one in examples:
            series |= dict.fromkeys(decoys(slo, one.series), steady(10 * PACE))
        series |= {one.series: steady(pace(one)) for one in examples}
        total, bad = PACE, bad_pace(slo, examples)
    series |= {name: values for name, values in inventory(slo, steady(0)).items() if name not in series}
    other = (
        [metric + duration(size) for metric in (EVENTS, BAD, RATIO, DESIGN)] if size else [PERIOD_EVENTS, PERIOD_BAD]
    )
    series |= {written(metric, own_labels(slo, DECOY)): f"_x{before + samples} 50" for metric in (INFO, *other)}
    series["up"] = BEGIN
    every = duration(at)
    checks = _window(slo, size, total, bad, every) if size else _budget(slo, total, bad, every)
    name = f"{slo.name}: {duration(length)} has its share"
    return Case(name, series, checks, interval=duration(step), every=every)


def _window(slo: Slo, size: int, total: float, bad: float, at: str) -> list[Check]:
    window, minutes = duration(size), size / 60
    values = {EVENTS: total * minutes, BAD: bad * minutes}
    burns = fit(slo)
    if size in {length for burn in burns for length in (burn.long_s, burn.short_s)}:
        values[RATIO] = bad / total
    if guarded(slo) and size in {burn.long_s for burn in burns}:
        deff = 1 + 0.5 * (AN_IMAGE - 1) if clustered(slo) else slo.design_effect or 1.0
        if clustered(slo):
            values[DESIGN] = deff
        if isinstance(slo.source, CostPerInference):
            values[LOWER] = bad / total
        else:
            values[LOWER] = wilson(values[BAD], values[EVENTS], deff) if slo.bounded else 0.0
    checks = []
    for metric, value in values.items():
        query = of(slo, metric + window)
        # A bound of so few events is 0 or nearly so: that it is there is all that can be said.
        checks.append(Check(at, single(query, value) if value > 0.01 else f"count({query})", 1))
    return checks


def _budget(slo: Slo, total: float, bad: float, at: str) -> list[Check]:
    minutes = slo.period_s / 60
    series = len(slo.classes) if slo.classes and not inventory_metric(slo) else 1

    def listed(metric: str) -> str:
        # A class whose series do not count may be expected all the same.
        return selector(metric, f"slo={quote(slo.name)}", f'class!="{DECOY}"')

    checks = [
        Check(at, single(of(slo, PERIOD_EVENTS), total * minutes), 1),
        Check(at, single(of(slo, PERIOD_BAD), bad * minutes), 1),
        Check(at, single(of(slo, REMAINING), 1 - bad / total / slo.budget), 1),
        Check(at, f"count({listed(INFO)})", series),
    ]
    if guarded(slo) and clustered(slo):
        checks.append(Check(at, single(of(slo, PERIOD_DESIGN), 1 + 0.5 * (AN_IMAGE - 1)), 1))
    if slo.objective is not None:
        checks.append(Check(at, f"count({listed(OBJECTIVE)} == {number(slo.objective)})", series))
    return checks


def inventory(slo: Slo, values: str) -> dict[str, str]:
    """The counter that the inventory is read from, if it is none of those that are counted anyhow."""
    metric = inventory_metric(slo)
    if not metric:
        return {}
    text = example_series(slo, metric, inventory="1")
    return {one: values for one in (text, *decoys(slo, text)) if f'inventory="{DECOY}"' not in one}


def _forgotten(slo: Slo) -> Case:
    """Of whatever had no sample for more than a day nothing is expected any more, though others have some."""
    step, at = 4 * HOUR, moment(slo, SHORT + 1)
    own, *others = inventory(slo, "")
    series = {own: f"_x{(at - 36 * HOUR) // step} 0", **dict.fromkeys(others, f"_x{at // step} 0")}
    series["up"] = BEGIN
    checks = [Check(duration(at), f"count({of(slo, INFO)})", None)]
    name = f"{slo.name}: what is gone for a day is forgotten"
    return Case(name, series, checks, interval=duration(step), every=duration(at))


def _states(slo: Slo) -> list[Case]:
    """The minute itself: good or bad, whatever others do."""
    (example,) = events(slo).examples
    every, samples = duration(SHORT), SHORT // 60
    query = f"max({of(slo, STATE)}) + count({of(slo, STATE)})"
    if isinstance(slo.source, Freshness):
        fresh, old = (f"{SHORT - share * slo.source.max_age_s:.10g}" for share in (0.8, 1.2))
        # A newer time of another would show, an older one would not.
        found = [("good", fresh, fresh), ("bad", old, fresh)]
    else:
        found = [("good", "0", "1"), ("bad", "1", "1")]
    return [
        Case(
            f"{slo.name}: a {name} minute",
            {
                **dict.fromkeys(decoys(slo, example.series), f"_x{samples} {other}"),
                example.series: f"_x{samples} {own}",
            },
            [Check(every, query, 2 if name == "bad" else 1)],
            every=every,
        )
        for name, own, other in found
    ]
