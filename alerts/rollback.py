"""The request to roll a canary back, as an action."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from alerts.actions import NAMESPACE, ROLLBACK_REQUESTED, Action

COMPARED = ("iou", "mean_iou")


def rollback_requested(comparison: Mapping[str, Any], page_url: str) -> Action:
    """The request, once for each canary and the version that it was to replace.

    ``comparison``: as ``segwatch canary compare --json`` gives it, with ``request``: when it was made, and how long
    that took.
    """
    model, stable, canary = (comparison[name] for name in ("model", "stable", "canary"))
    sequential = comparison["sequential"]
    return Action(
        id=str(uuid.uuid5(NAMESPACE, "\n".join(("rollback", model, stable, canary)))),
        type=ROLLBACK_REQUESTED,
        subject=f"{model}/{canary}",
        data={
            "kind": "canary",
            "model": {"name": model, "version": canary},
            "stable": stable,
            "reasons": comparison["reasons"],
            "request": comparison["request"],
            "evidence": {
                **compared(comparison),
                "sequential": sequential["evidence"],
                "thresholds": {"sequential": sequential["enough"]},
            },
            "link": page_url,
        },
    )


def compared(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the evidence that a rollback and a promotion share."""
    ious = [one for one in comparison["classes"] if one["metric"] in COMPARED]
    return {
        "window": {
            "start": comparison["sequential"]["first_at"],
            "end": comparison["sequential"]["last_at"],
            "slice": comparison["slice"],
            "records": comparison["pairs"],
        },
        "method": comparison["method"],
        "pairs": comparison["pairs"],
        "sequences": comparison["sequences"],
        "scores": [],
        "quality": ious,
        "classes": sorted(one["class"] for one in ious if one["class"] and (one["difference"] or 0) < 0),
        "slices": [],
        "samples": comparison["worst"],
    }
