"""Burn-rate windows, as data, and how they are fitted to an objective and to how often events come.

All pairs but the third are those of the SRE workbook (chapter 5, "Alerting on SLOs", for 30 days). The pair of a day
and an hour pages on what the workbook would only ticket: a burn of 4 for a day, or of 2 once the budget is nearly gone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from alerts.slo.promql import duration
from alerts.slo.spec import Slo, SpecError, Tier

MINUTE, HOUR, DAY = 60, 3600, 86_400

TIERS: Final = (
    Tier("page", 1 * HOUR, 5 * MINUTE, 14.4),
    Tier("page", 6 * HOUR, 30 * MINUTE, 6),
    Tier("page", 24 * HOUR, 1 * HOUR, 4, critical_budget=0.1),
    Tier("ticket", 24 * HOUR, 2 * HOUR, 3),
    Tier("ticket", 72 * HOUR, 6 * HOUR, 1),
)

Z: Final = 1.645
"""One-sided 95 %. docs/slo-benchmark.md has the false pages that it leaves."""

GUARDED_REACH: Final = 0.9
"""With Wilson's bound a threshold of 0.9 takes 25 events that are all bad; above that it takes days of labels."""

SHORT_EVENTS: Final = 3
"""Expected in the short window of a tier that was made longer: it is then empty in 5 % of cases (exp(-3))."""

MARGIN: Final = 1.5
"""Expected events over those needed: fewer than expected come half of the time."""

NICE: Final = tuple(
    [n * MINUTE for n in (5, 10, 15, 30)]
    + [n * HOUR for n in (1, 2, 3, 4, 6, 8, 12)]
    + [n * DAY for n in (1, 2, 3, 5, 7, 10, 14, 21, 30)]
)


@dataclass(frozen=True, slots=True)
class Burn:
    """A tier made fit: alarm where the ratio exceeds ``threshold`` in both windows."""

    tier: Tier
    long_s: int
    short_s: int
    threshold: float
    rescaled: bool

    @property
    def long(self) -> str:
        return duration(self.long_s)

    @property
    def short(self) -> str:
        return duration(self.short_s)


def threshold(slo: Slo, tier: Tier) -> tuple[float, bool]:
    """The ratio of bad events above which a tier alarms, and whether it had to be rescaled.

    ``factor * budget`` cannot be exceeded where it is 1 or more: then it is half-way between budget and 1.
    Raises SpecError where the SLO says ``unreachable: refuse``.

    >>> from alerts.slo.spec import Availability
    >>> threshold(Slo("a", "availability", Availability(), 0.80, "ops"), TIERS[0])
    (0.6, True)
    >>> threshold(Slo("a", "availability", Availability(), 0.99, "ops"), TIERS[0])
    (0.144, False)
    """
    wanted = round(tier.factor * slo.budget, 12)
    reach = GUARDED_REACH if slo.guard and not slo.timed else 1.0
    if not slo.bounded or wanted < reach:
        return wanted, False
    if slo.unreachable == "refuse":
        raise SpecError(
            (*slo.path, "objective"),
            f"SLO {slo.name!r}: a burn rate of {tier.factor:g} over {duration(tier.long_s)} can never be seen at an"
            f" objective of {slo.objective:g}: it takes {wanted:.0%} bad events"
            + (f", and the guard leaves {reach:.0%}" if reach < 1 else "")
            + " (unreachable: rescale lowers the threshold)",
        )
    return round((1 + slo.budget) / 2, 12), True


def events_needed(slo: Slo, limit: float) -> int:
    """Events, all of them bad, from which on Wilson's lower bound n / (n + z^2) exceeds ``limit``.

    >>> from alerts.slo.spec import Availability
    >>> events_needed(Slo("a", "availability", Availability(), 0.95, "ops"), 0.72)
    7
    """
    if not slo.guard or slo.timed:
        return 1
    if not slo.bounded:
        return slo.min_events
    return max(slo.min_events, math.floor(Z**2 * (slo.design_effect or 1.0) * limit / (1 - limit)) + 1)


def fit(slo: Slo) -> tuple[Burn, ...]:
    """The SLO's tiers with thresholds that can be reached, and of each urgency at least one that expects enough events.

    Where none does, the one with the lowest threshold is made longer. The others stay: the guard keeps them from firing
    on too little, and a lucky hour makes the shortest the quickest. Raises SpecError where even the whole period would
    not hold enough events.
    """
    burns = [Burn(tier, tier.long_s, tier.short_s, *threshold(slo, tier)) for tier in slo.tiers]
    for notify in {tier.notify for tier in slo.tiers} if slo.events_per_hour else ():
        own = [burn for burn in burns if burn.tier.notify == notify]
        if not any(burn.long_s >= _needed_s(slo, burn) for burn in own):
            lowest = min(own, key=lambda burn: (burn.threshold, -burn.long_s))
            burns[burns.index(lowest)] = _stretched(slo, lowest)
    return tuple(burns)


def _needed_s(slo: Slo, burn: Burn) -> float:
    """How long it takes until enough events can be expected."""
    assert slo.events_per_hour
    return MARGIN * events_needed(slo, burn.threshold) * HOUR / slo.events_per_hour


def _stretched(slo: Slo, burn: Burn) -> Burn:
    assert slo.events_per_hour
    long_s = _nice(slo, burn.tier, _needed_s(slo, burn))
    short_s = max(burn.short_s, _nice(slo, burn.tier, SHORT_EVENTS * HOUR / slo.events_per_hour))
    return replace(burn, long_s=long_s, short_s=min(long_s, short_s))


def _nice(slo: Slo, tier: Tier, seconds: float) -> int:
    found = next((size for size in NICE if size >= seconds), None)
    if found is None or found > slo.period_s:
        raise SpecError(
            (*slo.path, "events_per_hour"),
            f"SLO {slo.name!r}: at {slo.events_per_hour:g} events an hour the pair of"
            f" {duration(tier.long_s)} and {duration(tier.short_s)} would need"
            f" {seconds / DAY:.1f} days to judge, longer than the period ({duration(slo.period_s)})",
        )
    return found
