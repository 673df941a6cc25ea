"""Promote, continue, or roll back: what the evidence of all classes together allows to say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detectors.canary.difference import Difference
from detectors.canary.sequential import log_evidence, targets_for
from detectors.canary.units import ClassUnits
from detectors.quality.ratio import Floats

Decision = Literal["promote", "continue", "roll back"]

MEAN_SHARE = 0.5
"""Stake on the mean over classes; the classes share the rest, critical ones twice. With one class all is on it."""
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Rule:
    """How sure is sure. Chances are those of ever being wrong, however often one looks."""

    wrong_rollback: float = 0.005
    wrong_promotion: float = 0.05
    margin: float = 0.02
    """Loss of IoU that a promoted canary may have at most."""
    most_pairs: int = 1000
    """Pairs after which a canary without any sign of loss is promoted, though the margin could not be shown."""
    least_pairs: int = 30


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The sequential test; logarithms of wealth, 0 before the first unit."""

    path: Floats
    """(K,) that of all classes together after each unit: the canary is worse."""
    mean: Floats
    """(K,) of the mean over classes alone."""
    classes: Mapping[str, Floats]
    """(K,) of each class alone."""
    kept: Mapping[str | None, float]
    """The highest so far that no more than the margin is lost, of each critical class; None for the mean."""

    @property
    def highest(self) -> float:
        return float(self.path.max(initial=0.0))

    def crossed(self, chance: float) -> int | None:
        """The unit at which the evidence first reached 1 / chance."""
        above = np.flatnonzero(self.path >= -math.log(chance))
        return int(above[0]) if len(above) else None

    def began(self, crossed: int) -> int:
        """The unit since which evidence grew until ``crossed``: about where the loss began."""
        return int(np.argmin(np.concatenate([[0.0], self.path[: crossed + 1]])))


def gather(
    names: Sequence[str],
    classes: Sequence[ClassUnits],
    mean: ClassUnits,
    count: int,
    critical: frozenset[str],
    margin: float,
) -> Evidence:
    """Weigh the evidence of all classes: an average of evidences is evidence, whatever they have in common."""
    present = [(name, units) for name, units in zip(names, classes, strict=True) if len(units.places)]
    alone = {name: _spread(log_evidence(units.differences), units, count) for name, units in present}
    overall = _spread(log_evidence(mean.differences), mean, count)
    path = overall
    if len(present) > 1:
        weight = {name: 2.0 if name in critical else 1.0 for name in alone}
        parts = [math.log((1 - MEAN_SHARE) * weight[name] / sum(weight.values())) + one for name, one in alone.items()]
        path = np.logaddexp.reduce([math.log(MEAN_SHARE) + overall, *parts], axis=0)
    kept: dict[str | None, float] = {None: _kept(mean, margin)}
    kept |= {name: _kept(units, margin) for name, units in present if name in critical}
    return Evidence(np.asarray(path), overall, alone, kept)


def _spread(evidence: Floats, units: ClassUnits, count: int) -> Floats:
    """Evidence (K,) after each of all units, from that after each of the class's own."""
    after = np.concatenate([[0.0], evidence])
    return np.asarray(after[np.searchsorted(units.places, np.arange(count), side="right")])


def _kept(units: ClassUnits, margin: float) -> float:
    found = log_evidence(units.differences, margin, better=True, targets=targets_for(margin))
    return float(found.max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why."""

    decision: Decision
    reasons: tuple[str, ...]
    missing: tuple[str, ...] = ()
    """What would have to come for another verdict; empty unless it is `continue`."""


def decide(
    evidence: Evidence,
    rule: Rule,
    pairs: int,
    differences: Mapping[str | None, Difference],
    critical: frozenset[str],
    hindrances: Sequence[str] = (),
) -> Verdict:
    """The verdict at this moment.

    Roll back: the evidence that the canary is worse has reached ``1 / wrong_rollback``, at this moment or before.
    Promote: for the mean over classes and for each critical class it is shown that no more than ``margin`` is lost, or
    after ``most_pairs`` nothing speaks for a loss; and no class alone shows one. ``differences`` of classes, None for
    their mean. ``hindrances``: what else speaks against promoting.
    """
    if evidence.crossed(rule.wrong_rollback) is not None:
        return Verdict("roll back", _losses(evidence, rule, differences, critical))
    if not len(evidence.path) or pairs < rule.least_pairs:
        return Verdict("continue", ("too few pairs",), (f"{max(rule.least_pairs - pairs, 1)} more labelled pairs",))
    limit = -math.log(rule.wrong_promotion)
    worse = sorted(name for name, path in evidence.classes.items() if path[-1] >= limit)
    against = [f"{name}: a sign of loss, evidence {math.exp(evidence.classes[name][-1]):.0f}" for name in worse]
    against += hindrances
    open_ = [name for name, found in sorted(evidence.kept.items(), key=lambda pair: pair[0] or "") if found < limit]
    unseen = sorted(critical - evidence.classes.keys())
    if not open_ and not unseen and not against:
        what = " and of each critical class" if critical else ""
        shown = f"a loss of more than {rule.margin:g} of the mean IoU{what} is refuted"
        return Verdict("promote", (shown,))
    losing = [name for name in (None, *sorted(critical)) if _below_zero(differences.get(name))]
    if pairs >= rule.most_pairs and not against and not losing and not unseen:
        return Verdict("promote", (f"no sign of loss in {pairs} pairs",))
    reasons = [*against, *(f"{_name(name)}: the interval lies below 0" for name in losing)]
    missing = [f"{_name(name)}: a loss of {rule.margin:g} is not refuted yet" for name in open_]
    missing += [f"{name}: critical, and in none of the pairs" for name in unseen]
    if pairs < rule.most_pairs:
        missing.append(f"{rule.most_pairs - pairs} more pairs without a sign of loss would do")
    return Verdict("continue", tuple(reasons) or ("neither a loss nor its absence is shown",), tuple(missing))


def _losses(
    evidence: Evidence, rule: Rule, differences: Mapping[str | None, Difference], critical: frozenset[str]
) -> tuple[str, ...]:
    limit = -math.log(rule.wrong_rollback)
    alone = {name: float(path.max(initial=0.0)) for name, path in evidence.classes.items()}
    named = sorted((name for name in alone if alone[name] >= limit), key=lambda name: -alone[name])[:MOST_NAMED]
    named = named or sorted(alone, key=lambda name: -alone[name])[:1]
    reasons = []
    for name in named:
        found = differences.get(name)
        by = f" by {-found.difference:.3f} of IoU" if found is not None and found.difference is not None else ""
        reasons.append(f"{name}{' (critical)' if name in critical else ''}: worse{by}")
    chance = f"evidence {_number(evidence.highest)} for a loss, of which {1 / rule.wrong_rollback:.0f} is enough"
    return (*reasons, chance)


def _number(log_value: float) -> str:
    return f"{math.exp(log_value):.0f}" if log_value < 20 else f"10^{log_value / math.log(10):.0f}"


def _below_zero(one: Difference | None) -> bool:
    return one is not None and one.upper is not None and one.upper < 0


def _name(name: str | None) -> str:
    return name or "mean over classes"
