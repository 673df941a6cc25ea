"""The relabel queue as people and tools see it: one entry a sample, with all that it is wanted for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monitor.store.relabel import Claim, RelabelItem
from monitor.windows import to_text


def entry(item: RelabelItem) -> dict[str, Any]:
    """An item, as under ``items`` of ``segwatch relabel list --json``."""
    return {
        "model": item.model,
        "version": item.version,
        "input_id": item.input_id,
        "event_time": to_text(item.event_time_us),
        "kind": item.kind,
        "stream": item.stream,
        "cause": item.cause,
        "priority": item.priority,
        "probability": item.probability,
        "reason": item.reason,
        "chosen": to_text(item.created_us),
        "state": item.state,
        "claimed_by": item.claimed_by,
        "lease_until": _time(item.lease_until_us),
        "closed": _time(item.closed_us),
        "closed_by": item.closed_by,
    }


def samples(items: Iterable[RelabelItem]) -> list[dict[str, Any]]:
    """Samples in the order of their first items: that item, and under ``causes`` what each asks for."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        own = found.setdefault(item.sample, {**entry(item), "causes": []})
        own["causes"].append(
            {
                "kind": item.kind,
                "cause": item.cause,
                "version": item.version,
                "reason": item.reason,
                "probability": item.probability,
            }
        )
    return list(found.values())


def claimed(claim: Claim) -> dict[str, Any]:
    """As ``segwatch relabel claim --json``; ``token`` and ``lease_until`` are null where nothing waits."""
    some = bool(claim.items)
    return {
        "token": claim.token if some else None,
        "lease_until": _time(claim.lease_until_us) if some else None,
        "items": samples(claim.items),
    }


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else to_text(time_us)
