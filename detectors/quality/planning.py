"""How many labels, of which records, make intervals narrower, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from detectors.quality.intervals import Units, bounds
from detectors.quality.ratio import LEAST_UNITS, Floats, RatioSample, more_units
from detectors.quality.spotcheck import check, conclude, design

MOST_GROWTH = 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """Labels that would halve a class's interval (or give it a first number), drawn as those so far."""

    name: str
    """The class."""
    width: float | None
    """Of the interval now."""
    target: float | None
    """The width that the labels are for; None where a first number is."""
    expected_width: float | None
    """With the labels, if they turn out as those so far."""
    labels: int
    """More labels, of any records."""
    with_class: int
    """How many of them are expected to have the class."""
    cost: float
    """In the currency of the price."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Records that are labelled with one probability, such as those in which the model sees a class."""

    name: str
    records: int
    spread: float
    """Standard deviation of ``I - ratio U`` among them."""
    price: float = 1.0


def plan(
    name: str,
    sample: RatioSample,
    population: int | None,
    price: float,
    *,
    level: float = 0.95,
    presence: float | None = None,
) -> Plan:
    """Labels to halve the interval of one class, if further ones resemble those so far.

    With g times the labels the variance falls to 1 / g of it (and to nothing when the whole window is labelled),
    degrees of freedom grow to g times theirs, and the bounds are taken as `bounds` would take them; g is found by
    bisection. An interval from few labels is itself uncertain, and so is the plan made from it.

    Before the first label with the class, ``presence`` says in what share of the records to expect it (the model's own
    predictions know); None: nobody knows.

    >>> plan("bus", RatioSample.uniform([], []), 600, price=0.5, presence=0.2).labels
    10
    >>> sample = RatioSample.uniform([90, 80, 0, 70, 99, 60] * 5, [100, 100, 0, 100, 100, 80] * 5)
    >>> halve = plan("car", sample, None, price=0.5)
    >>> halve.labels, halve.with_class, halve.cost, round(halve.width, 3), round(halve.expected_width, 3)
    (70, 58, 35.0, 0.096, 0.048)

    Raises:
        ValueError: as `spotcheck`; a negative price; a presence outside 0..1.
    """
    if presence is not None and not 0 <= presence <= 1:
        raise ValueError(f"a presence lies in 0..1, got {presence}")
    check(sample, level, bounded=True)
    if price < 0:
        raise ValueError(f"a price cannot be negative, got {price}")
    units = design(sample, sample.numerator, sample.denominator, population)
    now = conclude(sample, units, "spotcheck", population, level, bounded=True)
    count = len(sample)
    share = float(np.count_nonzero(sample.denominator)) / count if count else 0.0
    several = np.count_nonzero(units.size) >= LEAST_UNITS or count == population
    if now.width is None or not several:
        needed = now.needed or more_units(units.counted, 1)
        if not share and presence:
            needed, share = max(needed, math.ceil(LEAST_UNITS / presence - 1e-9)), presence
        by_records = population is not None
        more = needed if by_records else needed * max(1, round(count / max(now.clusters, 1)))
        more = more if population is None else min(more, population - count)
        return Plan(name, now.width, None, None, more, round(more * share), more * price)
    if now.width == 0:
        return Plan(name, 0.0, 0.0, 0.0, 0, 0, 0.0)
    target = now.width / 2
    most = MOST_GROWTH if population is None else population / count
    low, high = 1.0, most
    while high - low > 0.5 / count:
        middle = (low + high) / 2
        low, high = (low, middle) if _width(units, count, population, level, middle) <= target else (middle, high)
    more = math.ceil((high - 1) * count - 1e-6)
    expected = _width(units, count, population, level, 1 + more / count)
    return Plan(name, now.width, target, expected, more, round(more * share), more * price)


def _width(units: Units, count: int, population: int | None, level: float, growth: float) -> float:
    if population is not None:
        left = max(0.0, population - count * growth) / (population - count)
        units = replace(units, unseen=units.unseen * left)
    lower, upper = bounds(units, level, growth=growth)
    return upper - lower


def widest(
    samples: Mapping[str, RatioSample],
    population: int | None,
    price: float,
    *,
    level: float = 0.95,
    presence: Mapping[str, float] | None = None,
) -> list[Plan]:
    """Plans of all classes, the widest interval first; classes without a number come before all others.

    Raises:
        ValueError: as `plan`.
    """
    seen = presence or {}
    plans = [
        plan(name, sample, population, price, level=level, presence=seen.get(name)) for name, sample in samples.items()
    ]
    return sorted(plans, key=lambda one: (one.width is not None, -(one.width or 0.0), one.name))


def allocate(strata: list[Stratum], budget: float) -> dict[str, tuple[int, float]]:
    """Labels and inclusion probability of each stratum that give the narrowest interval for a ``budget``.

    Neyman's allocation: ``n_h`` in proportion to ``N_h S_h / sqrt(price_h)`` (Neyman 1934; Cochran 1977, section 5.5).
    A stratum that would be labelled more than once over is labelled whole, and the rest is shared anew; each keeps one
    label at least while the budget lasts, since without any nothing would speak for its records.

    >>> allocate([Stratum("car", 900, 10.0), Stratum("bicycle", 100, 90.0)], budget=100)
    {'car': (50, 0.05555555555555555), 'bicycle': (50, 0.5)}

    Raises:
        ValueError: a stratum has a negative spread, no records, or a price that is not above 0.
    """
    for stratum in strata:
        if stratum.records < 1 or stratum.spread < 0 or stratum.price <= 0:
            raise ValueError(f"stratum {stratum.name!r}: {stratum}")
    whole: set[str] = set()
    labels: Floats = np.zeros(len(strata))
    while True:
        left = budget - sum(one.records * one.price for one in strata if one.name in whole)
        open_ones = [one for one in strata if one.name not in whole]
        scale = sum(one.records * one.spread * math.sqrt(one.price) for one in open_ones)
        shares = [
            one.records
            if one.name in whole
            else max(0.0, left) * one.records * one.spread / math.sqrt(one.price) / scale
            if scale > 0
            else 0.0
            for one in strata
        ]
        labels = np.array(shares, dtype=np.float64)
        over = {one.name for one, count in zip(strata, labels, strict=True) if count > one.records} - whole
        if not over:
            break
        whole |= over
    return _whole_numbers(strata, labels, budget)


def _whole_numbers(strata: list[Stratum], labels: Floats, budget: float) -> dict[str, tuple[int, float]]:
    """Rounded down, then one more for those without any and for the largest remainders while the budget lasts."""
    counts = np.floor(labels + 1e-9).astype(np.int64)
    prices = np.array([one.price for one in strata])
    records = np.array([one.records for one in strata])
    order = sorted(range(len(strata)), key=lambda k: (counts[k] > 0, counts[k] - labels[k]))
    spent = float(counts @ prices)
    for k in order:
        wants = counts[k] == 0 or labels[k] - counts[k] > 1e-9
        if wants and counts[k] < records[k] and spent + prices[k] <= budget + 1e-9:
            counts[k] += 1
            spent += float(prices[k])
    pairs = zip(strata, counts.tolist(), strict=True)
    return {one.name: (count, count / one.records) for one, count in pairs}
