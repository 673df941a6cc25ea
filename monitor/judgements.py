"""What a record's labels say of it, as the store keeps it: one judgement for each annotator, and what was counted."""

from __future__ import annotations

from typing import Literal

import msgspec

from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_semantic import SemanticJudgement
from detectors.quality.panoptic import PanopticJudgement

Stream = Literal["uniform", "training", "unasked"]
"""``uniform`` feeds SLO counters. ``unasked``: segwatch's ledger knows nothing of it."""


class JudgedLabel(msgspec.Struct, frozen=True, array_like=True):
    """One annotator's annotation against the prediction."""

    annotator: str
    annotation_version: int
    purpose: str
    label_time_us: int
    selection_probability: float | None
    """As the label itself says."""
    problem: str = ""
    """Why it could not be judged: a reason of `monitor.records.reasons`, or ``unjoinable``."""
    instances: bytes | None = None
    semantic: bytes | None = None
    panoptic: bytes | None = None

    def instance_judgement(self) -> InstanceJudgement | None:
        return None if self.instances is None else InstanceJudgement.from_bytes(self.instances)

    def semantic_judgement(self) -> SemanticJudgement | None:
        return None if self.semantic is None else SemanticJudgement.from_bytes(self.semantic)

    def panoptic_judgement(self) -> PanopticJudgement | None:
        return None if self.panoptic is None else PanopticJudgement.from_bytes(self.panoptic)


class Judged(msgspec.Struct, frozen=True, array_like=True):
    """All annotations of one record."""

    classes: list[str]
    """Names of the positions in the judgements: a later baseline may have others."""
    labels: list[JudgedLabel]
    """By annotator."""
    stream: Stream
    probability: float | None
    """With which segwatch chose the record; None where it did not."""
    counted: dict[str, list[int]] | None
    """Class to [tp, fp, fn]: what the SLO counters have of it; None where it never fed them."""
    sureness: bytes | None = None
    """`detectors.quality.expected.ExpectedSums` of the prediction."""

    @property
    def settled(self) -> list[JudgedLabel]:
        """The annotations that count: the audits, else all that could be judged. Several count as their mean."""
        good = [one for one in self.labels if not one.problem]
        audits = [one for one in good if one.purpose == "audit"]
        return audits or good


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Judged)


def to_payload(judged: Judged) -> bytes:
    return _encoder.encode(judged)


def from_payload(data: bytes) -> Judged:
    """What `to_payload` wrote. Raises ValueError where it is damaged."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"damaged judgement: {error}") from None
