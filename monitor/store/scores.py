"""Windows that are due, and the verdicts on windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, Row, Subquery, Table, and_, delete, func, select

from monitor.store import bulk
from monitor.store.tables import window_due, window_score
from monitor.store.values import DueWindow, PaneKey, ScoreRow, StoredScore

WINDOW = ("model", "version", "slice", "length_us", "start_us", "baseline_id")
GROUP = ("model", "version", "slice", "length_us")


def mark_due(connection: Connection, panes: Iterable[PaneKey], lengths_us: Sequence[int]) -> None:
    """Mark every window that contains one of the panes. Windows are aligned to the epoch."""
    windows = {
        (key.model, key.version, key.slice, length, key.start_us - key.start_us % length, key.baseline_id)
        for key in panes
        for length in lengths_us
    }
    rows = [{**dict(zip(WINDOW, window, strict=True)), "mark": 1} for window in windows]
    bulk.upsert(connection, window_due, rows, {"mark": "add"})


def due(connection: Connection, watermark_us: int, limit: int) -> list[DueWindow]:
    """Marked windows that end at or before the watermark, the earliest end first."""
    columns = window_due.c
    end = columns.start_us + columns.length_us
    query = (
        select(*(columns[name] for name in WINDOW), columns.mark)
        .where(end <= watermark_us)
        .order_by(end, *(columns[name] for name in WINDOW))
        .limit(limit)
    )
    return [DueWindow(**row._mapping) for row in connection.execute(query)]


def clear(connection: Connection, window: DueWindow) -> None:
    """Clear the mark, unless the window has changed again since it was read."""
    connection.execute(delete(window_due).where(_is(window_due, window), window_due.c.mark == window.mark))


def insert_revision(connection: Connection, window: DueWindow, score: ScoreRow) -> int | None:
    """Store the verdict as the next revision.

    None where there is nothing new: the last revision had as many records (a window's records only grow, so it had
    the same ones), or another evaluator stored this revision first.
    """
    columns = window_score.c
    last = connection.execute(
        select(columns.revision, columns.records)
        .where(_is(window_score, window))
        .order_by(columns.revision.desc())
        .limit(1)
    ).one_or_none()
    if last is not None and last.records == score.records:
        return None
    revision = 0 if last is None else last.revision + 1
    row = {
        **{name: getattr(window, name) for name in WINDOW},
        "revision": revision,
        "records": score.records,
        "alarm": score.alarm,
        "payload": score.payload,
        "scored_at_us": score.scored_at_us,
    }
    return revision if bulk.upsert(connection, window_score, [row]) else None


def read(
    connection: Connection,
    model: str,
    version: str | None,
    slice: str,
    since_us: int | None,
    until_us: int | None,
    length_us: int | None,
) -> list[StoredScore]:
    """Last revisions of the windows that start in [since_us, until_us), in order of time."""
    columns = window_score.c
    conditions = [columns.model == model, columns.slice == slice]
    for column, value in ((columns.version, version), (columns.length_us, length_us)):
        if value is not None:
            conditions.append(column == value)
    if since_us is not None:
        conditions.append(columns.start_us >= since_us)
    if until_us is not None:
        conditions.append(columns.start_us < until_us)
    window = [columns[name] for name in WINDOW]
    last = select(*window, func.max(columns.revision).label("revision")).where(*conditions).group_by(*window).subquery()
    same = and_(*(columns[name] == last.c[name] for name in (*WINDOW, "revision")))
    rows = connection.execute(
        select(window_score)
        .join(last, same)
        .order_by(columns.start_us, columns.length_us, columns.version, columns.scored_at_us)
    )
    return [stored(row) for row in rows]


def latest(connection: Connection, length_us: int | None, slices: int | None) -> list[StoredScore]:
    """The newest window of every model, version, slice and length, in its last verdict (whatever the baseline).

    ``length_us``: of this length alone. ``slices``: of each key's slices the first so many in their order, for each
    model version and length.
    """
    columns = window_score.c
    newest = select(*(columns[name] for name in GROUP), func.max(columns.start_us).label("start_us"))
    newest = newest.group_by(*(columns[name] for name in GROUP))
    if length_us is not None:
        newest = newest.where(columns.length_us == length_us)
    wanted = newest.subquery()
    if slices is not None:
        places = select(wanted, _place(connection, wanted).label("place")).subquery()
        wanted = select(places).where((places.c.slice == "") | (places.c.place <= slices)).subquery()
    same = and_(*(columns[name] == wanted.c[name] for name in (*GROUP, "start_us")))
    rows = connection.execute(select(window_score).join(wanted, same).order_by(columns.scored_at_us, columns.revision))
    last = {tuple(getattr(row, name) for name in GROUP): stored(row) for row in rows}
    return [last[group] for group in sorted(last)]


def _place(connection: Connection, groups: Subquery) -> ColumnElement[int]:
    """From 1: a slice's place among those of its key, model version and length."""
    columns = groups.c
    find = func.strpos if connection.dialect.name == "postgresql" else func.instr
    key = func.substr(columns.slice, 1, find(columns.slice, "="))
    alike = (columns.model, columns.version, columns.length_us, key)
    return func.row_number().over(partition_by=alike, order_by=columns.slice)


def slice_counts(connection: Connection, length_us: int) -> dict[tuple[str, str], int]:
    """How many slices of each (model, version) have a verdict on a window of this length."""
    columns = window_score.c
    rows = connection.execute(
        select(columns.model, columns.version, func.count(columns.slice.distinct()).label("slices"))
        .where(columns.length_us == length_us, columns.slice != "")
        .group_by(columns.model, columns.version)
    )
    return {(row.model, row.version): row.slices for row in rows}


def _is(table: Table, window: DueWindow) -> ColumnElement[bool]:
    return and_(*(table.c[name] == getattr(window, name) for name in WINDOW))


def stored(row: Row[tuple[object, ...]]) -> StoredScore:
    """A row of ``window_score``."""
    return StoredScore(**row._mapping)
