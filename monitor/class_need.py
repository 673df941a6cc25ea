"""Which classes need labels: those whose quality has dropped, or is known too loosely."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from monitor.store.store import Store
from monitor.store.values import StoredQuality

Why = Literal["dropped", "loose"]


@dataclass(frozen=True, slots=True)
class ClassNeed:
    """A class that needs labels."""

    class_name: str
    why: Why
    need: float
    """0..1: 1 for a class that has dropped, or of which too few labels are there to say anything."""
    reason: str
    figures: Mapping[str, Any]
    """What was estimated of it last, as in ``segwatch quality --json``."""


def needs_of(store: Store, model: str, version: str, width: float) -> list[ClassNeed]:
    """Of a model version as it was estimated last, the neediest first."""
    for estimated in store.quality():
        if (estimated.model, estimated.version) == (model, version):
            return needs_in(estimated, width)
    return []


def needs_in(estimated: StoredQuality, width: float) -> list[ClassNeed]:
    """Needs by the spot checks' IoU. A class that nobody has labelled yet asks for nothing here: there may be none."""
    found = []
    for one in msgspec.json.decode(estimated.payload)["classes"]:
        if one["class"] is None or one["metric"] != "iou" or one["estimator"] != "spotcheck":
            continue
        need = _need(one, width)
        if need is not None:
            found.append(need)
    return sorted(found, key=lambda need: (-need.need, need.why, need.class_name))


def _need(one: Mapping[str, Any], width: float) -> ClassNeed | None:
    name, labels = one["class"], one["labels"]
    drop = one.get("drop") or {}
    if drop.get("found"):
        text = f"IoU of {name} is {drop['point']:.2f} ({drop['lower']:.2f} to {drop['upper']:.2f}) below the baseline's"
        return ClassNeed(name, "dropped", 1.0, text, one)
    if one["point"] is None:
        if not labels or one["status"] == "absent":
            return None
        text = f"{labels} labelled records are too few to say how well {name} is segmented"
        return ClassNeed(name, "loose", 1.0, text, one)
    loose = one["upper"] - one["lower"]
    if loose <= width:
        return None
    text = f"IoU of {name} lies between {one['lower']:.2f} and {one['upper']:.2f}, known too loosely"
    return ClassNeed(name, "loose", min(1.0, loose / width - 1), text, one)


def wish_text(confidence: float | None, classes: Collection[str], need: Mapping[str, float]) -> str:
    """Why active learning wants a record.

    >>> wish_text(0.4, {"bus", "car"}, {"bus": 0.5})
    'unsure (0.40), needed for bus'
    """
    sure = "unsure (no score)" if confidence is None else f"unsure ({confidence:.2f})"
    needed = sorted(name for name in classes if need.get(name))
    return f"{sure}, needed for {', '.join(needed)}" if needed else sure
