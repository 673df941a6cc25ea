"""What may be chosen to be labelled, and what the queue has had already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import and_, exists, func, select

from monitor.store.bulk import portions
from monitor.store.database import Database
from monitor.store.relabel import AT_ONCE, Kind, waiting
from monitor.store.tables import label, relabel, sample
from monitor.store.views import TAIL

_json = msgspec.json.Encoder()


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


class Candidates:
    """Read access; use `monitor.store.store.Store.candidates`."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def of_cause(self, model: str, cause: str, since_us: int) -> int:
        """How many items of records since then one cause has queued, of all versions, whatever became of them."""
        columns = relabel.c
        query = select(func.count()).select_from(relabel)
        query = query.where(columns.model == model, columns.cause == cause, columns.event_time_us >= since_us)
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def waiting(self, model: str, inputs: Sequence[str]) -> set[str]:
        """Of these inputs those that wait for a label, for any cause."""
        found: set[str] = set()
        query = select(relabel.c.input_id).where(relabel.c.model == model, waiting())
        with self._database.read() as connection:
            for some in portions(list(inputs), AT_ONCE):
                found.update(connection.execute(query.where(relabel.c.input_id.in_(some))).scalars())
        return found

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
            .where(columns.event_time_us < until_us, ~queued, ~told)
            .order_by(columns.event_time_us.desc(), columns.input_id)
            .limit(limit)
        )
        key, _, value = slice_key.partition("=")
        if slice_key:  # as `monitor.contributions` writes it; SQLite takes upper case for lower
            query = query.where(columns.slices.contains(_json.encode({key: value}).decode()[1:-1], autoescape=True))
        found: list[Candidate] = []
        # As in `Views.newest`: of a day, all would be sorted for the last three hundred.
        for start_us in (until_us - (until_us - since_us) // TAIL, since_us):
            with self._database.read() as connection:
                rows = connection.execute(query.where(columns.event_time_us >= start_us))
                found = [Candidate._make(row) for row in rows]
            found = [one for one in found if not slice_key or msgspec.json.decode(one.slices).get(key) == value]
            if len(found) == limit:
                break
        return found

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
