"""Panes: the statistics of the smallest windows. The store adds up records; what a state means it does not know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, tuple_, union_all

from monitor.store import bulk
from monitor.store.tables import pane, pane_delta
from monitor.store.values import PaneDelta, PaneExtent, PaneKey, StoredPane

Merge = Callable[[Sequence[bytes]], bytes]
COLUMNS = (*PaneKey._fields, "records", "state")
KEYS_PER_QUERY = 200  # five parameters each: well below the limits of both databases


def append(connection: Connection, panes: Mapping[PaneKey, PaneDelta]) -> None:
    """Append what a transaction adds to each pane."""
    bulk.append(connection, pane_delta, COLUMNS, [(*key, delta.records, delta.state) for key, delta in panes.items()])


def read(
    connection: Connection,
    model: str,
    version: str,
    slice: str,
    since_us: int | None,
    until_us: int | None,
    baseline_id: str | None,
) -> list[StoredPane]:
    """Folded and not yet folded parts of the panes that start in [since_us, until_us).

    One statement sees one state of the database, so that a fold that commits meanwhile neither hides a part nor
    doubles one.
    """

    def wanted(table: Table) -> list[ColumnElement[bool]]:
        columns = table.c
        conditions = [columns.model == model, columns.version == version, columns.slice == slice]
        if since_us is not None:
            conditions.append(columns.start_us >= since_us)
        if until_us is not None:
            conditions.append(columns.start_us < until_us)
        if baseline_id is not None:
            conditions.append(columns.baseline_id == baseline_id)
        return conditions

    parts = [select(*(table.c[name] for name in COLUMNS)).where(*wanted(table)) for table in (pane, pane_delta)]
    rows = connection.execute(union_all(*parts)).all()
    found = [StoredPane(PaneKey(*row[:5]), row.records, row.state) for row in rows]
    return sorted(found, key=lambda part: part.key)


def folded(
    connection: Connection, model: str, version: str, baseline_id: str, since_us: int, until_us: int, limit: int
) -> list[StoredPane]:
    """The first ``limit`` folded panes of all records that start in [since_us, until_us), in order of time."""
    columns = pane.c
    query = (
        select(*(columns[name] for name in COLUMNS))
        .where(columns.model == model, columns.version == version, columns.slice == "")
        .where(columns.start_us >= since_us, columns.start_us < until_us, columns.baseline_id == baseline_id)
        .order_by(columns.start_us)
        .limit(limit)
    )
    return [StoredPane(PaneKey(*row[:5]), row.records, row.state) for row in connection.execute(query)]


def counts(
    connection: Connection, model: str, version: str | None, slice_name: str, since_us: int | None, until_us: int | None
) -> list[tuple[str, int, int]]:
    """``(version, start, records)`` of every pane that starts in [since, until), whatever its baseline."""
    parts = []
    for table in (pane, pane_delta):
        columns = table.c
        query = select(columns.version, columns.start_us, columns.records)
        query = query.where(columns.model == model, columns.slice == slice_name)
        if version is not None:
            query = query.where(columns.version == version)
        if since_us is not None:
            query = query.where(columns.start_us >= since_us)
        if until_us is not None:
            query = query.where(columns.start_us < until_us)
        parts.append(query)
    both = union_all(*parts).subquery()
    groups = (both.c.version, both.c.start_us)
    summed = select(*groups, func.sum(both.c.records)).group_by(*groups).order_by(*groups)
    return [(row[0], row[1], int(row[2])) for row in connection.execute(summed)]


def extent(connection: Connection, model: str | None) -> list[PaneExtent]:
    """Which panes there are, by model, version, slice and baseline."""
    names = ("model", "version", "slice", "baseline_id", "start_us", "records")
    parts = [select(*(table.c[name] for name in names)) for table in (pane, pane_delta)]
    both = union_all(*parts).subquery()
    groups = (both.c.model, both.c.version, both.c.slice, both.c.baseline_id)
    query = (
        select(*groups, func.min(both.c.start_us), func.max(both.c.start_us), func.sum(both.c.records))
        .group_by(*groups)
        .order_by(*groups)
    )
    if model is not None:
        query = query.where(both.c.model == model)
    return [
        PaneExtent(row[0], row[1], row[2], row[3], row[4], row[5], records=int(row[6]))
        for row in connection.execute(query)
    ]


def fold(connection: Connection, merge: Merge, limit: int) -> tuple[int, set[PaneKey]]:
    """Merge up to ``limit`` deltas, the oldest first, into their panes. Returns how many, and the panes' keys."""
    oldest = select(pane_delta.c.id).order_by(pane_delta.c.id).limit(limit)
    taken = connection.execute(
        delete(pane_delta).where(pane_delta.c.id.in_(oldest)).returning(*(pane_delta.c[name] for name in COLUMNS))
    ).all()
    records: dict[PaneKey, int] = defaultdict(int)
    states: dict[PaneKey, list[bytes]] = defaultdict(list)
    for row in taken:
        key = PaneKey(*row[:5])
        records[key] += row.records
        states[key].append(row.state)
    for part in _folded(connection, states):
        records[part.key] += part.records
        states[part.key].append(part.state)
    rows = [
        {**key._asdict(), "records": records[key], "state": parts[0] if len(parts) == 1 else merge(parts)}
        for key, parts in states.items()
    ]
    bulk.upsert(connection, pane, rows, {"records": "replace", "state": "replace"})
    return len(taken), set(states)


def _folded(connection: Connection, keys: Iterable[PaneKey]) -> list[StoredPane]:
    ordered = sorted(keys)
    key_columns = tuple_(*(pane.c[name] for name in PaneKey._fields))
    found: list[StoredPane] = []
    for start in range(0, len(ordered), KEYS_PER_QUERY):
        some = ordered[start : start + KEYS_PER_QUERY]
        rows = connection.execute(select(*(pane.c[name] for name in COLUMNS)).where(key_columns.in_(some)))
        found += [StoredPane(PaneKey(*row[:5]), row.records, row.state) for row in rows]
    return found
