"""Labels on their way into the store, and out of it."""

from __future__ import annotations

import msgspec

from monitor.records import Label
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.values import LabelRow


def label_row(raw: RawRecord, label: Label) -> LabelRow:
    """A decoded label with the message that it came in."""
    model = label.model
    return LabelRow(
        label.input_id,
        label.annotator,
        model.name if model else "",
        model.version if model else "",
        label.annotation_version,
        label.label_time_us,
        label.purpose,
        label.selection_probability,
        "waiting",
        raw.partition.cluster,
        raw.partition.topic,
        raw.partition.number,
        raw.offset,
        raw.value or b"",
        msgspec.msgpack.encode(raw.headers),
    )


def raw_of(row: LabelRow) -> RawRecord:
    """The message that a stored label came in."""
    headers = [(name, value) for name, value in msgspec.msgpack.decode(row.headers)]
    return RawRecord(
        Partition(row.cluster, row.topic, row.topic, row.number), row.offset, row.value, None, headers, None
    )
