"""The one evaluator: folds what ingest appended, keeps the marks of due windows, stores verdicts, expires old rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Delete, Table, delete, select

from monitor.errors import NotLeader
from monitor.store import early, outbox, panes, scores, tallies
from monitor.store.database import Database, DatabaseError
from monitor.store.panes import Merge
from monitor.store.schema import LOCK_SPACE
from monitor.store.tables import early_alarm, early_state, pane, sample, window_due, window_score
from monitor.store.tables import outbox as outbox_table
from monitor.store.values import DueWindow, EarlyAlarm, EarlyState, Expired, OutboxMessage, ScoreRow

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

    def fold(self, merge: Merge, lengths_us: Sequence[int], limit: int = 1000) -> int:
        """Merge waiting deltas into panes and totals, and mark the windows of the changed panes as due.

        At most ``limit`` of each kind, in one transaction; call again until it returns 0. ``merge`` must not depend on
        the order of the states. Returns how many deltas were folded.
        """
        with self._write() as connection:
            folded, changed = panes.fold(connection, merge, limit)
            scores.mark_due(connection, changed, lengths_us)
            return folded + tallies.fold(connection, limit)

    def due(self, watermark_us: int, limit: int = 1000) -> list[DueWindow]:
        """Windows to score: changed since they were scored last, and ended at or before the watermark."""
        with self._write() as connection:
            return scores.due(connection, watermark_us, limit)

    def record_score(self, window: DueWindow, score: ScoreRow, messages: Sequence[OutboxMessage] = ()) -> int | None:
        """Store a verdict as the window's next revision, queue its messages, clear the mark: in one transaction.

        Returns the revision (from 0). None when there was nothing new, as many records as in the last revision: then
        only the mark is cleared. A mark that a later fold has renewed stays.
        """
        with self._write() as connection:
            revision = scores.insert_revision(connection, window, score)
            if revision is not None:
                outbox.queue(connection, messages, self._clock())
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
        return Expired(
            panes=rows(pane),
            scores=rows(window_score),
            early=self._expire(early_alarm, early_alarm.c.at_us < before_us, portion)
            + self._expire(early_state, early_state.c.fed_until_us < before_us, portion),
            samples=self._expire(sample, sample.c.event_time_us < before_us, portion),
            messages=self._expire(
                outbox_table, messages.sent_us.is_not(None) & (messages.sent_us < before_us), portion
            ),
        )

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
        # ctid and rowid: where a row lies, the only key that every table has.
        place: ColumnElement[object] = sqlalchemy.literal_column("ctid" if self._database.is_postgres else "rowid")
        some: Delete = delete(table).where(place.in_(select(place).select_from(table).where(old).limit(portion)))
        expired = 0
        while True:
            with self._write() as connection:
                count = connection.execute(some).rowcount
            expired += count
            if count < portion:
                return expired

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        if not self._leads:
            raise NotLeader("this process no longer leads")
        if self._connection is None:
            with self._database.write() as connection:
                yield connection
            return
        try:
            with self._connection.begin():
                yield self._connection
        except DatabaseError as error:
            # SQLAlchemy would quietly connect anew, and then write without the lock.
            if self._connection.invalidated:
                self.release()
                raise NotLeader(f"the leader's connection is lost: {error}") from error
            raise


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
