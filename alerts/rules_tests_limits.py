"""promtool tests of an SLO's alerts at their limits: just above all of them it tells, just off any one it does not.

What rules record of the counters is given here as it is; the counters are tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from alerts.rules import Case, Check
from alerts.rules_tests_counts import DECOY, own_labels, wilson, written
from alerts.slo import kinds
from alerts.slo.promql import duration, quote
from alerts.slo.render import (
    BAD,
    EVENTS,
    INFO,
    LOWER,
    MIN_BAD,
    PERIOD_BAD,
    PERIOD_DESIGN,
    PERIOD_EVENTS,
    RATIO,
    REMAINING,
    alert_name,
    clustered,
    guarded,
    inventory_metric,
)
from alerts.slo.spec import CostPerInference, Slo
from alerts.slo.windows import Burn, Z, fit

EVERY: Final = "8h"
"""Longer than any alert waits."""
MINUTES: Final = 480
MANY: Final = 1e6
"""Events of which a bound is as good as the ratio."""


def cases(slo: Slo) -> list[Case]:
    """Tests of all alerts of an SLO."""
    found: list[Case] = []
    for notify in ("page", "ticket"):
        burns = [burn for burn in fit(slo) if burn.tier.notify == notify]
        for burn in burns:
            found += _burn(slo, burn)
        if burns and slo.hold:
            found.append(_held(slo, burns))
            if inventory_metric(slo):
                found.append(_gone(slo, burns))
    return [*found, *_exhausted(slo), *_silent(slo), *_too_few(slo)]


def _now(values: Mapping[str, float], labels: dict[str, str], before: bool = False) -> dict[str, str]:
    """Recorded series that have a value when rules are evaluated; ``before``: also at the beginning."""
    first = "{0:.10g} _x{1}" if before else "_x{2}"
    return {
        written(metric, labels): first.format(value, MINUTES - 1, MINUTES) + f" {value:.10g}"
        for metric, value in values.items()
    }


def _told(alert: str, slo: str) -> str:
    return f'count(ALERTS{{alertname="{alert}",alertstate="firing",severity!="",slo={quote(slo)}}})'


def _case(slo: Slo, what: str, alert: str, series: Mapping[str, str], fires: bool) -> Case:
    checks = [Check(EVERY, _told(alert, slo.name), 1 if fires else None)]
    if not fires:
        checks.append(Check(EVERY, _told(alert, DECOY), None))
    return Case(f"{slo.name}: {what}", series, checks, every=EVERY)


def _above(slo: Slo, limit: float) -> float:
    """More than the limit, less than one and a half times it, and no more than there can be."""
    return min(1.2 * limit, (1 + limit) / 2) if slo.bounded else 1.2 * limit


def bound(slo: Slo, bad: float, total: float) -> float:
    """What rules make of so many bad events of all: the lower bound, or the ratio where that decides."""
    if isinstance(slo.source, CostPerInference) or not guarded(slo):
        return bad / total
    deff = slo.design_effect or 1.0
    if slo.bounded:
        return wilson(bad, total, deff)
    return float(max(bad**0.5 - 1.645 / 2 * deff**0.5, 0.0) ** 2 / total)


def _burn(slo: Slo, burn: Burn) -> Iterator[Case]:
    alert, where = alert_name(slo, burn.tier.notify), f"{burn.tier.notify} of {burn.long} and {burn.short}"
    limit = burn.threshold
    total = 1.2 * 0.9 * burn.short_s / 60 if slo.timed else MANY

    def given(
        long: float, short: float, events: float = total, left: float | None = None, ago: int = 8
    ) -> dict[str, str]:
        values = {EVENTS + burn.short: MANY, BAD + burn.short: short * MANY}
        values |= {EVENTS + burn.long: events, BAD + burn.long: long * events}
        budget = {} if left is None else {written(REMAINING, own_labels(slo)): f"_x{MINUTES - ago} {left:.10g}"}
        return {**_now(values, own_labels(slo)), **budget}

    high, low = _above(slo, limit), 0.8 * limit
    yield _case(slo, f"{where} above its limit", alert, given(high, high), True)
    other = {RATIO + burn.long: 9.0, LOWER + burn.long: 9.0, RATIO + burn.short: 9.0, REMAINING: -9.0}
    other |= {EVENTS + burn.long: MANY, BAD + burn.long: MANY}
    others = _now(other, own_labels(slo, DECOY))
    yield _case(slo, f"{where}, the long one below", alert, {**given(low / 2.5, high), **others}, False)
    yield _case(slo, f"{where}, the short one below", alert, given(high, low / 2.5), False)
    critical = burn.tier.critical_budget
    if critical is not None:
        between = 0.6 * limit
        yield _case(slo, f"{where}, critical budget", alert, given(between, between, left=critical / 2), True)
        late = given(between, between, left=critical / 2, ago=15)
        yield _case(slo, f"{where}, a budget of long ago", alert, late, False)
        yield _case(slo, f"{where}, enough budget", alert, given(between, between, left=critical * 1.2), False)
    for what, bad, events, fires in _floors(slo, limit):
        yield _case(slo, f"{where}, {what}", alert, given(bad / events, high, events), fires)
    if critical is not None:
        # The short window is between the limits: the page is for the critical budget alone.
        for what, bad, events, fires in _floors(slo, limit / 2):
            few = given(bad / events, 0.6 * limit, events, left=critical / 2)
            yield _case(slo, f"{where}, critical budget, {what}", alert, few, fires)
    if slo.timed:
        few = given(high, high, 0.7 * 0.9 * burn.short_s / 60)
        yield _case(slo, f"{where}, too few minutes", alert, few, False)


def _floors(slo: Slo, limit: float) -> Iterator[tuple[str, float, float, bool]]:
    """Bad and all events just above and below the floors, where the bound does not decide alone.

    Where it does, a floor is of no account, and half as much again is, too.
    """
    if not guarded(slo):
        return
    floor = slo.min_events - 0.5
    for share, fires in ((1.49, True), (0.9, False)):
        events = share * floor
        bad = 0.999 * events if slo.bounded else MANY
        if bound(slo, bad, events) > limit:
            yield f"{events:.3g} events", bad, events, fires
    if isinstance(slo.source, CostPerInference):
        return
    for share, fires in ((1.499, True), (0.9, False)):
        bad = share * MIN_BAD
        # The fewer events, the larger the ratio, and the larger its bound.
        events = 1.001 * floor
        if bound(slo, bad, events) > limit:
            yield f"{bad:.4g} bad events of {events:.4g}", bad, events, fires


def _held(slo: Slo, burns: list[Burn]) -> Case:
    """Fires, is held without data, and is let go by health; alerts of others and pending ones hold nothing."""
    burn = min(burns, key=lambda one: one.short_s)
    alert, labels = alert_name(slo, burn.tier.notify), own_labels(slo)
    high = _above(slo, burn.threshold)
    stays, goes = "_x16", f"{MANY:.10g}x20"
    series = {}
    for window, healthy in ((burn.long, ""), (burn.short, goes)):
        events = f"{MANY:.10g}x2 stale {stays}"
        bad = f"{high * MANY:.10g}x2 stale {stays}"
        series[written(EVENTS + window, labels)] = f"{events} {healthy}"
        series[written(BAD + window, labels)] = f"{bad} {'0x20' if healthy else ''}".strip()
    for name, state, other in ((alert, "firing", DECOY), ("Another", "firing", slo.name), (alert, "pending", slo.name)):
        marks = {
            "alertname": name,
            "alertstate": state,
            **own_labels(slo, other),
            "model": "elsewhere",  # where there are no events that would let go of it
        }
        series[written("ALERTS", marks)] = "_x24 1x20"
        expected = {**own_labels(slo, other), "model": "elsewhere"}
        series[written(INFO, expected)] = "1x40"
    query = f'count(ALERTS{{alertname="{alert}",alertstate="firing",severity!=""}})'
    checks = [Check("2m", query, 1), Check("16m", query, 1), Check("35m", query, None)]
    series = {name: values.strip() for name, values in series.items()} | _expected(slo, "1x40")
    return Case(f"{slo.name}: {alert} is held without data and let go by health", series, checks)


def _expected(slo: Slo, values: str) -> dict[str, str]:
    """The inventory, where it is not in the rules."""
    return {written(INFO, own_labels(slo)): values} if inventory_metric(slo) else {}


def _gone(slo: Slo, burns: list[Burn]) -> Case:
    """Nothing is held of what is no longer expected."""
    burn = min(burns, key=lambda one: one.short_s)
    alert, high = alert_name(slo, burn.tier.notify), _above(slo, burn.threshold)
    series = {}
    for window in (burn.long, burn.short):
        series[written(EVENTS + window, own_labels(slo))] = f"{MANY:.10g}x2 stale"
        series[written(BAD + window, own_labels(slo))] = f"{high * MANY:.10g}x2 stale"
    query = f'count(ALERTS{{alertname="{alert}",alertstate="firing",severity!=""}})'
    checks = [Check("2m", query, 1), Check("12m", query, 1), Check("16m", query, None)]
    series |= _expected(slo, "1x13 stale")
    return Case(f"{slo.name}: {alert} is let go when nothing is expected any more", series, checks)


def _exhausted(slo: Slo) -> Iterator[Case]:
    alert = "SegwatchBudgetExhausted"

    def given(bad: float, total: float) -> dict[str, str]:
        return _now({PERIOD_EVENTS: total, PERIOD_BAD: bad * total}, own_labels(slo))

    high = _above(slo, slo.budget)
    yield _case(slo, "a budget overspent", alert, given(high, MANY), True)
    decoy = {PERIOD_EVENTS: MANY, PERIOD_BAD: MANY, PERIOD_DESIGN: 1.0, REMAINING: -9.0}
    other = _now(decoy, own_labels(slo, DECOY))
    yield _case(slo, "a budget not spent", alert, {**given(0.8 * slo.budget, MANY), **other}, False)
    if guarded(slo):
        floor = slo.min_events - 0.5
        for events, fires in ((1.49 * floor, True), (0.9 * floor, False)):
            bad = 1.0 if slo.bounded else max(MANY, 10 * slo.budget)
            if bound(slo, bad * events, events) > slo.budget:
                yield _case(slo, f"a budget overspent by {events:.3g} events", alert, given(bad, events), fires)


def _silent(slo: Slo) -> Iterator[Case]:
    """Rules are evaluated at the begin and twice after: the inventory is as old as that."""
    alert = "SegwatchClassSilent" if slo.by_class else "SegwatchSloBlind"
    seen = EVENTS + duration(slo.blind_after_s)
    told = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    listed = not inventory_metric(slo)  # then the rules say by themselves what there should be
    names = slo.classes if slo.classes and listed else ("",)

    def case(what: str, every: int, series: Mapping[str, str], fires: bool) -> Case:
        checks = [Check(duration(2 * every), told, len(names) if fires else None)]
        return Case(f"{slo.name}: {what}, looked at after {duration(every)}", series, checks, every=duration(every))

    # What was expected up to twice as long ago will do.
    for count, ago, fires in ((1, 1.75, False), (0, 1.75, True), (0, 2.5, False)):
        every = round(ago * slo.blind_after_s / 60) * 60
        series = {} if fires else _thrice({INFO: 1, seen: 0}, own_labels(slo, DECOY), every)
        for name in names:
            labels = own_labels(slo) | ({"class": quote(name)[1:-1]} if name else {})
            series |= _thrice({seen: count, **({} if listed else {INFO: 1})}, labels, every)
        yield case(f"{count} events in {duration(slo.blind_after_s)}", every, series, fires)
        if fires and not listed:
            gap = every // 60 - 1
            series[written(INFO, own_labels(slo))] = f"_ _x{gap} 1 _x{gap} 1"
            series[written(INFO, {**own_labels(slo), "period": DECOY})] = "1"
            yield case("expected under another period before", every, series, fires)


def _thrice(values: Mapping[str, float], labels: dict[str, str], every: int) -> dict[str, str]:
    """Recorded series with samples at the begin and twice after, so many seconds apart."""
    text = f"{{0:.10g}} _x{every // 60 - 1} {{0:.10g}} _x{every // 60 - 1} {{0:.10g}}"
    return {written(name, labels): text.format(value) for name, value in values.items()}


def _too_few(slo: Slo) -> Iterator[Case]:
    """Each pair that pages has just too few, or one of them enough."""
    pages = [burn for burn in fit(slo) if burn.tier.notify == "page"]
    if not guarded(slo) or not pages:
        return
    alert, longest = "SegwatchTooFewEvents", max(pages, key=lambda one: one.long_s)
    few = {EVENTS + burn.long: 0.9 * _needed(slo, burn) for burn in pages}
    own, other = own_labels(slo), _now(few, own_labels(slo, DECOY), before=True)
    yield _case(slo, "too few events for any page", alert, _now(few, own, before=True), True)
    none = _now({EVENTS + longest.long: 0.0}, own, before=True)
    yield _case(slo, "no events at all", alert, {**none, **other}, False)
    for burn in pages:
        enough = _now({**few, EVENTS + burn.long: 1.05 * _needed(slo, burn)}, own, before=True)
        yield _case(slo, f"enough events for the page of {burn.long}", alert, {**enough, **other}, False)
        if not slo.bounded or not clustered(slo):
            continue
        # Of so many events an image, an image weighs as much as two events.
        (images,) = (one.series for one in kinds.events(slo).examples if one.images)
        for share, fires in ((0.9, True), (1.24, False)):
            seen = share * Z**2 * burn.threshold / (1 - burn.threshold) / 2
            series = _now(few, own, before=True) | {images: f"0x{MINUTES - 1} {seen:.10g}"}
            text = f"{few[EVENTS + burn.long]:.10g} _x{MINUTES - 1} {MANY:.10g}"
            series[written(EVENTS + burn.long, own)] = text
            yield _case(slo, f"{seen:.3g} images in {burn.long}", alert, series, fires)


def _needed(slo: Slo, burn: Burn) -> float:
    """Events from which on a page is possible, where each is an image of its own."""
    floor = slo.min_events - 0.5
    if not slo.bounded:
        return floor
    return max(floor, Z**2 * (slo.design_effect or 1.0) * burn.threshold / (1 - burn.threshold))
