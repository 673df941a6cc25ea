"""What labels add to the totals when they are joined for the first time: their delay, and how annotators agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.judgements import Judged, JudgedLabel
from monitor.judging import judge
from monitor.kept_masks import KeptMasks
from monitor.records import Instance, Label
from monitor.spot_counts import verdicts_of
from monitor.store.values import LabelledSample, LabelRow
from monitor.tallies import (
    ANNOTATOR_PAIRS,
    DELAY_BUCKETS,
    LABEL_DELAY_BUCKET,
    LABEL_DELAY_SUM_US,
    TallyKey,
    bucket_of,
)

MOST_OTHERS: Final = 3
"""An annotator is compared with so many others at most: an input that a hundred people labelled is no hundred times
as much evidence, and would take ten thousand comparisons."""


def add_delay(tallies: Counter[TallyKey], sample: LabelledSample, row: LabelRow) -> None:
    """The time from the record's event to its label; a label that was made before its event has none."""
    delay_us = max(0, row.label_time_us - sample.event_time_us)
    bucket = bucket_of(delay_us / 1e6, DELAY_BUCKETS)
    tallies[TallyKey(LABEL_DELAY_BUCKET, sample.model, sample.version, "", bucket)] += 1
    tallies[TallyKey(LABEL_DELAY_SUM_US, sample.model, sample.version, "", 0)] += delay_us


def add_agreement(
    tallies: Counter[TallyKey],
    sample: LabelledSample,
    masks: KeptMasks,
    labels: Mapping[str, Label],
    fresh: Collection[str],
    classes: Classes,
    max_pixels: int,
) -> None:
    """Compare ``fresh`` annotators with the others of ``labels``, each pair once: a correction changes nothing."""
    for first, second in new_pairs(fresh, labels.keys() - set(fresh)):
        for name, (both, single) in _compared(masks, labels[first], labels[second], classes, max_pixels).items():
            for bucket, count in enumerate((both, single)):
                if count:
                    tallies[TallyKey(ANNOTATOR_PAIRS, sample.model, sample.version, name, bucket)] += count


def _compared(
    masks: KeptMasks, first: Label, second: Label, classes: Classes, max_pixels: int
) -> dict[str, tuple[int, int]]:
    """By class that both looked for in full: instances that both found, at an IoU of 0.5, and those of one alone."""
    stand_in = KeptMasks(masks.height, masks.width, _as_found(first), first.semantic)
    try:
        found = judge(stand_in, second, classes, max_pixels).put_into(JudgedLabel("", 0, "", 0, None))
    except BadRecord:
        return {}  # one has a list, the other a map
    verdicts = verdicts_of(Judged(list(classes.names), [found], "unasked", None, None)) or {}
    return {
        name: (verdict.counts[0], verdict.counts[1] + verdict.counts[2])
        for name, verdict in verdicts.items()
        if all(_in_full(label, name) for label in (first, second))
    }


def _as_found(label: Label) -> list[Instance] | None:
    if label.instances is None:
        return None
    return [Instance(one.class_name, 1.0, one.mask) for one in label.instances if not one.crowd]


def _in_full(label: Label, name: str) -> bool:
    looked_for = label.judged_classes is None or name in label.judged_classes
    return looked_for and name not in (label.not_exhaustive or ())


def new_pairs(fresh: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of annotators that are to be compared: each fresh one with the known and the fresh before it.

    >>> new_pairs(["b", "c"], ["a"])
    [('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    pairs = []
    seen = sorted(known)
    for name in sorted(fresh):
        pairs += [(other, name) for other in seen[:MOST_OTHERS]]
        seen.append(name)
    return pairs
