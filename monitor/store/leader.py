"""The one evaluator: folds what ingest appended, keeps the marks of due windows, stores verdicts, expires old rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Delete, Table, Update, delete, select, update

from monitor.errors import NotLeader
from monitor.store import actions, early, heartbeats, labels, outbox, panes, purges, relabel, scores, tallies
from monitor.store import canary as canaries
from monitor.store.actions import RetrainRow
from monitor.store.canary import StoredCanary
from monitor.store.database import Database, DatabaseError
from monitor.store.panes import Merge
from monitor.store.relabel import RelabelRow
from monitor.store.schema import LOCK_SPACE
from monitor.store.tables import (
    action_delivery,
    audit,
    early_alarm,
    early_state,
    judged,
    label,
    pane,
    sample,
    spot_check,
    window_due,
    window_score,
)
from monitor.store.tables import outbox as outbox_table
from monitor.store.tables import relabel as relabel_table
from monitor.store.values import (
    DueWindow,
    EarlyAlarm,
    EarlyState,
    Expired,
    JudgedRow,
    LabelKey,
    LabelledInputs,
    LabelState,
    OutboxMessage,
    ScoreRow,
    SpotCheckRow,
    StoredQuality,
)
from monitor.tallies import TallyKey

LEAD_QUERY = sqlalchemy.text("SELECT pg_try_advisory_lock(:space, hashtext('leader ' || current_schema()))")


class Leader:
    """Leadership, for as long as it lasts.

    PostgreSQL: an advisory lock of a session, and every write goes through that session's one connection. So there is
    no moment in which a process that has lost the lock can still write: with the connection both are gone. (A pooler
    that hands sessions from client to client, such as pgbouncer in transaction mode, breaks this.) SQLite: the process
    that writes leads.

    Not for several threads at once. Raises NotLeader once the connection is lost; then ask for a new one.
    """

    def __init__(
        self,
        database: Database,
        connection: Connection | None,
        clock: Callable[[], int],
        on_release: Callable[[], None],
    ) -> None:
        self._database = database
        self._connection = connection
        self._session = None if connection is None else connection.connection.dbapi_connection
        self._clock = clock
        self._on_release = on_release
        self._leads = True
        self._name = heartbeats.holder()
        self._since_us = clock()
        self._beat_at_us = self._since_us - heartbeats.EVERY_US

    def fold(self, merge: Merge, lengths_us: Sequence[int], limit: int = 1000) -> int:
        """Merge waiting deltas into panes and totals, and mark the windows of the changed panes as due.

        At most ``limit`` of each kind, in one transaction; call again until it returns 0. ``merge`` must not depend on
        the order of the states. Returns how many deltas were folded.
        """
        with self._write() as connection:
            purges.hold(connection)  # a purge takes samples out of panes
            folded, changed = panes.fold(connection, merge, limit)
            scores.mark_due(connection, changed, lengths_us)
            return folded + tallies.fold(connection, limit)

    def due(self, watermark_us: int, limit: int = 1000) -> list[DueWindow]:
        """Windows to score: changed since they were scored last, and ended at or before the watermark."""
        with self._write() as connection:
            return scores.due(connection, watermark_us, limit)

    def record_score(
        self,
        window: DueWindow,
        score: ScoreRow,
        messages: Sequence[OutboxMessage] = (),
        wanted: Sequence[RelabelRow] = (),
        request: Callable[[Sequence[RelabelRow], int], OutboxMessage] | None = None,
    ) -> int | None:
        """Store a verdict as the window's next revision, queue its messages and what is ``wanted`` to be labelled,
        clear the mark: in one transaction.

        ``request`` makes the message that names what was newly queued, from that and the revision; where nothing was
        there is none.

        Returns the revision (from 0). None when there was nothing new, as many records as in the last revision: then
        only the mark is cleared. A mark that a later fold has renewed stays.
        """
        with self._write() as connection:
            # What was read a moment ago may have been purged since.
            graves = purges.Tombstones(connection)
            score = replace(score, payload=graves.scrubbed(window.model, score.payload))
            revision = scores.insert_revision(connection, window, score)
            if revision is not None:
                new = relabel.add(connection, wanted)
                asked = [request(new, revision)] if new and request is not None else []
                self._queue(connection, graves, window.model, [*messages, *asked])
            scores.clear(connection, window)
            return revision

    def early_state(self, model: str, version: str, baseline_id: str) -> EarlyState | None:
        """How far a sequential test has come, None where it has seen nothing yet."""
        with self._write() as connection:
            return early.load(connection, model, version, baseline_id)

    def record_early(self, state: EarlyState, alarms: Sequence[EarlyAlarm] = ()) -> None:
        """Store a sequential test's evidence, how far it was fed and its alarms: in one transaction.

        Since only the leader feeds, and from what is stored, no pane is fed twice or left out.
        """
        with self._write() as connection:
            early.save(connection, state, alarms)

    def labelled(self, limit: int, *, sweep: bool) -> LabelledInputs:
        """Inputs to judge: those whose labels have changed; with ``sweep`` also those whose record came later."""
        with self._write() as connection:
            marks, inputs = labels.due(connection, limit)
            if sweep and len(inputs) < limit:
                inputs = list(dict.fromkeys([*inputs, *labels.unjudged(connection, limit - len(inputs))]))
            return LabelledInputs(
                marks,
                inputs,
                labels.of_inputs(connection, inputs),
                labels.samples_of(connection, inputs),
                labels.judged_of(connection, inputs),
                labels.chosen(connection, inputs),
                relabel.targeted(connection, inputs),
            )

    def judged_classes(self) -> dict[tuple[str, str], str]:
        """By which classes, as JSON, the labels of each (model, version) were judged last."""
        with self._write() as connection:
            return labels.classes_judged_by(connection)

    def judged_by(self, model: str, version: str, classes: str) -> None:
        """Remember by which classes the labels of a version are judged."""
        with self._write() as connection:
            labels.save_classes(connection, model, version, classes)

    def judge_again(self, model: str, version: str, classes: str) -> None:
        """Mark every input of this model version that has been judged: it is to be judged by ``classes``."""
        with self._write() as connection:
            labels.mark_judged(connection, model, version)
            labels.save_classes(connection, model, version, classes)

    def record_judged(
        self,
        marks: Sequence[int],
        rows: Sequence[JudgedRow],
        states: Mapping[LabelKey, tuple[int, LabelState]],
        counted: Mapping[TallyKey, int],
        messages: Sequence[OutboxMessage],
    ) -> None:
        """Store what labels say of records, and all that follows from it: in one transaction.

        ``marks`` are cleared, ``counted`` is added to the totals, ``messages`` are queued. Since only the leader
        judges, nothing is counted twice.
        """
        with self._write() as connection:
            graves = purges.Tombstones(connection)
            labels.save_judged(connection, graves.allowed(rows, lambda row: (row.model, row.input_id)))
            labels.set_states(connection, states)
            labels.clear_due(connection, marks)
            tallies.append(connection, counted)
            outbox.queue(connection, [graves.message(one) for one in messages], self._clock())

    def spot_check_candidates(
        self, model: str, version: str, first_us: int, until_us: int, span_us: int
    ) -> tuple[int, list[tuple[str, int, float | None, bytes, bytes | None]]] | None:
        """``(end, records)`` of the next whole span to choose from; None where it would end after ``until_us``.

        ``first_us``: where to begin where nothing was chosen yet. Records: input, event time, confidence, masks,
        sketch.
        """
        with self._write() as connection:
            asked_us = labels.asked_until(connection, model, version)
            since_us = first_us if asked_us is None else asked_us
            end_us = since_us + span_us
            if end_us > until_us:
                return None
            return end_us, labels.candidates(connection, model, version, since_us, end_us)

    def record_spot_checks(self, model: str, version: str, until_us: int, rows: Sequence[SpotCheckRow]) -> None:
        """Store and queue what was chosen, and how far records have been looked at: in one transaction."""
        with self._write() as connection:
            rows = purges.Tombstones(connection).allowed(rows, lambda row: (row.model, row.input_id))
            labels.save_choice(connection, model, version, until_us, rows)
            relabel.add(connection, [relabel.of_spot_check(row) for row in rows])
            relabel.settle(connection, self._clock(), [row.input_id for row in rows])

    def queue_samples(
        self, wanted: Sequence[RelabelRow], request: Callable[[Sequence[RelabelRow]], OutboxMessage] | None = None
    ) -> list[RelabelRow]:
        """Queue samples of a model for labelling; returns those that were not queued before.

        ``request`` makes the message that names these, in the same transaction; where there are none there is none.
        """
        with self._write() as connection:
            graves = purges.Tombstones(connection)
            new = relabel.add(connection, wanted)
            if new and request is not None:
                self._queue(connection, graves, new[0].model, [request(new)])
            return new

    def tidy_queue(self, before_us: Mapping[str, int]) -> int:
        """Close items whose sample has a label, and those of records from before ``before_us``, by model."""
        with self._write() as connection:
            closed = relabel.settle(connection, self._clock())
            for model, time_us in sorted(before_us.items()):
                closed += relabel.expire(connection, model, time_us, self._clock())
            return closed

    def record_quality(self, model: str, estimated: Sequence[StoredQuality]) -> None:
        """Replace what was estimated of a model: of versions that are not among these nothing is known any more."""
        with self._write() as connection:
            labels.keep_quality(connection, model, [one.version for one in estimated])
            for one in estimated:
                labels.save_quality(connection, one)

    def record_canary(self, row: StoredCanary, messages: Sequence[OutboxMessage] = (), *, cooldown_us: int = 0) -> bool:
        """Replace what was said of a canary, and queue the request that follows: in one transaction.

        With ``requested_at_us`` that is its rollback: left out, and False, where somebody else has asked for the same
        within the cooldown. Else its promotion: nothing is kept, and False, where anybody has ever asked for the
        rollback.
        """
        with self._write() as connection:
            graves = purges.Tombstones(connection)
            if messages and row.requested_at_us is not None:
                ours = (row.model, row.canary, messages[0].id, row.requested_at_us)
                if actions.ask(connection, "rollback", *ours, cooldown_us) is not None:
                    canaries.save(connection, row._replace(requested_at_us=None))
                    return False
            elif messages and actions.last_request(connection, "rollback", row.model, row.canary) is not None:
                return False
            canaries.save(connection, row)
            self._queue(connection, graves, row.model, messages)
            return True

    def record_retrain(self, row: RetrainRow, message: OutboxMessage | None = None, *, cooldown_us: int = 0) -> bool:
        """Replace what was decided on a model's retraining, and queue the request: in one transaction.

        False, with nothing changed, where somebody else has asked for it within the cooldown.
        """
        with self._write() as connection:
            graves = purges.Tombstones(connection)
            if message is not None:
                if (
                    actions.ask(connection, "retrain", row.model, "", message.id, row.decided_us, cooldown_us)
                    is not None
                ):
                    return False
                self._queue(connection, graves, row.model, [message])
            actions.save_retrain(connection, row)
            return True

    def _queue(
        self, connection: Connection, graves: purges.Tombstones, model: str, messages: Sequence[OutboxMessage]
    ) -> None:
        """Queue messages about a model without what was purged since they were made."""
        clean = [replace(one, value=one.value and graves.scrubbed(model, one.value)) for one in messages]
        outbox.queue(connection, clean, self._clock())

    def expire(self, before_us: int, portion: int = 10_000) -> Expired:
        """Delete what begins before ``before_us``: panes, verdicts, the sample index, and messages sent before then.

        In transactions of at most ``portion`` rows, so that nobody waits long. With its line in the sample index a
        record's identity is forgotten: if the record came again, it would be counted again. On Kafka it would come
        late, because the allowed lateness is shorter than the retention; a file that is that old is counted anew.
        """

        def rows(table: Table) -> int:
            return self._expire(table, table.c.start_us < before_us, portion)

        rows(window_due)  # first, so that no window is scored again from half its panes
        messages = outbox_table.c
        self._expire(action_delivery, action_delivery.c.created_us < before_us, portion)
        return Expired(
            panes=rows(pane),
            scores=rows(window_score),
            early=self._expire(early_alarm, early_alarm.c.at_us < before_us, portion)
            + self._expire(early_state, early_state.c.fed_until_us < before_us, portion),
            samples=self._expire(sample, sample.c.event_time_us < before_us, portion),
            labels=self._expire(judged, judged.c.event_time_us < before_us, portion)
            + self._expire(spot_check, spot_check.c.event_time_us < before_us, portion)
            + self._expire(relabel_table, relabel_table.c.event_time_us < before_us, portion)
            + self._expire(label, label.c.label_time_us < before_us, portion),
            messages=self._expire(
                outbox_table, messages.sent_us.is_not(None) & (messages.sent_us < before_us), portion
            ),
        )

    def forget_masks(self, before_us: int, portion: int = 10_000) -> int:
        """Drop the masks of records older than ``before_us``, in transactions of ``portion`` rows; how many."""
        old = sample.c.masks.is_not(None) & (sample.c.event_time_us < before_us)
        place = self._place()
        some = update(sample).where(place.in_(select(place).select_from(sample).where(old).limit(portion)))
        return self._repeat(some.values(masks=None), portion)

    def forget_audit(self, before_us: int, portion: int = 10_000) -> int:
        """Delete lines of the audit log from before ``before_us``; how many."""
        return self._expire(audit, audit.c.at_us < before_us, portion)

    def release(self) -> None:
        """Let another process lead."""
        if self._leads:
            self._leads = False
            if self._connection is not None:
                self._connection.close()
            if self._session is not None:
                self._session.close()  # SQLAlchemy forgets, rather than closes, a detached connection that broke
            self._on_release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _expire(self, table: Table, old: ColumnElement[bool], portion: int) -> int:
        place = self._place()
        return self._repeat(
            delete(table).where(place.in_(select(place).select_from(table).where(old).limit(portion))), portion
        )

    def _place(self) -> ColumnElement[object]:
        """Where a row lies, the only key that every table has."""
        return sqlalchemy.literal_column("ctid" if self._database.is_postgres else "rowid")

    def _repeat(self, some: Delete | Update, portion: int) -> int:
        """Execute in transactions of their own until less than a whole portion was left; how many rows in all."""
        changed = 0
        while True:
            with self._write() as connection:
                count = connection.execute(some).rowcount
            changed += count
            if count < portion:
                return changed

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if not self._leads:
            raise NotLeader("this process no longer leads")
        if self._connection is None:
            with self._database.write() as connection:
                yield connection
                self._beat(connection)
            return
        try:
            with self._connection.begin():
                yield self._connection
                self._beat(self._connection)
        except DatabaseError as error:
            # SQLAlchemy would quietly connect anew, and then write without the lock.
            if self._connection.invalidated:
                self.release()
                raise NotLeader(f"the leader's connection is lost: {error}") from error
            raise

    def _beat(self, connection: Connection) -> None:
        now_us = self._clock()
        if now_us - self._beat_at_us >= heartbeats.EVERY_US:
            heartbeats.beat(connection, self._name, self._since_us, now_us)
            self._beat_at_us = now_us


def try_lead(database: Database, clock: Callable[[], int], on_release: Callable[[], None]) -> Leader | None:
    """Leadership, or None while another process has it."""
    if not database.is_postgres:
        return Leader(database, None, clock, on_release)
    connection = database.engine.connect()
    try:
        # Out of the pool: closing it then ends the session, and the lock with it.
        connection.detach()
        leads: bool = connection.execute(LEAD_QUERY, {"space": LOCK_SPACE}).scalar_one()
        connection.commit()
    except BaseException:
        connection.close()
        raise
    if not leads:
        connection.close()
        return None
    return Leader(database, connection, clock, on_release)
