"""Quality on the baseline's own records: what production is held against, and what confidence is calibrated by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from detectors.quality.expected import ExpectedSums
from detectors.quality.labelfree import CalibrationError
from detectors.quality.ratio import Estimate, RatioSample, Status
from detectors.quality.spotcheck import spotcheck
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.expectations import (
    FEWEST,
    Calibrated,
    Calibrations,
    Floats,
    found_per_record,
    frequencies_of,
    in_folds,
)
from monitor.judgements import Judged, JudgedLabel, to_payload
from monitor.judging import judge_label
from monitor.kept_masks import kept
from monitor.pane_state import merged_expected
from monitor.quality_evidence import Evidence, Sums, evidence_of
from monitor.records import Label
from monitor.sources.protocol import RawRecord
from monitor.store.values import JudgedRow
from monitor.sureness import expected_of

MOST_ROWS = 2000
"""Judged records that are kept with a baseline to calibrate by, some kilobyte each; its figures are those of all."""
IOU = ("iou",)
"""What a reference is asked for."""
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
        return evidence_of(self.rows, len(self.rows), IOU)

    @cached_property
    def _expected(self) -> ExpectedSums | None:
        """How sure the model was of all of them; None where it is not known of some."""
        return merged_expected(self.evidence.expected)

    @cached_property
    def found_per_record(self) -> Floats | None:
        """(C,) pixels that the model found of each class in a record, on average; None where that is not known."""
        return None if self._expected is None else found_per_record(self._expected)

    @cached_property
    def calibrated(self) -> tuple[Calibrated, list[CalibrationError]] | None:
        """A calibration learnt from the kept records, and how far it was off by class on records it did not know.

        None where they are too few, or where the model's confidence in them is not known.
        """
        evidence = self.evidence
        sums = evidence.metrics.get("iou")
        if sums is None or len(sums.rows) < FEWEST or self._expected is None:
            return None
        frequencies = frequencies_of(self._expected)
        parts = in_folds(evidence, sums.rows, frequencies)
        if not parts:
            return None
        numerator, denominator = np.zeros_like(sums.numerator), np.zeros_like(sums.denominator)
        known = [one for row in sums.rows.tolist() if (one := evidence.expected[row]) is not None]  # all: see above
        for calibrated, places in parts:
            numerator[places], denominator[places] = calibrated.of_each([known[place] for place in places])
        errors = []
        for column in range(sums.numerator.shape[1]):
            sample = _uniform(evidence, sums, sums.numerator[:, column], sums.denominator[:, column])
            errors.append(CalibrationError.of(sample, numerator[:, column], denominator[:, column]))
        return Calibrations(evidence, frequencies).learn(np.ones(len(evidence.inputs), np.bool_)), errors


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
                verdict = judge_label(masks, label, classes, max_pixels)
            except BadRecord as bad:
                on_bad(raw, bad)
                continue
            purpose = "audit" if label.purpose == "audit" else "spot_check"
            judged.append(
                verdict.put_into(
                    JudgedLabel(
                        label.annotator,
                        label.annotation_version,
                        purpose,
                        label.label_time_us,
                        label.selection_probability,
                    )
                )
            )
        if judged:
            sureness = expected_of(masks, classes, max_pixels).to_bytes()
            payload = to_payload(Judged(list(classes.names), judged, "unasked", None, None, sureness))
            rows.append(JudgedRow(input_id, "", "", event_time_us, sequence, slices, sampling, 0, 0, 0, payload))
    if not rows:
        return None
    rows.sort(key=lambda row: (row.event_time_us, row.input_id))
    of_split = [f"{SPLIT}{msgspec.json.decode(row.slices).get(SPLIT[:-1], '')}" for row in rows]
    everything = evidence_of(rows, len(rows), IOU)
    figures = {"": _figures(everything), OVERALL: _overall(everything)}
    for name in {*of_split} - {SPLIT}:
        own = [row for row, split in zip(rows, of_split, strict=True) if split == name]
        figures[name] = _figures(evidence_of(own, len(own), IOU))
    chosen = np.random.default_rng(0).permutation(len(rows))[:MOST_ROWS]
    return Reference(len(rows), figures, [rows[i] for i in np.sort(chosen).tolist()])


def _figures(evidence: Evidence) -> list[ReferenceClass]:
    sums = evidence.metrics["iou"]
    found = []
    for column, name in enumerate(evidence.classes):
        sample = _uniform(evidence, sums, sums.numerator[:, column], sums.denominator[:, column])
        one = spotcheck(sample, None)
        found.append(ReferenceClass(name, one.point, one.lower, one.upper, int((sample.denominator > 0).sum())))
    return found


def _overall(evidence: Evidence) -> list[ReferenceClass]:
    sums = evidence.metrics["iou"]
    sample = _uniform(evidence, sums, sums.numerator.sum(1), sums.denominator.sum(1))
    one = spotcheck(sample, None)
    return [ReferenceClass("", one.point, one.lower, one.upper, len(sample))]


def _uniform(evidence: Evidence, sums: Sums, numerator: Floats, denominator: Floats) -> RatioSample:
    """Of records that were all taken alike."""
    return RatioSample.uniform(numerator, denominator, evidence.clusters[sums.rows])
