"""What a record looks like once it is decoded: the structs that msgspec fills straight from JSON or MessagePack.

A bound that msgspec can check while it decodes stands in the type (``Meta``), because there it costs nanoseconds. What
it cannot express is in checks.py. Unknown fields are ignored, so that a record may carry a user's own. ``null`` in an
optional field whose default is None means the same as leaving the field out.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from monitor.masks import MAX_SIDE, Mask, MaskReport, Side, check_masks
from monitor.records.embedding import read_embedding

PREDICTION_TYPE = "segwatch.prediction.v1"
LABEL_TYPE = "segwatch.label.v1"

MAX_NAME = 256
MAX_SLICES = 16
MAX_INSTANCES = 10_000

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
SliceValue = Annotated[str, Meta(max_length=MAX_NAME)]
Time = Annotated[datetime, Meta(tz=True)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Probability = Annotated[float, Meta(gt=0, le=1)]
# The upper bound only keeps infinity out, which MessagePack can carry.
Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
AnnotationVersion = Annotated[int, Meta(ge=0, le=2**63 - 1)]

Status = Literal["ok", "error", "timeout", "oom"]
Purpose = Literal["spot_check", "relabel", "audit"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(time: datetime) -> int:
    """Microseconds since the epoch of an aware time, exactly.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    1000005
    """
    since = time - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class Model(msgspec.Struct, frozen=True, gc=False):
    """Which model, and which version of it."""

    name: Name
    version: Name


class Image(msgspec.Struct, frozen=True, gc=False):
    """The input, inline (``data``: base64 in JSON, bytes in MessagePack) or by reference (``uri``); never both."""

    media_type: Annotated[str, Meta(max_length=MAX_NAME)] | None = None
    data: bytes | None = None
    uri: str | None = None


class Instance(msgspec.Struct, frozen=True, gc=False):
    """One predicted object; ``class_name`` is the field ``class``."""

    class_name: Name = msgspec.field(name="class")
    score: Ratio
    mask: Mask


class LabelInstance(msgspec.Struct, frozen=True, gc=False):
    """One labelled object: an annotator gives no score."""

    class_name: Name = msgspec.field(name="class")
    mask: Mask
    crowd: bool = False
    """A region of many objects not told apart, as COCO's ``iscrowd``: what is found there counts as nothing."""


class Semantic(msgspec.Struct, frozen=True, gc=False):
    """A map of class indices, and optionally one of the winning class's probability, as PNG files."""

    classes_png: bytes
    confidence_png: bytes | None = None


class Prediction(msgspec.Struct, frozen=True, dict=True, kw_only=True, tag_field="type", tag=PREDICTION_TYPE):
    """One sampled inference. Its identity is (``model.name``, ``model.version``, ``input_id``)."""

    input_id: Name
    event_time: Time
    model: Model
    slices: Annotated[dict[Name, SliceValue], Meta(max_length=MAX_SLICES)] = {}
    sequence: Name | None = None
    """Records of one sequence (a video, a patient, a production batch) are not independent of each other."""
    sampling_probability: Probability = 1.0
    status: Status = "ok"
    latency_seconds: Amount | None = None
    cost_usd: Amount | None = None
    image: Image | None = None
    embedding_wire: msgspec.Raw = msgspec.field(name="embedding", default_factory=msgspec.Raw)
    """The embedding as it stood in the message; read ``embedding`` instead."""
    instances: Annotated[list[Instance], Meta(max_length=MAX_INSTANCES)] | None = None
    semantic: Semantic | None = None

    @cached_property
    def event_time_us(self) -> int:
        return to_us(self.event_time)

    @cached_property
    def embedding(self) -> NDArray[np.floating] | None:
        """(D,) float32 or float64, as it was sent; None without one. Values need not be finite."""
        return read_embedding(self.embedding_wire)

    @cached_property
    def masks(self) -> MaskReport:
        """Area and box of each instance's mask, measured when they are first asked for."""
        return _measured(self)


class Label(msgspec.Struct, frozen=True, dict=True, kw_only=True, tag_field="type", tag=LABEL_TYPE):
    """One annotation of one input; without ``model`` it labels the input for every version."""

    input_id: Name
    annotator: Name
    annotation_version: AnnotationVersion
    """The higher one replaces the lower one from the same annotator."""
    label_time: Time
    instances: Annotated[list[LabelInstance], Meta(max_length=MAX_INSTANCES)] | None = None
    semantic: Semantic | None = None
    model: Model | None = None
    purpose: Purpose = "spot_check"
    selection_probability: Probability | None = None
    image_size: tuple[Side, Side] | None = None
    """Height and width, for labels that have polygons alone."""
    judged_classes: list[Name] | None = None
    """The classes that were looked for, where not all were: of any other the label says nothing."""
    not_exhaustive: list[Name] | None = None
    """Classes of which not all objects are labelled: what is found and not labelled may well be there."""

    @cached_property
    def label_time_us(self) -> int:
        return to_us(self.label_time)

    @cached_property
    def masks(self) -> MaskReport:
        """Area and box of each instance's mask, measured when they are first asked for."""
        return _measured(self)


Record = Prediction | Label


def _measured(record: Record) -> MaskReport:
    # How large a mask may be was decided when the record came in.
    return check_masks([instance.mask for instance in record.instances or ()], MAX_SIDE * MAX_SIDE)
