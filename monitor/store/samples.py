"""Identities of records: which of a batch are new, in spite of any number of workers that insert the same ones.

The unique key on (input_id, model, version) decides. Two workers that insert the same identity meet in the database:
the second waits until the first commits or rolls back. So that they never wait for each other in a circle, every
transaction inserts its identities in ascending order, all in one call: who waits for a key holds only lower ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from monitor.store import bulk
from monitor.store.database import AlreadyThere
from monitor.store.tables import sample
from monitor.store.values import SampleRow

Identity = tuple[str, str, str]
"""(model, version, input_id)."""
KNOWN_AT_ONCE = 200
"""Identities of one look-up: three parameters each, well below what any database takes."""

COLUMNS = [sample.c[name] for name in SampleRow._fields]
NAMES = ", ".join(f'"{name}"' for name in SampleRow._fields)

CREATE_INCOMING = (
    'CREATE TEMPORARY TABLE IF NOT EXISTS sample_incoming (LIKE sample, "ordinal" int) ON COMMIT DELETE ROWS'
)
# The answer is one value, a packed array: a row for each identity would cost more than inserting it.
INSERT_INCOMING = f"""
WITH inserted AS (
    INSERT INTO sample ({NAMES}) SELECT {NAMES} FROM sample_incoming ORDER BY input_id, model, version
    ON CONFLICT DO NOTHING RETURNING input_id, model, version
)
SELECT string_agg(int4send("ordinal"), '') FROM sample_incoming JOIN inserted USING (input_id, model, version)
"""
INSERT_ONE = f"INSERT OR IGNORE INTO sample ({NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"


class SampleWriter:
    """Inserts identities in the way that suits the database and the stream.

    PostgreSQL: records that come for the first time, nearly all of them, are copied straight into the table; if one is
    there already, COPY fails as a whole, is rolled back to a savepoint, and the batch goes through a temporary table
    with ON CONFLICT. After that batches take this way at once, until one of them was all new again: a replay of known
    records would otherwise leave every row behind as a dead one.
    """

    def __init__(self) -> None:
        self._hopeful = True  # only chooses the way, so threads may share it without a lock

    def insert(self, connection: Connection, rows: Sequence[SampleRow]) -> NDArray[np.bool_]:
        """(N,) True where the identity was new; of those repeated within ``rows`` the first."""
        new = np.zeros(len(rows), np.bool_)
        firsts: dict[tuple[str, str, str], int] = {}
        for index, row in enumerate(rows):
            firsts.setdefault((row.input_id, row.model, row.version), index)
        order = [firsts[identity] for identity in sorted(firsts)]
        if order:
            ordered = [rows[index] for index in order]
            insert = self._insert_postgres if connection.dialect.name == "postgresql" else _insert_sqlite
            new[order] = insert(connection, ordered)
        return new

    def _insert_postgres(self, connection: Connection, rows: Sequence[SampleRow]) -> NDArray[np.bool_]:
        if self._hopeful:
            try:
                bulk.copy(connection, sample.name, COLUMNS, rows, savepoint="before_copy")
                return np.ones(len(rows), np.bool_)
            except AlreadyThere:
                connection.exec_driver_sql("ROLLBACK TO SAVEPOINT before_copy")
                self._hopeful = False
        connection.exec_driver_sql(CREATE_INCOMING)
        numbered = [(*row, ordinal) for ordinal, row in enumerate(rows)]
        ordinal = sqlalchemy.Column("ordinal", sqlalchemy.BigInteger, nullable=False)
        bulk.copy(connection, "sample_incoming", [*COLUMNS, ordinal], numbered)
        packed: bytes | None = connection.exec_driver_sql(INSERT_INCOMING).scalar_one()
        new = np.zeros(len(rows), np.bool_)
        new[np.frombuffer(packed or b"", ">i4")] = True
        self._hopeful = bool(new.all())
        return new


def _insert_sqlite(connection: Connection, rows: Sequence[SampleRow]) -> NDArray[np.bool_]:
    # Row by row on the driver's own cursor, because only the count after each row tells which ones were new.
    cursor = connection.connection.cursor()
    try:
        return np.array([cursor.execute(INSERT_ONE, row).rowcount == 1 for row in rows], np.bool_)
    finally:
        cursor.close()


def known(connection: Connection, identities: Sequence[Identity]) -> NDArray[np.bool_]:
    """(N,) True where the identity is stored."""
    stored: set[Identity] = set()
    key = sqlalchemy.tuple_(sample.c.model, sample.c.version, sample.c.input_id)
    for start in range(0, len(identities), KNOWN_AT_ONCE):
        some = select(sample.c.model, sample.c.version, sample.c.input_id).where(
            key.in_(identities[start : start + KNOWN_AT_ONCE])
        )
        stored.update((row.model, row.version, row.input_id) for row in connection.execute(some))
    return np.array([identity in stored for identity in identities], np.bool_)


def sampling_range(
    connection: Connection, model: str, version: str, since_us: int, until_us: int
) -> tuple[float, float] | None:
    """The lowest and the highest sampling probability of the successful records with event times in [since, until);
    None without any. Passes all of them."""
    probability = func.coalesce(sample.c.sampling_probability, 1.0)
    row: Any = connection.execute(
        select(func.min(probability), func.max(probability)).where(
            sample.c.event_time_us >= since_us,
            sample.c.event_time_us < until_us,
            sample.c.model == model,
            sample.c.version == version,
            sample.c.status == "ok",
        )
    ).one()
    return None if row[0] is None else (row[0], row[1])


def inputs_between(
    connection: Connection, model: str, version: str, since_us: int, until_us: int
) -> list[tuple[str, str]]:
    """``(input, slices as JSON)`` of the successful records with event times in [since, until), in order of time."""
    columns = sample.c
    query = select(columns.input_id, columns.slices).where(
        columns.event_time_us >= since_us,
        columns.event_time_us < until_us,
        columns.model == model,
        columns.version == version,
        columns.status == "ok",
    )
    rows = connection.execute(query.order_by(columns.event_time_us, columns.input_id))
    return [(row.input_id, row.slices) for row in rows]
