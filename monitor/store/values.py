"""What goes into the store and what comes out of it.

Times are int64 microseconds since the epoch, UTC. A slice is ``""`` for all records, else ``"key=value"``.

Rows that are made for every record or looked up for every record (``SampleRow``, ``PaneKey``) are named
tuples: as immutable as the others, but their making, hashing and sorting run in C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from monitor.sources.protocol import Partition


@dataclass(frozen=True, slots=True)
class Advance:
    """Moves a partition's offset by compare-and-set; the first step of every ingest transaction.

    With ``next_offset == expected`` it is a heartbeat: it only refreshes the other fields.
    """

    partition: Partition
    expected: int | None
    """The offset that this worker believes the store to have; None: the partition has never been stored."""
    next_offset: int
    """The first offset that has not been counted."""
    end_offset: int
    """The partition's end as the broker last told it."""
    max_event_time_us: int | None
    """Latest event time seen in the partition; None when none was seen. The store keeps the maximum."""
    caught_up_at_us: int | None
    """Wall clock when the end was last reached, None while the partition lags."""


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """Where a partition stands in the store: what the watermark is made of."""

    partition: Partition
    next_offset: int
    end_offset: int
    max_event_time_us: int | None
    caught_up_at_us: int | None
    updated_at_us: int
    """Wall clock of the last commit or heartbeat."""


class SampleRow(NamedTuple):
    """Identity of a record (model, version, input_id: unique in the store) and its line in the sample index."""

    model: str
    version: str
    input_id: str
    event_time_us: int
    received_us: int | None
    """Broker timestamp; None for records from files."""
    sequence: str | None
    slices: str
    """JSON object, ``{}`` without slices."""
    status: str
    sampling_probability: float | None
    confidence: float | None
    """Mean score of the record's instances or pixels, 0..1; None without any."""
    topic: str
    number: int
    offset: int
    masks: bytes | None = None
    """What labels are judged against (`monitor.kept_masks`); None of failed inferences, and where none are kept."""
    sketch: bytes | None = None
    """The embedding in a few bytes (`detectors.active_learning.sketches`); None where the baseline has no moments."""


LabelState = Literal["waiting", "judged", "bad", "unjoinable"]
LabelKey = tuple[str, str, str, str]
"""Input, annotator, model and version."""


class LabelRow(NamedTuple):
    """An annotation as it came; (input, annotator, model, version) is its identity, ``annotation_version`` its age."""

    input_id: str
    annotator: str
    model: str
    """"" (and ``version`` "") where it labels the input for every version."""
    version: str
    annotation_version: int
    label_time_us: int
    purpose: str
    selection_probability: float | None
    state: LabelState
    cluster: str
    topic: str
    number: int
    offset: int
    value: bytes
    """The record as it came."""
    headers: bytes
    """Its headers, as MessagePack: a list of (name, value)."""

    @property
    def key(self) -> LabelKey:
        return self.input_id, self.annotator, self.model, self.version


LabelOutcome = Literal["accepted", "replaced", "duplicate", "superseded", "purged"]


class LabelledSample(NamedTuple):
    """A record that may have labels."""

    model: str
    version: str
    input_id: str
    event_time_us: int
    sequence: str | None
    slices: str
    sampling_probability: float | None
    masks: bytes | None


class JudgedRow(NamedTuple):
    """What a record's labels say about it; the payload is `monitor.judgements.Judged`."""

    input_id: str
    model: str
    version: str
    event_time_us: int
    sequence: str | None
    slices: str
    sampling_probability: float | None
    label_time_us: int
    """Of the newest label."""
    judged_at_us: int
    revision: int
    """Counts from 0."""
    payload: bytes
    first_judged_at_us: int | None = None
    """When it had a label that counts for the first time: in the store this stays."""


class SpotCheckRow(NamedTuple):
    """A record chosen to be labelled."""

    input_id: str
    model: str
    version: str
    event_time_us: int
    stream: str
    """"uniform" (by the part of the chance that all records share) feeds estimates and SLO counters; "stratified"
    (wanted for its classes) and "training" the estimates alone, weighed by the probability."""
    probability: float
    """With which the record was chosen, by either stream."""
    reason: str
    chosen_at_us: int


@dataclass(frozen=True, slots=True)
class LabelledInputs:
    """Inputs to judge, with everything that is known of them."""

    marks: Sequence[int]
    inputs: Sequence[str]
    labels: Mapping[str, Sequence[LabelRow]]
    samples: Mapping[str, Sequence[LabelledSample]]
    judged: Mapping[tuple[str, str, str], JudgedRow]
    """What was said before, by (input, model, version); `chosen` alike."""
    chosen: Mapping[tuple[str, str, str], SpotCheckRow]
    targeted: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """When each was asked for on suspicion, not by chance, by (model, input)."""


class StoredQuality(NamedTuple):
    """How good a version was in [start, end), as it was estimated last; the payload is JSON."""

    model: str
    version: str
    start_us: int
    end_us: int
    estimated_at_us: int
    payload: bytes


class PaneKey(NamedTuple):
    """The smallest window kept: one model version, one slice, one baseline's bins."""

    model: str
    version: str
    slice: str
    start_us: int
    baseline_id: str
    """Whose bins the counts are on; ``""`` for a version without any baseline."""


@dataclass(frozen=True, slots=True)
class PaneDelta:
    """What one transaction adds to a pane."""

    records: int
    state: bytes


class StoredPane(NamedTuple):
    """A part of a pane. A key may come several times (folded and not yet folded): the caller merges the states."""

    key: PaneKey
    records: int
    state: bytes


@dataclass(frozen=True, slots=True)
class PaneExtent:
    """Which panes there are."""

    model: str
    version: str
    slice: str
    baseline_id: str
    first_start_us: int
    last_start_us: int
    records: int


@dataclass(frozen=True, slots=True)
class DueWindow:
    """A window whose panes have changed since it was last scored."""

    model: str
    version: str
    slice: str
    length_us: int
    start_us: int
    baseline_id: str
    mark: int
    """Counts the folds that touched the window: a mark made after the reading is not cleared by the scoring."""

    @property
    def end_us(self) -> int:
        """End of the window, exclusive."""
        return self.start_us + self.length_us


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The verdict on a window."""

    records: int
    alarm: bool | None
    """None: too few records for a verdict."""
    payload: bytes
    """JSON: scores by signal and all that the pages show."""
    scored_at_us: int


@dataclass(frozen=True, slots=True)
class StoredScore:
    """A verdict with its window; ``revision`` counts from 0."""

    model: str
    version: str
    slice: str
    length_us: int
    start_us: int
    baseline_id: str
    revision: int
    records: int
    alarm: bool | None
    payload: bytes
    scored_at_us: int

    @property
    def end_us(self) -> int:
        """End of the window, exclusive."""
        return self.start_us + self.length_us


@dataclass(frozen=True, slots=True)
class EarlyState:
    """How far the sequential test of one model version under one baseline has come."""

    model: str
    version: str
    baseline_id: str
    fed_until_us: int
    """End of the last pane that it was fed; earlier ones never reach it any more."""
    records: int
    """Fed so far, restarts included."""
    evidence: float
    run_length: float
    alarm: bool
    """Whether the last alarm still stands."""
    alarm_at_us: int | None
    """Event time of the last alarm."""
    state: bytes


@dataclass(frozen=True, slots=True)
class EarlyAlarm:
    """An alarm of a sequential test; the payload is JSON."""

    at_us: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class EarlyReading:
    """What is shown of an `EarlyState`; ``last_alarm`` is the payload of the alarm at ``alarm_at_us``."""

    model: str
    version: str
    baseline_id: str
    fed_until_us: int
    records: int
    evidence: float
    run_length: float
    alarm: bool
    alarm_at_us: int | None
    last_alarm: bytes | None


class Heartbeat(NamedTuple):
    """A leadership's last sign of life."""

    holder: str
    """machine/process/random"""
    since_us: int
    beat_us: int


class OutboxBacklog(NamedTuple):
    """Messages that wait for delivery."""

    pending: int
    oldest_us: int | None
    """When the one that has waited longest was queued; None while nothing waits."""


@dataclass(frozen=True, slots=True)
class BaselineMeta:
    """A baseline without its payload. It never changes once it is stored."""

    id: str
    """Hex SHA-256 of model, version, format version and payload."""
    model: str
    version: str
    created_us: int
    format_version: int
    meta: Mapping[str, object]
    """What a person wants to know of it (name, records, classes), from JSON."""


@dataclass(frozen=True, slots=True)
class StoredBaseline:
    """A baseline with its payload."""

    meta: BaselineMeta
    payload: bytes


@dataclass(frozen=True, slots=True)
class ActiveBaseline:
    """The baseline that a model version is scored against."""

    meta: BaselineMeta
    activated_us: int


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message that leaves only if its transaction is committed, and then at least once with the same id."""

    id: str
    """Stable: the same cause always makes the same id. A second message with it is ignored."""
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    keep_sent: bool = True
    """Remember the id after delivery, so that the same cause never queues it again. Off for dead letters, which
    offsets keep from coming twice, and which would keep whole images in the database."""
    created_us: int = field(default=0, kw_only=True)
    """Set by the store when it is queued."""


class PurgedSample(NamedTuple):
    """What was in the sample index of a purged input."""

    model: str
    version: str
    event_time_us: int


class PurgedInput(NamedTuple):
    """What became of an input that was to be purged."""

    reference: str
    """A keyed hash of its id: how the tombstone and the audit log call it."""
    is_new: bool
    """False where it had been purged before."""
    removed: Mapping[str, int]
    """Rows deleted or changed, by table; without those of which there were none."""
    samples: Sequence[PurgedSample]


class AuditLine(NamedTuple):
    """Who did what to what."""

    at_us: int
    who: str
    what: str
    subject: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Expired:
    """How many rows retention took."""

    panes: int
    scores: int
    early: int
    """Alarms of sequential tests, and states of tests that were fed nothing newer."""
    samples: int
    labels: int
    """Labels, what they said of records, and what was asked for."""
    messages: int
