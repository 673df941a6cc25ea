"""What to have labelled because two do not agree on it: two annotators, or two versions of a model."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from monitor.annotators import agreements
from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.records import Limits
from monitor.settings import Settings
from monitor.store.candidates import Pair
from monitor.store.store import Store
from monitor.version_disagreement import differing
from monitor.windows import DAY_US

MOST_PAIRS = 200
"""Inputs of two versions that are compared at a time, the newest."""


class Wanted(NamedTuple):
    """A sample to be queued."""

    input_id: str
    event_time_us: int
    reason: str


Asked = list[tuple[tuple[str, str], list[Wanted]]]
"""By (version, cause), the worst first."""


def between_annotators(store: Store, settings: Settings, baselines: Baselines, model: str, end_us: int) -> Asked:
    """Records of the last days (``quality.window_days``) that no audit has settled."""
    classes = _newest_classes(store, baselines, model)
    if classes is None:
        return []
    pairs = agreements(
        store,
        Limits.from_settings(settings),
        classes,
        model=model,
        since_us=end_us - round(settings.quality.window_days * DAY_US),
        until_us=end_us,
    )
    below = settings.relabel.disagreement_iou
    reasons: dict[str, tuple[float, str]] = {}
    for pair in pairs:
        names = " and ".join(pair["annotators"])
        for one in pair["disagreements"]:
            if one["iou"] < below:
                told = one["iou"], f"{names} disagree on {one['class']}: IoU {one['iou']:.2f}"
                reasons[one["input_id"]] = min(told, reasons.get(one["input_id"], told))
    for name in _settled(store, list(reasons)):
        del reasons[name]
    versions = _versions_of(store, model, list(reasons))
    by_version: dict[str, list[Wanted]] = defaultdict(list)
    for name in sorted(reasons, key=reasons.__getitem__):
        if name in versions:
            version, time_us = versions[name]
            by_version[version].append(Wanted(name, time_us, reasons[name][1]))
    # One cause for all pairs: a third annotator, who will differ from one of the two, would else start it anew.
    return [((version, "annotators"), wanted) for version, wanted in sorted(by_version.items())]


def between_versions(store: Store, settings: Settings, baselines: Baselines, model: str, end_us: int) -> Asked:
    """Records of the last day that two versions have seen, by pair of versions."""
    recent = {one.version for one in store.pane_extent(model) if one.last_start_us >= end_us - DAY_US}
    if len(recent) < 2:
        return []  # spares the store a look at every record
    classes = _newest_classes(store, baselines, model)
    if classes is None:
        return []
    pairs = store.candidates.pairs(model, end_us - DAY_US, end_us, MOST_PAIRS)
    taken = store.candidates.taken(model, [pair.input_id for pair in pairs])
    by_versions: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.input_id not in taken:
            by_versions[pair.first, pair.second].append(pair)
    found: Asked = []
    for (first, second), members in sorted(by_versions.items()):
        wanted = [
            Wanted(
                one.pair.input_id,
                one.pair.event_time_us,
                f"versions {first} and {second} disagree on {one.class_name}: IoU {one.iou:.2f}",
            )
            for one in differing(members, classes, settings.images.max_pixels, settings.relabel.disagreement_iou)
        ]
        if wanted:
            found.append(((second, f"versions: {first} and {second}"), wanted))
    return found


def _newest_classes(store: Store, baselines: Baselines, model: str) -> Classes | None:
    """By the newest baseline of a version that has records."""
    seen = {(one.model, one.version) for one in store.pane_extent(model)}
    own = [(one.activated_us, one.meta.id) for version, one in store.active_baselines().items() if version in seen]
    return baselines.of(max(own)[1]).classes if own else None


def _settled(store: Store, inputs: list[str]) -> set[str]:
    """Those that an audit has settled."""
    labels = store.labels_of(inputs)
    return {name for name, rows in labels.items() if any(row.purpose == "audit" for row in rows)}


def _versions_of(store: Store, model: str, inputs: list[str]) -> dict[str, tuple[str, int]]:
    """Version and event time of each input's record; of several versions the last in their order."""
    found: dict[str, tuple[str, int]] = {}
    for version in sorted({one.version for one in store.pane_extent(model)}):
        found |= {name: (version, at_us) for name, at_us in store.candidates.times_of(model, version, inputs).items()}
    return found
