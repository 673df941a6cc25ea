"""Many rows at once: COPY on PostgreSQL, executemany on SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, Connection, LargeBinary, Table, Text, case, func
from sqlalchemy.dialects import postgresql, sqlite

from monitor.tallies import MOST

ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
NUMBERS = msgspec.json.Encoder(enc_hook=lambda number: number.item())  # the hook is for NumPy's
PIECE_ROWS = 256  # of one piece of a COPY: some 40 kB, a fair share of a socket's buffer


T = TypeVar("T")


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items``, at most ``size`` at once: databases bound the parameters of a statement.

    >>> list(portions([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    return (items[start : start + size] for start in range(0, len(items), size))


def append(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert ``rows`` (each in the order of ``columns``), in their order."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        copy(connection, table.name, [table.c[name] for name in columns], rows)
    else:
        names, marks = (", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns)))
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", [tuple(row) for row in rows])


def copy(
    connection: Connection,
    into: str,
    columns: Sequence[sqlalchemy.Column[Any]],
    rows: Sequence[Sequence[Any]],
    savepoint: str = "",
) -> None:
    """COPY ``rows`` into the table named ``into``, whose columns have the types and names of ``columns``.

    The text format is made column by column, so that nearly all the work is a handful of calls into C: 1 us a row of
    13 columns, against 10 us for packing the binary format value by value. It is made piece by piece, while the
    server already reads the piece before. With ``savepoint`` the transaction can go on after a failure, by a
    ROLLBACK TO SAVEPOINT of that name, at no further round trip where all goes well.
    """

    def pieces() -> Iterator[bytes]:
        try:
            for start in range(0, len(rows), PIECE_ROWS):
                values = zip(*rows[start : start + PIECE_ROWS], strict=True)
                texts = map(_texts, columns, values)
                yield ("\n".join(map("\t".join, zip(*texts, strict=True))) + "\n").encode()
        except Exception:
            connection.invalidate()  # the server is in the middle of a COPY that will never end
            raise

    names = ", ".join(f'"{column.name}"' for column in columns)
    statements = f"COPY {into} ({names}) FROM STDIN"
    if savepoint:
        statements = f"SAVEPOINT {savepoint}; {statements}; RELEASE SAVEPOINT {savepoint}"
    connection.exec_driver_sql(statements, execution_options={"copy_from": pieces()})


def _texts(column: sqlalchemy.Column[Any], values: Sequence[Any]) -> Sequence[str]:
    """A column in COPY's text format: ``\\N`` for null, backslash escapes, bytes as ``\\x`` and hex."""
    first = values[0]
    if first == values[-1] and values.count(first) == len(values):  # most columns of a batch are: model, topic, status
        return ["\\N" if first is None else _texts_of(column, [first])[0]] * len(values)
    if column.nullable and None in values:
        present = iter(_texts_of(column, [value for value in values if value is not None]))
        return ["\\N" if value is None else next(present) for value in values]
    return _texts_of(column, values)


def _texts_of(column: sqlalchemy.Column[Any], values: Sequence[Any]) -> Sequence[str]:
    if isinstance(column.type, Text):
        everything = "".join(values)
        if any(mark in everything for mark in "\\\t\n\r"):
            return [value.translate(ESCAPES) for value in values]
        return values
    if isinstance(column.type, LargeBinary):
        return ["\\\\x" + value.hex() for value in values]
    # msgspec writes a list of numbers five times as fast as str and repr do it one by one. JSON has no NaN.
    return NUMBERS.encode(values).decode()[1:-1].replace("null", "NaN").split(",")


def upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], change: Mapping[str, str] | None = None
) -> int:
    """Insert ``rows``; where the primary key is taken, change that row or, without ``change``, leave it.

    ``change`` maps a column to what becomes of it: ``"replace"`` (the new value), ``"add"``, ``"larger"`` or
    ``"first"`` (the new value where there was none). Returns how many rows were inserted or changed. Rows are sorted by
    key first, so that two transactions never wait for each other in a circle.
    """
    if not rows:
        return 0
    keys = [column.name for column in table.primary_key.columns]
    ordered = sorted(rows, key=lambda row: [row[key] for key in keys])
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    if change is None:
        insert = insert.on_conflict_do_nothing(index_elements=keys)
    else:
        new = {name: insert.excluded[name] for name in change}
        insert = insert.on_conflict_do_update(
            index_elements=keys,
            set_={name: _changed(how, table.c[name], new[name]) for name, how in change.items()},
        )
    # RETURNING makes SQLAlchemy send many rows in one statement, where pg8000's executemany waits for each.
    return len(connection.execute(insert.returning(table.c[keys[0]]), ordered).all())


def _changed(how: str, old: ColumnElement[Any], new: ColumnElement[Any]) -> ColumnElement[Any]:
    if how == "larger":
        return case((new > old, new), else_=old)
    if how == "first":
        return func.coalesce(old, new)
    if how == "add":
        # Comparing before adding: the sum itself would be an error on PostgreSQL, and a float on SQLite.
        return case((old > MOST - case((new > 0, new), else_=0), MOST), else_=old + new)
    return new
