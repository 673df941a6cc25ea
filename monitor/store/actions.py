"""Actions as they were queued, the labels that a retraining would have, and what was decided on it last."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select

from monitor.errors import InputError
from monitor.store import bulk
from monitor.store.database import Database
from monitor.store.outbox import to_message
from monitor.store.tables import action_delivery, judged, label, outbox, relabel, retrain, spot_check
from monitor.store.values import OutboxMessage


class QueuedAction(NamedTuple):
    """An action; ``sent_us``: when Kafka (or the file) had it."""

    message: OutboxMessage
    sent_us: int | None


class RetrainRow(NamedTuple):
    """What was decided on a model's retraining last; the payload is JSON, as in ``segwatch status --json``."""

    model: str
    requested_us: int | None
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

    def queued(
        self, topic: str, *, since_us: int | None = None, limit: int | None = None, about: str = ""
    ) -> list[QueuedAction]:
        """Actions from ``since_us`` on, the newest first; only those whose data has ``about`` in it."""
        columns = outbox.c
        query = select(outbox).where(columns.topic == topic, columns.keep_sent)
        if since_us is not None:
            query = query.where(columns.created_us >= since_us)
        if about:
            query = query.where(_contains(self._database, about))
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
            return connection.execute(select(outbox.c.id).where(outbox.c.id == identity)).first() is not None

    def retrainings(self) -> dict[str, RetrainRow]:
        """What was decided on each model last."""
        with self._database.read() as connection:
            return {row.model: RetrainRow._make(row) for row in connection.execute(select(retrain))}

    def labels_ready(self, model: str, since_us: int) -> int:
        """Inputs of a model that were judged by labels for the first time after ``since_us`` (of the clock)."""
        with self._database.read() as connection:
            first = _first_judged(model, since_us).subquery()
            return int(connection.execute(select(func.count()).select_from(first)).scalar_one())

    def labelled(self, model: str, since_us: int, limit: int) -> list[LabelledInput]:
        """Those of `labels_ready`, the newest first; of several labels the newest speaks."""
        with self._database.read() as connection:
            newest = _first_judged(model, since_us).order_by(func.min(judged.c.judged_at_us).desc(), judged.c.input_id)
            inputs: list[str] = [row.input_id for row in connection.execute(newest.limit(limit))]
            labels = _labels(connection, model, inputs)
            asked = _asked(connection, model, inputs)
        found: list[LabelledInput] = []
        for name in inputs:
            if name in labels:
                purpose, probability, time_us = labels[name]
                found.append(LabelledInput(name, purpose, probability or asked.get(name), time_us))
        return found


def note_request(connection: Connection, model: str, at_us: int) -> None:
    """Remember that a retraining was asked for, by whomever: labels and cooldown count from here."""
    row = {"model": model, "requested_us": at_us, "decided_us": at_us, "payload": b"{}"}
    bulk.upsert(connection, retrain, [row], {"requested_us": "replace"})


def save_retrain(connection: Connection, row: RetrainRow) -> None:
    """Replace what was decided; a request that somebody else has made meanwhile stays."""
    changed = {"decided_us": "replace", "payload": "replace"}
    bulk.upsert(connection, retrain, [row._asdict()], changed)
    if row.requested_us is not None:
        own = retrain.c.model == row.model
        older = (retrain.c.requested_us.is_(None)) | (retrain.c.requested_us < row.requested_us)
        connection.execute(retrain.update().where(own, older).values(requested_us=row.requested_us))


AT_ONCE = 500


def _contains(database: Database, text: str) -> ColumnElement[bool]:
    if database.is_postgres:
        return func.strpos(func.encode(outbox.c.value, "hex"), text.encode().hex()) > 0
    return func.instr(outbox.c.value, text.encode()) > 0


def _first_judged(model: str, since_us: int) -> Select[tuple[str]]:
    return (
        select(judged.c.input_id)
        .where(judged.c.model == model)
        .group_by(judged.c.input_id)
        .having(func.min(judged.c.judged_at_us) > since_us)
    )


def _labels(connection: Connection, model: str, inputs: list[str]) -> dict[str, tuple[str, float | None, int]]:
    columns = label.c
    found: dict[str, tuple[str, float | None, int]] = {}
    for some in bulk.portions(inputs, AT_ONCE):
        query = select(columns.input_id, columns.purpose, columns.selection_probability, columns.label_time_us)
        query = query.where(columns.input_id.in_(some), columns.model.in_(("", model)))
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
