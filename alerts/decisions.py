"""When a model is to be trained anew: pure decisions, from what is known of it.

A retraining is wanted where drift is sustained and harmful, on schedule, or where enough new labels wait. It is asked
for only once labels enough are ready, since training on what the model has seen already changes nothing, and not within
the cooldown of the last request. What is wanted and must wait says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from detectors.harm import Harm

DAY_US = 86_400_000_000

Kind = Literal["drift", "schedule", "labels"]
State = Literal["idle", "waiting_for_labels", "cooling_down", "request"]


@dataclass(frozen=True)
class Rules:
    """``after_windows``, ``every_us`` and ``after_labels``: 0 for never."""

    after_windows: int
    every_us: int
    after_labels: int
    min_labels: int
    cooldown_us: int


@dataclass(frozen=True)
class WindowFact:
    """A scored window of all records; ``alarm`` None: too few records for a verdict."""

    start_us: int
    alarm: bool | None
    harm: Harm


@dataclass(frozen=True)
class Facts:
    """``windows`` in order of time. ``requested_us``: the last request, None before the first; ``in_use_since_us``:
    when the version's baseline was activated. ``labels``: labelled inputs since the last request."""

    now_us: int
    windows: Sequence[WindowFact]
    requested_us: int | None
    in_use_since_us: int
    labels: int


@dataclass(frozen=True)
class Reason:
    """Why a retraining is wanted; ``text`` for people."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Decision:
    """``missing``: labels until there are enough. ``until_us``: end of the cooldown, None where there is none."""

    state: State
    reasons: tuple[Reason, ...]
    missing: int
    until_us: int | None


def drifted_windows(windows: Sequence[WindowFact]) -> int:
    """How many windows up to the newest have drifted, on end. One without a verdict neither counts nor breaks them.

    >>> calm, drift, none = (WindowFact(0, alarm, "likely") for alarm in (False, True, None))
    >>> drifted_windows([drift, calm, drift, none, drift])
    2
    """
    count = 0
    for window in reversed(windows):
        if window.alarm is None:
            continue
        if not window.alarm:
            break
        count += 1
    return count


def is_harmful(windows: Sequence[WindowFact]) -> bool:
    """Whether the newest window with a verdict says that the model suffers."""
    judged = [window for window in windows if window.alarm is not None]
    return bool(judged) and judged[-1].harm == "likely"


def retrain(rules: Rules, facts: Facts) -> Decision:
    """What to do about a model now.

    >>> rules = Rules(after_windows=2, every_us=0, after_labels=0, min_labels=10, cooldown_us=DAY_US)
    >>> drifted = [WindowFact(start, True, "likely") for start in (0, 1)]
    >>> early = retrain(rules, Facts(5, drifted, None, 0, labels=7))
    >>> early.state, early.missing
    ('waiting_for_labels', 3)
    >>> retrain(rules, Facts(5, drifted, None, 0, labels=10)).state
    'request'
    """
    reasons = tuple(_reasons(rules, facts))
    missing = max(0, rules.min_labels - facts.labels)
    until_us = cools_until(facts.requested_us, rules.cooldown_us, facts.now_us)
    if not reasons:
        return Decision("idle", (), missing, until_us)
    if until_us is not None:
        return Decision("cooling_down", reasons, missing, until_us)
    return Decision("waiting_for_labels" if missing else "request", reasons, missing, None)


def cools_until(last_us: int | None, cooldown_us: int, now_us: int) -> int | None:
    """When the cooldown after a request ends; None where it has, or nothing was requested.

    >>> cools_until(100, 10, 105), cools_until(100, 10, 110), cools_until(None, 10, 0)
    (110, None, None)
    """
    if last_us is None or now_us >= last_us + cooldown_us:
        return None
    return last_us + cooldown_us


def _reasons(rules: Rules, facts: Facts) -> list[Reason]:
    found: list[Reason] = []
    drifted = drifted_windows(facts.windows)
    if 0 < rules.after_windows <= drifted and is_harmful(facts.windows):
        found.append(Reason("drift", f"{drifted} windows on end have drifted, and the model suffers"))
    since_us = facts.in_use_since_us if facts.requested_us is None else facts.requested_us
    if 0 < rules.every_us <= facts.now_us - since_us:
        days = (facts.now_us - since_us) / DAY_US
        found.append(Reason("schedule", f"due every {rules.every_us / DAY_US:g} days, and {days:.1f} have passed"))
    if 0 < rules.after_labels <= facts.labels:
        found.append(Reason("labels", f"{facts.labels} new labels wait, of {rules.after_labels} that are enough"))
    return found
