"""promtool tests of an SLO's own rules: that they page when they must, and only then."""

from __future__ import annotations

import math

from alerts import rules_tests_births, rules_tests_counts, rules_tests_limits
from alerts.rules import Case, Check, firing
from alerts.slo.kinds import Example, events
from alerts.slo.promql import quote
from alerts.slo.render import BAD, EVENTS, LOWER, RATIO, REMAINING, alert_name, guarded, of
from alerts.slo.spec import Slo
from alerts.slo.windows import Burn, fit

RATE = 2.0
"""Events a minute: enough for any guard within the shortest window."""


def cases(slo: Slo) -> list[Case]:
    """Tests of one SLO; none where its series cannot be told from its queries."""
    examples = events(slo).examples
    if not examples:
        return []
    burns = fit(slo)
    pages = [burn for burn in burns if burn.tier.notify == "page"]
    found = [_outage(slo, burns, examples), _healthy(slo, burns, examples), _idle(slo, burns, examples)]
    if pages and guarded(slo):
        found.append(_single(slo, examples))
    if slo.hold and pages:
        found.append(_lost(slo, pages, examples))
    return [*found, *rules_tests_counts.cases(slo), *rules_tests_births.cases(slo), *rules_tests_limits.cases(slo)]


BEFORE = 31
"""Minutes of health before an outage."""


def _minutes(slo: Slo, burns: tuple[Burn, ...] | list[Burn]) -> int:
    """Minutes of total failure, after those of health, until the quickest pair of windows must have told."""
    found = []
    for burn in burns:
        limit = burn.threshold if slo.bounded else 0.2  # examples of unbounded kinds fail by 100 times the limit
        needed = [min(limit * size / 60, BEFORE * limit / (1 - limit)) for size in (burn.long_s, burn.short_s)]
        if slo.timed:
            needed.append(burn.short_s / 60 - BEFORE)
        found.append(max(needed))
    return math.ceil(min(found)) + 10


def _series(examples: tuple[Example, ...], healthy: int, failing: int, rate: float = RATE) -> dict[str, str]:
    """``healthy`` minutes in which all is well, then ``failing`` ones."""
    found: dict[str, str] = {}
    for example in examples:
        text, value = "", 0.0
        for minutes, (start, step) in ((healthy, example.healthy), (failing, example.failing)):
            step *= rate if example.counter else 1
            if not text or (not example.counter and step == 0 and start):
                value = start
            if minutes:
                text += f" {value:g}+{step:g}x{minutes - 1}" if step else f" {value:g}x{minutes - 1}"
                value += step * minutes
        found[example.series] = text.strip()
    return found


def _fires(slo: Slo, notify: str) -> str:
    return firing(alert_name(slo, notify), f"slo={quote(slo.name)}")


def _outage(slo: Slo, burns: tuple[Burn, ...], examples: tuple[Example, ...]) -> Case:
    checks = []
    longest = 0
    for notify in ("page", "ticket"):
        own = [burn for burn in burns if burn.tier.notify == notify]
        if own:
            minutes = _minutes(slo, own)
            longest = max(longest, minutes)
            checks.append(Check(f"{BEFORE + minutes}m", _fires(slo, notify), 1))
            checks.append(Check(f"{BEFORE}m", _fires(slo, notify), None))
    return Case(f"{slo.name}: total failure is told", _series(examples, BEFORE + 1, longest + 10), checks)


def _healthy(slo: Slo, burns: tuple[Burn, ...], examples: tuple[Example, ...]) -> Case:
    long = min(burns, key=lambda burn: burn.long_s).long
    checks = [Check("90m", _fires(slo, notify), None) for notify in ("page", "ticket")]
    checks.append(Check("90m", f"max({of(slo, EVENTS + long)}) > bool 0", 1))
    silent = "SegwatchClassSilent" if slo.by_class else "SegwatchSloBlind"
    labels = f"slo={quote(slo.name)}"
    wanted = _class_matcher(slo)
    checks.append(Check("90m", firing(silent, labels, *wanted), None))
    return Case(f"{slo.name}: flat health is silent", _series(examples, 100, 0), checks)


def _class_matcher(slo: Slo) -> tuple[str, ...]:
    """Other classes of the SLO have no series in the test and are silent indeed."""
    return (f"class={quote(slo.classes[0])}",) if slo.by_class and slo.classes else ()


def _idle(slo: Slo, burns: tuple[Burn, ...], examples: tuple[Example, ...]) -> Case:
    """Counters that stand still: no ratio, no budget, never NaN or Inf."""
    window = burns[0].long
    checks = []
    if not slo.timed:
        metrics = [RATIO + window, *([LOWER + window] if guarded(slo) else []), REMAINING]
        checks += [Check("30m", f"count({of(slo, metric)})", None) for metric in metrics]
        checks.append(Check("30m", f"max({of(slo, EVENTS + window)})", 0))
        checks.append(Check("30m", f"max({of(slo, BAD + window)})", 0))
    checks += [Check("30m", _fires(slo, notify), None) for notify in ("page", "ticket")]
    still = _series(examples, 31, 0, rate=0)
    return Case(f"{slo.name}: an idle window has no ratio", still, checks)


def _single(slo: Slo, examples: tuple[Example, ...]) -> Case:
    """One event in all, and it is bad."""
    series = {}
    for example in examples:
        step = example.failing[1] if slo.bounded else min(1.0, example.failing[1])
        series[example.series] = f"0x10 {step:g}x60" if example.counter else f"{example.failing[0]:g}x70"
    checks = [Check(f"{at}m", _fires(slo, notify), None) for at in (12, 40) for notify in ("page", "ticket")]
    return Case(f"{slo.name}: one bad event out of one tells nobody", series, checks)


def _lost(slo: Slo, pages: list[Burn], examples: tuple[Example, ...]) -> Case:
    """Data stop in the middle of an outage: the page stays when the short windows have run empty."""
    minutes = _minutes(slo, pages)
    after = BEFORE + 1 + minutes + max(burn.short_s for burn in pages) // 60 + 30
    stopped = {name: f"{values} _x{after}" for name, values in _series(examples, BEFORE + 1, minutes + 5).items()}
    return Case(
        f"{slo.name}: loss of data does not resolve a page",
        {**rules_tests_counts.inventory(slo, "0x10"), **stopped},
        [Check(f"{BEFORE + minutes}m", _fires(slo, "page"), 1), Check(f"{after}m", _fires(slo, "page"), 1)],
    )
