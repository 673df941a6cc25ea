"""Actions: what segwatch asks others to do, as CloudEvents with an id that the same cause always gives."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectors.score import WindowScore

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


def drift_alert(
    model: str, version: str, slice_key: str, start: str, end: str, baseline_id: str, score: WindowScore, page_url: str
) -> Action | None:
    """The alert of a window whose drift is significant, or None where there is no alarm.

    The cause is the window against its baseline, not the score: a revision of the same window is the same cause.
    """
    if not score.alarm:
        return None
    cause = "\n".join(("drift", model, version, slice_key, start, end, baseline_id))
    return Action(
        id=str(uuid.uuid5(NAMESPACE, cause)),
        type=ALERT,
        subject=f"{model}/{version}",
        data={
            "kind": "drift",
            "model": model,
            "version": version,
            "slice": slice_key or None,
            "window": {"start": start, "end": end, "records": score.records, "sequences": score.sequences},
            "baseline": baseline_id,
            "alpha": score.alpha,
            "harm": "unknown",
            "scores": [
                {
                    "signal": one.signal,
                    "js": one.js,
                    "kl_nats": one.kl_nats,
                    "p_value": one.p_value,
                    "threshold": one.threshold,
                    "alarm": one.alarm,
                }
                for one in score.scores
            ],
            "attribution": [{"signal": signal, "share": share} for signal, share in score.attribution],
            "link": page_url,
        },
    )
