"""What the demo says of what segwatch has found: lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monitor.present import number, table

BY = {
    "spot_check": "chance, to measure quality",
    "drift": "the shift: typical of it",
    "quality": "a class that got worse, or is known too loosely",
    "disagreement": "two versions that disagree",
    "training": "active learning",
    "manual": "a person",
}


def interval(one: Mapping[str, Any] | None, name: str = "point") -> str:
    """A figure with its interval.

    >>> interval({"point": 0.875, "lower": 0.8, "upper": 0.93})
    '0.875 (95 %: 0.800 to 0.930)'
    """
    if one is None or one[name] is None or one["lower"] is None:
        return "too few labels"
    return f"{one[name]:.3f} (95 %: {one['lower']:.3f} to {one['upper']:.3f})"


def window_line(hour: str, shifted: bool, one: Mapping[str, Any] | None) -> str:
    """A window of `segwatch drift --json` in a line."""
    head = f"{hour}  {'shifted' if shifted else '':<7}"
    if one is None or not one["scores"]:
        return f"{head} too few records for a verdict"
    worst = min(one["scores"], key=lambda score: 1.0 if score["p_value"] is None else score["p_value"])
    told = f"{one['records']:>4} records, furthest off: {worst['signal']} {number(worst['js'], 2)}"
    told += f" (alarm above {number(worst['threshold'], 2)})"
    return f"{head} {told}" + (f"  ALARM, harm: {one['harm']}" if one["alarm"] else "")


def queue_table(items: Sequence[Mapping[str, Any]]) -> str:
    """Items of `segwatch relabel list --json`: by whom, why and with which probability."""
    rows = []
    for kind in BY:
        own = [one for one in items if one["kind"] == kind]
        if own:
            chances = sorted({one["probability"] for one in own if one["probability"] is not None})
            known = f"{chances[0]:.2f}" + (f" to {chances[-1]:.2f}" if len(chances) > 1 else "") if chances else "none"
            rows.append([kind, len(own), BY[kind], known, f"{own[0]['input_id']}: {own[0]['reason']}"])
    return table(["kind", "samples", "chosen by", "probability", "for example"], rows)


def counted(items: Iterable[Mapping[str, Any]]) -> str:
    """How many samples of each kind.

    >>> counted([{"kind": "drift"}, {"kind": "spot_check"}, {"kind": "drift"}])
    '2 drift, 1 spot_check'
    """
    kinds = [one["kind"] for one in items]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "nothing"


def mean_iou(figures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Mean IoU over the classes from spot checks, of a window of `segwatch quality --json`."""
    for one in figures["classes"] if figures else ():
        if (one["metric"], one["estimator"]) == ("mean_iou", "spotcheck"):
            found: dict[str, Any] = one
            return found
    return None


def difference(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """The difference of the mean IoU, of `segwatch canary compare --json`."""
    return next((one for one in comparison["classes"] if one["metric"] == "mean_iou"), None)
