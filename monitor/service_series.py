"""The series of ``/metrics`` that tell how the service itself is: devices, leader, outbox, web process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from monitor import tallies
from monitor.exposition import Distribution, Family
from monitor.store.values import Heartbeat, OutboxBacklog

LEADS_US: Final = 60_000_000
"""A leadership without a sign of life for so long is over. The leader gives one every 5 s, but a long estimate of
quality may come between."""

BUSY: Final = Family(
    "segwatch_embedding_busy_seconds", "counter", "Time that batches of backbones took.", ("device",), "seconds"
)
BATCHES: Final = Family("segwatch_embedding_batches", "counter", "Batches that went through backbones.", ("device",))
LEADERS: Final = Family("segwatch_leaders", "gauge", "Evaluators that have led within the last minute: 1 is right.")
LEADER_TIME: Final = Family(
    "segwatch_leader_timestamp_seconds", "gauge", "When a leading evaluator last got something done.", (), "seconds"
)
OUTBOX_PENDING: Final = Family("segwatch_outbox_pending_messages", "gauge", "Messages that wait for delivery.")
OUTBOX_OLDEST: Final = Family(
    "segwatch_outbox_oldest_message_timestamp_seconds",
    "gauge",
    "When the message was queued that has waited longest; no series while none waits.",
    (),
    "seconds",
)
DELIVERY_FAILURES: Final = Family(
    "segwatch_outbox_delivery_failures", "counter", "Attempts at delivering a message that failed.", ("topic",)
)
ACTION_DELIVERIES: Final = Family(
    "segwatch_action_deliveries",
    "counter",
    "Attempts at delivering an action to a receiver, by how they ended.",
    ("receiver", "outcome"),
)
ACTIONS_WAITING: Final = Family(
    "segwatch_actions_waiting", "gauge", "Actions that wait to be delivered to a receiver.", ("receiver",)
)
ACTIONS_OLDEST: Final = Family(
    "segwatch_actions_oldest_waiting_timestamp_seconds",
    "gauge",
    "When the action was requested that has waited longest for a receiver; no series while none waits.",
    ("receiver",),
    "seconds",
)
RELOAD_SUCCESS: Final = Family(
    "segwatch_settings_reload_success", "gauge", "1 unless this process's last reload of its settings failed."
)
RELOAD_TIME: Final = Family(
    "segwatch_settings_reload_timestamp_seconds",
    "gauge",
    "When this process last read its settings with success.",
    (),
    "seconds",
)
UNAUTHORISED: Final = Family(
    "segwatch_unauthorised_requests", "counter", "Requests that this process refused, by HTTP status.", ("code",)
)

REFUSALS: Final = (401, 403, 421)
"""No token or a wrong one; not allowed, or from another site; under a name that this server does not answer to."""

FAMILIES: Final = (
    BUSY,
    BATCHES,
    LEADERS,
    LEADER_TIME,
    OUTBOX_PENDING,
    OUTBOX_OLDEST,
    DELIVERY_FAILURES,
    ACTION_DELIVERIES,
    ACTIONS_WAITING,
    ACTIONS_OLDEST,
    RELOAD_SUCCESS,
    RELOAD_TIME,
    UNAUTHORISED,
)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What only the web process itself knows; another replica says something else."""

    reload_success: bool
    reloaded_us: int
    refused: Mapping[int, int]
    """By HTTP status."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """How the service is, beside its tallies."""

    heartbeats: Sequence[Heartbeat] = ()
    outbox: OutboxBacklog = field(default=OutboxBacklog(0, None))
    topics: Sequence[str] = ()
    """To which messages are delivered: their failures exist at 0."""
    process: ProcessFacts | None = None
    receivers: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    """Of each receiver of actions how many wait, and when the oldest was requested."""


Numbers = Mapping[tuple[str, str], Mapping[int, int]]
"""(series, label) -> bucket -> total, of no model version."""
Line = tuple[Family, tuple[str, ...], float | Distribution]


def lines(facts: ServiceFacts, unknown: Numbers, now_us: int) -> Iterator[Line]:
    """All series of this file, as of ``now_us``."""
    for device, took_us in _by_label(unknown, tallies.EMBEDDING_US, tallies.DEVICES):
        yield BUSY, (device,), took_us / 1e6
    for device, batches in _by_label(unknown, tallies.EMBEDDING_BATCHES, tallies.DEVICES):
        yield BATCHES, (device,), batches
    yield LEADERS, (), sum(now_us - one.beat_us <= LEADS_US for one in facts.heartbeats)
    if facts.heartbeats:
        yield LEADER_TIME, (), max(one.beat_us for one in facts.heartbeats) / 1e6
    yield OUTBOX_PENDING, (), facts.outbox.pending
    if facts.outbox.oldest_us is not None:
        yield OUTBOX_OLDEST, (), facts.outbox.oldest_us / 1e6
    for topic, failures in _by_label(unknown, tallies.OUTBOX_FAILURES, facts.topics):
        yield DELIVERY_FAILURES, (topic,), failures
    for receiver, (waiting, oldest_us) in sorted(facts.receivers.items()):
        ended = unknown.get((tallies.DELIVERIES, receiver), {})
        for bucket, outcome in enumerate(tallies.DELIVERED):
            yield ACTION_DELIVERIES, (receiver, outcome), ended.get(bucket, 0)
        yield ACTIONS_WAITING, (receiver,), waiting
        if oldest_us is not None:
            yield ACTIONS_OLDEST, (receiver,), oldest_us / 1e6
    if facts.process is not None:
        yield RELOAD_SUCCESS, (), int(facts.process.reload_success)
        yield RELOAD_TIME, (), facts.process.reloaded_us / 1e6
        for code in REFUSALS:
            yield UNAUTHORISED, (str(code),), facts.process.refused.get(code, 0)


def _by_label(unknown: Numbers, series: str, expected: Iterable[str]) -> Iterator[tuple[str, int]]:
    counted = {label: buckets.get(0, 0) for (name, label), buckets in unknown.items() if name == series}
    for label in sorted({*expected, *counted}):
        yield label, counted.get(label, 0)
