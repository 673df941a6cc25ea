"""What records add to the store, as plain values: their identities, their codes, their tallies.

Everything is made column by column for the records of one route in one chunk, since a record with ten instances would
otherwise cost some hundred small steps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.active_learning import sketches
from detectors.signals.class_mix import OTHER
from monitor.classes import Classes
from monitor.instances import Instances
from monitor.pane_state import PaneState
from monitor.records import Prediction
from monitor.sources.protocol import RawRecord
from monitor.store.values import PaneDelta, PaneKey, SampleRow
from monitor.sureness import Sureness
from monitor.tallies import (
    CONFIDENCE_BUCKET,
    CONFIDENCE_BUCKETS,
    CONFIDENCE_SUM_MICRO,
    COST_NANO_USD,
    INFERENCE_STATUS,
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

_json = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """N valid records of one route on their way into the statistics, in the order of reading."""

    raws: Sequence[RawRecord]
    predictions: Sequence[Prediction]
    succeeded: NDArray[np.bool_]
    """(N,) status ok; of the others only the operational fields count."""
    codes: NDArray[np.uint8]
    """(N, D) in the bins of ``baseline_id``; D = 0 and "" for a version without a baseline. Zeros for failed ones."""
    instances: Instances
    """Of all N; failed ones have none."""
    baseline_id: str
    bins: int
    classes: Classes
    masks: Sequence[bytes | None]
    """What is kept of each for its labels; None of failed ones, and where nothing is kept."""
    components: NDArray[np.float64]
    """(N, K) of the embedding, of which moments are kept; K = 0 where none are. NaN for failed ones."""
    sureness: Sureness | None
    """How sure the model was of what it found; None where nothing is kept for labels."""

    def __len__(self) -> int:
        return len(self.predictions)

    def where(self, chosen: NDArray[np.bool_]) -> Counted:
        """Those of the records that are ``chosen``, (N,)."""
        if chosen.all():
            return self
        sureness = self.sureness
        if sureness is not None:
            sureness = sureness.where(chosen, np.repeat(chosen, np.diff(self.instances.offsets)))
        return Counted(
            list(compress(self.raws, chosen)),
            list(compress(self.predictions, chosen)),
            self.succeeded[chosen],
            self.codes[chosen],
            self.instances.where(chosen),
            self.baseline_id,
            self.bins,
            self.classes,
            list(compress(self.masks, chosen)),
            self.components[chosen],
            sureness,
        )

    def samples(self) -> list[SampleRow]:
        """Their lines in the sample index."""
        return [
            SampleRow(
                prediction.model.name,
                prediction.model.version,
                prediction.input_id,
                prediction.event_time_us,
                raw.timestamp_us,
                prediction.sequence,
                _json.encode(prediction.slices).decode(),
                prediction.status,
                prediction.sampling_probability,
                confidence,
                raw.partition.topic,
                raw.partition.number,
                raw.offset,
                masks,
                sketch,
            )
            for raw, prediction, confidence, masks, sketch in zip(
                self.raws,
                self.predictions,
                self.instances.mean_scores(),
                self.masks,
                sketches(self.components),
                strict=True,
            )
        ]


def pane_deltas(counted: Iterable[Counted], pane_us: int, slice_keys: Sequence[str]) -> dict[PaneKey, PaneDelta]:
    """Statistics, exemplars, moments and sureness that these records add, by (model, version, slice, pane, baseline).

    ``slice_keys``: the slice keys that get statistics of their own; empty means all.
    """
    states: dict[PaneKey, PaneState] = {}
    for records in counted:
        predictions = records.predictions
        sequences = [prediction.sequence or "" for prediction in predictions]
        # Many records share their pane and slices: what these are called is worked out once. Sequence by sequence,
        # because a statistic takes a run of one sequence in one step.
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for row in sorted(np.flatnonzero(records.succeeded).tolist(), key=sequences.__getitem__):
            prediction = predictions[row]
            alike[pane_start(prediction.event_time_us, pane_us), *prediction.slices.items()].append(row)
        groups: dict[PaneKey, list[int]] = defaultdict(list)
        for rows in alike.values():
            one = predictions[rows[0]]
            model, start = one.model, pane_start(one.event_time_us, pane_us)
            for name in ("", *slices_of(one.slices, slice_keys)):
                groups[PaneKey(model.name, model.version, name, start, records.baseline_id)] += rows
        for key, rows in groups.items():
            state = states.get(key)
            if state is None:
                kept = 0 if key.slice else records.components.shape[1]
                classes = 0 if key.slice or records.sureness is None else len(records.classes.names)
                state = states[key] = PaneState.empty(records.codes.shape[1], records.bins, kept, classes)
            codes = records.codes[rows]
            state.statistic.add(codes, [sequences[row] for row in rows])
            if not key.slice:
                state.exemplars.add([predictions[row].input_id for row in rows], codes)
            if state.moments is not None:
                state.moments.add(records.components[rows])
            if state.expected is not None and records.sureness is not None:
                records.sureness.add_to(state.expected, np.array(rows, np.int64), records.instances)
    return {key: PaneDelta(state.statistic.records, state.to_bytes()) for key, state in states.items()}


def slices_of(slices: Mapping[str, str], slice_keys: Sequence[str]) -> list[str]:
    """A record's slices as "key=value", sorted; ``slice_keys``: those that count, empty for all."""
    return sorted(f"{key}={value}" for key, value in slices.items() if not slice_keys or key in slice_keys)


def tally_counted(tallies: Counter[TallyKey], counted: Counted) -> None:
    """Add newly counted records to the totals behind the metrics. All sums are integers."""
    if not len(counted):
        return
    predictions = counted.predictions
    model, version = predictions[0].model.name, predictions[0].model.version

    def add(series: str, label: str, bucket: int, value: int) -> None:
        tallies[TallyKey(series, model, version, label, bucket)] += value

    succeeded = int(counted.succeeded.sum())
    for outcome, count in (("ok", succeeded), ("failed", len(counted) - succeeded)):
        if count:
            add(RECORDS, outcome, 0, count)
    for status, count in Counter([prediction.status for prediction in predictions]).items():
        add(INFERENCE_STATUS, status, 0, count)
    last = TallyKey(LAST_EVENT_US, model, version, "", 0)
    tallies[last] = max(tallies[last], *(prediction.event_time_us for prediction in predictions))
    latencies = [each.latency_seconds for each in predictions if each.latency_seconds is not None]
    for bucket, count in Counter([bucket_of(latency, LATENCY_BUCKETS) for latency in latencies]).items():
        add(LATENCY_BUCKET, "", bucket, count)
    if latencies:
        add(LATENCY_SUM_US, "", 0, sum([to_fixed(latency, 10**6) for latency in latencies]))
    costs = [each.cost_usd for each in predictions if each.cost_usd is not None]
    if costs:
        add(COST_NANO_USD, "", 0, sum([to_fixed(cost, 10**9) for cost in costs]))
    _tally_instances(add, counted)


def _tally_instances(add: Callable[[str, str, int, int], None], counted: Counted) -> None:
    names = (*counted.classes.names, OTHER)
    kinds, scores = counted.instances.kinds, counted.instances.scores
    width = len(CONFIDENCE_BUCKETS) + 1
    buckets = np.searchsorted(np.asarray(CONFIDENCE_BUCKETS), scores, side="left")
    cells = np.bincount(kinds * width + buckets, minlength=len(names) * width)
    for cell in np.flatnonzero(cells).tolist():
        add(CONFIDENCE_BUCKET, names[cell // width], cell % width, int(cells[cell]))
    # Each score in millionths, rounded half to even as ``to_fixed`` does; float64 adds such integers exactly up to
    # 2**53, which is nine billion instances.
    sums = np.bincount(kinds, np.rint(scores * 1e6), len(names))
    for kind in np.unique(kinds).tolist():
        add(CONFIDENCE_SUM_MICRO, names[kind], 0, int(sums[kind]))


def tally_outcome(tallies: Counter[TallyKey], model: str, version: str, outcome: str, count: int = 1) -> None:
    """Count ``count`` records that ended as ``outcome``."""
    tallies[TallyKey(RECORDS, model, version, outcome, 0)] += count
