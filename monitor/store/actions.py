"""Actions as they were queued, what was asked for last, and the labels that a retraining would have."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, exists, func, select
from sqlalchemy.dialects import postgresql, sqlite

from monitor.errors import InputError
from monitor.store import bulk
from monitor.store.database import Database
from monitor.store.outbox import to_message
from monitor.store.tables import action_delivery, judged, label, outbox, relabel, requested, retrain, spot_check
from monitor.store.values import OutboxMessage

Cooling = Literal["retrain", "rollback"]
"""What is not asked for again within a cooldown: a retraining of a model, a rollback of a version."""


class QueuedAction(NamedTuple):
    """An action; ``sent_us``: when Kafka (or the file) had it."""

    message: OutboxMessage
    sent_us: int | None


class Requested(NamedTuple):
    """A request: when it was made, and the id of its action."""

    at_us: int
    id: str


class RetrainRow(NamedTuple):
    """What was decided on a model's retraining last; the payload is JSON, as in ``segwatch status --json``."""

    model: str
    requested_us: int | None
    """Of the last request, by whomever. Not stored with the decision: see `ask`."""
    decided_us: int
    payload: bytes


class LabelledInput(NamedTuple):
    """An input that a retraining could learn from."""

    input_id: str
    purpose: str
    selection_probability: float | None
    """As its label says, else as it was asked for; None where neither is known."""
    label_time_us: int


class Actions:
    """Read access; use `monitor.store.store.Store.actions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queued(self, topic: str, *, since_us: int | None = None, limit: int | None = None) -> list[QueuedAction]:
        """Actions from ``since_us`` on, the newest first."""
        columns = outbox.c
        query = select(outbox).where(columns.topic == topic, columns.keep_sent)
        if since_us is not None:
            query = query.where(columns.created_us >= since_us)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(columns.created_us.desc(), columns.id).limit(limit))
            return [QueuedAction(to_message(row), row.sent_us) for row in rows]

    def unfinished(self, since_us: int, young_us: int) -> list[QueuedAction]:
        """Actions from ``young_us`` on, and of those from ``since_us`` on what has not arrived everywhere."""
        columns = outbox.c
        own = action_delivery.c.id == columns.id
        lacking = exists().where(own, action_delivery.c.state.in_(("waiting", "given_up")))
        old = (columns.created_us >= since_us) & (columns.sent_us.is_(None) | lacking)
        query = select(outbox).where(columns.keep_sent, (columns.created_us >= young_us) | old)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(columns.created_us.desc(), columns.id))
            return [QueuedAction(to_message(row), row.sent_us) for row in rows]

    def one(self, topic: str, identity: str) -> QueuedAction:
        """An action by its id, or an unambiguous beginning of it. Raises InputError."""
        if not identity or "\0" in identity:
            raise InputError(f"no action has the id {identity!r}")
        columns = outbox.c
        query = select(outbox).where(columns.topic == topic, columns.keep_sent)
        query = query.where(columns.id.startswith(identity, autoescape=True)).order_by(columns.id).limit(2)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise InputError(f"no action has the id {identity!r}")
        if len(rows) > 1 and rows[0].id != identity:
            raise InputError(f"several actions have ids that begin with {identity!r}")
        return QueuedAction(to_message(rows[0]), rows[0].sent_us)

    def is_queued(self, identity: str) -> bool:
        """Whether there is an action of this id."""
        with self._database.read() as connection:
            return queued_at(connection, identity) is not None

    def requested(self, kind: Cooling, model: str, version: str) -> Requested | None:
        """The last request of its kind, by whomever; ``version`` counts for a rollback alone."""
        with self._database.read() as connection:
            return last_request(connection, kind, model, version)

    def is_cooling(self, kind: Cooling, model: str, version: str, now_us: int, cooldown_us: int) -> bool:
        """Whether the last such request, by whomever, was less than a cooldown ago."""
        last = self.requested(kind, model, version)
        return last is not None and last.at_us > now_us - cooldown_us

    def retrainings(self) -> dict[str, RetrainRow]:
        """What was decided on each model last."""
        columns = requested.c
        with self._database.read() as connection:
            asked = connection.execute(select(columns.model, columns.at_us).where(columns.kind == "retrain")).all()
            decided = connection.execute(select(retrain)).all()
        found = {row.model: RetrainRow(row.model, row.at_us, row.at_us, b"{}") for row in asked}
        for row in decided:
            last = found.get(row.model)
            at_us = None if last is None else last.requested_us
            found[row.model] = RetrainRow(row.model, at_us, row.decided_us, row.payload)
        return found

    def labels_ready(self, model: str, since_us: int) -> int:
        """Inputs of a model that had a label which counts for the first time after ``since_us`` (of the clock)."""
        with self._database.read() as connection:
            first = _first_judged(model, since_us).subquery()
            return int(connection.execute(select(func.count()).select_from(first)).scalar_one())

    def labelled(self, model: str, since_us: int, limit: int) -> list[LabelledInput]:
        """Those of `labels_ready`, the newest first; of several labels the newest speaks."""
        with self._database.read() as connection:
            first_us = func.min(judged.c.first_judged_at_us)
            newest = _first_judged(model, since_us).order_by(first_us.desc(), judged.c.input_id)
            inputs: list[str] = [row.input_id for row in connection.execute(newest.limit(limit))]
            labels = _labels(connection, model, inputs)
            asked = _asked(connection, model, inputs)
        found: list[LabelledInput] = []
        for name in inputs:
            if name in labels:
                purpose, probability, time_us = labels[name]
                found.append(LabelledInput(name, purpose, probability or asked.get(name), time_us))
        return found


def queued_at(connection: Connection, identity: str) -> int | None:
    """When the action of this id was queued, None where there is none."""
    at_us: int | None = connection.execute(select(outbox.c.created_us).where(outbox.c.id == identity)).scalar()
    return at_us


def ask(
    connection: Connection, kind: Cooling, model: str, version: str, identity: str, at_us: int, cooldown_us: int
) -> Requested | None:
    """Take the turn to request something: None where it is the caller's, else the request that it comes too soon after.

    Whoever asks at the same time waits here until the other transaction ends, and then sees its request. ``version``
    counts for a rollback alone.
    """
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(requested)
    columns = requested.c
    is_free = columns.id != identity
    if cooldown_us > 0:
        is_free &= columns.at_us <= at_us - cooldown_us
    key = _key(kind, model, version)
    statement = insert.values(**key, at_us=at_us, id=identity).on_conflict_do_update(
        index_elements=list(key), set_={"at_us": at_us, "id": identity}, where=is_free
    )
    if connection.execute(statement.returning(columns.kind)).first() is not None:
        return None
    return last_request(connection, kind, model, version)


def save_retrain(connection: Connection, row: RetrainRow) -> None:
    """Replace what was decided."""
    decided = {"model": row.model, "decided_us": row.decided_us, "payload": row.payload}
    bulk.upsert(connection, retrain, [decided], {"decided_us": "replace", "payload": "replace"})


AT_ONCE = 500


def _key(kind: Cooling, model: str, version: str) -> dict[str, str]:
    return {"kind": kind, "model": model, "version": version if kind == "rollback" else ""}


def last_request(connection: Connection, kind: Cooling, model: str, version: str) -> Requested | None:
    own = and_(*(requested.c[name] == value for name, value in _key(kind, model, version).items()))
    row: Row[tuple[int, str]] | None = connection.execute(select(requested.c.at_us, requested.c.id).where(own)).first()
    return None if row is None else Requested._make(row)


def _first_judged(model: str, since_us: int) -> Select[tuple[str]]:
    return (
        select(judged.c.input_id)
        .where(judged.c.model == model)
        .group_by(judged.c.input_id)
        .having(func.min(judged.c.first_judged_at_us) > since_us)
    )


def _labels(connection: Connection, model: str, inputs: list[str]) -> dict[str, tuple[str, float | None, int]]:
    columns = label.c
    found: dict[str, tuple[str, float | None, int]] = {}
    for some in bulk.portions(inputs, AT_ONCE):
        query = select(columns.input_id, columns.purpose, columns.selection_probability, columns.label_time_us)
        query = query.where(columns.input_id.in_(some), columns.model.in_(("", model)), columns.state != "bad")
        for row in connection.execute(query.order_by(columns.label_time_us, columns.annotator)):
            found[row.input_id] = (row.purpose, row.selection_probability, row.label_time_us)
    return found


def _asked(connection: Connection, model: str, inputs: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for some in bulk.portions(inputs, AT_ONCE):
        for table in (relabel, spot_check):
            query = select(table.c.input_id, table.c.probability).where(table.c.input_id.in_(some))
            query = query.where(table.c.model == model, table.c.probability.is_not(None))
            found |= {row.input_id: row.probability for row in connection.execute(query)}
    return found
