"""Tallies: the running totals that every replica exports, as integers in the store.

A Prometheus counter kept in a process starts at 0 again when another process takes over, and its
value depends on which process was asked. segwatch adds integers in the same transaction as the
statistics instead, so that a total counts a record exactly once, and any replica shows the same.

A tally is addressed by a ``TallyKey``; its value only ever grows:
values of one key are added, but those of ``MAXIMA``, of which the greatest stays (also free of order).
Records whose model is unknown have model "" and version "". Whatever is not a count is kept in
fixed point (microseconds, millionths, nano-dollars), since a sum of floats depends on its order.

================== ======================= ====================== =====================================
series             label                   bucket                 unit of the value
================== ======================= ====================== =====================================
records            outcome                 0                      records
inference_status   status                  0                      records
latency_bucket     ""                      index, LATENCY_BUCKETS records in this bucket alone
latency_sum_us     ""                      0                      microseconds
cost_nano_usd      ""                      0                      1e-9 US dollars
confidence_bucket  class name              index, CONFIDENCE_...  instances in this bucket alone
confidence_sum_micro class name            0                      millionths of a score
dead_letter        reason                  0                      records; model and version are ""
dropped            reason                  0                      records; model and version are ""
backbone_fallbacks ""                      0                      times; model and version are ""
embedding_batches  device                  0                      batches; model and version are ""
embedding_us       device                  0                      microseconds; model and version are ""
outbox_failures    topic                   0                      attempts; model and version are ""
deliveries         receiver                index, DELIVERED       attempts; model and version are ""
labels             outcome                 0                      labels read; model and version are ""
label_joins        outcome                 0                      records: ``joined``, ``unjoinable``
label_delay_bucket ""                      index, DELAY_BUCKETS   labels in this bucket alone
label_delay_sum_us ""                      0                      microseconds
annotator_pairs    class name              0 agree, 1 disagree    instances that two annotators labelled
spotcheck_images   ""                      0                      records, of the uniform stream
spotcheck_instances class name             0 tp, 1 fp, 2 fn       instances
spotcheck_iou_bucket class name            index, IOU_BUCKETS     instances, or images of semantic maps
spotcheck_iou_sum_nano class name          0                      1e-9 of an IoU
spotcheck_correction class name            0..11: CORRECTIONS     instances
last_label_us      class name              0                      microseconds since the epoch: a maximum
last_event_us      ""                      0                      microseconds since the epoch: a maximum
================== ======================= ====================== =====================================

Buckets are not cumulative here: one record then adds to one row. They are summed up when shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray


class TallyKey(NamedTuple):
    """Address of one total. Records whose model is unknown have model "" and version ""."""

    series: str
    model: str
    version: str
    label: str
    bucket: int


RECORDS: Final = "records"
LATENCY_BUCKET: Final = "latency_bucket"
LATENCY_SUM_US: Final = "latency_sum_us"
COST_NANO_USD: Final = "cost_nano_usd"
CONFIDENCE_BUCKET: Final = "confidence_bucket"
CONFIDENCE_SUM_MICRO: Final = "confidence_sum_micro"
DEAD_LETTER: Final = "dead_letter"
DROPPED: Final = "dropped"
BACKBONE_FALLBACKS: Final = "backbone_fallbacks"
INFERENCE_STATUS: Final = "inference_status"
EMBEDDING_BATCHES: Final = "embedding_batches"
EMBEDDING_US: Final = "embedding_us"
OUTBOX_FAILURES: Final = "outbox_failures"
DELIVERIES: Final = "deliveries"
LAST_EVENT_US: Final = "last_event_us"

LABELS: Final = "labels"
LABEL_JOINS: Final = "label_joins"
LABEL_DELAY_BUCKET: Final = "label_delay_bucket"
LABEL_DELAY_SUM_US: Final = "label_delay_sum_us"
ANNOTATOR_PAIRS: Final = "annotator_pairs"
SPOTCHECK_IMAGES: Final = "spotcheck_images"
SPOTCHECK_INSTANCES: Final = "spotcheck_instances"
SPOTCHECK_IOU_BUCKET: Final = "spotcheck_iou_bucket"
SPOTCHECK_IOU_SUM_NANO: Final = "spotcheck_iou_sum_nano"
SPOTCHECK_CORRECTION: Final = "spotcheck_correction"
LAST_LABEL_US: Final = "last_label_us"

MAXIMA: Final = frozenset({LAST_EVENT_US, LAST_LABEL_US})
"""Series whose values are merged by their maximum rather than their sum."""

OUTCOMES: Final = ("ok", "failed", "dead_letter", "duplicate", "late", "dropped")
"""How a record can end; the numbers add up to the records read."""

STATUSES: Final = ("ok", "error", "timeout", "oom")
"""What a model's service says of an inference; those but ``ok`` add up to the outcome ``failed``."""

DEVICES: Final = ("cpu", "cuda")
"""Where backbones run."""

DELIVERED: Final = ("delivered", "failed", "given_up")
"""How an attempt at delivering an action to a receiver can end, in the order of the buckets of ``deliveries``."""

LABEL_OUTCOMES: Final = ("accepted", "replaced", "duplicate", "superseded", "purged", "dead_letter")
"""What can become of a label that was read; the numbers add up."""

AGREEMENTS: Final = ("agree", "disagree")
"""In the order of the buckets of ``annotator_pairs``."""

VERDICTS: Final = ("tp", "fp", "fn")
"""In the order of the buckets of ``spotcheck_instances``."""

CORRECTIONS: Final = tuple(
    (before, after) for before in (*VERDICTS, "none") for after in (*VERDICTS, "none") if before != after
)
"""Verdict before and after a correction, in the order of the buckets of ``spotcheck_correction``."""

IOU_BUCKETS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Upper bounds of IoU: COCO's thresholds, and coarser below. The first holds what was missed altogether."""

DROPPED_REASONS: Final = ("retention", "unreadable")
"""Why records were lost before they could be read; their series exist at 0."""

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, the Prometheus clients' own: they span a small network on a GPU and a large one on a CPU."""

DELAY_BUCKETS: Final = (60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 172_800.0, 259_200.0, 604_800.0, 1_209_600.0, 2_592e3)
"""Upper bounds in seconds: from a minute (assisted labelling at once) over 1, 2, 3, 7 and 14 days to 30."""

CONFIDENCE_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper bounds of scores. They end at 1, so the overflow bucket stays at 0."""


def bucket_of(value: float, bounds: Sequence[float]) -> int:
    """Index of the first bound that is not below ``value``; ``len(bounds)`` for the overflow bucket.

    A bound belongs to its own bucket, as Prometheus's ``le`` says:

    >>> bucket_of(0.1, LATENCY_BUCKETS), bucket_of(0.11, LATENCY_BUCKETS), bucket_of(60.0, LATENCY_BUCKETS)
    (4, 5, 11)
    """
    return bisect_left(bounds, value)


def count_buckets(values: NDArray[np.float64], bounds: Sequence[float]) -> NDArray[np.int64]:
    """How many of ``values`` (N,), all finite, fall into each of the ``len(bounds) + 1`` buckets.

    >>> count_buckets(np.array([0.05, 0.1, 0.95]), CONFIDENCE_BUCKETS).tolist()
    [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    """
    indices = np.searchsorted(np.asarray(bounds), values, side="left")
    return np.bincount(indices, minlength=len(bounds) + 1).astype(np.int64)


MOST = 2**63 - 1
"""No total goes beyond it: the largest integer of a database."""
MOST_AT_ONCE = 10**6
"""What one record adds to a sum at most: 11 days, or a million dollars. More is a fault of the sender's, and must not
drown the others."""


def saturated(total: int) -> int:
    """``total``, or the largest that is kept."""
    return min(total, MOST)


def to_fixed(value: float, scale: int) -> int:
    """``value`` in units of ``1 / scale``, rounded half to even: the same integer on every machine.

    Values above ``MOST_AT_ONCE`` count as that much.

    >>> to_fixed(0.083, 1_000_000), to_fixed(0.00021, 1_000_000_000)
    (83000, 210000)
    """
    return round(min(value, MOST_AT_ONCE) * scale)
