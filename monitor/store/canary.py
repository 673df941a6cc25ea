"""Inputs that two versions of a model have seen, what labels say of both, and what was said of canaries last.

A version has as many records as there was traffic: whatever is read here is counted in the database, or bounded by
times or a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, FromClause, and_, func, or_, select

from monitor.store import bulk
from monitor.store.database import Database
from monitor.store.tables import canary, judged, sample
from monitor.store.values import JudgedRow

INPUTS_AT_ONCE = 200
_json = msgspec.json.Encoder()


class SharedInput(NamedTuple):
    """An input of which both versions' masks are kept; what is said of it is what the canary's record says."""

    input_id: str
    event_time_us: int
    sequence: str | None
    slices: str
    sampling_probability: float | None


class StoredCanary(NamedTuple):
    """What was said of a canary last; the payload is JSON, as ``segwatch canary compare --json`` gives it."""

    model: str
    stable: str
    canary: str
    compared_at_us: int
    requested_at_us: int | None
    """When its rollback was requested; None where it never was."""
    payload: bytes


class Seen(NamedTuple):
    """Records of a model that two versions may share: those with event times in [since, until) of a slice."""

    model: str
    versions: tuple[str, str]
    """Stable version, canary."""
    since_us: int | None = None
    until_us: int | None = None
    slice_key: str = ""


class Canaries:
    """Read access; use `monitor.store.store.Store.canaries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_shared(self, seen: Seen) -> int:
        """Of how many inputs both versions' masks are kept. Passes all records of the time."""
        joined, own, conditions = _shared(seen, self._database.is_postgres)
        with self._database.read() as connection:
            query = select(func.count()).select_from(joined)
            found: int = connection.execute(query.where(*conditions, *_times(own, seen))).scalar_one()
        return found

    def shared(self, seen: Seen, spans: Iterable[tuple[int, int]]) -> list[SharedInput]:
        """Those inputs whose canary's record lies in one of these spans [since, until), too."""
        joined, own, conditions = _shared(seen, self._database.is_postgres)
        query = select(*(own.c[name] for name in SharedInput._fields)).select_from(joined).where(*conditions)
        found: list[SharedInput] = []
        with self._database.read() as connection:
            for since_us, until_us in spans:
                within = (own.c.event_time_us >= since_us, own.c.event_time_us < until_us)
                rows = connection.execute(query.where(*within, *_times(own, seen)))
                found += [SharedInput._make(row) for row in rows]
        return found

    def labelled(self, seen: Seen, most: int) -> tuple[list[list[JudgedRow]], list[int]]:
        """What labels say of the stable version's and the canary's records, and how many such records there are.

        Of each version those ``most`` whose labels were made first, by these labels' times; of the stable version also
        the other halves of the canary's.
        """
        rows: list[list[JudgedRow]] = []
        totals: list[int] = []
        with self._database.read() as connection:
            for version in seen.versions:
                conditions = _judged_of(seen, version, self._database.is_postgres)
                counted = select(func.count()).select_from(judged).where(*conditions)
                totals.append(connection.execute(counted).scalar_one())
                query = _JUDGED.where(*conditions).order_by(*_ORDER).limit(most)
                rows.append([JudgedRow._make(row) for row in connection.execute(query)])
            if totals[0] > most:
                there = {row.input_id for row in rows[0]}
                halves = _JUDGED.where(*_judged_of(seen, seen.versions[0], self._database.is_postgres))
                missing = [row.input_id for row in rows[1] if row.input_id not in there]
                for some in bulk.portions(missing, INPUTS_AT_ONCE):
                    found = connection.execute(halves.where(judged.c.input_id.in_(some)))
                    rows[0] += [JudgedRow._make(row) for row in found]
        rows[0].sort(key=lambda row: (row.label_time_us, row.event_time_us, row.input_id))
        return rows, totals

    def masks(self, model: str, version: str, inputs: Sequence[str]) -> dict[str, bytes]:
        """Kept masks of a version's records, those that are there."""
        found: dict[str, bytes] = {}
        query = select(sample.c.input_id, sample.c.masks).where(sample.c.model == model, sample.c.version == version)
        with self._database.read() as connection:
            for some in bulk.portions(inputs, INPUTS_AT_ONCE):
                rows = connection.execute(query.where(sample.c.input_id.in_(some)))
                found |= {row[0]: row[1] for row in rows if row[1] is not None}
        return found

    def verdicts(self) -> list[StoredCanary]:
        """Of every canary that is watched, by model and versions."""
        query = select(*(canary.c[name] for name in StoredCanary._fields))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(canary.c.model, canary.c.stable, canary.c.canary))
            return [StoredCanary._make(row) for row in rows]


def save(connection: Connection, row: StoredCanary) -> None:
    """Replace what was said of a canary."""
    key = ("model", "stable", "canary")
    changed: Mapping[str, str] = {name: "replace" for name in StoredCanary._fields if name not in key}
    bulk.upsert(connection, canary, [row._asdict()], changed)


_JUDGED = select(*(judged.c[name] for name in JudgedRow._fields))
_ORDER = (judged.c.label_time_us, judged.c.event_time_us, judged.c.input_id)


def _shared(seen: Seen, postgres: bool) -> tuple[FromClause, FromClause, list[ColumnElement[bool]]]:
    """The join of both versions' samples, the canary's side of it, and what holds for both but for times."""
    stable, own = sample.alias("stable"), sample.alias("own")
    joined = own.join(stable, and_(stable.c.input_id == own.c.input_id, stable.c.model == own.c.model))
    conditions = [
        own.c.model == seen.model,
        stable.c.version == seen.versions[0],
        own.c.version == seen.versions[1],
        own.c.masks.is_not(None),
        stable.c.masks.is_not(None),
        *_in_slice(own.c.slices, seen.slice_key, postgres),
    ]
    return joined, own, conditions


def _judged_of(seen: Seen, version: str, postgres: bool) -> list[ColumnElement[bool]]:
    columns = judged.c
    own = [columns.model == seen.model, columns.version == version, *_times(judged, seen)]
    return [*own, *_in_slice(columns.slices, seen.slice_key, postgres)]


def _times(table: FromClause, seen: Seen) -> list[ColumnElement[bool]]:
    since = [] if seen.since_us is None else [table.c.event_time_us >= seen.since_us]
    return since if seen.until_us is None else [*since, table.c.event_time_us < seen.until_us]


def _in_slice(slices: ColumnElement[str], slice_key: str, postgres: bool) -> list[ColumnElement[bool]]:
    if not slice_key:
        return []
    key, _, value = slice_key.partition("=")
    # As `monitor.contributions` writes it; LIKE would take upper case for lower in SQLite. Within a string of JSON each
    # quote has a backslash before it, so behind a brace or a comma this is the pair and nothing else.
    pair = _json.encode({key: value}).decode()[1:-1]
    place = func.strpos if postgres else func.instr
    return [or_(*(place(slices, before + pair) > 0 for before in "{,"))]
