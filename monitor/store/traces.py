"""All that the store has of one input, for `segwatch trace`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from monitor.store.purges import Tombstones
from monitor.store.tables import baseline_active, judged, label, outbox, relabel, sample, spot_check, window_score

Row = dict[str, Any]
MOST_ACTIONS = 1000


@dataclass(frozen=True, slots=True)
class InputTrace:
    """Rows by table, as mappings of their columns, in the order of their keys."""

    purged: bool
    samples: list[Row]
    labels: list[Row]
    judged: list[Row]
    spot_checks: list[Row]
    relabel: list[Row]
    windows: list[Row]
    """Last revisions of the verdicts on windows of all records that the records lie in."""
    baselines: dict[tuple[str, str], str]
    """Active baseline by (model, version)."""
    actions: list[Row]
    """Messages to the actions' topic of these models, the oldest first; those sent too, as long as they are kept."""


def read(connection: Connection, input_id: str, actions_topic: str) -> InputTrace:
    """All that is stored of an input, as of one moment."""

    def rows(table: Any, *without: str) -> list[Row]:
        columns = [column for column in table.columns if column.name not in without]
        query = select(*columns).where(table.c.input_id == input_id).order_by(*table.primary_key.columns)
        return [dict(row._mapping) for row in connection.execute(query)]

    has_masks = sample.c.masks.is_not(None).label("has_masks")
    known = [column for column in sample.columns if column.name not in ("masks", "sketch")]
    query = select(*known, has_masks).where(sample.c.input_id == input_id).order_by(sample.c.model, sample.c.version)
    samples = [dict(row._mapping) for row in connection.execute(query)]
    models = sorted({one["model"] for one in samples})
    active = select(baseline_active.c.model, baseline_active.c.version, baseline_active.c.baseline_id)
    found = connection.execute(active.where(baseline_active.c.model.in_(models)))
    return InputTrace(
        bool(Tombstones(connection, lock=False).of([("", input_id), *((model, input_id) for model in models)])),
        samples,
        rows(label, "value", "headers"),
        rows(judged),
        rows(spot_check),
        rows(relabel, "token"),
        [window for one in samples for window in _windows(connection, one)],
        {(row.model, row.version): row.baseline_id for row in found},
        _actions(connection, actions_topic, [(one["model"], one["version"]) for one in samples]),
    )


def _windows(connection: Connection, record: Row) -> list[Row]:
    columns = window_score.c
    newer = window_score.alias("newer")
    same = ("model", "version", "slice", "length_us", "start_us", "baseline_id")
    last = (
        select(func.max(newer.c.revision))
        .where(and_(*(newer.c[name] == columns[name] for name in same)))
        .correlate(window_score)
        .scalar_subquery()
    )
    query = (
        select(window_score)
        .where(columns.model == record["model"], columns.version == record["version"], columns.slice == "")
        .where(columns.start_us <= record["event_time_us"])
        .where(columns.start_us + columns.length_us > record["event_time_us"], columns.revision == last)
        .order_by(columns.length_us, columns.start_us, columns.baseline_id)
    )
    return [dict(row._mapping) for row in connection.execute(query)]


def _actions(connection: Connection, topic: str, versions: list[tuple[str, str]]) -> list[Row]:
    columns = outbox.c
    subjects = sorted(
        {f"{model}/{version}".encode("utf-8", "replace") for model, version in versions}
        | {model.encode("utf-8", "replace") for model, _ in versions}
    )
    if not subjects:
        return []
    query = (
        select(columns.id, columns.value, columns.created_us, columns.sent_us, columns.attempts)
        .where(columns.topic == topic, or_(*(columns.key == one for one in subjects)))
        .order_by(columns.created_us.desc(), columns.id)
        .limit(MOST_ACTIONS)
    )
    return [dict(row._mapping) for row in connection.execute(query)][::-1]
