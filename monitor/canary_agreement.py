"""How far two versions agree on the same inputs, from their masks alone: no label is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.quality.confusion import common_size, enlarge
from detectors.quality.ratio import RatioSample
from detectors.quality.spotcheck import spotcheck
from monitor.canary_classes import Ontology
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.judging import judge
from monitor.kept_masks import KeptMasks, kept
from monitor.records import Label, LabelInstance, decode_semantic
from monitor.store.canary import SharedInput
from monitor.store.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """(C,) of one input: pixels in both and in either; twice the matched instances, and all of both sides."""

    both: NDArray[np.float64]
    either: NDArray[np.float64]
    matched: NDArray[np.float64]
    instances: NDArray[np.float64]


def unknown_names(
    store: Store, model: str, versions: tuple[str, str], classes: Classes, inputs: Sequence[str]
) -> set[str]:
    """Class names of the canary's instances that neither ``classes`` nor the stable version's instances have."""
    names: list[set[str]] = []
    for version in versions:
        found = store.canaries.masks(model, version, inputs)
        names.append({one.class_name for data in found.values() for one in kept(data).instances or ()})
    return names[1] - names[0] - set(classes.names)


def agreement(
    store: Store,
    ontology: Ontology,
    max_pixels: int,
    model: str,
    versions: tuple[str, str],
    chosen: Sequence[SharedInput],
) -> dict[str, Any]:
    """Of inputs of both: per class the IoU between the two predictions, and how many instances match.

    Intervals are for the process that makes the records, with sequences as clusters.
    """
    inputs = [one.input_id for one in chosen]
    first, second = (store.canaries.masks(model, version, inputs) for version in versions)
    sums: list[_Sums] = []
    rows: list[SharedInput] = []
    for one in chosen:
        if one.input_id not in first or one.input_id not in second:
            continue
        try:
            stable = ontology.without(kept(first[one.input_id]))
            canary = (
                ontology.as_stable(kept(second[one.input_id]), max_pixels)
                if ontology.changed
                else kept(second[one.input_id])
            )
            sums.append(_compared(stable, canary, ontology.classes, max_pixels))
            rows.append(one)
        except (BadRecord, ValueError):
            continue  # of another size or kind: nothing to compare
    return {"compared": len(rows), "classes": _classes(ontology.classes, sums, rows)}


def _classes(classes: Classes, sums: Sequence[_Sums], rows: Sequence[SharedInput]) -> list[dict[str, Any]]:
    numbers: dict[str, int] = {}
    clusters = [
        numbers.setdefault(f"s{one.sequence}" if one.sequence else f"i{one.input_id}", len(numbers)) for one in rows
    ]
    weights = np.array([1 / max(one.sampling_probability or 1.0, 1e-9) for one in rows])
    found = []
    for column, name in enumerate(classes.names):
        entry: dict[str, Any] = {"class": name}
        for key, sides in (("iou", ("both", "either")), ("instances", ("matched", "instances"))):
            parts = [np.array([getattr(one, side)[column] for one in sums]) for side in sides]
            if not len(rows) or not parts[1].any():
                entry[key] = None
                continue
            told = spotcheck(RatioSample.of(parts[0], parts[1], weights, clusters), None)
            entry[key] = {"point": told.point, "lower": told.lower, "upper": told.upper}
        if entry["iou"] is not None or entry["instances"] is not None:
            found.append(entry)
    return found


def _compared(stable: KeptMasks, canary: KeptMasks, classes: Classes, max_pixels: int) -> _Sums:
    count = len(classes.names)
    nothing = np.zeros(count)
    if stable.semantic is not None and canary.semantic is not None:
        both, either = _maps(stable, canary, classes, max_pixels)
        if stable.instances is None or canary.instances is None:
            return _Sums(both, either, nothing, nothing)
        lists = _lists(stable, canary, classes, max_pixels)
        return _Sums(both, either, lists.matched, lists.instances)
    return _lists(stable, canary, classes, max_pixels)


def _lists(stable: KeptMasks, canary: KeptMasks, classes: Classes, max_pixels: int) -> _Sums:
    """The canary in the place of a label: neither is the truth, and all of this is counted the same both ways."""
    known = classes.position
    if canary.instances is None:
        raise BadRecord("label_mismatch", "a list against a map")
    label = Label(
        input_id="",
        annotator="",
        annotation_version=0,
        label_time=datetime(1970, 1, 1, tzinfo=UTC),
        instances=[LabelInstance(one.class_name, one.mask) for one in canary.instances if one.class_name in known],
        image_size=(canary.height, canary.width) if canary.height and canary.width else None,
    )
    found = judge(KeptMasks(stable.height, stable.width, stable.instances, None), label, classes, max_pixels).instances
    assert found is not None
    both, either = found.intersection.astype(np.float64), found.union.astype(np.float64)
    listed = np.bincount(found.kind, minlength=len(known) + 1)[: len(known)] + np.bincount(
        found.label_kind, minlength=len(known)
    )
    return _Sums(both, either, 2 * found.true_positives.astype(np.float64), listed.astype(np.float64))


def _maps(
    stable: KeptMasks, canary: KeptMasks, classes: Classes, max_pixels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert stable.semantic is not None
    assert canary.semantic is not None
    maps = [decode_semantic(one.semantic, max_pixels)[0] for one in (stable, canary) if one.semantic is not None]
    size = (stable.height, stable.width) if stable.height and stable.width else common_size(maps[0], maps[1])
    table = np.full(
        65_536, len(classes.names), np.int64
    )  # anything else, void too, is one more class that nobody asks for
    table[list(classes.indices)] = np.arange(len(classes.names))
    one, other = (table[enlarge(each, size)].reshape(-1) for each in maps)
    count = len(classes.names) + 1
    both = np.bincount(one[one == other], minlength=count)
    either = np.bincount(one, minlength=count) + np.bincount(other, minlength=count) - both
    return both[:-1].astype(np.float64), either[:-1].astype(np.float64)
