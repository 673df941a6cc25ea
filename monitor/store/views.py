"""What pages ask for: small pieces by key, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, select, union_all

from monitor.store.database import Database
from monitor.store.scores import stored
from monitor.store.tables import judged, label, outbox, pane, pane_delta, sample, tally, window_score
from monitor.store.values import JudgedRow, LabelRow, StoredScore
from monitor.tallies import RECORDS

Order = Literal["confidence", "time"]
TAIL = 32
"""Of a window this part is looked at first: of an hour of 1,000 records more than a page of them."""
SPREAD = 65_536
GOLDEN = 40_503
"""The odd number next to 65,536 over the golden ratio: multiples of it are spread evenly (Knuth, The Art of Computer
Programming, volume 3, 6.4)."""
_json = msgspec.json.Encoder()


class Sample(NamedTuple):
    """A record's line in the index; ``masks`` as `monitor.kept_masks` writes them."""

    input_id: str
    model: str
    version: str
    event_time_us: int
    sequence: str | None
    slices: str
    status: str
    confidence: float | None
    masks: bytes | None


class Seen(NamedTuple):
    """A record without what is large."""

    input_id: str
    event_time_us: int
    status: str
    confidence: float | None
    slices: str


class Sketched(NamedTuple):
    """A record with its place in the embedding (`detectors.active_learning.sketches`); None where there is none."""

    input_id: str
    event_time_us: int
    status: str
    confidence: float | None
    slices: str
    sketch: bytes | None


class Queued(NamedTuple):
    """A message of the outbox, as it is kept."""

    id: str
    value: bytes | None
    created_us: int
    attempts: int
    sent_us: int | None


class Views:
    """From any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sample(self, model: str, version: str, input_id: str) -> Sample | None:
        """One record."""
        columns = sample.c
        query = select(*(columns[name] for name in Sample._fields))
        query = query.where(columns.input_id == input_id, columns.model == model, columns.version == version)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Sample._make(row)

    def seen(self, model: str, version: str, inputs: Sequence[str]) -> dict[str, Seen]:
        """Of these inputs those that are stored; at most some hundreds are asked for."""
        columns = sample.c
        query = select(*(columns[name] for name in Seen._fields))
        query = query.where(columns.model == model, columns.version == version, columns.input_id.in_(list(inputs)))
        with self._database.read() as connection:
            return {row.input_id: Seen._make(row) for row in connection.execute(query)}

    def unjudged(
        self, model: str, version: str, since_us: int, until_us: int, slice_key: str, offset: int, limit: int
    ) -> list[Seen]:
        """Records in [since, until) that no label has judged: failed inferences, then the least confident first."""
        columns = sample.c
        query = select(*(columns[name] for name in Seen._fields)).where(*_within(model, version, since_us, until_us))
        told = and_(*(judged.c[name] == columns[name] for name in ("input_id", "model", "version")))
        query = query.where(~exists().where(told)).order_by(
            columns.status == "ok", func.coalesce(columns.confidence, 2.0), columns.input_id
        )
        return self._in_slice(query, slice_key, offset, limit)

    def newest(
        self, model: str, version: str, since_us: int, until_us: int, slice_key: str, offset: int, limit: int
    ) -> list[Seen]:
        """Records in [since, until), the newest first."""
        columns = sample.c
        # The index on times has blocks, not an order: of a day, all would be sorted to show the last twelve.
        for start_us in (until_us - (until_us - since_us) // TAIL, since_us):
            query = select(*(columns[name] for name in Seen._fields)).where(
                *_within(model, version, start_us, until_us)
            )
            query = query.order_by(columns.event_time_us.desc(), columns.input_id)
            found = self._in_slice(query, slice_key, offset, limit)
            if len(found) == limit:
                break
        return found

    def sketched(
        self,
        model: str,
        version: str,
        since_us: int,
        until_us: int,
        slice_key: str,
        records: int,
        wanted: int,
        named: Sequence[str],
    ) -> list[Sketched]:
        """Some ``wanted`` of the ``records`` in [since, until), in order of time, and those ``named`` in any case.

        Which ones depends on their offsets alone, spread by a multiplicative hash: always the same ones, without
        sorting them all.
        """
        columns = sample.c
        some = select(*(columns[name] for name in Sketched._fields)).where(*_within(model, version, since_us, until_us))
        if records > wanted:
            some = some.where((columns.offset % SPREAD) * GOLDEN % SPREAD < SPREAD * wanted // records)
        own = (columns.model == model, columns.version == version, columns.input_id.in_(list(named)))
        found: dict[str, Sketched] = {}
        with self._database.read() as connection:
            for query in (_of_slice(some, slice_key).limit(2 * wanted), select(*some.selected_columns).where(*own)):
                found |= {row.input_id: Sketched._make(row) for row in connection.execute(query)}
        known = [one for one in found.values() if _is_of(one.slices, slice_key)]
        return sorted(known, key=lambda one: (one.event_time_us, one.input_id))

    def pane_baselines(
        self, model: str, version: str, slice_key: str, since_us: int, until_us: int
    ) -> list[tuple[int, str, int]]:
        """``(start, baseline, records)`` of the panes that start in [since, until): two of one start where the
        baseline was replaced meanwhile."""
        parts = []
        for table in (pane, pane_delta):
            columns = table.c
            query = select(columns.start_us, columns.baseline_id, columns.records)
            query = query.where(columns.model == model, columns.version == version, columns.slice == slice_key)
            parts.append(query.where(columns.start_us >= since_us, columns.start_us < until_us))
        both = union_all(*parts).subquery()
        groups = (both.c.start_us, both.c.baseline_id)
        summed = select(*groups, func.sum(both.c.records)).group_by(*groups).order_by(*groups)
        with self._database.read() as connection:
            return [(row[0], row[1], int(row[2])) for row in connection.execute(summed)]

    def _in_slice(self, query: Select[Any], slice_key: str, offset: int, limit: int) -> list[Seen]:
        with self._database.read() as connection:
            rows = connection.execute(_of_slice(query, slice_key).offset(offset).limit(limit))
            return [one for one in (Seen._make(row) for row in rows) if _is_of(one.slices, slice_key)]

    def labels(self, input_id: str, model: str, version: str) -> list[LabelRow]:
        """The annotations that speak of this record, by annotator."""
        columns = label.c
        query = select(*(columns[name] for name in LabelRow._fields)).where(columns.input_id == input_id)
        query = query.where(columns.model.in_(("", model)), columns.version.in_(("", version)))
        with self._database.read() as connection:
            return [LabelRow._make(row) for row in connection.execute(query.order_by(columns.annotator))]

    def judged_one(self, input_id: str, model: str, version: str) -> JudgedRow | None:
        """What its labels say of a record."""
        columns = judged.c
        query = select(*(columns[name] for name in JudgedRow._fields))
        query = query.where(columns.input_id == input_id, columns.model == model, columns.version == version)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else JudgedRow._make(row)

    def label_marks(
        self, model: str, version: str, slice_key: str, length_us: int, since_us: int, until_us: int
    ) -> dict[int, tuple[int, int, int]]:
        """What changes when labels in [since, until) do, by the start of the window: their number, when one was judged
        last, and the sum of their revisions. Windows without a label are left out; ``slice_key`` "" takes all records.
        """
        columns = judged.c
        groups = [(columns.event_time_us - columns.event_time_us % length_us).label("start_us")]
        groups += [columns.slices.label("told")] if slice_key else []
        query = select(*groups, func.count(), func.max(columns.judged_at_us), func.sum(columns.revision))
        query = query.where(columns.model == model, columns.version == version)
        query = query.where(columns.event_time_us >= since_us, columns.event_time_us < until_us)
        found: dict[int, tuple[int, int, int]] = {}
        with self._database.read() as connection:
            # By their names: PostgreSQL cannot tell that two parameters of one expression are the same length.
            for row in connection.execute(query.group_by(*(one.name for one in groups))):
                if slice_key and not _is_of(row.told, slice_key):
                    continue
                own, (count, last_us, revisions) = found.get(row.start_us, (0, 0, 0)), row[-3:]
                found[row.start_us] = (own[0] + count, max(own[1], last_us), own[2] + int(revisions))
        return found

    def window(self, model: str, version: str, slice_key: str, length_us: int, start_us: int) -> StoredScore | None:
        """The last verdict on a window, of whichever baseline spoke last."""
        query = _verdicts(model, version, slice_key, length_us).where(window_score.c.start_us == start_us)
        query = query.order_by(window_score.c.scored_at_us.desc(), window_score.c.revision.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else stored(row)

    def slices_of(self, model: str, version: str, length_us: int, start_us: int) -> list[StoredScore]:
        """The last verdicts on all slices of a window."""
        columns = window_score.c
        query = select(window_score).where(columns.model == model, columns.version == version, columns.slice != "")
        query = query.where(columns.length_us == length_us, columns.start_us == start_us)
        query = query.order_by(columns.slice, columns.scored_at_us, columns.revision)
        with self._database.read() as connection:
            last = {row.slice: row for row in connection.execute(query)}
        return [stored(row) for row in last.values()]

    def lengths(self, model: str, version: str, slice_key: str = "") -> list[int]:
        """Lengths of the windows that were scored, the shortest first."""
        columns = window_score.c
        query = select(columns.length_us).distinct().where(columns.model == model, columns.version == version)
        query = query.where(columns.slice == slice_key).order_by(columns.length_us)
        with self._database.read() as connection:
            return list(connection.execute(query).scalars())

    def recent(
        self, model: str, version: str, slice_key: str, length_us: int, until_us: int | None, limit: int
    ) -> list[StoredScore]:
        """The last verdicts on the newest ``limit`` windows that start before ``until_us``, in order of time."""
        columns = window_score.c
        starts = select(columns.start_us).distinct().where(*_key(model, version, slice_key, length_us))
        if until_us is not None:
            starts = starts.where(columns.start_us < until_us)
        some = starts.order_by(columns.start_us.desc()).limit(limit).subquery()
        query = _verdicts(model, version, slice_key, length_us).where(columns.start_us.in_(select(some.c.start_us)))
        query = query.order_by(columns.start_us, columns.scored_at_us, columns.revision)
        with self._database.read() as connection:
            last = {row.start_us: row for row in connection.execute(query)}
        return [stored(row) for row in last.values()]

    def newest_windows(self, limit: int) -> dict[tuple[str, str], list[StoredScore]]:
        """Of every (model, version) the last verdicts on its newest ``limit`` windows of all records and the shortest
        length, in order of time."""
        columns = window_score.c
        key = ("model", "version", "length_us", "start_us")
        same = (columns.model, columns.version, columns.length_us)
        last = select(*(columns[name] for name in key)).where(columns.slice == "").distinct().subquery()
        alike = (last.c.model, last.c.version, last.c.length_us)
        place = func.row_number().over(partition_by=alike, order_by=last.c.start_us.desc()).label("place")
        first = select(*same[:2], func.min(columns.length_us).label("length_us")).where(columns.slice == "")
        shortest = first.group_by(*same[:2]).subquery()
        of_it = and_(*(last.c[name] == shortest.c[name] for name in ("model", "version", "length_us")))
        ranked = select(*last.c, place).join_from(last, shortest, of_it).subquery()
        some = select(ranked).where(ranked.c.place <= limit).subquery()
        query = select(window_score).join(some, and_(*(columns[name] == some.c[name] for name in key)))
        query = query.where(columns.slice == "").order_by(columns.start_us, columns.scored_at_us, columns.revision)
        found: dict[tuple[str, str], dict[int, StoredScore]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found.setdefault((row.model, row.version), {})[row.start_us] = stored(row)
        return {of: list(windows.values()) for of, windows in found.items()}

    def first_records(self, model: str) -> dict[str, int]:
        """Each version's first pane that is kept: when it came to be used."""
        columns = pane.c
        first = select(func.min(columns.start_us)).where(
            columns.model == model, columns.version == tally.c.version, columns.slice == ""
        )
        # Totals tell which versions there are; to gather that from the panes, all of them would be read.
        folded = select(tally.c.version, first.scalar_subquery().label("start_us"))
        folded = folded.where(tally.c.series == RECORDS, tally.c.model == model).distinct()
        waiting = select(pane_delta.c.version, func.min(pane_delta.c.start_us).label("start_us"))
        waiting = waiting.where(pane_delta.c.model == model, pane_delta.c.slice == "").group_by(pane_delta.c.version)
        found: dict[str, int] = {}
        with self._database.read() as connection:
            for row in [*connection.execute(folded), *connection.execute(waiting)]:
                if row.start_us is not None:
                    found[row.version] = min(row.start_us, found.get(row.version, row.start_us))
        return found

    def actions(self, topic: str, limit: int, offset: int = 0) -> list[Queued]:
        """What was asked for, the newest first; what was delivered too, as long as it is kept."""
        columns = outbox.c
        query = select(*(columns[name] for name in Queued._fields)).where(columns.topic == topic, columns.keep_sent)
        query = query.order_by(columns.created_us.desc(), columns.id).offset(offset).limit(limit)
        with self._database.read() as connection:
            return [Queued._make(row) for row in connection.execute(query)]

    def action(self, topic: str, identity: str) -> Queued | None:
        """One of them."""
        columns = outbox.c
        query = select(*(columns[name] for name in Queued._fields))
        query = query.where(columns.topic == topic, columns.id == identity, columns.keep_sent)
        with self._database.read() as connection:
            row: Row[Any] | None = connection.execute(query).one_or_none()
        return None if row is None else Queued._make(row)


def _of_slice(query: Select[Any], slice_key: str) -> Select[Any]:
    """As `monitor.contributions` writes slices; SQLite takes upper case for lower, which `_is_of` sees to."""
    if not slice_key:
        return query
    key, _, value = slice_key.partition("=")
    return query.where(sample.c.slices.contains(_json.encode({key: value}).decode()[1:-1], autoescape=True))


def _is_of(slices: str, slice_key: str) -> bool:
    key, _, value = slice_key.partition("=")
    return not slice_key or bool(msgspec.json.decode(slices).get(key) == value)


def _within(model: str, version: str, since_us: int, until_us: int) -> list[ColumnElement[bool]]:
    columns = sample.c
    return [
        columns.model == model,
        columns.version == version,
        columns.event_time_us >= since_us,
        columns.event_time_us < until_us,
    ]


def _key(model: str, version: str, slice_key: str, length_us: int) -> list[ColumnElement[bool]]:
    columns = window_score.c
    return [
        columns.model == model,
        columns.version == version,
        columns.slice == slice_key,
        columns.length_us == length_us,
    ]


def _verdicts(model: str, version: str, slice_key: str, length_us: int) -> Select[Any]:
    return select(window_score).where(*_key(model, version, slice_key, length_us))
