"""What is known of a model when something is asked for: windows, scores, thresholds, intervals, slices, samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.values import StoredScore
from monitor.windows import SECOND_US, to_text

RECENT = 24
"""Windows before the newest that are told in brief."""
MOST_SAMPLES = 1000
OF_WINDOW = ("start", "end", "slice", "records", "sequences")


def newest_window(store: Store, settings: Settings, model: str, version: str) -> StoredScore | None:
    """The newest scored window of all records, of the first length."""
    length_us = settings.windows.lengths_seconds[0] * SECOND_US
    found = [
        one
        for one in store.latest_scores(length_us=length_us, slices=0)
        if (one.model, one.version, one.slice) == (model, version, "")
    ]
    return max(found, key=lambda one: one.start_us, default=None)


def recent_windows(store: Store, newest: StoredScore, count: int) -> list[StoredScore]:
    """The ``count`` windows up to the newest, against the same baseline, in order of time."""
    since_us = newest.start_us - (count - 1) * newest.length_us
    found = store.scores(newest.model, newest.version, since_us=since_us, length_us=newest.length_us)
    return [one for one in found if one.baseline_id == newest.baseline_id]


def evidence_of(
    store: Store, settings: Settings, model: str, version: str, newest: StoredScore | None, class_name: str = ""
) -> dict[str, Any]:
    """The bundle; without a scored window there is none in it, nor scores.

    ``class_name``: of quality only this class, and what is of all of them.
    """
    quality = [
        one
        for row in store.quality()
        if (row.model, row.version) == (model, version)
        for one in msgspec.json.decode(row.payload)["classes"]
        if not class_name or one["class"] in (class_name, None)
    ]
    active = {key[1]: entry.meta.id for key, entry in store.active_baselines().items() if key[0] == model}
    found: dict[str, Any] = {
        "versions": [{"version": name, "baseline": identity} for name, identity in sorted(active.items())],
        "baseline": active.get(version),
        "quality": quality,
        "classes": [class_name] if class_name else [],
        "scores": [],
        "slices": [],
        "samples": [],
    }
    if newest is None:
        return found
    verdict: dict[str, Any] = msgspec.json.decode(newest.payload)
    scores = verdict.get("scores") or []
    windows = [_brief(one) for one in recent_windows(store, newest, RECENT)]
    shifted = next((one for one in reversed(windows) if one["alarm"]), None)
    return found | {
        "window": {name: verdict.get(name) for name in OF_WINDOW} | {"revision": newest.revision},
        "baseline": newest.baseline_id or None,
        "harm": verdict.get("harm"),
        "scores": scores,
        "thresholds": {one["signal"]: one["threshold"] for one in scores},
        "attribution": verdict.get("attribution") or [],
        "windows": [{name: value for name, value in one.items() if name != "samples"} for one in windows],
        "slices": [one["slice"] for one in verdict.get("slices") or []],
        # The records that are typical of the newest shift: chosen for it, so that none has a probability.
        "samples": [
            {"input_id": name, "version": version, "selection_probability": None}
            for name in (shifted["samples"] if shifted else ())
        ],
    }


def labels_for(store: Store, settings: Settings, model: str) -> dict[str, Any]:
    """Labels that a retraining would have: since the last request, how many are needed, and how many are missing."""
    needed = settings.actions.retrain_min_labels
    last = store.actions.retrainings().get(model)
    since_us = -1 if last is None or last.requested_us is None else last.requested_us
    ready = store.actions.labels_ready(model, since_us)
    return {
        "since": None if since_us < 0 else to_text(since_us),
        "ready": ready,
        "needed": needed,
        "missing": max(0, needed - ready),
    }


def labelled_samples(store: Store, model: str, since_us: int) -> list[dict[str, Any]]:
    """The newest labelled inputs since then, each with its purpose and selection probability.

    Spot checks measure the next model, too: who trains on them must not take their figures for its quality.
    """
    return [
        {
            "input_id": one.input_id,
            "selection_probability": one.selection_probability,
            "purpose": one.purpose,
            "label_time": to_text(one.label_time_us),
        }
        for one in store.actions.labelled(model, since_us, MOST_SAMPLES)
    ]


def _brief(one: StoredScore) -> dict[str, Any]:
    verdict: Mapping[str, Any] = msgspec.json.decode(one.payload)
    return {
        "start": to_text(one.start_us),
        "end": to_text(one.end_us),
        "records": one.records,
        "alarm": one.alarm,
        "harm": verdict.get("harm"),
        "samples": [each["input_id"] for each in verdict.get("samples") or () if each],
    }
