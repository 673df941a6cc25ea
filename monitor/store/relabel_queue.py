"""What waits for a label: items as they stand, claims with a lease, and what a person adds.

Claimers take turns (PostgreSQL: an advisory lock for the length of a transaction; SQLite has one writer) and pass over
rows that an arriving label is just completing.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, or_, select, update

from monitor.errors import LeaseRefused, UnknownSample
from monitor.store import audit
from monitor.store.bulk import portions
from monitor.store.database import Database
from monitor.store.relabel import (
    AGAIN,
    AT_ONCE,
    KEY,
    PRIORITY,
    Claim,
    Kind,
    RelabelItem,
    RelabelRow,
    State,
    add,
    in_order,
    is_row,
    locked,
    waiting,
)
from monitor.store.schema import LOCK_SPACE
from monitor.store.tables import label, relabel, sample
from monitor.windows import to_text

TURN = sqlalchemy.text("SELECT pg_advisory_xact_lock(:space, hashtext('relabel ' || current_schema()))")


class RelabelQueue:
    """What anybody may ask of the queue, and claimers do with it. From any thread.

    Every change takes ``by``: who is written to the audit log for it, in the same transaction; "" for nobody.
    """

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

    def add_by_hand(
        self, inputs: Sequence[str], reason: str, *, model: str | None = None, version: str | None = None, by: str = ""
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
            new = add(connection, wanted)
            _note(connection, now_us, by, "add", new, {})
            return new

    def claim(
        self,
        count: int,
        who: str,
        lease_us: int,
        *,
        model: str | None = None,
        kind: Kind | None = None,
        by: str = "",
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
                found += connection.execute(in_order(free & of_sample.in_(some), skip_locked=True)).all()
            leased: dict[str, Any] = {"state": "claimed", "claimed_by": who, "token": token, "lease_until_us": until_us}
            for row in found:
                connection.execute(update(relabel).where(is_row(row)).values(**leased))
            _note(connection, now_us, by, "claim", found, {"as": who})
        items = [_item(row, now_us)._replace(**leased) for row in found]
        return Claim(token, until_us, sorted(items, key=lambda item: (-item.priority, item.created_us, item.input_id)))

    def renew(
        self, inputs: Sequence[str], who: str, lease_us: int, token: str | None = None, *, by: str = ""
    ) -> list[RelabelItem]:
        """Lease the same samples for longer, from now. Raises LeaseRefused, as the others do, with nothing changed."""
        return self._change("renew", inputs, who, token, by, lambda now_us: {"lease_until_us": now_us + lease_us})

    def release(self, inputs: Sequence[str], who: str, token: str | None = None, *, by: str = "") -> list[RelabelItem]:
        """Give samples back: they wait again."""
        free = {"state": "open", "claimed_by": None, "token": None, "lease_until_us": None}
        return self._change("release", inputs, who, token, by, lambda _: free)

    def complete(self, inputs: Sequence[str], who: str, token: str | None = None, *, by: str = "") -> list[RelabelItem]:
        """Close the items of samples, whether a label comes or not. What ``who`` has closed before stays so."""
        return self._change(
            "done", inputs, who, token, by, lambda now_us: {"state": "done", "closed_us": now_us, "closed_by": who}
        )

    def _change(
        self,
        what: str,
        inputs: Sequence[str],
        who: str,
        token: str | None,
        by: str,
        values: Callable[[int], dict[str, Any]],
    ) -> list[RelabelItem]:
        with self._database.write() as connection:
            now_us = self._clock()
            by_input: dict[str, list[RelabelItem]] = defaultdict(list)
            for row in locked(connection, relabel.c.input_id, sorted(set(inputs)), sqlalchemy.true()):
                by_input[row.input_id].append(RelabelItem._make(row))
            changed: list[RelabelItem] = []
            for name in dict.fromkeys(inputs):
                changed += _held(name, by_input[name], who, token, now_us, again=what == "done")
            new = values(now_us)
            for item in changed:
                connection.execute(update(relabel).where(is_row(item)).values(**new))
            _note(connection, now_us, by, what, changed, {"as": who})
        return [item._replace(**new) for item in changed]


def _note(
    connection: Connection,
    now_us: int,
    by: str,
    what: str,
    rows: Sequence[Row[Any] | RelabelItem | RelabelRow],
    detail: Mapping[str, object],
) -> None:
    """A line in the audit log for each model; none names an input, since the log outlives what is purged."""
    if by:
        for model, count in sorted(Counter(row.model for row in rows).items()):
            audit.append(connection, now_us, by, f"relabel.{what}", model, {"items": count, **detail})


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


def _free(now_us: int) -> ColumnElement[bool]:
    """Open, or of a lease that has ended."""
    columns = relabel.c
    return waiting() & or_(columns.state == "open", columns.lease_until_us <= now_us)


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


def _item(row: Row[Any], now_us: int) -> RelabelItem:
    item = RelabelItem._make(row)
    if item.state == "claimed" and (item.lease_until_us or 0) <= now_us:
        return item._replace(state="open", claimed_by=None, token=None, lease_until_us=None)
    return item
