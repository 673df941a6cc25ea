"""Inputs that two versions of a model have seen, and what was said of canaries last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, select

from monitor.store import bulk
from monitor.store.database import Database
from monitor.store.tables import canary, sample

INPUTS_AT_ONCE = 200


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


class Canaries:
    """Read access; use `monitor.store.store.Store.canaries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def shared(
        self, model: str, versions: tuple[str, str], since_us: int | None, until_us: int | None
    ) -> list[SharedInput]:
        """Inputs of both versions, whose canary saw them in [since, until), by time and input."""
        stable, own = sample.alias("stable"), sample.alias("own")
        same = and_(stable.c.input_id == own.c.input_id, stable.c.model == own.c.model)
        query = (
            select(*(own.c[name] for name in SharedInput._fields))
            .join_from(own, stable, same)
            .where(own.c.model == model, stable.c.version == versions[0], own.c.version == versions[1])
            .where(own.c.masks.is_not(None), stable.c.masks.is_not(None))
        )
        if since_us is not None:
            query = query.where(own.c.event_time_us >= since_us)
        if until_us is not None:
            query = query.where(own.c.event_time_us < until_us)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(own.c.event_time_us, own.c.input_id))
            return [SharedInput._make(row) for row in rows]

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
