"""Actions as people read them: what is asked for, of which model, because of what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from monitor.errors import InputError
from monitor.windows import parse_time

KINDS: Final = {
    "segwatch.relabel_requested.v1": "Relabelling requested",
    "segwatch.retrain_requested.v1": "Retraining requested",
    "segwatch.rollback_requested.v1": "Rollback requested",
    "segwatch.promote_requested.v1": "Promotion requested",
    "segwatch.alert.v1": "Alert",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a message of the actions' topic says; what it does not say is None or empty."""

    type: str
    kind: str | None
    model: str | None
    version: str | None
    slice: str | None
    window: tuple[str, str] | None
    """Start and end, RFC 3339."""
    inputs: tuple[str, ...]
    content: Mapping[str, Any]


def asked_of(value: bytes | None) -> Asked:
    """Read a message; one that is damaged, or of a newer release, says little."""
    try:
        content = json.loads(value or b"{}")
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    named = content.get("model")
    of: dict[str, Any] = named if isinstance(named, dict) else {"name": named, "version": content.get("version")}
    evidence = content.get("evidence")
    told = evidence.get("window") if isinstance(evidence, dict) else None
    window: dict[str, Any] = next((one for one in (told, content.get("window")) if isinstance(one, dict)), {})
    slice_key = content.get("slice", window.get("slice"))
    return Asked(
        _text(content.get("type")) or "",
        _text(content.get("kind")),
        _text(of.get("name")),
        _text(of.get("version")),
        _text(slice_key),
        _span(window.get("start"), window.get("end")),
        tuple(_inputs(content))[:100],
        content,
    )


def headline(asked: Asked) -> str:
    """In a few words."""
    name = KINDS.get(asked.type, asked.type or "Unreadable message")
    return f"{name}: {asked.kind}" if asked.kind else name


def _span(start: object, end: object) -> tuple[str, str] | None:
    if not isinstance(start, str) or not isinstance(end, str):
        return None
    try:
        return (start, end) if parse_time(start) < parse_time(end) else None
    except InputError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _inputs(content: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for holder in (content, content.get("evidence")):
        for name in ("samples", "inputs"):
            many = holder.get(name) if isinstance(holder, dict) else None
            for one in many if isinstance(many, list) else []:
                told = one.get("input_id") if isinstance(one, dict) else one
                if isinstance(told, str):
                    found.append(told)
    return list(dict.fromkeys(found))
