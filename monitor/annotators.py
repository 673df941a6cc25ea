"""How far annotators agree where several labelled one input, so that a new habit is not taken for a worse model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from detectors.quality.agreement import Shared, agreement, disagreements, overall_kappa
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.judgements import from_payload
from monitor.judging import image_size, judge
from monitor.kept_masks import KeptMasks
from monitor.label_rows import raw_of
from monitor.records import Instance, Label, Limits, decode
from monitor.store.store import Store
from monitor.store.values import LabelRow

MOST_DISAGREEMENTS = 20


def agreements(
    store: Store,
    limits: Limits,
    classes: Classes,
    *,
    model: str,
    version: str | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
) -> list[dict[str, Any]]:
    """Each pair of annotators with their common records of [since, until), as in ``segwatch labels agreement``."""
    inputs = [
        row.input_id
        for row in store.judged(model, version, since_us=since_us, until_us=until_us)
        if len(from_payload(row.payload).labels) > 1
    ]
    pairs: dict[tuple[str, str], list[tuple[str, Label, Label]]] = defaultdict(list)
    for input_id, rows in sorted(store.labels_of(sorted(set(inputs))).items()):
        found = _decoded(rows, limits)
        for first, second in combinations(sorted(found), 2):
            pairs[first, second].append((input_id, found[first], found[second]))
    return [_pair(names, members, classes, limits) for names, members in sorted(pairs.items())]


def _decoded(rows: Sequence[LabelRow], limits: Limits) -> dict[str, Label]:
    """By annotator; a label of one version counts only where there is none of all."""
    found: dict[str, Label] = {}
    for row in sorted(rows, key=lambda row: bool(row.model)):
        try:
            record = decode(raw_of(row), limits)
        except BadRecord:
            continue  # its dead letter has said why
        if isinstance(record, Label):
            found.setdefault(row.annotator, record)
    return found


def _pair(
    names: tuple[str, str], members: Iterable[tuple[str, Label, Label]], classes: Classes, limits: Limits
) -> dict[str, Any]:
    rows: list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], int]] = []
    maps: list[tuple[str, Any]] = []
    for input_id, first, second in members:
        stand_in = _as_prediction(first)
        try:
            verdict = judge(stand_in, second, classes, limits.max_pixels)
        except BadRecord:
            continue
        if verdict.instances is not None:
            found = verdict.instances
            height, width = image_size(stand_in, second)
            sums = (found.intersection, found.predicted_pixels, found.labelled_pixels)
            rows.append((input_id, *sums, height * width))
        elif verdict.semantic is not None:
            maps.append((input_id, verdict.semantic))
    inputs, shared, kappa = _shared(rows, maps)
    if shared is None:
        return {"annotators": list(names), "records": 0, "kappa": None, "classes": [], "disagreements": []}
    told = agreement(shared)
    return {
        "annotators": list(names),
        "records": told.records,
        "kappa": kappa,
        "classes": [
            {
                "class": name,
                "iou": _number(told.iou[position]),
                "kappa": _number(told.kappa[position]),
                "surplus": _number(told.surplus[position]),
            }
            for position, name in enumerate(classes.names)
            if not np.isnan(told.iou[position])
        ],
        "disagreements": [
            {
                "input_id": inputs[one.record],
                "class": classes.names[one.position],
                "disputed_pixels": one.disputed,
                "iou": one.iou,
            }
            for one in disagreements(shared, MOST_DISAGREEMENTS)
        ],
    }


def _shared(rows: Sequence[Any], maps: Sequence[Any]) -> tuple[list[str], Shared | None, float | None]:
    """Inputs, sums and Cohen's kappa over all classes; of maps, where there are some, else of lists."""
    if maps:
        shared = Shared.of_semantic([judgement for _, judgement in maps])
        return [input_id for input_id, _ in maps], shared, overall_kappa(shared)
    if not rows:
        return [], None, None
    inputs, both, first, second, pixels = zip(*rows, strict=True)
    shared = Shared(np.stack(both), np.stack(first), np.stack(second), np.array(pixels, np.int64))
    return list(inputs), shared, None


def _as_prediction(label: Label) -> KeptMasks:
    """A label in the place of a prediction."""
    instances = None
    if label.instances is not None:
        instances = [Instance(one.class_name, 1.0, one.mask) for one in label.instances]
    height, width = label.image_size or (0, 0)
    return KeptMasks(height, width, instances, label.semantic)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
