"""Joins labels with their predictions: the leader's part of quality.

A label may come before its prediction or long after it, be corrected, repeated, and made by several annotators. So
whenever something of an input has changed, everything that is known of it is judged anew, and replaces what was said
before. Only what the SLO counters have had of it is remembered: a counter cannot take back, so that what changes
later goes into counters of corrections.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from monitor.class_changes import ClassChanges
from monitor.classes import Classes
from monitor.dead_letters import dead_letter
from monitor.drift import Baselines
from monitor.errors import BadRecord
from monitor.judgements import Judged, JudgedLabel, Stream, from_payload, to_payload
from monitor.judging import judge_label
from monitor.kept_masks import KeptMasks, kept
from monitor.label_rows import raw_of
from monitor.label_tallies import add_agreement, add_delay
from monitor.records import Label, Limits, decode
from monitor.settings import Settings
from monitor.sources.protocol import RawRecord
from monitor.spot_counts import add_correction, add_first, verdicts_of
from monitor.store.baselines import newest_by_model
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import (
    ActiveBaseline,
    JudgedRow,
    LabelKey,
    LabelledInputs,
    LabelledSample,
    LabelRow,
    LabelState,
    OutboxMessage,
)
from monitor.sureness import expected_of
from monitor.tallies import DEAD_LETTER, LABEL_JOINS, LAST_LABEL_US, RECORDS, TallyKey
from monitor.windows import DAY_US

log = logging.getLogger(__name__)

INPUTS_AT_ONCE = 200
SWEEP_SHARE = 20
"""Looking for records that came after their labels takes at most this part of the time: 1 / 20."""
LONGEST_S = 3.0
"""Of one step, so that a large import does not keep windows from being scored."""
UNJOINABLE = "unjoinable"
UNCORRECTABLE = "uncorrectable"
"""A correction of what was judged that comes when it cannot be judged any more: what was said before stays."""

Active = Mapping[tuple[str, str], ActiveBaseline]
"""By model and version."""


class Joining:
    """Judges records by their labels; one thread, the leader's."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        baselines: Baselines,
        wall_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._baselines = baselines
        self._wall_us = wall_us
        self._clock = clock
        self._on_bad = on_bad
        self._limits = Limits.from_settings(settings)
        self._next_sweep = float("-inf")
        self._class_changes = ClassChanges()
        self.judged = 0
        self.unjoinable = 0
        self.uncorrectable = 0
        self.refused: Counter[str] = Counter()
        """Labels that fitted no record of their input, by reason; each is in the dead letters."""
        self.changed: set[tuple[str, str]] = set()
        """Model versions of which something was said anew; whoever takes note of it clears it."""

    def step(self, leader: Leader, *, everything: bool = False) -> int:
        """Judge what labels have changed. Returns how many records were judged.

        ``everything``: go on until nothing is left, as at the end of a replay.
        """
        active = self._store.active_baselines()
        self._class_changes.notice(leader, active)
        judged, first = 0, self._clock()
        while True:
            began = self._clock()
            if began - first > LONGEST_S and not everything:
                return judged  # windows wait meanwhile; what is left is found at the next tick
            sweep = everything or began >= self._next_sweep
            found = leader.labelled(INPUTS_AT_ONCE, sweep=sweep)
            if sweep:
                self._next_sweep = self._clock() + SWEEP_SHARE * (self._clock() - began)
            if not found.inputs and not found.marks:
                return judged
            more = self._judge(leader, found, active)
            judged, self.judged = judged + more, self.judged + more

    def _judge(self, leader: Leader, found: LabelledInputs, active: Active) -> int:
        batch = _Batch(found, self._settings, self._wall_us(), self._limits)
        newest = newest_by_model(active)
        used: dict[tuple[str, str], ActiveBaseline] = {}
        for name in found.inputs:
            labels = found.labels.get(name, [])
            for sample in found.samples.get(name, []):
                own = [one for one in labels if one.model in ("", sample.model) and one.version in ("", sample.version)]
                entry = active.get((sample.model, sample.version), newest.get(sample.model))
                if own and entry is not None:
                    used[sample.model, sample.version] = entry
                    batch.judge(sample, own, self._baselines.of(entry.meta.id).classes)
        batch.refuse_bad()
        self._class_changes.judged(leader, used)
        leader.record_judged(found.marks, batch.rows, batch.states, batch.tallies, batch.messages)
        self.changed |= {(row.model, row.version) for row in batch.rows}
        self.unjoinable += batch.tallies_of(UNJOINABLE)
        self.uncorrectable += batch.tallies_of(UNCORRECTABLE)
        for raw, bad in batch.refused:
            self.refused[bad.reason] += 1
            if self._on_bad is not None:
                self._on_bad(raw, bad)
        return batch.judged


class _Batch:
    """What one transaction stores."""

    def __init__(self, found: LabelledInputs, settings: Settings, now_us: int, limits: Limits) -> None:
        self._found = found
        self._settings = settings
        self._now_us = now_us
        self._limits = limits
        self._decoded: dict[LabelKey, Label | BadRecord] = {}
        self._bad: dict[LabelKey, tuple[LabelRow, BadRecord]] = {}
        self.rows: list[JudgedRow] = []
        self.states: dict[LabelKey, tuple[int, LabelState]] = {}
        self.tallies: Counter[TallyKey] = Counter()
        self.messages: list[OutboxMessage] = []
        self.refused: list[tuple[RawRecord, BadRecord]] = []
        self.judged = 0
        """Records with a label that counts."""

    def judge(self, sample: LabelledSample, labels: Sequence[LabelRow], classes: Classes) -> None:
        """Judge one record by its labels, in the order of their annotators."""
        before = self._found.judged.get((sample.input_id, sample.model, sample.version))
        known = None if before is None else from_payload(before.payload)
        told = {one.annotator: one for one in known.labels} if known else {}
        masks = None if sample.masks is None else kept(sample.masks)
        judged, joined = [], set()
        for row in labels:
            one = self._one(sample, row, masks, classes)
            if self._is_too_late(sample, row, one, told.get(row.annotator)):
                if known is not None and known.classes == list(classes.names):
                    one = told[row.annotator]
                self._set_state(row, "unjoinable")
                judged.append(one)
                continue
            judged.append(one)
            fresh = row.annotator not in told and (masks is not None or row.state == "waiting")
            self._set_state(row, "unjoinable" if one.problem == UNJOINABLE else "bad" if one.problem else "judged")
            if fresh:
                outcome = one.problem if one.problem in ("", UNJOINABLE) else "bad"
                key = TallyKey(LABEL_JOINS, sample.model, sample.version, outcome or "joined", 0)
                self.tallies[key] += 1
                if not one.problem:
                    add_delay(self.tallies, sample, row)
                    joined.add(row.annotator)
        if masks is None:
            return  # the masks are gone: what was said while they were there stays
        good = {
            row.annotator: self._decode(row)
            for row, one in zip(labels, judged, strict=True)
            if not one.problem and one.annotation_version == row.annotation_version  # else it came too late
        }
        made = {name: label for name, label in good.items() if isinstance(label, Label)}
        add_agreement(self.tallies, sample, masks, made, joined, classes, self._limits.max_pixels)
        stream, probability = self._asked(sample)
        sureness = expected_of(masks, classes, self._limits.max_pixels).to_bytes()
        draft = Judged(list(classes.names), judged, stream, probability, None, sureness)
        self.judged += bool(draft.settled)
        counted = self._count(sample, draft, known.counted if known else None)
        final = msgspec.structs.replace(draft, counted=counted)
        self.rows.append(
            JudgedRow(
                sample.input_id,
                sample.model,
                sample.version,
                sample.event_time_us,
                sample.sequence,
                sample.slices,
                sample.sampling_probability,
                max(one.label_time_us for one in judged),
                self._now_us,
                0 if before is None else before.revision + 1,
                to_payload(final),
                self._now_us if draft.settled else None,
            )
        )

    def _is_too_late(self, sample: LabelledSample, row: LabelRow, one: JudgedLabel, before: JudgedLabel | None) -> bool:
        """Whether this corrects what was judged, and cannot be judged itself; counted when it comes."""
        if one.problem != UNJOINABLE or before is None or before.problem == UNJOINABLE:
            return False
        if before.annotation_version >= row.annotation_version:
            return False
        if row.state == "waiting":
            self.tallies[TallyKey(LABEL_JOINS, sample.model, sample.version, UNCORRECTABLE, 0)] += 1
        return True

    def _asked(self, sample: LabelledSample) -> tuple[Stream, float | None]:
        """How the input came to be labelled. What one version asked for is labelled for all of them, so that it is no
        random choice for the others either; a draw in which all records had the same chance is one for all."""
        rows = [
            row
            for (input_id, model, _), row in self._found.chosen.items()
            if (input_id, model) == (sample.input_id, sample.model)
        ]
        if not rows:
            return "unasked", None
        missed = 1.0
        for row in rows:
            missed *= 1 - row.probability
        return "uniform" if any(row.stream == "uniform" for row in rows) else "training", 1 - missed

    def _purpose(self, sample: LabelledSample, row: LabelRow) -> str:
        """What the label was made for: no spot check, whatever it says, where the input was asked for on suspicion."""
        asked_us = self._found.targeted.get((sample.model, sample.input_id))
        suspected = asked_us is not None and asked_us <= row.label_time_us
        by_itself = row.purpose == "spot_check" and row.selection_probability is None
        return "relabel" if suspected and by_itself and self._asked(sample)[1] is None else row.purpose

    def tallies_of(self, outcome: str) -> int:
        """Labels that ended so."""
        return sum(count for key, count in self.tallies.items() if (key.series, key.label) == (LABEL_JOINS, outcome))

    def _one(self, sample: LabelledSample, row: LabelRow, masks: KeptMasks | None, classes: Classes) -> JudgedLabel:
        outcome = JudgedLabel(
            row.annotator,
            row.annotation_version,
            self._purpose(sample, row),
            row.label_time_us,
            row.selection_probability,
        )
        join_us = round(self._settings.quality.join_days * DAY_US)
        if masks is None or row.label_time_us - sample.event_time_us > join_us:
            return msgspec.structs.replace(outcome, problem=UNJOINABLE)
        label = self._decode(row)
        try:
            if isinstance(label, BadRecord):
                raise label
            verdict = judge_label(masks, label, classes, self._limits.max_pixels)
        except BadRecord as bad:
            self._bad[row.key] = (row, bad)
            return msgspec.structs.replace(outcome, problem=bad.reason)
        for name in {one.class_name for one in label.instances or ()} | _seen(verdict.semantic, classes):
            key = TallyKey(LAST_LABEL_US, sample.model, sample.version, name, 0)
            self.tallies[key] = max(self.tallies[key], row.label_time_us)
        return verdict.put_into(outcome)

    def _decode(self, row: LabelRow) -> Label | BadRecord:
        """It was decoded when it came in; a later release may be stricter."""
        known = self._decoded.get(row.key)
        if known is None:
            try:
                record = decode(raw_of(row), self._limits)
                known = record if isinstance(record, Label) else BadRecord("unknown_type", "not a label")
            except BadRecord as bad:
                known = bad
            self._decoded[row.key] = known
        return known

    def refuse_bad(self) -> None:
        """To the dead letters, once each: labels that fit no record of their input, now or before."""
        for key, (row, bad) in sorted(self._bad.items()):
            now = self.states.get(key)
            if row.state in ("waiting", "unjoinable") and now is not None and now[1] == "bad":
                redacted = self._settings.redact.active
                topic = self._settings.kafka.dead_letter_topic
                raw = raw_of(row)
                self.refused.append((raw, bad))
                self.messages.append(dead_letter(raw, bad, topic, redacted=redacted))
                self.tallies[TallyKey(DEAD_LETTER, "", "", bad.reason, 0)] += 1
                self.tallies[TallyKey(RECORDS, "", "", "dead_letter", 0)] += 1

    def _set_state(self, row: LabelRow, state: LabelState) -> None:
        """``judged`` by any version counts more than ``bad``, and that more than ``unjoinable``."""
        order: tuple[LabelState, ...] = ("waiting", "unjoinable", "bad", "judged")
        _, now = self.states.get(row.key, (0, "waiting"))
        if order.index(state) > order.index(now):
            self.states[row.key] = (row.annotation_version, state)

    def _count(
        self, sample: LabelledSample, judged: Judged, before: dict[str, list[int]] | None
    ) -> dict[str, list[int]] | None:
        """Feed the SLO counters: the uniform stream of spot checks, each record once; what changes is a correction."""
        asked = [one for one in judged.labels if not one.problem and one.purpose == "spot_check"]
        if before is None and (judged.stream == "training" or not asked):
            return None
        verdicts = verdicts_of(judged)
        if verdicts is None:
            return before
        counts = {name: list(one.counts) for name, one in verdicts.items()}
        if before is None:
            add_first(self.tallies, sample.model, sample.version, verdicts)
        else:
            add_correction(self.tallies, sample.model, sample.version, before, counts)
        return counts


def _seen(judgement: object, classes: Classes) -> set[str]:
    pixels = getattr(judgement, "labelled_pixels", None)
    return set() if pixels is None else {name for name, count in zip(classes.names, pixels, strict=True) if count}
