"""Actions: what segwatch asks others to do, as CloudEvents with an id that the same cause always gives."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

NAMESPACE = uuid.UUID("5e9c1f0a-6a2b-5c0e-9d55-7365677761ac")
"""Namespace of the project's own action ids (RFC 9562, version 5)."""

ALERT = "segwatch.alert.v1"
RELABEL_REQUESTED = "segwatch.relabel_requested.v1"
RETRAIN_REQUESTED = "segwatch.retrain_requested.v1"
ROLLBACK_REQUESTED = "segwatch.rollback_requested.v1"
PROMOTE_REQUESTED = "segwatch.promote_requested.v1"

Asked = Literal["relabel", "retrain", "rollback"]
"""What an alert's label ``action`` may ask for."""

REQUESTED: Final[Mapping[Asked, str]] = {
    "relabel": RELABEL_REQUESTED,
    "retrain": RETRAIN_REQUESTED,
    "rollback": ROLLBACK_REQUESTED,
}


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
    samples = [{**one, "version": version, "selection_probability": None} for one in verdict["samples"]]
    return Action(
        id=str(uuid.uuid5(NAMESPACE, cause)),
        type=ALERT,
        subject=f"{model}/{version}",
        data={
            "kind": "drift",
            "model": {"name": model, "version": version},
            "evidence": {
                **_of_window(verdict),
                "alpha": verdict["alpha"],
                "supported_alpha": verdict["supported_alpha"],
                "dimensions": verdict["dimensions"],
                "samples": samples,
            },
            "link": page_url,
        },
    )


def _of_window(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a window that has drifted."""
    return {
        "window": {name: verdict[name] for name in ("start", "end", "slice", "records", "sequences")},
        "baseline": verdict["baseline"],
        "harm": verdict["harm"],
        "scores": verdict["scores"],
        "thresholds": {one["signal"]: one["threshold"] for one in verdict["scores"]},
        "attribution": verdict["attribution"],
        "classes": [],
        "slices": [one["slice"] for one in verdict["slices"]],
    }


def relabel_for_drift(
    verdict: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    page_url: str,
    *,
    revision: int = 0,
    early: bool = False,
) -> Action:
    """The request to label samples of a window that has drifted; verdict and cause as of `drift_alert`.

    ``samples``: what was newly queued, each with ``input_id``, ``version`` and ``selection_probability`` (None where no
    chance was involved), ``reason`` and ``priority``. A later ``revision`` of the window asks for others, and so is a
    request of its own; so is one by an ``early`` alarm, whose window ends with it.
    """
    where = [verdict["slice"] or "", verdict["start"], verdict["end"], verdict["baseline"] or ""]
    if revision:
        where.append(f"revision {revision}")
    if early:
        where.append("early")
    told = _of_window(verdict)
    evidence = {**told, "window": {**told["window"], "revision": revision}, "samples": list(samples)}
    return _relabel_requested("drift", verdict["model"], verdict["version"], where, evidence, page_url)


def relabel_for_quality(
    model: str,
    version: str,
    window: Mapping[str, Any],
    figures: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    *,
    cause: str,
    threshold: float,
    page_url: str,
) -> Action:
    """The request to label samples of a class whose quality has dropped, or is known too loosely.

    ``figures``: the class as ``segwatch quality --json`` has it. ``threshold``: widest interval of its IoU.
    ``cause``: as in the queue; ``samples`` as of `relabel_for_drift`.
    """
    evidence = {
        "window": window,
        "scores": [],
        "quality": [figures],
        "thresholds": {"interval_width": threshold},
        "classes": [figures["class"]],
        "slices": [],
        "samples": list(samples),
    }
    return _relabel_requested("quality", model, version, (cause,), evidence, page_url)


def _relabel_requested(
    kind: str, model: str, version: str, where: Sequence[str], evidence: Mapping[str, Any], page_url: str
) -> Action:
    return Action(
        id=str(uuid.uuid5(NAMESPACE, "\n".join(("relabel", kind, model, version, *where)))),
        type=RELABEL_REQUESTED,
        subject=f"{model}/{version}",
        data={
            "kind": kind,
            "model": {"name": model, "version": version},
            "evidence": evidence,
            "link": page_url,
        },
    )


def alert_cause(action: Asked, fingerprint: str, starts_at: str) -> str:
    """The id of what an alert asks for.

    The cause is one firing of one alert, by Alertmanager's fingerprint of its labels and the moment it began: the same
    firing, however often it is told, has one id.
    """
    return str(uuid.uuid5(NAMESPACE, "\n".join(("alertmanager", fingerprint, starts_at, action))))


def of_alert(
    action: Asked, identity: str, model: str, version: str, evidence: Mapping[str, Any], page_url: str
) -> Action:
    """What an alert's label ``action`` asks for; ``identity`` as of `alert_cause`."""
    return Action(
        id=identity,
        type=REQUESTED[action],
        subject=f"{model}/{version}",
        data={
            "kind": "alert",
            "model": {"name": model, "version": version},
            "evidence": evidence,
            "link": page_url,
        },
    )


def retrain_requested(
    model: str,
    version: str,
    since: str,
    reasons: Sequence[Mapping[str, Any]],
    evidence: Mapping[str, Any],
    page_url: str,
) -> Action:
    """The request to train a model anew.

    ``since``: when the last request was, or where there was none when the baseline was activated. From there on it is
    asked for once, whatever the reasons: they are ``alerts.decisions.Reason``s as mappings.
    """
    return Action(
        id=str(uuid.uuid5(NAMESPACE, "\n".join(("retrain", model, version, since)))),
        type=RETRAIN_REQUESTED,
        subject=f"{model}/{version}",
        data={
            "kind": reasons[0]["kind"],
            "model": {"name": model, "version": version},
            "reasons": list(reasons),
            "evidence": evidence,
            "link": page_url,
        },
    )


def model_of(data: Mapping[str, Any]) -> tuple[str, str]:
    """The model and version that an action is about, from its data.

    >>> model_of({"model": {"name": "street", "version": "3"}}), model_of({"model": "street", "version": "3"})
    (('street', '3'), ('street', '3'))
    """
    model = data.get("model")
    if isinstance(model, Mapping):
        return str(model.get("name") or ""), str(model.get("version") or "")
    return str(model or ""), str(data.get("version") or "")
