"""Deliveries of actions to receivers, one line for each action and receiver.

A line is claimed by moving its next attempt behind the end of a lease: no transaction is open while somebody else's
server is waited for. Whoever delivers renews the lease; what was claimed by a process that died is free again when it
ends. So an action arrives at least once, always with the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select, update

from monitor.store import bulk, tallies
from monitor.store.database import Database
from monitor.store.outbox import to_message
from monitor.store.tables import action_delivery, action_receiver, outbox
from monitor.store.values import OutboxMessage
from monitor.tallies import DELIVERED, DELIVERIES, TallyKey

DeliveryState = Literal["waiting", "delivered", "given_up", "skipped"]
"""``skipped``: of a type or model that the receiver does not take, or of which nothing is stored any more."""

LOOK_BACK_US = 3_600_000_000
"""A transaction that queues an action is committed within an hour of its ``created_us``: none takes that long."""
SPREAD_EVERY_US = 600_000_000
MISSED_US = 600_000_000
"""A receiver is back once a process has run without it for so long after the last one that had it: many times the
minute between two notes of that, so that a change of the file process by process loses nothing."""
AT_ONCE = 500


class Claimed(NamedTuple):
    """An action that is this process's to deliver, until its lease ends."""

    message: OutboxMessage
    receiver: str
    attempt: int
    """Counts from 1."""


class DeliveryRow(NamedTuple):
    """How far the delivery of an action to a receiver has come."""

    id: str
    receiver: str
    created_us: int
    state: DeliveryState
    attempts: int
    next_us: int
    """Of the next attempt, while it waits."""
    done_us: int | None
    told: str
    """What the receiver made of it: a run's id, say."""
    error: str
    """Of the last attempt that failed."""


class Deliveries:
    """Use `monitor.store.store.Store.deliveries`."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def register(self, names: Sequence[str]) -> dict[str, int]:
        """Receivers get the actions that are queued from the moment on at which they were registered first.

        One that comes back, after processes ran without it, begins anew: what was asked meanwhile is out of date.
        Returns how many waiting actions that skips, by receiver; 0 where it only begins anew.
        """
        columns, line = action_receiver.c, action_delivery.c
        skipped: dict[str, int] = {}
        with self._database.write() as connection:
            now_us = self._clock()
            _lock_all(connection)
            back = select(columns.name).where(columns.name.in_(names), columns.missed_us > columns.seen_us + MISSED_US)
            names_back: list[str] = sorted(connection.execute(back).scalars())
            for name in names_back:
                waiting = and_(line.receiver == name, line.state == "waiting")
                gone = {"state": "skipped", "done_us": now_us, "error": "the receiver was not there"}
                skipped[name] = connection.execute(update(action_delivery).where(waiting).values(gone)).rowcount
                connection.execute(update(action_receiver).where(columns.name == name).values(spread_us=now_us))
            rows = [{"name": name, "spread_us": now_us, "seen_us": now_us, "missed_us": 0} for name in names]
            bulk.upsert(connection, action_receiver, rows, {"seen_us": "replace", "missed_us": "replace"})
        return skipped

    def note_running(self, names: Sequence[str]) -> None:
        """Say that a process runs which has these receivers, and no others. To be said every minute."""
        columns = action_receiver.c
        with self._database.write() as connection:
            now_us = self._clock()
            _lock_all(connection)
            own = columns.name.in_(names)
            connection.execute(update(action_receiver).where(own).values(seen_us=now_us))
            connection.execute(update(action_receiver).where(~own).values(missed_us=now_us))

    def give_up_old(self, receiver: str, before_us: int) -> list[str]:
        """Give up what is due and was queued before then; the ids of these actions."""
        columns = action_delivery.c
        old = and_(_is_due(receiver, self._clock()), columns.created_us < before_us)
        query = select(columns.id).where(old).order_by(columns.id)
        with self._database.read() as connection:
            if connection.execute(query.limit(1)).first() is None:
                return []
        with self._database.write() as connection:
            found: list[str] = list(connection.execute(query.with_for_update(skip_locked=True)).scalars())
            gone = {"state": "given_up", "done_us": self._clock(), "error": "too old to be delivered"}
            for some in bulk.portions(found, AT_ONCE):
                own = and_(columns.receiver == receiver, columns.id.in_(some))
                connection.execute(update(action_delivery).where(own).values(gone))
            key = TallyKey(DELIVERIES, "", "", receiver, DELIVERED.index("given_up"))
            tallies.append(connection, {key: len(found)})
            return found

    def spread(self, receiver: str, topic: str, wants: Callable[[OutboxMessage], bool]) -> int:
        """Make lines for the actions that have none for this registered receiver; how many wait newly."""
        with self._database.read() as connection:
            since_us: int = connection.execute(
                select(action_receiver.c.spread_us).where(action_receiver.c.name == receiver)
            ).scalar_one()
            found = _without_line(connection, receiver, topic, since_us)
        now_us = self._clock()
        until_us = now_us - LOOK_BACK_US
        complete = len(found) < AT_ONCE and until_us >= since_us + SPREAD_EVERY_US
        if not found and not complete:
            return 0
        rows = [_line(message, receiver, "waiting" if wants(message) else "skipped", now_us) for message in found]
        with self._database.write() as connection:
            bulk.upsert(connection, action_delivery, rows)
            if complete:
                mark = update(action_receiver).where(action_receiver.c.name == receiver)
                connection.execute(mark.values(spread_us=until_us))
        return sum(row["state"] == "waiting" for row in rows)

    def claim(self, receiver: str, lease_us: int) -> Claimed | None:
        """The next action that is due for a receiver, None where none is."""
        columns = action_delivery.c
        now_us = self._clock()
        due = _is_due(receiver, now_us)
        query = select(columns.id, columns.attempts).where(due).order_by(columns.next_us, columns.id).limit(1)
        with self._database.read() as connection:
            if connection.execute(query).first() is None:
                return None
        with self._database.write() as connection:
            row = connection.execute(query.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            message = _message(connection, row.id)
            place = and_(columns.id == row.id, columns.receiver == receiver)
            if message is None:
                gone = {"state": "skipped", "done_us": now_us, "error": "not stored any more"}
                connection.execute(update(action_delivery).where(place).values(gone))
                return None
            connection.execute(
                update(action_delivery).where(place).values(attempts=row.attempts + 1, next_us=now_us + lease_us)
            )
            return Claimed(message, receiver, row.attempts + 1)

    def renew(self, claimed: Claimed, lease_us: int) -> bool:
        """Let a claim's lease end so long after now; False where it is nobody's any more, or somebody else's."""
        columns = action_delivery.c
        place = and_(_place(claimed), columns.attempts == claimed.attempt)
        with self._database.write() as connection:
            until = {"next_us": self._clock() + lease_us}
            return bool(connection.execute(update(action_delivery).where(place).values(until)).rowcount)

    def delivered(self, claimed: Claimed, told: str) -> None:
        """Note that an action has arrived."""
        # Whoever claimed it meanwhile: it has arrived.
        self._settle(claimed, "delivered", {"state": "delivered", "done_us": self._clock(), "told": told})

    def failed(self, claimed: Claimed, error: str, next_us: int | None) -> None:
        """Note a failed attempt; ``next_us``: when to try again, None to give up."""
        if next_us is None:
            done = {"state": "given_up", "done_us": self._clock(), "error": error}
            self._settle(claimed, "given_up", done, only_own=True)
        else:
            self._settle(claimed, "failed", {"next_us": next_us, "error": error}, only_own=True)

    def of(self, ids: Sequence[str]) -> dict[str, list[DeliveryRow]]:
        """All lines of some actions, but the skipped ones, by action."""
        columns = action_delivery.c
        found: dict[str, list[DeliveryRow]] = {}
        with self._database.read() as connection:
            for some in bulk.portions(ids, AT_ONCE):
                query = select(action_delivery).where(columns.id.in_(some), columns.state != "skipped")
                for row in connection.execute(query.order_by(columns.id, columns.receiver)):
                    found.setdefault(row.id, []).append(DeliveryRow._make(row))
        return found

    def waiting(self) -> dict[str, tuple[int, int | None]]:
        """Of every receiver how many actions wait, and when the oldest of them was queued."""
        columns = action_delivery.c
        query = select(columns.receiver, func.count(), func.min(columns.created_us))
        with self._database.read() as connection:
            names = connection.execute(select(action_receiver.c.name))
            found: dict[str, tuple[int, int | None]] = {row.name: (0, None) for row in names}
            rows = connection.execute(query.where(columns.state == "waiting").group_by(columns.receiver))
            return found | {row[0]: (row[1], row[2]) for row in rows}

    def _settle(self, claimed: Claimed, outcome: str, values: dict[str, object], *, only_own: bool = False) -> None:
        place = _place(claimed)
        if only_own:
            place = and_(place, action_delivery.c.attempts == claimed.attempt)
        with self._database.write() as connection:
            if connection.execute(update(action_delivery).where(place).values(values)).rowcount:
                bucket = DELIVERED.index(outcome)
                tallies.append(connection, {TallyKey(DELIVERIES, "", "", claimed.receiver, bucket): 1})


def _place(claimed: Claimed) -> ColumnElement[bool]:
    columns = action_delivery.c
    return and_(columns.id == claimed.message.id, columns.receiver == claimed.receiver, columns.state == "waiting")


def _is_due(receiver: str, now_us: int) -> ColumnElement[bool]:
    columns = action_delivery.c
    return and_(columns.receiver == receiver, columns.state == "waiting", columns.next_us <= now_us)


def _without_line(connection: Connection, receiver: str, topic: str, since_us: int) -> list[OutboxMessage]:
    same = and_(action_delivery.c.id == outbox.c.id, action_delivery.c.receiver == receiver)
    query = (
        select(outbox)
        .where(outbox.c.topic == topic, outbox.c.keep_sent, outbox.c.created_us >= since_us)
        .where(~exists().where(same))
        .order_by(outbox.c.created_us, outbox.c.id)
        .limit(AT_ONCE)
    )
    return [to_message(row) for row in connection.execute(query)]


def _line(message: OutboxMessage, receiver: str, state: DeliveryState, now_us: int) -> dict[str, object]:
    return {
        "id": message.id,
        "receiver": receiver,
        "created_us": message.created_us,
        "state": state,
        "attempts": 0,
        "next_us": now_us,
        "done_us": None,
        "told": "",
        "error": "",
    }


def _message(connection: Connection, identity: str) -> OutboxMessage | None:
    row = connection.execute(select(outbox).where(outbox.c.id == identity)).first()
    return None if row is None or row.value is None else to_message(row)


def _lock_all(connection: Connection) -> None:
    """All receivers, in one order: two processes with other receivers would else wait in a circle."""
    columns = action_receiver.c
    connection.execute(select(columns.name).order_by(columns.name).with_for_update()).all()
