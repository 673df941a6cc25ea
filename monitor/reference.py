"""Quality on the baseline's own records: what production is held against, and what confidence is calibrated by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from detectors.quality.labelfree import CalibrationError
from detectors.quality.ratio import Estimate, RatioSample, Status
from detectors.quality.spotcheck import spotcheck
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.expectations import FEWEST, FOLDS, Calibrated, Floats, found_per_record, frequencies_of
from monitor.judgements import Judged, JudgedLabel, to_payload
from monitor.judging import judge
from monitor.kept_masks import kept
from monitor.pane_state import merged_expected
from monitor.quality_evidence import Evidence, evidence_of
from monitor.records import Label
from monitor.sources.protocol import RawRecord
from monitor.store.values import JudgedRow
from monitor.sureness import expected_of

MOST_ROWS = 2000
"""Judged records that are kept with a baseline to calibrate by, some kilobyte each; its figures are those of all."""
OVERALL = "*"
"""In the place of a slice: figures of all classes pooled."""
SPLIT = "split="
"""Slices of this key (``split=train``, ``split=validation``) get figures of their own."""

LabelledRecord = tuple[str, str | None, str, float, int, bytes]
"""Input, sequence, slices (JSON), sampling probability, event time and kept masks of a record that has labels."""
Labels = Mapping[str, Sequence[tuple[RawRecord, Label]]]
"""By input."""


class ReferenceClass(msgspec.Struct, frozen=True, array_like=True):
    """Pooled IoU of a class on the baseline's records, as of the process that made them."""

    name: str
    point: float | None
    lower: float | None
    upper: float | None
    labels: int

    def estimate(self) -> Estimate:
        status: Status = "ok" if self.point is not None else "too few labels"
        return Estimate(
            self.point, self.lower, self.upper, self.labels, float(self.labels), 0, status, 0, "spotcheck", 1.0,
            "process",
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {"point": self.point, "lower": self.lower, "upper": self.upper, "labels": self.labels}


class _Row(msgspec.Struct, frozen=True, array_like=True):
    input_id: str
    sequence: str | None
    slices: str
    sampling_probability: float
    event_time_us: int
    payload: bytes


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    labelled: int
    figures: dict[str, list[ReferenceClass]]
    rows: list[_Row]


@dataclass(frozen=True, eq=False)
class Reference:
    """``figures``: by slice ("" for all records), then in the order of classes. ``rows``: some of those judged."""

    labelled: int
    figures: Mapping[str, Sequence[ReferenceClass]]
    rows: Sequence[JudgedRow] = field(default=())

    def to_bytes(self) -> bytes:
        """Equal content gives equal bytes."""
        rows = [
            _Row(r.input_id, r.sequence, r.slices, r.sampling_probability or 1.0, r.event_time_us, r.payload)
            for r in self.rows
        ]
        figures = {name: list(self.figures[name]) for name in sorted(self.figures)}
        return msgspec.msgpack.encode(_Wire(self.labelled, figures, rows))

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """What `to_bytes` wrote. Raises ValueError where it is damaged."""
        try:
            wire = msgspec.msgpack.decode(data, type=_Wire)
        except msgspec.DecodeError as error:
            raise ValueError(f"damaged reference: {error}") from None
        rows = [
            JudgedRow(
                r.input_id, "", "", r.event_time_us, r.sequence, r.slices, r.sampling_probability, 0, 0, 0, r.payload
            )
            for r in wire.rows
        ]
        return cls(wire.labelled, wire.figures, rows)

    def of(self, class_name: str, slice_name: str = "") -> ReferenceClass | None:
        """A class's figures on all records, or those of a slice."""
        return next((one for one in self.figures.get(slice_name, ()) if one.name == class_name), None)

    @property
    def overall(self) -> ReferenceClass | None:
        """All classes pooled; None in references that do not have it."""
        return self.of("", OVERALL)

    @cached_property
    def evidence(self) -> Evidence:
        """The judged records that were kept."""
        return evidence_of(self.rows, len(self.rows))

    @cached_property
    def found_per_record(self) -> Floats | None:
        """(C,) pixels that the model found of each class in a record, on average; None where that is not known."""
        known = merged_expected(self.evidence.expected)
        return None if known is None else found_per_record(known)

    @cached_property
    def calibrated(self) -> tuple[Calibrated, list[CalibrationError]] | None:
        """A calibration learnt from the kept records, and how far it was off by class on records it did not know.

        None where they are too few, or where the model's confidence in them is not known.
        """
        evidence = self.evidence
        sums = evidence.metrics.get("iou")
        known = merged_expected(evidence.expected)
        if sums is None or len(sums.rows) < FEWEST or known is None:
            return None
        frequencies = frequencies_of(known)
        fold = evidence.clusters % min(FOLDS, len(np.unique(evidence.clusters)))
        numerator, denominator = np.zeros_like(sums.numerator), np.zeros_like(sums.denominator)
        for number in np.unique(fold).tolist():
            if not (fold != number).any():
                return None
            calibrated = Calibrated(evidence, fold != number, frequencies)
            for place in np.flatnonzero(fold[sums.rows] == number).tolist():
                expected = evidence.expected[int(sums.rows[place])]
                assert expected is not None
                numerator[place], denominator[place] = calibrated.of(expected)
        errors = []
        for column in range(sums.numerator.shape[1]):
            sample = RatioSample.uniform(
                sums.numerator[:, column], sums.denominator[:, column], evidence.clusters[sums.rows]
            )
            errors.append(CalibrationError.of(sample, numerator[:, column], denominator[:, column]))
        return Calibrated(evidence, np.ones(len(evidence.inputs), np.bool_), frequencies), errors


def make_reference(
    records: Iterable[LabelledRecord],
    labels: Labels,
    classes: Classes,
    max_pixels: int,
    on_bad: Callable[[RawRecord, BadRecord], None],
) -> Reference | None:
    """Judge the baseline's labelled records; a label that does not fit goes to ``on_bad``. None where none is left."""
    rows: list[JudgedRow] = []
    for input_id, sequence, slices, sampling, event_time_us, data in records:
        masks = kept(data)
        judged = []
        for raw, label in labels.get(input_id, ()):
            try:
                verdict = judge(masks, label, classes, max_pixels)
            except BadRecord as bad:
                on_bad(raw, bad)
                continue
            judged.append(
                JudgedLabel(
                    label.annotator,
                    label.annotation_version,
                    "audit" if label.purpose == "audit" else "spot_check",
                    label.label_time_us,
                    label.selection_probability,
                    "",
                    None if verdict.instances is None else verdict.instances.to_bytes(),
                    None if verdict.semantic is None else verdict.semantic.to_bytes(),
                    None if verdict.panoptic is None else verdict.panoptic.to_bytes(),
                )
            )
        if judged:
            sureness = expected_of(masks, classes, max_pixels).to_bytes()
            payload = to_payload(Judged(list(classes.names), judged, "unasked", None, None, sureness))
            rows.append(JudgedRow(input_id, "", "", event_time_us, sequence, slices, sampling, 0, 0, 0, payload))
    if not rows:
        return None
    rows.sort(key=lambda row: (row.event_time_us, row.input_id))
    names = {""}
    of_split = [f"{SPLIT}{msgspec.json.decode(row.slices).get(SPLIT[:-1], '')}" for row in rows]
    names |= {name for name in of_split if name != SPLIT}
    figures = {
        name: _figures([row for row, split in zip(rows, of_split, strict=True) if not name or split == name])
        for name in sorted(names)
    }
    figures[OVERALL] = _overall(rows)
    chosen = np.random.default_rng(0).permutation(len(rows))[:MOST_ROWS]
    return Reference(len(rows), figures, [rows[i] for i in np.sort(chosen).tolist()])


def _figures(rows: Sequence[JudgedRow]) -> list[ReferenceClass]:
    evidence = evidence_of(rows, len(rows))
    sums = evidence.metrics["iou"]
    found = []
    for column, name in enumerate(evidence.classes):
        sample = RatioSample.uniform(
            sums.numerator[:, column], sums.denominator[:, column], evidence.clusters[sums.rows]
        )
        one = spotcheck(sample, None)
        found.append(ReferenceClass(name, one.point, one.lower, one.upper, int((sample.denominator > 0).sum())))
    return found


def _overall(rows: Sequence[JudgedRow]) -> list[ReferenceClass]:
    evidence = evidence_of(rows, len(rows))
    sums = evidence.metrics["iou"]
    sample = RatioSample.uniform(sums.numerator.sum(1), sums.denominator.sum(1), evidence.clusters[sums.rows])
    one = spotcheck(sample, None)
    return [ReferenceClass("", one.point, one.lower, one.upper, len(sample))]
