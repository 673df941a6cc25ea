"""What became of one input: from its records to windows, alarms, actions, labels and its image."""

from __future__ import annotations

import json
from typing import Any

from alerts.actions import model_of
from monitor.images import ImageStore, ImageStoreError, name_of
from monitor.judgements import from_payload
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.traces import InputTrace, Row
from monitor.windows import to_text


def trace(store: Store, images: ImageStore, settings: Settings, input_id: str) -> dict[str, Any]:
    """As ``segwatch trace --json``; docs/commands.md says what the fields mean."""
    found = store.trace(input_id, settings.kafka.actions_topic)
    return {
        "input_id": input_id,
        "purged": found.purged,
        "records": [_record(one, found, images, settings, input_id) for one in found.samples],
        "labels": [_label(one) for one in found.labels],
        "relabel": [_item(one) for one in found.relabel],
    }


def _record(one: Row, found: InputTrace, images: ImageStore, settings: Settings, input_id: str) -> dict[str, Any]:
    key = one["model"], one["version"]
    windows = [_window(each, input_id) for each in found.windows if (each["model"], each["version"]) == key]
    return {
        "model": one["model"],
        "version": one["version"],
        "event_time": to_text(one["event_time_us"]),
        "received": _time(one["received_us"]),
        "status": one["status"],
        "sequence": one["sequence"],
        "slices": json.loads(one["slices"]),
        "sampling_probability": one["sampling_probability"],
        "confidence": one["confidence"],
        "source": {name: one[name] for name in ("topic", "number", "offset")},
        "baseline": found.baselines.get(key),
        "masks_kept": bool(one["has_masks"]),
        "image": _image(one, images, settings, input_id),
        "windows": windows,
        "actions": [_action(each) for each in found.actions if _concerns(each, one, windows, input_id)],
        "spot_checks": [
            {
                "stream": each["stream"],
                "probability": each["probability"],
                "reason": each["reason"],
                "chosen": to_text(each["chosen_at_us"]),
            }
            for each in found.spot_checks
            if (each["model"], each["version"]) == key
        ],
        "judged": next((_judged(each) for each in found.judged if (each["model"], each["version"]) == key), None),
    }


def _image(one: Row, images: ImageStore, settings: Settings, input_id: str) -> dict[str, Any] | None:
    """Where the kept image is; None where there is none, or nobody can tell at the moment."""
    try:
        for form in (settings.samples.format, "jpeg", "webp"):  # the setting may have changed since
            name = name_of(one["model"], one["version"], input_id, one["event_time_us"], form)
            if images.has(name):
                return {"name": str(name), "media_type": name.media_type, "place": images.describe()}
    except ImageStoreError:
        pass
    return None


def _window(one: Row, input_id: str) -> dict[str, Any]:
    verdict = json.loads(one["payload"])
    return {
        "start": to_text(one["start_us"]),
        "end": to_text(one["start_us"] + one["length_us"]),
        "baseline": one["baseline_id"] or None,
        "revision": one["revision"],
        "alarm": one["alarm"],
        "harm": verdict.get("harm"),
        "status": verdict.get("status"),
        "named": any(each.get("input_id") == input_id for each in verdict.get("samples") or ()),
    }


def _concerns(action: Row, record: Row, windows: list[dict[str, Any]], input_id: str) -> bool:
    """Whether an action names the input, or is about a window that its record lies in."""
    try:
        data = json.loads(action["value"] or b"{}")
    except ValueError:
        return False
    if _names(data, input_id):
        return True
    if not isinstance(data, dict) or model_of(data) != (record["model"], record["version"]):
        return False
    evidence = data.get("evidence")
    window = evidence.get("window") if isinstance(evidence, dict) else data.get("window")
    return isinstance(window, dict) and any(
        (each["start"], each["end"]) == (window.get("start"), window.get("end")) for each in windows
    )


def _names(data: Any, input_id: str) -> bool:
    if isinstance(data, dict):
        return data.get("input_id") == input_id or any(_names(one, input_id) for one in data.values())
    return isinstance(data, list) and any(one == input_id or _names(one, input_id) for one in data)


def _action(one: Row) -> dict[str, Any]:
    data = json.loads(one["value"])
    return {
        "id": one["id"],
        "type": data.get("type"),
        "kind": data.get("kind"),
        "queued": to_text(one["created_us"]),
        "delivered": _time(one["sent_us"]),
    }


def _judged(one: Row) -> dict[str, Any]:
    payload = from_payload(one["payload"])
    return {
        "at": to_text(one["judged_at_us"]),
        "revision": one["revision"],
        "stream": payload.stream,
        "probability": payload.probability,
        "in_slo_counters": payload.counted is not None,
        "annotations": [
            {
                "annotator": each.annotator,
                "annotation_version": each.annotation_version,
                "purpose": each.purpose,
                "problem": each.problem or None,
            }
            for each in payload.labels
        ],
    }


def _label(one: Row) -> dict[str, Any]:
    return {
        "annotator": one["annotator"],
        "annotation_version": one["annotation_version"],
        "label_time": to_text(one["label_time_us"]),
        "purpose": one["purpose"],
        "selection_probability": one["selection_probability"],
        "model": one["model"] or None,
        "version": one["version"] or None,
        "state": one["state"],
        "source": {name: one[name] for name in ("cluster", "topic", "number", "offset")},
    }


def _item(one: Row) -> dict[str, Any]:
    shown = ("model", "version", "cause", "kind", "stream", "reason", "priority", "probability", "state", "claimed_by")
    return {
        **{name: one[name] for name in shown},
        "queued": to_text(one["created_us"]),
        "closed": _time(one["closed_us"]),
        "closed_by": one["closed_by"],
    }


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else to_text(time_us)


def as_text(found: dict[str, Any]) -> str:
    """For a terminal: the same, line by line."""
    lines: list[str] = []

    def show(name: str, value: Any, depth: int) -> None:
        margin = "  " * depth
        if isinstance(value, dict):
            lines.append(f"{margin}{name}:")
            for key, one in value.items():
                show(key, one, depth + 1)
        elif isinstance(value, list):
            lines.append(f"{margin}{name}: {len(value) or 'none'}")
            for number, one in enumerate(value, 1):
                show(str(number), one, depth + 1)
        else:
            lines.append(f"{margin}{name}: {'-' if value is None else value}")

    for key, one in found.items():
        show(key, one, 0)
    return "\n".join(lines)
