"""Actions as people see them: what was asked, when, and how far its delivery has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from alerts.actions import RETRAIN_REQUESTED, model_of
from monitor.store.actions import QueuedAction
from monitor.store.deliveries import DeliveryRow
from monitor.store.store import Store
from monitor.windows import DAY_US, to_text

OPEN_FOR_US = DAY_US
"""An action that has arrived everywhere counts as open for so long."""
LOOK_BACK_US = 30 * DAY_US
OUTBOX = "outbox"
"""How Kafka, or the file that stands in for it, is called among the receivers."""


def listing(store: Store, topic: str, *, since_us: int | None, limit: int) -> list[dict[str, Any]]:
    """The newest actions first, without their data."""
    found = store.actions.queued(topic, since_us=since_us, limit=limit)
    deliveries = store.deliveries.of([one.message.id for one in found])
    return [entry(one, deliveries.get(one.message.id, [])) for one in found]


def shown(store: Store, topic: str, identity: str) -> dict[str, Any]:
    """One action with all its data. Raises InputError."""
    found = store.actions.one(topic, identity)
    deliveries = store.deliveries.of([found.message.id])
    return entry(found, deliveries.get(found.message.id, [])) | {"data": _data(found)}


def entry(one: QueuedAction, deliveries: Sequence[DeliveryRow]) -> dict[str, Any]:
    """An action and its deliveries, ready for JSON."""
    data = _data(one)
    model, version = model_of(data)
    sent = one.sent_us is not None
    told = [
        {
            "receiver": OUTBOX,
            "state": "delivered" if sent else "waiting",
            "attempts": None,
            "delivered": to_text(one.sent_us) if one.sent_us is not None else None,
            "next": None,
            "told": "",
            "error": "",
        },
        *map(_delivery, deliveries),
    ]
    states = {delivery["state"] for delivery in told}
    return {
        "id": one.message.id,
        "type": data.get("type"),
        "kind": data.get("kind"),
        "model": model,
        "version": version,
        "requested": to_text(one.message.created_us),
        "state": next((state for state in ("given_up", "waiting") if state in states), "delivered"),
        "link": data.get("link"),
        "deliveries": told,
    }


def open_actions(store: Store, now_us: int) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By model and version: retrainings that are wanted and must wait, actions of the last day, and older ones (of the
    last 30 days) that have not arrived everywhere."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for model, row in sorted(store.actions.retrainings().items()):
        decided = msgspec.json.decode(row.payload)
        if decided.get("state") in ("waiting_for_labels", "cooling_down"):
            wanted = {"id": None, "type": RETRAIN_REQUESTED, "decided": to_text(row.decided_us), **decided}
            found.setdefault((model, decided["version"]), []).append(wanted)
    queued = store.actions.unfinished(now_us - LOOK_BACK_US, now_us - OPEN_FOR_US)
    deliveries = store.deliveries.of([one.message.id for one in queued])
    for one in queued:
        action = entry(one, deliveries.get(one.message.id, []))
        found.setdefault((action["model"], action["version"]), []).append(action)
    return found


def listing_text(actions: Sequence[Mapping[str, Any]]) -> str:
    """A table for people."""
    if not actions:
        return "No actions yet."
    lines = []
    for one in actions:
        about = f"{one['model']} {one['version']}".strip()
        lines.append(
            f"{one['requested']}  {one['id']}  {_short(one['type'])} ({one['kind']}) of {about}: {one['state']}"
        )
        lines += [f"    {_delivery_text(each)}" for each in one["deliveries"] if each["state"] != "delivered"]
    return "\n".join(lines)


def shown_text(one: Mapping[str, Any]) -> str:
    """One action for people, its evidence as JSON."""
    lines = [
        f"{_short(one['type'])} ({one['kind']}) of {one['model']} {one['version']}: {one['state']}",
        f"id         {one['id']}",
        f"requested  {one['requested']}",
        f"link       {one['link'] or ''}",
        *(f"to         {_delivery_text(each)}" for each in one["deliveries"]),
        "",
        msgspec.json.format(msgspec.json.encode(one["data"]), indent=2).decode(),
    ]
    return "\n".join(lines)


def open_text(one: Mapping[str, Any]) -> str:
    """An entry of `open_actions` in a line, for people."""
    if one["id"] is None:
        why = "; ".join(reason["text"] for reason in one["reasons"])
        if one["state"] == "cooling_down":
            return f"retrain: waits until {one['cools_until']} ({why})"
        lacking = (
            f"{one['labels_missing']} labels are missing ({one['labels_ready']} of {one['labels_needed']} are ready)"
        )
        return f"retrain: waits for labels, {lacking}: {why}"
    return f"{_short(one['type'])} ({one['kind']}) of {one['requested']}: {one['state']}"


def _short(kind: str | None) -> str:
    return (kind or "?").removeprefix("segwatch.").removesuffix(".v1").replace("_", " ")


def _delivery_text(one: Mapping[str, Any]) -> str:
    text = f"{one['receiver']}: {one['state'].replace('_', ' ')}"
    if one["delivered"]:
        text += f" {one['delivered']}"
    if one["attempts"]:
        text += f", {one['attempts']} attempts"
    if one["next"]:
        text += f", next {one['next']}"
    return text + "".join(f": {one[name]}" for name in ("told", "error") if one[name])


def _delivery(row: DeliveryRow) -> dict[str, Any]:
    return {
        "receiver": row.receiver,
        "state": row.state,
        "attempts": row.attempts,
        "delivered": to_text(row.done_us) if row.state == "delivered" and row.done_us is not None else None,
        "next": to_text(row.next_us) if row.state == "waiting" else None,
        "told": row.told,
        "error": row.error if row.state != "delivered" else "",
    }


def _data(one: QueuedAction) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(one.message.value or b"{}")
    return data
