"""Reads from the store what ``/metrics`` shows, as one frozen ``Totals``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from detectors.harm import Harm
from monitor.canary_series import readings as canary_readings
from monitor.metrics import BaselineFact, DriftReading, PartitionLag, SignalReading, Totals
from monitor.quality_series import IouReading
from monitor.service_series import ProcessFacts, ServiceFacts
from monitor.sources.protocol import Partition
from monitor.store.store import Store
from monitor.store.values import PartitionProgress, StoredScore
from monitor.tallies import LAST_EVENT_US


class _Score(msgspec.Struct, frozen=True):
    signal: str
    js: float | None = None
    kl_nats: float | None = None
    p_value: float | None = None
    alarm: bool | None = None


class _Frechet(msgspec.Struct, frozen=True):
    distance: float


class _Verdict(msgspec.Struct, frozen=True):
    """The part of a stored verdict that becomes metrics; its other fields are skipped."""

    scores: tuple[_Score, ...] = ()
    harm: Harm | None = None
    frechet: _Frechet | None = None


class _Estimate(msgspec.Struct, frozen=True):
    metric: str
    estimator: str
    name: str | None = msgspec.field(name="class", default=None)
    point: float | None = None
    lower: float | None = None
    upper: float | None = None


class _Quality(msgspec.Struct, frozen=True):
    """The part of stored estimates that becomes metrics."""

    classes: tuple[_Estimate, ...] = ()


_QUALITY = msgspec.json.Decoder(_Quality)
_VERDICT = msgspec.json.Decoder(_Verdict)


def snapshot(
    store: Store,
    length_us: int,
    now_us: int,
    max_slices: int,
    pause: Callable[[], None] = lambda: None,
    *,
    topics: Sequence[str] = (),
    process: ProcessFacts | None = None,
) -> Totals:
    """Everything behind one page. ``length_us``: the length of the windows whose scores are shown.

    ``max_slices``: of each slice key and model version. ``pause`` is called between two pieces of work. ``topics``: to
    which messages are delivered. ``process``: what the process that serves the page says of itself.
    """
    tallies = store.read_tallies(pause)
    scores = store.latest_scores(length_us=length_us, slices=max_slices)
    active = store.active_baselines()
    return Totals(
        taken_us=now_us,
        tallies=tallies,
        last_event_us={
            (key.model, key.version): value for key, value in tallies.items() if key.series == LAST_EVENT_US
        },
        drift=list(_readings(scores, pause)),
        omitted_slices=_omitted_slices(store.slice_counts(length_us), scores),
        lags=_lags(store.partition_progress(), now_us),
        baselines=[
            BaselineFact(model, version, entry.meta.created_us, _classes(entry.meta.meta.get("classes")))
            for (model, version), entry in active.items()
        ],
        early={
            (one.model, one.version): one
            for one in store.early_readings()
            if (entry := active.get((one.model, one.version))) is not None and entry.meta.id == one.baseline_id
        },
        service=ServiceFacts(store.heartbeats(), store.outbox_backlog(), topics, process, store.deliveries.waiting()),
        quality={(one.model, one.version): _iou(one.payload) for one in store.quality()},
        canaries=canary_readings(store.canaries.verdicts()),
        relabel=store.relabel_backlog(now_us),
    )


def _readings(scores: Iterable[StoredScore], pause: Callable[[], None]) -> Iterator[DriftReading]:
    for index, score in enumerate(scores):
        if index % 16 == 0:
            pause()
        yield _reading(score)


def _omitted_slices(present: Mapping[tuple[str, str], int], shown: Iterable[StoredScore]) -> dict[tuple[str, str], int]:
    read = Counter((score.model, score.version) for score in shown if score.slice)
    # Counted a moment later than the scores were read, there may be some more by then.
    return {version: max(0, count - read[version]) for version, count in present.items()}


def _reading(score: StoredScore) -> DriftReading:
    verdict = _VERDICT.decode(score.payload)
    signals = tuple(
        SignalReading(
            one.signal,
            one.js,
            one.kl_nats,
            one.p_value,
            # Without a p-value there was no verdict: "too few" must not look like "no alarm".
            one.alarm if one.p_value is not None else None,
        )
        for one in verdict.scores
    )
    # A slice has none of its own: of all records there is one for each version.
    distance = verdict.frechet.distance if verdict.frechet is not None and not score.slice else None
    harm = verdict.harm if verdict.scores and not score.slice else None
    return DriftReading(score.model, score.version, score.slice, score.end_us, score.records, signals, distance, harm)


def _lags(progress: Iterable[PartitionProgress], now_us: int) -> list[PartitionLag]:
    # Of a topic that was made anew, or that two clusters have, the partition that was heard of last is the live one.
    latest: dict[tuple[str, int], PartitionProgress] = {}
    for one in sorted(progress, key=lambda one: one.updated_at_us):
        if not _is_file(one.partition):
            latest[one.partition.topic, one.partition.number] = one
    return [_lag(one, now_us) for one in latest.values()]


def _is_file(partition: Partition) -> bool:
    return partition.cluster == "file"


def _lag(one: PartitionProgress, now_us: int) -> PartitionLag:
    # The same moment as in the watermark. It stands still when a worker dies, so the age of its partitions grows.
    read_until_us = one.caught_up_at_us if one.caught_up_at_us is not None else one.max_event_time_us
    return PartitionLag(
        one.partition.topic,
        one.partition.number,
        max(0, one.end_offset - one.next_offset),
        None if read_until_us is None else max(0, now_us - read_until_us) / 1e6,
        one.next_offset,
    )


def _classes(names: object) -> tuple[str, ...]:
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()


def _iou(payload: bytes) -> list[IouReading]:
    """Classes whose pooled IoU has an honest number."""
    found = []
    for one in _QUALITY.decode(payload).classes:
        if one.metric != "iou" or one.name is None or one.point is None or one.lower is None or one.upper is None:
            continue
        found.append(IouReading(one.name, one.estimator, one.point, one.lower, one.upper))
    return found
