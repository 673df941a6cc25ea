"""Actions: what segwatch asks others to do, as CloudEvents with an id that the same cause always gives."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAMESPACE = uuid.UUID("5e9c1f0a-6a2b-5c0e-9d55-7365677761ac")
"""Namespace of the project's own action ids (RFC 9562, version 5)."""

ALERT = "segwatch.alert.v1"


@dataclass(frozen=True)
class Action:
    """``id``: the same cause never yields two. ``data``: the evidence, ready for JSON."""

    id: str
    type: str
    subject: str
    data: Mapping[str, Any]


def drift_alert(verdict: Mapping[str, Any], page_url: str) -> Action | None:
    """The alert of a window whose drift is significant, or None where there is no alarm.

    ``verdict``: the window as ``segwatch drift --json`` shows it (contract, ``windows``). The cause is the window
    against its baseline, not the score: a revision of the same window is the same cause.
    """
    if not verdict["alarm"]:
        return None
    model, version, slice_key = verdict["model"], verdict["version"], verdict["slice"] or ""
    start, end, baseline_id = verdict["start"], verdict["end"], verdict["baseline"] or ""
    cause = "\n".join(("drift", model, version, slice_key, start, end, baseline_id))
    evidence = ("alpha", "supported_alpha", "harm", "scores", "attribution", "dimensions", "slices", "samples")
    return Action(
        id=str(uuid.uuid5(NAMESPACE, cause)),
        type=ALERT,
        subject=f"{model}/{version}",
        data={
            "kind": "drift",
            "model": model,
            "version": version,
            "slice": verdict["slice"],
            "window": {
                "start": start,
                "end": end,
                "records": verdict["records"],
                "sequences": verdict["sequences"],
            },
            "baseline": baseline_id,
            **{name: verdict[name] for name in evidence},
            "link": page_url,
        },
    )
