"""The labelled records of two versions of a model, brought side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.canary.difference import Difference, paired, paired_mean, unpaired
from detectors.canary.units import ClassUnits, VersionSums, by_sequence, units_of
from detectors.quality.ratio import RatioSample
from monitor.canary_classes import Ontology
from monitor.errors import BadRecord
from monitor.judgements import JudgedLabel, from_payload, to_payload
from monitor.judging import judge
from monitor.kept_masks import KeptMasks, kept
from monitor.label_rows import raw_of
from monitor.quality_evidence import Evidence, Sums, evidence_of
from monitor.quality_window import UNBOUNDED
from monitor.records import Label, Limits, decode
from monitor.store import bulk
from monitor.store.canary import Seen
from monitor.store.store import Store
from monitor.store.values import JudgedRow, LabelRow

METRICS = (
    *("iou", "dice", "boundary_iou", "instance_iou", "precision", "recall", "false_positives_per_image"),
    *("count_error", "merge_rate", "split_rate", "pixel_precision", "pixel_recall", "pixel_accuracy"),
    *("panoptic_quality", "segmentation_quality", "recognition_quality"),
)
MEAN = "mean_iou"
OVERALL = frozenset({"pixel_accuracy"})
"""Metrics over all classes at once."""
LEAST_PAIRS = 2
ROWS_AT_ONCE = 200
"""Records whose masks and labels are in memory together."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """One metric of n records, over the classes that are compared."""

    inputs: tuple[str, ...]
    numerator: NDArray[np.float64]
    """(n, C)"""
    denominator: NDArray[np.float64]
    weights: NDArray[np.float64]
    """(n,)"""
    clusters: NDArray[np.int64]

    def sample(self, column: int) -> RatioSample:
        # Weights of any scale: only their proportions matter here, and RatioSample wants 1 or more.
        scale = self.weights / self.weights.min(initial=np.inf) if len(self.weights) else self.weights
        return RatioSample.of(self.numerator[:, column], self.denominator[:, column], scale, self.clusters)

    def rows(self, at: Sequence[int]) -> Columns:
        place = np.array(at, np.int64)
        return Columns(
            tuple(self.inputs[i] for i in at),
            self.numerator[place],
            self.denominator[place],
            self.weights[place],
            self.clusters[place],
        )


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVersions:
    """Evidence of both versions in the order in which their labels were made."""

    names: tuple[str, ...]
    stable: Evidence
    canary: Evidence
    times_us: Mapping[str, int]
    """Event times by input, of the canary's records."""
    counted: tuple[tuple[int, int], tuple[int, int]]
    """Labelled records of the stable version and the canary: how many are here, and how many there are."""

    @property
    def pairs(self) -> int:
        """Inputs of which labels say something of both versions."""
        return len({*self.stable.inputs} & {*self.canary.inputs})

    def metrics(self) -> list[str]:
        return [name for name in METRICS if name in self.stable.metrics and name in self.canary.metrics]

    def columns(self, metric: str) -> tuple[Columns, Columns]:
        """Of all records of each version."""
        names = None if metric in OVERALL else self.names
        return _columns(self.stable, metric, names), _columns(self.canary, metric, names)

    def difference(self, metric: str, column: int, *, split: bool = False) -> Difference:
        """Of one class; of pairs where there are enough, unless ``split`` asks for the records of each by itself."""
        first, second = self.columns(metric)
        bounded = metric not in UNBOUNDED
        matched = None if split else matching(first, second)
        if matched is not None:
            found = paired(matched[0].sample(column), matched[1].sample(column), bounded=bounded)
            if found.status == "ok" or found.status == "absent":
                return found
        return unpaired(first.sample(column), second.sample(column), bounded=bounded)

    def mean(self) -> Difference | None:
        """Of the mean IoU over classes, of pairs."""
        if "iou" not in self.metrics():
            return None
        matched = matching(*self.columns("iou"))
        if matched is None:
            return None
        count = range(len(self.names))
        return paired_mean([matched[0].sample(i) for i in count], [matched[1].sample(i) for i in count])

    def units(self, *, paired_inputs: bool) -> tuple[list[ClassUnits], ClassUnits, list[list[str]]] | None:
        """Units of the sequential test on IoU, and the inputs of each (of the canary's)."""
        if "iou" not in self.metrics():
            return None
        first, second = self.columns("iou")
        if paired_inputs:
            matched = matching(first, second)
            if matched is None:
                return None
            first, second = matched
        if not len(first.inputs) or not len(second.inputs):
            return None
        sums = [_by_sequence(one) for one in (first, second)]
        classes, mean = units_of(sums[0], sums[1], paired=paired_inputs)
        count = min(len(one.images) for one in sums)
        inputs: list[list[str]] = [[] for _ in range(len(sums[1].images))]
        seen: dict[int, int] = {}
        for name, cluster in zip(second.inputs, second.clusters.tolist(), strict=True):
            inputs[seen.setdefault(cluster, len(seen))].append(name)
        return classes, mean, inputs[:count]


def matching(first: Columns, second: Columns) -> tuple[Columns, Columns] | None:
    """The records of the same inputs, with one weight and sequence a pair; None where there are too few."""
    place = {name: i for i, name in enumerate(second.inputs)}
    at = [(i, place[name]) for i, name in enumerate(first.inputs) if name in place]
    if len(at) < LEAST_PAIRS:
        return None
    one, other = first.rows([i for i, _ in at]), second.rows([j for _, j in at])
    # A pair is as rare as the rarer of its records: whoever samples by input takes both or none.
    weights = np.maximum(one.weights, other.weights)
    return (
        Columns(one.inputs, one.numerator, one.denominator, weights, other.clusters),
        Columns(other.inputs, other.numerator, other.denominator, weights, other.clusters),
    )


def _columns(evidence: Evidence, metric: str, names: Sequence[str] | None) -> Columns:
    sums: Sums = evidence.metrics[metric]
    numerator, denominator = sums.numerator, sums.denominator
    if names is not None:
        # A class that is new in the baseline may not have been judged yet: nothing is known of it.
        known = {name: i for i, name in enumerate(evidence.classes)}
        sides = np.zeros((2, len(sums.rows), len(names)))
        for column, name in enumerate(names):
            if name in known:
                sides[:, :, column] = numerator[:, known[name]], denominator[:, known[name]]
        numerator, denominator = sides
    rows = sums.rows
    inputs = tuple(evidence.inputs[i] for i in rows.tolist())
    return Columns(inputs, numerator, denominator, evidence.weights[rows], evidence.clusters[rows])


def _by_sequence(one: Columns) -> VersionSums:
    return by_sequence(one.numerator, one.denominator, one.weights, one.clusters)


def labelled_versions(store: Store, ontology: Ontology, limits: Limits, seen: Seen, most: int) -> LabelledVersions:
    """What labels say of both versions' records; at most ``most`` of each, and of the stable version's the other halves
    of the canary's."""
    found: list[Evidence] = []
    counted: list[tuple[int, int]] = []
    times: dict[str, int] = {}
    for version, rows, total in zip(seen.versions, *store.canaries.labelled(seen, most), strict=True):
        counted.append((len(rows), total))
        counts = store.pane_counts(
            seen.model, version, slice=seen.slice_key, since_us=seen.since_us, until_us=seen.until_us
        )
        records = max(sum(count for *_, count in counts), total)
        if ontology.changed:
            rows = _judged_again(store, rows, ontology, limits, version, canary=version == seen.versions[1])
        # Of the records, the share that the labels which were read stand for.
        found.append(evidence_of(rows, round(records * counted[-1][0] / total) if total else records, METRICS))
        times |= {row.input_id: row.event_time_us for row in rows}
    return LabelledVersions(ontology.classes.names, found[0], found[1], times, (counted[0], counted[1]))


def _judged_again(
    store: Store, rows: Sequence[JudgedRow], ontology: Ontology, limits: Limits, version: str, *, canary: bool
) -> list[JudgedRow]:
    """The same records judged under the classes that both versions are compared by."""
    again: list[JudgedRow] = []
    for some in bulk.portions(rows, ROWS_AT_ONCE):
        again += _portion_again(store, some, ontology, limits, version, canary=canary)
    return again


def _portion_again(
    store: Store, rows: Sequence[JudgedRow], ontology: Ontology, limits: Limits, version: str, *, canary: bool
) -> list[JudgedRow]:
    inputs = [row.input_id for row in rows]
    masks = store.canaries.masks(rows[0].model, version, inputs)
    labels = store.labels_of(inputs)
    again = []
    for row in rows:
        if row.input_id not in masks:
            continue
        own = kept(masks[row.input_id])
        try:
            own = ontology.as_stable(own, limits.max_pixels) if canary else ontology.without(own)
        except BadRecord:
            continue
        known = from_payload(row.payload)
        told = {one.annotator: one for one in known.labels}
        mine = [
            one
            for one in labels.get(row.input_id, ())
            if one.model in ("", row.model) and one.version in ("", version) and one.annotator in told
        ]
        judged = [_one(own, one, told[one.annotator], ontology, limits) for one in mine]
        changed = msgspec.structs.replace(known, classes=list(ontology.classes.names), labels=judged, sureness=None)
        again.append(row._replace(payload=to_payload(changed)))
    return again


def _one(masks: KeptMasks, row: LabelRow, before: JudgedLabel, ontology: Ontology, limits: Limits) -> JudgedLabel:
    try:
        label = decode(raw_of(row), limits)
        if not isinstance(label, Label):
            raise BadRecord("unknown_type", "not a label")
        verdict = judge(masks, ontology.label(label), ontology.classes, limits.max_pixels)
    except BadRecord as bad:
        return msgspec.structs.replace(before, problem=bad.reason, instances=None, semantic=None, panoptic=None)
    return msgspec.structs.replace(
        before,
        problem="",
        instances=None if verdict.instances is None else verdict.instances.to_bytes(),
        semantic=None if verdict.semantic is None else verdict.semantic.to_bytes(),
        panoptic=None if verdict.panoptic is None else verdict.panoptic.to_bytes(),
    )
