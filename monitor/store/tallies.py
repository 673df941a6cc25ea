"""Tallies: the integers behind the metrics, kept in the store so that every replica serves the same totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, LargeBinary, delete, insert, literal, null, select, type_coerce, union_all

from monitor.store import bulk
from monitor.store.tables import tally, tally_delta
from monitor.tallies import MAXIMA, TallyKey, saturated

ENTRIES = msgspec.msgpack.Decoder(list[tuple[str, str, str, str, int, int]])
COLUMNS = [tally.c[name] for name in TallyKey._fields]
ROWS_AT_ONCE = 32
"""Read between two pauses. Ten thousand rows, read or freed in one go, would hold up all other threads."""


def append(connection: Connection, tallies: Mapping[TallyKey, int]) -> None:
    """Append what a transaction adds: one row, however many series it touches."""
    if tallies:
        entries = msgspec.msgpack.encode([(*key, saturated(value)) for key, value in tallies.items()])
        connection.execute(insert(tally_delta).values(entries=entries))


def read(connection: Connection, pause: Callable[[], None] = lambda: None) -> dict[TallyKey, int]:
    """All totals, folded and not yet folded, from one statement, so that they are those of one moment.

    ``pause`` is called between two pieces of work.
    """
    folded = select(*COLUMNS, tally.c.value, type_coerce(null(), LargeBinary).label("entries"))
    waiting = select(*(literal("") for _ in range(4)), literal(0), literal(0), tally_delta.c.entries)
    totals: dict[TallyKey, int] = {}
    kept: dict[str, str] = {}  # one string for each name, where the driver makes one for each row
    pieces: Iterable[Sequence[Any]] = connection.execute(union_all(folded, waiting)).partitions(ROWS_AT_ONCE)
    for piece in pieces:
        for series, model, version, label, bucket, value, entries in piece:
            if entries is None:
                series, model, version, label = map(kept.setdefault, *(2 * [(series, model, version, label)]))
                _merge(totals, TallyKey(series, model, version, label, bucket), value)
            else:
                _add(totals, [entries])
        pause()
    return totals


def fold(connection: Connection, limit: int) -> int:
    """Add up to ``limit`` rows of deltas, the oldest first, to the totals. Returns how many."""
    oldest = select(tally_delta.c.id).order_by(tally_delta.c.id).limit(limit)
    taken: Sequence[bytes] = connection.scalars(
        delete(tally_delta).where(tally_delta.c.id.in_(oldest)).returning(tally_delta.c.entries)
    ).all()
    totals: dict[TallyKey, int] = {}
    _add(totals, taken)
    rows = [{**key._asdict(), "value": value} for key, value in totals.items()]
    bulk.upsert(connection, tally, [row for row in rows if row["series"] not in MAXIMA], {"value": "add"})
    bulk.upsert(connection, tally, [row for row in rows if row["series"] in MAXIMA], {"value": "larger"})
    return len(taken)


def _add(totals: dict[TallyKey, int], blobs: Iterable[bytes]) -> None:
    for blob in blobs:
        for series, model, version, label, bucket, value in ENTRIES.decode(blob):
            _merge(totals, TallyKey(series, model, version, label, bucket), value)


def _merge(totals: dict[TallyKey, int], key: TallyKey, value: int) -> None:
    present = totals.get(key, 0)
    totals[key] = max(present, value) if key.series in MAXIMA else saturated(present + value)
