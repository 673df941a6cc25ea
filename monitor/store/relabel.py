"""The relabel queue: samples that wait for a label, an item for each cause, claimed by lease.

An item is (input, model, version, cause). A sample that is wanted for several causes is labelled once: whoever claims
one of its items has them all. A claim is a lease: once it has ended, the items wait again, whatever became of the
claimer. A label that arrives completes the items of its input, in its own transaction.

Here is what an item is, and what becomes of items in others' transactions; claims are in `monitor.store.relabel_queue`.
Only rows are locked, in the order of their keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from monitor.store.bulk import portions
from monitor.store.purges import Tombstones
from monitor.store.tables import label, relabel
from monitor.store.values import LabelRow, SpotCheckRow

Kind = Literal["manual", "spot_check", "drift", "quality", "disagreement", "training"]
State = Literal["open", "claimed", "done", "expired"]

PRIORITY: dict[Kind, int] = {
    "manual": 900,
    "spot_check": 800,
    "drift": 600,
    "quality": 500,
    "disagreement": 400,
    "training": 300,
}
"""Where each kind begins; within it, up to `SPAN` more. Spot checks stand before all that segwatch asks for on
suspicion: those that nobody gets to would be missing from the estimates, and not at random."""
SPAN = 99

LABELLED_BEFORE: frozenset[Kind] = frozenset({"disagreement"})
"""Kinds whose samples have labels already: a further one is wanted."""

AGAIN = "again"
"""Stream of what a person wants labelled although it has a label."""

KEY = ("input_id", "model", "version", "cause")
AT_ONCE = 200


class RelabelRow(NamedTuple):
    """A sample to be queued, and why."""

    input_id: str
    model: str
    version: str
    cause: str
    """What asks for it: the same cause never queues a sample twice."""
    kind: Kind
    stream: str
    """Of a spot check, which (`monitor.store.values.SpotCheckRow`); else the kind."""
    priority: int
    """The higher the sooner."""
    reason: str
    """For a person."""
    probability: float | None
    """With which it was chosen; None where no chance was involved."""
    event_time_us: int
    created_us: int


class RelabelItem(NamedTuple):
    """An item as it stands. ``state`` is ``open`` again once a lease has ended."""

    input_id: str
    model: str
    version: str
    cause: str
    kind: Kind
    stream: str
    priority: int
    reason: str
    probability: float | None
    event_time_us: int
    created_us: int
    state: State
    claimed_by: str | None
    token: str | None
    lease_until_us: int | None
    closed_us: int | None
    closed_by: str | None

    @property
    def sample(self) -> tuple[str, str]:
        """What is labelled: (model, input)."""
        return self.model, self.input_id


class Claim(NamedTuple):
    """A lease of samples; ``items`` are all the items of each."""

    token: str
    lease_until_us: int
    items: list[RelabelItem]


def of_spot_check(row: SpotCheckRow) -> RelabelRow:
    """A spot check as an item; its ledger stays the table of spot checks."""
    kind: Kind = "training" if row.stream == "training" else "spot_check"
    return RelabelRow(
        row.input_id,
        row.model,
        row.version,
        kind,
        kind,
        row.stream,
        PRIORITY[kind],
        row.reason,
        row.probability,
        row.event_time_us,
        row.chosen_at_us,
    )


def add(connection: Connection, rows: Iterable[RelabelRow]) -> list[RelabelRow]:
    """Queue samples; returns those that were not queued for their cause before, in the order of their keys."""
    wanted = list(rows)
    if not wanted:
        return []
    allowed = Tombstones(connection).allowed(wanted, lambda row: (row.model, row.input_id))
    by_key = {(row.input_id, row.model, row.version, row.cause): row for row in allowed}
    if not by_key:
        return []
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(relabel)
    statement = insert.on_conflict_do_nothing(index_elements=list(KEY)).returning(*(relabel.c[name] for name in KEY))
    values = [{**by_key[key]._asdict(), "state": "open"} for key in sorted(by_key)]
    return [by_key[row.input_id, row.model, row.version, row.cause] for row in connection.execute(statement, values)]


def answer(connection: Connection, labels: Sequence[LabelRow], now_us: int) -> int:
    """Complete what waits for these labels; how many items."""
    by_input: dict[str, list[LabelRow]] = defaultdict(list)
    for row in labels:
        by_input[row.input_id].append(row)
    found = []
    for item in locked(connection, relabel.c.input_id, sorted(by_input), waiting()):
        own = [one for one in by_input[item.input_id] if one.model in ("", item.model)]
        own = [one for one in own if one.version in ("", item.version)]
        if own:
            found.append((item, f"label of {own[-1].annotator}"))
    for item, by in found:
        connection.execute(update(relabel).where(is_row(item)).values(state="done", closed_us=now_us, closed_by=by))
    return len(found)


def settle(connection: Connection, now_us: int, inputs: Sequence[str] | None = None) -> int:
    """Complete what has a label that came before its item, and so could not complete it; how many items."""
    ours = and_(
        label.c.input_id == relabel.c.input_id,
        or_(label.c.model == "", and_(label.c.model == relabel.c.model, label.c.version == relabel.c.version)),
    )
    told = waiting() & _unlabelled_before() & exists().where(ours)
    if inputs is None:
        rows = connection.execute(in_order(told)).all()
    else:
        rows = list(locked(connection, relabel.c.input_id, inputs, told))
    for row in rows:
        connection.execute(
            update(relabel).where(is_row(row)).values(state="done", closed_us=now_us, closed_by="an earlier label")
        )
    return len(rows)


def expire(connection: Connection, model: str, before_us: int, now_us: int) -> int:
    """Close what waits for records older than ``before_us``, whose labels would come too late; how many items."""
    old = waiting() & (relabel.c.model == model) & (relabel.c.event_time_us < before_us)
    rows = connection.execute(in_order(old)).all()
    for row in rows:
        connection.execute(
            update(relabel).where(is_row(row)).values(state="expired", closed_us=now_us, closed_by="quality.join_days")
        )
    return len(rows)


def targeted(connection: Connection, inputs: Sequence[str]) -> dict[tuple[str, str], int]:
    """When what suspicion had queued was first asked for, by (model, input); 0 for what somebody has claimed.

    A label made after that is no spot check, whatever it says. One made before it was drawn by the annotators
    themselves, and by chance hit what was suspected later.
    """
    columns = relabel.c
    asked = case((columns.claimed_by.is_not(None), 0), else_=columns.created_us)
    query = select(columns.model, columns.input_id, func.min(asked).label("asked_us"))
    query = query.where(columns.state != "expired", _unlabelled_before(), columns.probability.is_(None))
    query = query.group_by(columns.model, columns.input_id)
    found: dict[tuple[str, str], int] = {}
    for some in portions(inputs, AT_ONCE):
        rows = connection.execute(query.where(columns.input_id.in_(some)))
        found |= {(row.model, row.input_id): int(row.asked_us) for row in rows}
    return found


def waiting() -> ColumnElement[bool]:
    """Neither done nor expired."""
    return relabel.c.state.in_(("open", "claimed"))


def _unlabelled_before() -> ColumnElement[bool]:
    return relabel.c.kind.not_in(sorted(LABELLED_BEFORE)) & (relabel.c.stream != AGAIN)


def in_order(condition: ColumnElement[bool], *, skip_locked: bool = False) -> Select[Any]:
    """Rows for an update, locked in the order of their keys, so that two transactions never wait in a circle."""
    query = select(relabel).where(condition).order_by(*(relabel.c[name] for name in KEY))
    return query.with_for_update(skip_locked=skip_locked)


def locked(
    connection: Connection, column: ColumnElement[str], values: Sequence[str], condition: ColumnElement[bool]
) -> Iterable[Row[Any]]:
    """Rows of these values of a column for an update; see `in_order`."""
    for some in portions(values, AT_ONCE):
        yield from connection.execute(in_order(condition & column.in_(some))).all()


def is_row(item: RelabelItem | Row[Any]) -> ColumnElement[bool]:
    """The item itself."""
    return and_(*(relabel.c[name] == getattr(item, name) for name in KEY))
