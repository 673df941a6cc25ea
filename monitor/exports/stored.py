"""Labels in the store as annotation tools, and others, are given them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from monitor.classes import Classes
from monitor.errors import BadRecord, InputError
from monitor.exports.chosen import Skipped
from monitor.exports.items import Item, masks_of_label
from monitor.label_rows import raw_of
from monitor.records import Label, Limits, decode
from monitor.store.values import LabelRow


def labels_of(rows: Iterable[LabelRow], model: str, version: str | None, annotator: str | None) -> Iterator[LabelRow]:
    """Those for a model (or for every one), and of one version and annotator where they are named."""
    for row in rows:
        if row.model not in ("", model) or (version is not None and row.version not in ("", version)):
            continue
        if annotator is None or row.annotator == annotator:
            yield row


def one_each(rows: Iterable[LabelRow], skipped: Skipped) -> Iterator[LabelRow]:
    """One label an input: an audit settles it, else the newest counts. ``rows`` are sorted by input."""
    for _, own in groupby(rows, key=lambda row: row.input_id):
        some = list(own)
        skipped.counts["further labels of the same input"] += len(some) - 1
        yield max(some, key=lambda row: (row.purpose == "audit", row.label_time_us, row.annotator))


def items_of(
    rows: Iterable[LabelRow], classes: Classes, limits: Limits, skipped: Skipped, *, with_masks: bool
) -> Iterator[Item]:
    """Labels with their masks; without ``with_masks`` they are not looked at."""
    for row in rows:
        try:
            label = _decoded(row, limits)
            if with_masks:
                size, masks, form = masks_of_label(label, None, classes, limits.max_pixels)
            else:
                size, masks, form = (1, 1), [], "instances"
        except (InputError, BadRecord, ValueError):
            skipped.counts["that cannot be written"] += 1
            continue
        if any(mask.class_name not in classes.names for mask in masks):
            skipped.counts["with a class that the model does not have"] += 1
            continue
        asked: dict[str, object] = {"purpose": label.purpose}
        if label.selection_probability is not None:
            asked["selection_probability"] = label.selection_probability
        yield Item(label.input_id, size, masks, form, asked, label=label)


def _decoded(row: LabelRow, limits: Limits) -> Label:
    """The record as it came, read again; its time was checked when it came."""
    found = decode(raw_of(row), limits)
    if not isinstance(found, Label):
        raise InputError("is no label")
    return found
