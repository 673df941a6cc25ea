"""The relabel queue: samples that wait for a label, an item for each cause, claimed by lease.

An item is (input, model, version, cause). A sample that is wanted for several causes is labelled once: whoever claims
one of its items has them all. A claim is a lease: once it has ended, the items wait again, whatever became of the
claimer. A label that arrives completes the items of its input, in its own transaction.

Only rows are locked here, in the order of their keys. Claimers take turns (PostgreSQL: an advisory lock for the length
of a transaction; SQLite has one writer) and pass over rows that an arriving label is just completing.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from monitor.errors import LeaseRefused, UnknownSample
from monitor.store.bulk import portions
from monitor.store.database import Database
from monitor.store.purges import Tombstones
from monitor.store.schema import LOCK_SPACE
from monitor.store.tables import label, relabel, sample
from monitor.store.values import LabelRow, SpotCheckRow
from monitor.windows import to_text

T = TypeVar("T")

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
_json = msgspec.json.Encoder()
TURN = sqlalchemy.text("SELECT pg_advisory_xact_lock(:space, hashtext('relabel ' || current_schema()))")


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


class Candidate(NamedTuple):
    """A record that may be chosen."""

    input_id: str
    event_time_us: int
    confidence: float | None
    slices: str
    masks: bytes
    sketch: bytes | None


class Pair(NamedTuple):
    """An input that two versions of a model have seen, with what each found."""

    input_id: str
    event_time_us: int
    first: str
    first_masks: bytes
    second: str
    second_masks: bytes


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
    for item in _locked(connection, relabel.c.input_id, sorted(by_input), _waiting()):
        own = [one for one in by_input[item.input_id] if one.model in ("", item.model)]
        own = [one for one in own if one.version in ("", item.version)]
        if own:
            found.append((item, f"label of {own[-1].annotator}"))
    for item, by in found:
        connection.execute(update(relabel).where(_is(item)).values(state="done", closed_us=now_us, closed_by=by))
    return len(found)


def settle(connection: Connection, now_us: int, inputs: Sequence[str] | None = None) -> int:
    """Complete what has a label that came before its item, and so could not complete it; how many items."""
    ours = and_(
        label.c.input_id == relabel.c.input_id,
        or_(label.c.model == "", and_(label.c.model == relabel.c.model, label.c.version == relabel.c.version)),
    )
    told = _waiting() & _unlabelled_before() & exists().where(ours)
    if inputs is None:
        rows = connection.execute(_in_order(told)).all()
    else:
        rows = list(_locked(connection, relabel.c.input_id, inputs, told))
    for row in rows:
        connection.execute(
            update(relabel).where(_is(row)).values(state="done", closed_us=now_us, closed_by="an earlier label")
        )
    return len(rows)


def expire(connection: Connection, model: str, before_us: int, now_us: int) -> int:
    """Close what waits for records older than ``before_us``, whose labels would come too late; how many items."""
    old = _waiting() & (relabel.c.model == model) & (relabel.c.event_time_us < before_us)
    rows = connection.execute(_in_order(old)).all()
    for row in rows:
        connection.execute(
            update(relabel).where(_is(row)).values(state="expired", closed_us=now_us, closed_by="quality.join_days")
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


class RelabelQueue:
    """What anybody may ask of the queue, and claimers do with it. From any thread."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def items(
        self,
        model: str | None = None,
        *,
        states: Collection[State] = ("open", "claimed"),
        kind: Kind | None = None,
        inputs: Collection[str] | None = None,
        limit: int | None = None,
    ) -> list[RelabelItem]:
        """Items in the order in which they are claimed: by priority, then the oldest first."""
        now_us = self._clock()
        columns = relabel.c
        query = select(relabel).where(_in_states(states, now_us))
        if model is not None:
            query = query.where(columns.model == model)
        if kind is not None:
            query = query.where(columns.kind == kind)
        if inputs is not None:
            query = query.where(columns.input_id.in_(list(inputs)))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(*_order()).limit(limit)).all()
        return [_item(row, now_us) for row in rows]

    def spent(self, model: str, stream: str, since_us: int) -> int:
        """How many items of a stream were queued since then, whatever became of them."""
        columns = relabel.c
        query = select(func.count()).select_from(relabel)
        query = query.where(columns.model == model, columns.stream == stream, columns.created_us >= since_us)
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def causes(self, model: str, version: str, kind: Kind) -> set[str]:
        """What has asked for samples of this version already."""
        columns = relabel.c
        query = select(columns.cause).distinct()
        query = query.where(columns.model == model, columns.version == version, columns.kind == kind)
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def sketches(self, model: str, version: str, since_us: int) -> list[bytes | None]:
        """Of a version's records since then that are in the queue, or were."""
        same = and_(*(relabel.c[name] == sample.c[name] for name in ("input_id", "model", "version")))
        query = select(sample.c.sketch).join_from(relabel, sample, same)
        query = query.where(relabel.c.model == model, relabel.c.version == version, relabel.c.event_time_us >= since_us)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def taken(self, model: str, inputs: Sequence[str]) -> set[str]:
        """Of these inputs those that have a label, or are in the queue for any cause."""
        found: set[str] = set()
        queued = select(relabel.c.input_id).where(relabel.c.model == model, relabel.c.state != "expired")
        told = select(label.c.input_id).where(label.c.model.in_(("", model)))
        with self._database.read() as connection:
            for some in portions(list(inputs), AT_ONCE):
                found.update(connection.execute(queued.where(relabel.c.input_id.in_(some))).scalars())
                found.update(connection.execute(told.where(label.c.input_id.in_(some))).scalars())
        return found

    def candidates(
        self, model: str, version: str, since_us: int, until_us: int, limit: int, slice_key: str = ""
    ) -> list[Candidate]:
        """The newest records in [since, until) that could be judged, and have neither a label nor an item.

        ``slice_key``: only those of ``"key=value"``.
        """
        columns = sample.c
        queued = exists().where(
            relabel.c.input_id == columns.input_id, relabel.c.model == columns.model, relabel.c.state != "expired"
        )
        told = exists().where(label.c.input_id == columns.input_id, label.c.model.in_(("", model)))
        query = (
            select(*(columns[name] for name in Candidate._fields))
            .where(columns.model == model, columns.version == version, columns.masks.is_not(None))
            .where(columns.event_time_us >= since_us, columns.event_time_us < until_us, ~queued, ~told)
            .order_by(columns.event_time_us.desc(), columns.input_id)
        )
        key, _, value = slice_key.partition("=")
        if slice_key:  # as `monitor.contributions` writes it; SQLite takes upper case for lower
            query = query.where(columns.slices.contains(_json.encode({key: value}).decode()[1:-1], autoescape=True))
        with self._database.read() as connection:
            found = [Candidate._make(row) for row in connection.execute(query.limit(limit))]
        return [one for one in found if not slice_key or msgspec.json.decode(one.slices).get(key) == value]

    def pairs(self, model: str, since_us: int, until_us: int, limit: int) -> list[Pair]:
        """The newest inputs in [since, until) that two versions have found something in."""
        one, other = sample.alias("one"), sample.alias("other")
        same = and_(one.c.input_id == other.c.input_id, one.c.model == other.c.model, one.c.version < other.c.version)
        query = (
            select(one.c.input_id, one.c.event_time_us, one.c.version, one.c.masks, other.c.version, other.c.masks)
            .join_from(one, other, same)
            .where(one.c.model == model, one.c.masks.is_not(None), other.c.masks.is_not(None))
            .where(one.c.event_time_us >= since_us, one.c.event_time_us < until_us)
            .order_by(one.c.event_time_us.desc(), one.c.input_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [Pair._make(row) for row in connection.execute(query)]

    def times_of(self, model: str, version: str, inputs: Sequence[str]) -> dict[str, int]:
        """Event times of a version's records, where their masks are kept."""
        columns = sample.c
        found: dict[str, int] = {}
        query = select(columns.input_id, columns.event_time_us)
        query = query.where(columns.model == model, columns.version == version, columns.masks.is_not(None))
        with self._database.read() as connection:
            for some in portions(list(inputs), AT_ONCE):
                rows = connection.execute(query.where(columns.input_id.in_(some)))
                found |= {row.input_id: row.event_time_us for row in rows}
        return found

    def add_by_hand(
        self, inputs: Sequence[str], reason: str, *, model: str | None = None, version: str | None = None
    ) -> list[RelabelRow]:
        """Queue records that a person wants labelled, all or none; returns those that were not queued before.

        Of several versions that have seen an input, the one that saw it last. Raises UnknownSample.
        """
        now_us = self._clock()
        columns = sample.c
        query = select(columns.input_id, columns.model, columns.version, columns.event_time_us)
        query = query.where(columns.status == "ok")
        if model is not None:
            query = query.where(columns.model == model)
        if version is not None:
            query = query.where(columns.version == version)
        with self._database.write() as connection:
            seen: dict[str, Row[Any]] = {}
            for some in portions(list(inputs), AT_ONCE):
                rows = connection.execute(query.where(columns.input_id.in_(some)))
                for row in sorted(rows, key=lambda row: (row.event_time_us, row.version)):
                    other = seen.get(row.input_id)
                    if other is not None and other.model != row.model:
                        raise UnknownSample(
                            f"{row.input_id}: models {other.model!r} and {row.model!r} have it; say which"
                        )
                    seen[row.input_id] = row
            for name in inputs:
                if name not in seen:
                    raise UnknownSample(f"{name}: no record of this input is stored")
            told = select(label.c.input_id).where(label.c.input_id.in_(list(seen)))
            labelled: set[str] = set(connection.execute(told).scalars())
            wanted = [
                RelabelRow(
                    row.input_id, row.model, row.version, f"manual: {reason}", "manual",
                    AGAIN if row.input_id in labelled else "manual",
                    PRIORITY["manual"], reason, None, row.event_time_us, now_us,
                )
                for row in seen.values()
            ]  # fmt: skip
            return add(connection, wanted)

    def claim(
        self, count: int, who: str, lease_us: int, *, model: str | None = None, kind: Kind | None = None
    ) -> Claim:
        """Lease up to ``count`` samples to ``who``, the highest priorities first; nobody else gets them meanwhile."""
        token = secrets.token_hex(8)
        with self._database.write() as connection:
            if self._database.is_postgres:
                connection.execute(TURN, {"space": LOCK_SPACE})
            now_us = self._clock()
            until_us = now_us + lease_us
            free = _free(now_us)
            chosen = connection.execute(_next(count, free, now_us, model, kind)).all()
            of_sample = sqlalchemy.tuple_(relabel.c.model, relabel.c.input_id)
            found: list[Row[Any]] = []
            for some in portions([(row.model, row.input_id) for row in chosen], AT_ONCE):
                found += connection.execute(_in_order(free & of_sample.in_(some), skip_locked=True)).all()
            leased: dict[str, Any] = {"state": "claimed", "claimed_by": who, "token": token, "lease_until_us": until_us}
            for row in found:
                connection.execute(update(relabel).where(_is(row)).values(**leased))
        items = [_item(row, now_us)._replace(**leased) for row in found]
        return Claim(token, until_us, sorted(items, key=lambda item: (-item.priority, item.created_us, item.input_id)))

    def renew(self, inputs: Sequence[str], who: str, lease_us: int, token: str | None = None) -> list[RelabelItem]:
        """Lease the same samples for longer, from now. Raises LeaseRefused, as the others do, with nothing changed."""
        return self._change(inputs, who, token, lambda now_us: {"lease_until_us": now_us + lease_us})

    def release(self, inputs: Sequence[str], who: str, token: str | None = None) -> list[RelabelItem]:
        """Give samples back: they wait again."""
        free = {"state": "open", "claimed_by": None, "token": None, "lease_until_us": None}
        return self._change(inputs, who, token, lambda _: free)

    def complete(self, inputs: Sequence[str], who: str, token: str | None = None) -> list[RelabelItem]:
        """Close the items of samples, whether a label comes or not. What ``who`` has closed before stays so."""
        return self._change(
            inputs, who, token, lambda now_us: {"state": "done", "closed_us": now_us, "closed_by": who}, again=True
        )

    def _change(
        self,
        inputs: Sequence[str],
        who: str,
        token: str | None,
        values: Callable[[int], dict[str, Any]],
        *,
        again: bool = False,
    ) -> list[RelabelItem]:
        with self._database.write() as connection:
            now_us = self._clock()
            by_input: dict[str, list[RelabelItem]] = defaultdict(list)
            for row in _locked(connection, relabel.c.input_id, sorted(set(inputs)), sqlalchemy.true()):
                by_input[row.input_id].append(RelabelItem._make(row))
            changed: list[RelabelItem] = []
            for name in dict.fromkeys(inputs):
                changed += _held(name, by_input[name], who, token, now_us, again)
            new = values(now_us)
            for item in changed:
                connection.execute(update(relabel).where(_is(item)).values(**new))
        return [item._replace(**new) for item in changed]


def _held(
    name: str, items: Sequence[RelabelItem], who: str, token: str | None, now_us: int, again: bool
) -> list[RelabelItem]:
    """The items of an input that ``who`` has under a lease that stands. Raises LeaseRefused that says what is wrong."""
    if not items:
        raise LeaseRefused(f"{name}: not in the queue")
    own = [item for item in items if item.state == "claimed" and item.claimed_by == who]
    if token is not None and own and all(item.token != token for item in own):
        raise LeaseRefused(f"{name}: leased by {who} under another token")
    standing = [item for item in own if (item.lease_until_us or 0) > now_us and token in (None, item.token)]
    if standing:
        return standing
    if again and any(item.state == "done" and item.closed_by == who for item in items):
        return []  # said twice, for example because the first answer was lost
    if own:
        ended = max(item.lease_until_us or 0 for item in own)
        raise LeaseRefused(f"{name}: the lease of {who} ended at {to_text(ended)}; claim it again")
    for item in items:
        if item.state == "claimed" and (item.lease_until_us or 0) > now_us:
            raise LeaseRefused(f"{name}: leased by {item.claimed_by} until {to_text(item.lease_until_us or 0)}")
    if all(item.state in ("done", "expired") for item in items):
        last = max(items, key=lambda item: item.closed_us or 0)
        raise LeaseRefused(f"{name}: {last.state} since {to_text(last.closed_us or 0)} ({last.closed_by})")
    raise LeaseRefused(f"{name}: not claimed")


def _next(count: int, free: ColumnElement[bool], now_us: int, model: str | None, kind: Kind | None) -> Select[Any]:
    """The (model, input) of samples to claim; not those of which another item is leased."""
    other = relabel.alias("other")
    leased = exists().where(
        other.c.input_id == relabel.c.input_id,
        other.c.model == relabel.c.model,
        other.c.state == "claimed",
        other.c.lease_until_us > now_us,
    )
    query = select(
        relabel.c.model,
        relabel.c.input_id,
        func.max(relabel.c.priority).label("priority"),
        func.min(relabel.c.created_us).label("created_us"),
    ).where(free, ~leased)
    if model is not None:
        query = query.where(relabel.c.model == model)
    if kind is not None:
        query = query.where(relabel.c.kind == kind)
    return (
        query.group_by(relabel.c.model, relabel.c.input_id)
        .order_by(sqlalchemy.desc("priority"), "created_us", relabel.c.input_id, relabel.c.model)
        .limit(count)
    )


def _waiting() -> ColumnElement[bool]:
    return relabel.c.state.in_(("open", "claimed"))


def _unlabelled_before() -> ColumnElement[bool]:
    return relabel.c.kind.not_in(sorted(LABELLED_BEFORE)) & (relabel.c.stream != AGAIN)


def _free(now_us: int) -> ColumnElement[bool]:
    """Open, or of a lease that has ended."""
    columns = relabel.c
    return _waiting() & or_(columns.state == "open", columns.lease_until_us <= now_us)


def _in_states(states: Collection[State], now_us: int) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if "open" in states:
        conditions.append(_free(now_us))
    if "claimed" in states:
        conditions.append((relabel.c.state == "claimed") & (relabel.c.lease_until_us > now_us))
    closed = [state for state in ("done", "expired") if state in states]
    if closed:
        conditions.append(relabel.c.state.in_(closed))
    return or_(sqlalchemy.false(), *conditions)


def _order() -> list[ColumnElement[Any]]:
    columns = relabel.c
    return [columns.priority.desc(), columns.created_us, *(columns[name] for name in KEY)]


def _in_order(condition: ColumnElement[bool], *, skip_locked: bool = False) -> Select[Any]:
    """Rows for an update, locked in the order of their keys, so that two transactions never wait in a circle."""
    query = select(relabel).where(condition).order_by(*(relabel.c[name] for name in KEY))
    return query.with_for_update(skip_locked=skip_locked)


def _locked(
    connection: Connection, column: ColumnElement[str], values: Sequence[str], condition: ColumnElement[bool]
) -> Iterable[Row[Any]]:
    for some in portions(values, AT_ONCE):
        yield from connection.execute(_in_order(condition & column.in_(some))).all()


def _item(row: Row[Any], now_us: int) -> RelabelItem:
    item = RelabelItem._make(row)
    if item.state == "claimed" and (item.lease_until_us or 0) <= now_us:
        return item._replace(state="open", claimed_by=None, token=None, lease_until_us=None)
    return item


def _is(item: RelabelItem | Row[Any]) -> ColumnElement[bool]:
    return and_(*(relabel.c[name] == getattr(item, name) for name in KEY))
