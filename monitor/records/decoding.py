"""From a message to a record that can be believed, or to the reason why not.

The types do most of the work inside msgspec; checks.py does the rest; embeddings and masks are taken for a whole chunk
at once. Nothing that a message may contain raises anything but BadRecord, and nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from monitor.cloudevents import Payload, payload_of
from monitor.errors import BadRecord
from monitor.masks import Count, Mask, Polygons, Rle, Side, find_faults
from monitor.records.checks import Limits, check_label, check_prediction, refuse_masks, suspects
from monitor.records.embedding import read_embeddings
from monitor.records.reasons import explain, shorten
from monitor.records.types import (
    LABEL_TYPE,
    MAX_INSTANCES,
    MAX_SLICES,
    PREDICTION_TYPE,
    Amount,
    Instance,
    Label,
    LabelInstance,
    Model,
    Name,
    Prediction,
    Probability,
    Ratio,
    Record,
    SliceValue,
    Time,
    to_us,
)
from monitor.sources.protocol import RawRecord


def decode(raw: RawRecord, limits: Limits, now_us: int | None = None) -> Record:
    """Decode and check one message. Raises BadRecord.

    ``now_us``: the clock where the message has no broker timestamp (files); None leaves the future unchecked there.
    """
    [record] = decode_chunk([raw], limits, now_us)
    if isinstance(record, BadRecord):
        raise record
    return record


def decode_chunk(raws: Sequence[RawRecord], limits: Limits, now_us: int | None = None) -> list[Record | BadRecord]:
    """Decode and check messages, each to its record or to the BadRecord that says why not, in order."""
    out: list[Record | BadRecord] = []
    for raw in raws:
        try:
            out.append(_decode_types(raw, limits))
        except BadRecord as bad:
            out.append(_detached(bad))
    _take_embeddings(raws, out)
    for i, (raw, record) in enumerate(zip(raws, out, strict=True)):
        try:
            if isinstance(record, Prediction):
                check_prediction(record, limits, _latest_us(raw, limits, now_us))
            elif isinstance(record, Label):
                check_label(record, limits, _latest_us(raw, limits, now_us))
        except BadRecord as bad:
            out[i] = _detached(bad)
    _check_masks(out, limits.max_pixels)
    return out


def _take_embeddings(raws: Sequence[RawRecord], out: list[Record | BadRecord]) -> None:
    """Read what the predictions bring along, all at once; of a failed inference nothing but its own fields count."""
    predictions = [(i, record) for i, record in enumerate(out) if isinstance(record, Prediction)]
    wires = [record.embedding_wire if record.status == "ok" else _NOTHING for _, record in predictions]
    for (i, record), embedding in zip(predictions, read_embeddings(wires), strict=True):
        if isinstance(embedding, Exception):
            payload = payload_of(raws[i].value or b"", raws[i].headers)
            out[i] = _detached(explain(embedding, payload.value, payload.encoding, "embedding"))
        else:
            # Written past the cached properties, which in Python 3.11 take a lock when they are first read.
            record.__dict__.update(embedding=embedding, event_time_us=to_us(record.event_time))


def _check_masks(out: list[Record | BadRecord], max_pixels: int) -> None:
    """Of a failed inference only the operational fields count: its masks may be anything."""
    owners: list[int] = []
    masks_of: list[list[Mask]] = []
    for i, record in enumerate(out):
        if isinstance(record, BadRecord) or (isinstance(record, Prediction) and record.status != "ok"):
            continue
        if record.instances:
            owners.append(i)
            masks_of.append([instance.mask for instance in record.instances])
    masks = list(chain.from_iterable(masks_of))
    if not masks:
        return
    fault, size = find_faults(masks, max_pixels)
    counts = [len(own) for own in masks_of]
    bad_owners = suspects(fault, size, np.repeat(owners, counts))
    if not bad_owners:
        return
    for i, own, end in zip(owners, masks_of, accumulate(counts), strict=True):
        if i in bad_owners:
            try:
                refuse_masks(own, fault[end - len(own) : end])
            except BadRecord as bad:
                out[i] = _detached(bad)


def _detached(bad: BadRecord) -> BadRecord:
    """Without its traceback, whose frames would keep the message's parts alive for as long as the error is kept."""
    bad.__traceback__ = bad.__context__ = None
    return bad


def _latest_us(raw: RawRecord, limits: Limits, now_us: int | None) -> int | None:
    clock_us = now_us if raw.timestamp_us is None else raw.timestamp_us
    return None if clock_us is None else clock_us + limits.future_tolerance_us


def _decode_types(raw: RawRecord, limits: Limits) -> Record:
    """All that the types say; embedding, masks and the checks of ``checks.py`` come later."""
    value = raw.value
    if raw.problem is not None:
        raise BadRecord(raw.problem, f"more than {limits.max_value_bytes} bytes: the source did not keep it")
    if not value:
        raise BadRecord("empty", "the message has no value")
    if len(value) > limits.max_value_bytes:
        raise BadRecord("too_large", f"the value has {len(value)} bytes, the limit is {limits.max_value_bytes}")
    payload = payload_of(value, raw.headers)
    try:
        record: Record = (_json if payload.encoding == "json" else _msgpack).decode(payload.value)
    except (ValueError, RecursionError) as error:
        record = _decode_failed(payload) or _decode_byte_counts(payload, error)
    kind = LABEL_TYPE if type(record) is Label else PREDICTION_TYPE
    if payload.claimed_type is not None and payload.claimed_type != kind:
        raise BadRecord("type_mismatch", f"CloudEvents type {shorten(payload.claimed_type)}, the record's is {kind}")
    return record


_NOTHING = msgspec.Raw()
_json = msgspec.json.Decoder(Record)
_msgpack = msgspec.msgpack.Decoder(Record)


class _Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=PREDICTION_TYPE):
    """The operational fields of a prediction: all that counts of a failed inference, whatever else it carries."""

    input_id: Name
    event_time: Time
    model: Model
    slices: Annotated[dict[Name, SliceValue], Meta(max_length=MAX_SLICES)] = {}
    sequence: Name | None = None
    sampling_probability: Probability = 1.0
    status: Literal["error", "timeout", "oom"]
    latency_seconds: Amount | None = None
    cost_usd: Amount | None = None


# A union, since msgspec asks for the type only where there is a choice.
_json_failed = msgspec.json.Decoder(_Failed | Label)
_msgpack_failed = msgspec.msgpack.Decoder(_Failed | Label)


def _decode_failed(payload: Payload) -> Prediction | None:
    """A failed inference whose other fields are ill-typed; None for everything else."""
    try:
        found = (_json_failed if payload.encoding == "json" else _msgpack_failed).decode(payload.value)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, Label):
        return None
    return Prediction(**{name: getattr(found, name) for name in found.__struct_fields__})


# pycocotools gives compressed counts as bytes, and a producer that packs them as they are sends MessagePack's binary
# type where JSON has a string. msgspec decodes no field to either, so these twins read such records after the first try
# has failed.


class _ByteRle(msgspec.Struct, frozen=True, gc=False):
    size: tuple[Side, Side]
    counts: bytes | list[Count]

    def as_text(self) -> Rle:
        counts = self.counts
        return Rle(self.size, counts if isinstance(counts, list) else counts.decode("latin-1"))


class _ByteInstance(msgspec.Struct, frozen=True, gc=False):
    class_name: Name = msgspec.field(name="class")
    score: Ratio
    mask: _ByteRle | Polygons


class _ByteLabelInstance(msgspec.Struct, frozen=True, gc=False):
    class_name: Name = msgspec.field(name="class")
    mask: _ByteRle | Polygons
    crowd: bool = False


class _BytePrediction(Prediction, frozen=True, dict=True, kw_only=True, tag_field="type", tag=PREDICTION_TYPE):
    instances: Annotated[list[_ByteInstance], Meta(max_length=MAX_INSTANCES)] | None = None  # type: ignore[assignment]


class _ByteLabel(Label, frozen=True, dict=True, kw_only=True, tag_field="type", tag=LABEL_TYPE):
    instances: Annotated[list[_ByteLabelInstance], Meta(max_length=MAX_INSTANCES)] | None = None  # type: ignore[assignment]


_msgpack_bytes = msgspec.msgpack.Decoder(_BytePrediction | _ByteLabel)


def _decode_byte_counts(payload: Payload, error: Exception) -> Record:
    """Try again with counts as bytes, if that was what went wrong."""
    what, _, where = str(error).rpartition(" - at ")
    if payload.encoding == "json" or not (what.endswith("got `bytes`") and where.endswith("].mask.counts`")):
        raise explain(error, payload.value, payload.encoding) from None
    try:
        found = _msgpack_bytes.decode(payload.value)
    except (ValueError, RecursionError) as second:
        raise explain(second, payload.value, payload.encoding) from None
    shared = {field: getattr(found, field) for field in found.__struct_fields__ if field != "instances"}
    if isinstance(found, _BytePrediction):
        return Prediction(
            **shared,
            instances=[
                Instance(each.class_name, each.score, each.mask if isinstance(each.mask, list) else each.mask.as_text())
                for each in found.instances or ()
            ],
        )
    return Label(
        **shared,
        instances=[
            LabelInstance(
                each.class_name, each.mask if isinstance(each.mask, list) else each.mask.as_text(), each.crowd
            )
            for each in found.instances or ()
        ],
    )
