"""Sequential tests: how far each has come, and its alarms."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, select

from monitor.store import bulk
from monitor.store.tables import early_alarm, early_state
from monitor.store.values import EarlyAlarm, EarlyReading, EarlyState

OF = ("model", "version", "baseline_id")
SHOWN = (*OF, "fed_until_us", "records", "evidence", "run_length", "alarm", "alarm_at_us")


def load(connection: Connection, model: str, version: str, baseline_id: str) -> EarlyState | None:
    """The state of one test, None where it has seen nothing yet."""
    columns = early_state.c
    query = select(early_state).where(
        columns.model == model, columns.version == version, columns.baseline_id == baseline_id
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else EarlyState(**row._mapping)


def save(connection: Connection, state: EarlyState, alarms: Sequence[EarlyAlarm]) -> None:
    """Replace a test's state, and add the alarms on the way to it."""
    row = {column.name: getattr(state, column.name) for column in early_state.columns}
    bulk.upsert(connection, early_state, [row], {name: "replace" for name in row if name not in OF})
    own = {name: row[name] for name in OF}
    bulk.upsert(connection, early_alarm, [{**own, "at_us": one.at_us, "payload": one.payload} for one in alarms])


def readings(connection: Connection) -> list[EarlyReading]:
    """Every test, with its last alarm."""
    same = [early_alarm.c[name] == early_state.c[name] for name in OF]
    last = and_(*same, early_alarm.c.at_us == early_state.c.alarm_at_us)
    query = (
        select(*(early_state.c[name] for name in SHOWN), early_alarm.c.payload.label("last_alarm"))
        .select_from(early_state.outerjoin(early_alarm, last))
        .order_by(*(early_state.c[name] for name in OF))
    )
    return [EarlyReading(**row._mapping) for row in connection.execute(query)]


def alarms(
    connection: Connection, model: str, version: str, baseline_id: str, after_us: int, until_us: int
) -> list[EarlyAlarm]:
    """Alarms of one test in (after, until], in order of time."""
    columns = early_alarm.c
    query = (
        select(columns.at_us, columns.payload)
        .where(columns.model == model, columns.version == version, columns.baseline_id == baseline_id)
        .where(columns.at_us > after_us, columns.at_us <= until_us)
        .order_by(columns.at_us)
    )
    return [EarlyAlarm(row.at_us, row.payload) for row in connection.execute(query)]
