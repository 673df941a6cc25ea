"""What one record adds to the store, as plain values: its identity, its codes, its tallies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.signals.class_mix import OTHER
from detectors.statistic import PaneStatistic
from monitor.classes import Classes
from monitor.records import Prediction
from monitor.sources.protocol import RawRecord
from monitor.store.values import PaneDelta, PaneKey, SampleRow
from monitor.tallies import (
    CONFIDENCE_BUCKET,
    CONFIDENCE_BUCKETS,
    CONFIDENCE_SUM_MICRO,
    COST_NANO_USD,
    LAST_EVENT_US,
    LATENCY_BUCKET,
    LATENCY_BUCKETS,
    LATENCY_SUM_US,
    RECORDS,
    TallyKey,
    bucket_of,
    to_fixed,
)
from monitor.windows import pane_start


@dataclass(frozen=True, slots=True)
class Counted:
    """A valid record on its way into the statistics.

    ``codes``: (D,) uint8 in the bins of ``baseline_id``; D = 0 and "" for a version without a baseline.
    """

    raw: RawRecord
    prediction: Prediction
    baseline_id: str
    codes: NDArray[np.uint8]
    bins: int
    classes: Classes

    @property
    def sample(self) -> SampleRow:
        prediction, raw = self.prediction, self.raw
        scores = [instance.score for instance in prediction.instances or ()]
        return SampleRow(
            model=prediction.model.name,
            version=prediction.model.version,
            input_id=prediction.input_id,
            event_time_us=prediction.event_time_us,
            received_us=raw.timestamp_us,
            sequence=prediction.sequence,
            slices=msgspec.json.encode(prediction.slices, order="sorted").decode(),
            status=prediction.status,
            sampling_probability=prediction.sampling_probability,
            confidence=sum(scores) / len(scores) if scores else None,
            topic=raw.partition.topic,
            number=raw.partition.number,
            offset=raw.offset,
        )


def pane_deltas(records: Iterable[Counted], pane_us: int, slice_keys: Sequence[str]) -> dict[PaneKey, PaneDelta]:
    """Statistics that these records add, by (model, version, slice, pane, baseline).

    ``slice_keys``: the slice keys that get statistics of their own; empty means all.
    """
    groups: dict[PaneKey, list[Counted]] = defaultdict(list)
    for record in records:
        prediction = record.prediction
        if prediction.status != "ok":
            continue
        start = pane_start(prediction.event_time_us, pane_us)
        for name in ("", *slices_of(prediction, slice_keys)):
            key = PaneKey(prediction.model.name, prediction.model.version, name, start, record.baseline_id)
            groups[key].append(record)
    deltas = {}
    for key, members in groups.items():
        statistic = PaneStatistic(len(members[0].codes), members[0].bins)
        statistic.add(
            np.stack([member.codes for member in members]),
            [member.prediction.sequence or "" for member in members],
        )
        deltas[key] = PaneDelta(statistic.records, statistic.to_bytes())
    return deltas


def slices_of(prediction: Prediction, slice_keys: Sequence[str]) -> list[str]:
    """The record's slices as "key=value", sorted."""
    return sorted(f"{key}={value}" for key, value in prediction.slices.items() if not slice_keys or key in slice_keys)


def tally_record(tallies: Counter[TallyKey], record: Counted) -> None:
    """Add a newly counted record to the totals behind the metrics. All sums are integers."""
    prediction = record.prediction
    model, version = prediction.model.name, prediction.model.version
    tally_outcome(tallies, model, version, "ok" if prediction.status == "ok" else "failed")
    last = TallyKey(LAST_EVENT_US, model, version, "", 0)
    tallies[last] = max(tallies[last], prediction.event_time_us)
    if prediction.latency_seconds is not None:
        bucket = bucket_of(prediction.latency_seconds, LATENCY_BUCKETS)
        tallies[TallyKey(LATENCY_BUCKET, model, version, "", bucket)] += 1
        tallies[TallyKey(LATENCY_SUM_US, model, version, "", 0)] += to_fixed(prediction.latency_seconds, 10**6)
    if prediction.cost_usd is not None:
        tallies[TallyKey(COST_NANO_USD, model, version, "", 0)] += to_fixed(prediction.cost_usd, 10**9)
    if prediction.status != "ok":
        return
    known = record.classes.position
    for instance in prediction.instances or ():
        name = instance.class_name if instance.class_name in known else OTHER
        bucket = bucket_of(instance.score, CONFIDENCE_BUCKETS)
        tallies[TallyKey(CONFIDENCE_BUCKET, model, version, name, bucket)] += 1
        tallies[TallyKey(CONFIDENCE_SUM_MICRO, model, version, name, 0)] += to_fixed(instance.score, 10**6)


def tally_outcome(tallies: Counter[TallyKey], model: str, version: str, outcome: str, count: int = 1) -> None:
    """Count ``count`` records that ended as ``outcome``."""
    tallies[TallyKey(RECORDS, model, version, outcome, 0)] += count
