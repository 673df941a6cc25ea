"""The transactional outbox: a message is stored with its cause, and delivered afterwards, at least once.

A crash between delivery and the note of it delivers the message again, with the same id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Row, delete, func, select, update

from monitor.store import bulk
from monitor.store.database import Database
from monitor.store.tables import outbox
from monitor.store.values import OutboxBacklog, OutboxMessage

DELIVERY_LIMIT = "10min"
"""PostgreSQL takes the claim of a deliverer that hangs for this long away, and the messages are free again."""


class Claim(Sequence[OutboxMessage]):
    """Messages that are this process's to deliver. At the end of the block all count as sent, but those kept."""

    def __init__(self, messages: Sequence[OutboxMessage]) -> None:
        self._messages = tuple(messages)
        self.kept: set[str] = set()

    def keep(self, message_id: str) -> None:
        """Delivery failed: leave the message queued, behind those that have been tried less often."""
        self.kept.add(message_id)

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> OutboxMessage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[OutboxMessage]: ...

    def __getitem__(self, index: int | slice) -> OutboxMessage | Sequence[OutboxMessage]:
        return self._messages[index]


def queue(connection: Connection, messages: Sequence[OutboxMessage], now_us: int) -> int:
    """Store messages for delivery; one whose id is already there is the same message and is ignored.

    Returns how many were new.
    """
    rows = {
        message.id: {
            "id": message.id,
            "topic": message.topic,
            "key": message.key,
            "value": message.value,
            "headers": msgspec.msgpack.encode(message.headers),
            "keep_sent": message.keep_sent,
            "created_us": now_us,
            "attempts": 0,
            "sent_us": None,
        }
        for message in reversed(messages)  # of two with one id the first stays
    }
    return bulk.upsert(connection, outbox, list(rows.values()))


def pending(connection: Connection) -> int:
    """How many messages wait for delivery."""
    return backlog(connection).pending


def backlog(connection: Connection) -> OutboxBacklog:
    """What waits for delivery, and since when."""
    waiting = select(func.count(), func.min(outbox.c.created_us)).where(outbox.c.sent_us.is_(None))
    row = connection.execute(waiting).one()
    return OutboxBacklog(int(row[0]), None if row[1] is None else int(row[1]))


@contextmanager
def claim(database: Database, limit: int, now_us: int) -> Iterator[Claim]:
    """Up to ``limit`` messages, the oldest first, for this process alone; an exception in the block leaves them queued.

    PostgreSQL: their rows stay locked while the block runs, and other processes pass over locked rows. SQLite: there is
    only this process, whose caller must not claim from two threads at once; no lock is held while it delivers, since
    that would stop ingest.
    """
    if database.is_postgres:
        with database.write() as connection:
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{DELIVERY_LIMIT}'")
            claimed = _load(connection, limit)
            yield claimed
            _settle(connection, claimed, now_us)
    else:
        with database.read() as connection:
            claimed = _load(connection, limit)
        yield claimed
        if claimed:
            with database.write() as connection:
                _settle(connection, claimed, now_us)


def _load(connection: Connection, limit: int) -> Claim:
    columns = outbox.c
    rows = connection.execute(
        select(outbox)
        .where(columns.sent_us.is_(None))
        .order_by(columns.attempts, columns.created_us, columns.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return Claim([to_message(row) for row in rows])


def to_message(row: Row[Any]) -> OutboxMessage:
    """A row of the outbox as the message that it holds."""
    return OutboxMessage(
        id=row.id,
        topic=row.topic,
        key=row.key,
        value=row.value,
        headers=tuple((name, value) for name, value in msgspec.msgpack.decode(row.headers)),
        keep_sent=row.keep_sent,
        created_us=row.created_us,
    )


def _settle(connection: Connection, claimed: Claim, now_us: int) -> None:
    columns = outbox.c
    done = [message for message in claimed if message.id not in claimed.kept]
    gone = [message.id for message in done if not message.keep_sent]
    sent = [message.id for message in done if message.keep_sent]
    changes: list[tuple[list[str], sqlalchemy.Executable]] = [
        (gone, delete(outbox).where(columns.id.in_(gone))),
        (sent, update(outbox).where(columns.id.in_(sent)).values(sent_us=now_us)),
        (
            sorted(claimed.kept),
            update(outbox).where(columns.id.in_(sorted(claimed.kept))).values(attempts=columns.attempts + 1),
        ),
    ]
    for ids, change in changes:
        if ids:
            connection.execute(change)
