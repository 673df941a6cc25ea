"""An SLO's rules: births, events by window, ratios, lower bounds, burn-rate alerts, budget, inventory, blindness."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from alerts.rules import Group, Links, Rule, alert
from alerts.slo.kinds import (
    STATE,
    born_over_s,
    by,
    design_effect,
    events,
    identity,
    series,
    siblings,
    static_labels,
)
from alerts.slo.promql import (
    BIRTH,
    BORN_WITH,
    DOUBTED,
    FIRST,
    KEPT,
    births,
    doubted,
    duration,
    firsts,
    number,
    quote,
    selector,
    tile_s,
)
from alerts.slo.spec import ClassIou, Confidence, CostPerInference, Latency, Ratio, Slo
from alerts.slo.texts import Seen, burning, events_of, percent, subject
from alerts.slo.windows import Burn, Z, events_needed, fit

EVENTS: Final = "segwatch:slo_events:increase"
BAD: Final = "segwatch:slo_bad_events:increase"
RATIO: Final = "segwatch:slo_error_ratio:ratio"
LOWER: Final = "segwatch:slo_error_ratio_lower:ratio"
DESIGN: Final = "segwatch:slo_design_effect:ratio"
"""Each followed by its window: one name a window, so that ``and`` compares like with like."""
PERIOD_DESIGN: Final = "segwatch:slo_period_design_effect:ratio"
PERIOD_EVENTS: Final = "segwatch:slo_period_events:increase"
PERIOD_BAD: Final = "segwatch:slo_period_bad_events:increase"
REMAINING: Final = "segwatch:slo_budget_remaining:ratio"
INFO: Final = "segwatch_slo_info"
OBJECTIVE: Final = "segwatch_slo_objective_ratio"

RECORDS: Final = "segwatch_records_total"
EXPECTED: Final[dict[type, str]] = {
    ClassIou: "segwatch_spotcheck_iou_ratio_count",
    Confidence: "segwatch_confidence_ratio_count",
    Latency: "segwatch_inference_latency_seconds_count",
}
"""Counters that exist at 0 for each model or class; kinds that are not named here use the usual ones."""

SELDOM: Final = "5m"
"""Windows of 30 days are dear, and move slowly."""

MIN_BAD: Final = 1.5
"""More than one bad event; increase() gives 1.02 or 0.98 for one, by extrapolation."""


def groups(slo: Slo, links: Links) -> list[Group]:
    """The rules of an SLO in groups of at most 20, evaluated in this order."""
    burns = fit(slo)
    name = f"segwatch-slo-{slo.name}"
    born = _births(slo)
    return [
        *([Group(f"{name}-births", born, SELDOM)] if born else []),
        Group(f"{name}-events", [*_inventory(slo), *_counts(slo, burns)]),
        Group(f"{name}-burn", [*_ratios(slo, burns), *burn_alerts(slo, burns, links), *_blindness(slo, burns, links)]),
        Group(f"{name}-budget", _budget(slo, links), SELDOM),
    ]


def _births(slo: Slo) -> list[Rule]:
    """All that takes time stands first, so that no rule reads the events of one counter before those of another."""
    counters = events(slo).born
    if not counters:
        return []
    period_s = born_over_s(slo)
    period, tile = duration(period_s), duration(tile_s(period_s))
    exprs = {
        BIRTH: births(counters, period, tile),
        FIRST: firsts(counters, period, tile, of(slo, BIRTH)),
        DOUBTED: doubted(counters, period, tile, of(slo, FIRST)),
        BORN_WITH: f"{of(slo, FIRST)} unless on ({siblings(slo)}) {of(slo, DOUBTED)}",
    }
    return [Rule(expr, record=name, labels={"slo": slo.name}) for name, expr in exprs.items()]


def of(slo: Slo, metric: str) -> str:
    """A recorded series of this SLO."""
    return selector(metric, f"slo={quote(slo.name)}")


def guarded(slo: Slo) -> bool:
    """Whether lower bounds decide. Minutes are not drawn at random, and money is not counted."""
    return slo.guard and not slo.timed


def windows(slo: Slo, burns: Iterable[Burn]) -> list[int]:
    return sorted({slo.blind_after_s, *(size for burn in burns for size in (burn.long_s, burn.short_s))})


def _inventory(slo: Slo) -> list[Rule]:
    labels = static_labels(slo)
    period = duration(slo.period_s)
    described = {**labels, "kind": slo.kind, "category": slo.category, "period": period}
    expected = _expected(slo)
    objective = slo.objective if slo.objective is not None else slo.budget
    rules = [Rule(expected, record=INFO, labels=described)]
    if slo.objective is not None:
        rules.append(Rule(f"{of(slo, INFO)} * 0 + {number(objective)}", record=OBJECTIVE, labels=labels))
    return rules


def _expected(slo: Slo) -> str:
    """1 for each series that the SLO should have, whether it has data or not."""
    metric = inventory_metric(slo)
    if metric:
        # A day without data must not empty the inventory: that is when it is needed.
        return f"group by ({by(slo)}) (last_over_time({series(slo, metric)}[1d]))"
    named = [f'label_replace(vector(1), "class", {quote(name.replace("$", "$$"))}, "", "")' for name in slo.classes]
    return " or ".join(named) or "vector(1)"


def inventory_metric(slo: Slo) -> str:
    """The counter whose series say which models and classes there are; "" where the SLO says it itself."""
    if isinstance(slo.source, Ratio) or (slo.model and (slo.classes or not slo.by_class)):
        return ""
    return EXPECTED.get(type(slo.source), "segwatch_spotcheck_instances_total" if slo.by_class else RECORDS)


def _counts(slo: Slo, burns: Iterable[Burn]) -> list[Rule]:
    found = events(slo)
    labels = static_labels(slo)
    rules = [Rule(found.state, record=STATE, labels=labels)] if found.state else []
    for size in windows(slo, burns):
        window = duration(size)
        rules.append(Rule(found.total(window), record=EVENTS + window, labels=labels))
        rules.append(Rule(found.bad(window), record=BAD + window, labels=labels))
    return rules


def _ratio(slo: Slo, bad: str, total: str) -> str:
    """Bad over all events; no series, rather than NaN, where there were none."""
    share = f"{bad} / ({total} > 0)"
    return f"clamp_max({share}, 1)" if slo.bounded else share


def lower_bound(slo: Slo, ratio: str, bad: str, total: str, deff: str) -> str:
    """One-sided 95 % lower bound of the ratio of bad events.

    Shares: Wilson (1927) with the number of events over the design effect. Counts an image: the square of
    (sqrt(count) - z / 2 sqrt(design effect)), for the square root of a Poisson count has a variance of 1/4
    (Anscombe, 1948). Money: the ratio itself.
    """
    if isinstance(slo.source, CostPerInference):
        return ratio
    if not slo.bounded:
        return f"clamp_min(sqrt({bad}) - {number(Z / 2 * math.sqrt(float(deff)))}, 0) ^ 2 / ({total} > 0)"
    n = f"({total} / {deff})"
    spread = f"{number(Z)} * sqrt({ratio} * (1 - {ratio}) / {n} + {number(Z**2 / 4)} / {n} ^ 2)"
    return f"clamp_min(({ratio} + {number(Z**2 / 2)} / {n} - {spread}) / (1 + {number(Z**2)} / {n}), 0)"


def _ratios(slo: Slo, burns: Iterable[Burn]) -> list[Rule]:
    labels = static_labels(slo)
    sizes = sorted({size for burn in burns for size in (burn.long_s, burn.short_s)})
    rules = [
        Rule(_ratio(slo, of(slo, BAD + window), of(slo, EVENTS + window)), record=RATIO + window, labels=labels)
        for window in map(duration, sizes)
    ]
    if not guarded(slo):
        return rules
    for window in sorted({burn.long for burn in burns}):
        total = of(slo, EVENTS + window)
        deff = design_effect(slo, total, window)
        if not deff.replace(".", "").isdigit():
            rules.append(Rule(deff, record=DESIGN + window, labels=labels))
            deff = of(slo, DESIGN + window)
        bound = lower_bound(slo, of(slo, RATIO + window), of(slo, BAD + window), total, deff)
        rules.append(Rule(bound, record=LOWER + window, labels=labels))
    return rules


def _condition(slo: Slo, burn: Burn) -> str:
    """Where a pair of windows alarms. At half its factor while the budget is critical: at 1 any spending would."""
    long, short = of(slo, (LOWER if guarded(slo) else RATIO) + burn.long), of(slo, RATIO + burn.short)

    def beyond(limit: float, *more: str) -> str:
        parts = [f"{long} > {number(limit)}", f"{short} > {number(limit)}", *more, *_floors(slo, burn)]
        return f"({' and '.join(parts)})"

    critical = burn.tier.critical_budget
    if critical is None:
        return beyond(burn.threshold)
    spent = f"last_over_time({of(slo, REMAINING)}[{KEPT}]) < {number(critical)}"
    return f"{beyond(burn.threshold)} or {beyond(burn.threshold / 2, spent)}"


def _floors(slo: Slo, burn: Burn) -> list[str]:
    if slo.timed:
        return [f"{of(slo, EVENTS + burn.long)} >= {number(0.9 * burn.short_s / 60)}"]
    if not slo.guard:
        return []
    # Half an event of slack: increase() extrapolates, and may give 5.9 for 6.
    floors = [f"{of(slo, EVENTS + burn.long)} > {number(slo.min_events - 0.5)}"]
    if not isinstance(slo.source, CostPerInference):
        floors.append(f"{of(slo, BAD + burn.long)} > {number(MIN_BAD)}")
    return floors


def alert_name(slo: Slo, notify: str) -> str:
    """The name of an SLO's burn-rate alert."""
    what = "Quality" if slo.category == "quality" else "Service"
    return f"Segwatch{what}Burn{'Fast' if notify == 'page' else 'Slow'}"


def burn_alerts(slo: Slo, burns: Iterable[Burn], links: Links) -> list[Rule]:
    """One page and one ticket: all pairs of windows of the same urgency are one alert, for one cause."""
    rules = []
    for notify in ("page", "ticket"):
        own = [burn for burn in burns if burn.tier.notify == notify]
        if not own:
            continue
        name = alert_name(slo, notify)
        expr = " or ".join(_condition(slo, burn) for burn in own)
        if slo.hold:
            expr += f" or {_held(slo, name, min(burn.short_s for burn in own))}"
        rules.append(
            alert(
                links,
                name,
                expr,
                notify="page" if notify == "page" else "ticket",
                category=slo.category,
                summary=f"The error budget of an SLO burns {'fast' if notify == 'page' else 'steadily'}.",
                description=_description(slo, own),
                labels={"kind": slo.kind},
            )
        )
    return rules


def _held(slo: Slo, name: str, short_s: int) -> str:
    """The alert as it fires now, while its shortest window has no events: no news is not good news.

    What is gone from the inventory is not waited for.
    """
    firing = f'ALERTS{{alertname="{name}",alertstate="firing",slo={quote(slo.name)}}}'
    labels = ", ".join(identity(slo))
    empty = f"unless ({of(slo, EVENTS + duration(short_s))} > 0)"
    return f"(max by ({labels}) ({firing}) {empty} and on ({labels}) {of(slo, INFO)})"


def _description(slo: Slo, burns: Iterable[Burn]) -> str:
    """What each pair of windows that alarms has seen; nothing alarms while the alert is held."""
    lower = LOWER if guarded(slo) and not isinstance(slo.source, CostPerInference) else ""
    seen = [
        Seen(
            _condition(slo, burn),
            burn.long,
            of(slo, RATIO + burn.long),
            lower and of(slo, lower + burn.long),
            of(slo, EVENTS + burn.long),
        )
        for burn in burns
    ]
    return burning(slo, seen, f"last_over_time({of(slo, REMAINING)}[{KEPT}])")


def _blindness(slo: Slo, burns: tuple[Burn, ...], links: Links) -> list[Rule]:
    """No events at all, and too few to ever page. ``absent()`` cannot name classes: the inventory can."""
    labels = ", ".join(identity(slo))
    window = duration(slo.blind_after_s)
    # What is new, or in a new Prometheus, has not been silent for so long. That it has been expected is in the labels
    # that tell series apart: the others change with the SLO's file. A Prometheus may have been down for as long.
    known = f"last_over_time({of(slo, INFO)}[{window}] offset {window})"
    rules = [
        alert(
            links,
            "SegwatchClassSilent" if slo.by_class else "SegwatchSloBlind",
            f"{of(slo, INFO)} and on ({labels}) {known} unless on ({labels}) ({of(slo, EVENTS + window)} > 0)",
            notify="ticket",
            category=slo.category,
            summary="An SLO has had no data: whether it is met is not known.",
            description=f"{subject(slo)} has had no {events_of(slo)} in {window}.",
            wait="15m",
            labels={"kind": slo.kind},
        )
    ]
    pages = [burn for burn in burns if burn.tier.notify == "page"]
    return [*rules, _too_few(slo, pages, links)] if guarded(slo) and pages else rules


def _too_few(slo: Slo, pages: list[Burn], links: Links) -> Rule:
    """Some events, and in no pair that pages so many that its bound could exceed its limit if all were bad."""
    longest = max(pages, key=lambda one: one.long_s)
    enough = " ".join(f"unless ({_enough(slo, burn)})" for burn in pages)
    needed = " or ".join(f"{events_needed(slo, burn.threshold)} in {burn.long}" for burn in pages)
    more = "; more, where an image has several" if clustered(slo) else ""
    return alert(
        links,
        "SegwatchTooFewEvents",
        f"{of(slo, EVENTS + longest.long)} > 0 {enough}",
        notify="ticket",
        category=slo.category,
        summary="An SLO has too few events for its pages: even total failure would go unnoticed.",
        description=f'{subject(slo)} has had {{{{ $value | printf "%.0f" }}}} {events_of(slo)} in {longest.long}.'
        f" Before a page can be justified, {needed} are needed{more}.",
        wait="6h",
        labels={"kind": slo.kind},
    )


def clustered(slo: Slo) -> bool:
    """Whether the design effect is estimated."""
    return slo.design_effect is None and events(slo).images is not None


def _enough(slo: Slo, burn: Burn) -> str:
    """Wilson's bound of n events that are all bad is n / (n + z^2), with n over the design effect."""
    total = of(slo, EVENTS + burn.long)
    floor = slo.min_events - 0.5
    if not slo.bounded:
        return f"{total} > {number(floor)}"
    effective = Z**2 * burn.threshold / (1 - burn.threshold)
    if not clustered(slo):
        return f"{total} > {number(max(floor, effective * (slo.design_effect or 1.0)))}"
    enough = f"{total} / {of(slo, DESIGN + burn.long)} > {number(effective)}"
    # The design effect is 1 or more, so that the floor is of no account where the bound takes as many events.
    return enough if effective >= floor else f"{total} > {number(floor)} and {enough}"


def _budget(slo: Slo, links: Links) -> list[Rule]:
    found = events(slo)
    labels = static_labels(slo)
    period = duration(slo.period_s)
    total, bad = of(slo, PERIOD_EVENTS), of(slo, PERIOD_BAD)
    spent = f"{bad} / ({total} > 0)"
    rules = [
        Rule(found.total(period), record=PERIOD_EVENTS, labels=labels),
        Rule(found.bad(period), record=PERIOD_BAD, labels=labels),
        Rule(f"1 - {spent} / {number(slo.budget)}", record=REMAINING, labels=labels),
    ]
    expr = f"{of(slo, REMAINING)} < 0"
    if guarded(slo):
        ratio = f"({_ratio(slo, bad, total)})"
        deff = number(slo.design_effect or 1.0)
        if clustered(slo):
            rules.append(Rule(design_effect(slo, total, period), record=PERIOD_DESIGN, labels=labels))
            deff = of(slo, PERIOD_DESIGN)
        expr += f" and {lower_bound(slo, ratio, bad, total, deff)} > {number(slo.budget)}"
        expr += f" and {total} > {number(slo.min_events - 0.5)}"
    rules.append(
        alert(
            links,
            "SegwatchBudgetExhausted",
            expr,
            notify="ticket",
            category=slo.category,
            summary="An SLO's error budget is used up.",
            description=f"{subject(slo)} has {percent(slo, of(slo, REMAINING), '%.0f')} of its {period} budget left.",
            labels={"kind": slo.kind},
        )
    )
    return rules
