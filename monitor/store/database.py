"""One database, SQLite or PostgreSQL: connections, transactions, and errors in one language.

DatabaseError(StoreError)     ``retriable`` says whether the same transaction may succeed next time
`-- AlreadyThere              a unique key is taken
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pg8000.core as pg8000_core
import pg8000.legacy as pg8000
import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError

from monitor.errors import SettingsError, StoreError

BUSY_TIMEOUT_MS = 30_000
"""How long SQLite waits for another connection's write; the writers of one process queue on a lock of their own."""

CONNECT_TIMEOUT_S = 10.0
SOCKET_TIMEOUT_S = 600.0
"""A statement that has not answered after this is given up; none of ours takes as long."""

SESSION_SETTINGS = {
    "client_min_messages": "warning",
    # A worker that is stopped in the middle of a transaction would hold its partition's row for ever.
    "idle_in_transaction_session_timeout": "60s",
    # The server learns within 30 + 3 x 10 = 60 s that a leader's machine is gone, and frees its lock; the default
    # of most kernels is over two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}

RETRIABLE_CLASSES = ("08", "53", "57P", "40", "55P03", "25P03")
"""SQLSTATEs that pass: connection, resources (full disk, too many clients), shutdown, deadlock, lock, idle too long."""

GONE_CLASSES = ("08", "57P01", "57P02", "57P03", "25P03")
"""SQLSTATEs after which the connection is of no more use."""

UNIQUE_VIOLATION = "23505"


class DatabaseError(StoreError):
    """The database refused or went away."""

    def __init__(self, message: str, *, retriable: bool) -> None:
        super().__init__(message)
        self.retriable = retriable


class AlreadyThere(DatabaseError):
    """A unique key is taken."""


def wall_clock_us() -> int:
    """Now, in microseconds since the epoch."""
    return time.time_ns() // 1000


def parse_url(text: str, password: str) -> URL:
    """The database's URL, with the driver that segwatch brings. Raises SettingsError that names ``store.url``."""
    try:
        url = sqlalchemy.make_url(text)
    except ArgumentError:
        raise SettingsError("store.url: not a database URL (like postgresql://user@host/name)") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        if url.database in (None, "", ":memory:") or "mode=memory" in (url.database or ""):
            raise SettingsError("store.url: SQLite needs a file, a database in memory would be lost with the process")
        return url.set(drivername="sqlite")
    if kind not in ("postgresql", "postgres"):
        raise SettingsError(f"store.url: {kind} is not supported, use postgresql or sqlite")
    url = url.set(drivername="postgresql+pg8000")
    return url.set(password=password) if password else url


class Database:
    """Connections to one database.

    PostgreSQL: any number of processes. SQLite: one process writes; its threads take turns on a lock rather than by
    polling, and every write transaction takes SQLite's own lock at its start (BEGIN IMMEDIATE), because a transaction
    that has read first cannot be upgraded once somebody else has written.
    """

    def __init__(self, url: URL, *, write: bool) -> None:
        self.name = url.render_as_string(hide_password=True)
        self.is_postgres = url.get_backend_name() == "postgresql"
        self.writable = write
        self._turn = threading.Lock()
        self.engine = _postgres_engine(url, write) if self.is_postgres else _sqlite_engine(url, write)
        event.listen(self.engine, "handle_error", _translate)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back on any exception."""
        if not self.writable:
            raise StoreError(f"{self.name} was opened for reading only")
        if self.is_postgres:
            with self.engine.begin() as connection:
                yield connection
        else:
            with self._turn, self.engine.begin() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; on SQLite it never waits for a writer."""
        with self.engine.connect() as connection:
            yield connection.execution_options(reading=True)

    def close(self) -> None:
        """Close all idle connections."""
        self.engine.dispose()


def _sqlite_engine(url: URL, write: bool) -> Engine:
    # isolation_level None: Python's module then leaves BEGIN to us (below) instead of guessing when one is due.
    engine = sqlalchemy.create_engine(
        url, hide_parameters=True, connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000}
    )

    def prepare(connection: Any, _record: object) -> None:
        if write:
            connection.execute("PRAGMA journal_mode = WAL")
            # The last commits may be lost with the power, but always with their offsets: they are read again.
            connection.execute("PRAGMA synchronous = NORMAL")
        else:
            connection.execute("PRAGMA query_only = ON")

    def begin(connection: Connection) -> None:
        reading = not write or connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _postgres_engine(url: URL, write: bool) -> Engine:
    query = dict(url.query)
    ssl_mode, root = query.pop("sslmode", "prefer"), query.pop("sslrootcert", None)
    session = dict(SESSION_SETTINGS)
    if not write:
        session["default_transaction_read_only"] = "on"
    arguments: dict[str, object] = {
        "ssl_context": _ssl_context(str(ssl_mode), None if root is None else str(root)),
        "startup_params": session,
        "application_name": "segwatch",
    }
    engine = sqlalchemy.create_engine(
        url.set(query=query), hide_parameters=True, pool_pre_ping=True, connect_args=arguments
    )

    def execute(_cursor: object, statement: str, _parameters: object, context: Any) -> bool:
        """Let COPY take its stream through SQLAlchemy, and so through its handling of errors."""
        stream = context.execution_options.get("copy_from")
        if stream is None:
            return False
        context.root_connection.connection.dbapi_connection.copy(statement, stream)
        return True

    def connect(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> Any:
        return _Connection(**options)

    event.listen(engine, "do_execute", execute)
    event.listen(engine, "do_connect", connect)
    return engine


class _Connection(pg8000.Connection):  # type: ignore[misc]  # pg8000 has no types
    """pg8000's connection over a socket of our own.

    It copies in one round trip, of pg8000's three, and takes other statements along; and it also closes when the server
    has gone.
    """

    def __init__(self, host: str = "localhost", port: int = 5432, **options: Any) -> None:
        # Without any password pg8000 fails with an AttributeError where the server asks for one.
        options.setdefault("password", "")
        self._own: socket.socket | None = None
        if "unix_sock" not in options:
            try:
                self._own = _socket(host, port)
            except OSError as error:
                raise pg8000.InterfaceError(f"{host}:{port}: {error.strerror or error}") from error
            options |= {"host": host, "port": port, "sock": self._own}
        try:
            super().__init__(**options)
        except BaseException:
            self._close_socket()
            raise

    def copy(self, statements: str, pieces: Iterable[bytes]) -> None:
        """Run ``statements``, of which one is a COPY FROM STDIN, in PostgreSQL's simple query protocol."""
        if not self._in_transaction:
            self.execute_simple("begin transaction")
        self.send_QUERY(statements)
        self._sock.flush()
        self.handle_messages(pg8000_core.Context(statements, stream=pieces))

    def handle_COPY_IN_RESPONSE(self, data: bytes, context: Any) -> None:
        """Send the stream. pg8000 ends it with a Sync, which the simple protocol would answer with a second "ready"."""
        for piece in context.stream:
            self._send_message(pg8000_core.COPY_DATA, piece)
            self._sock.flush()
        self._sock.write(pg8000_core.COPY_DONE_MSG)
        self._sock.flush()

    def close(self) -> None:
        """End the session; where the server has gone there is nobody to say goodbye to."""
        try:
            super().close()
        except pg8000.InterfaceError:
            pass
        finally:
            self._close_socket()

    def _close_socket(self) -> None:
        # pg8000 leaves the descriptor to the garbage collector when it could not say goodbye.
        if self._own is not None and (descriptor := self._own.detach()) >= 0:
            os.close(descriptor)


def _socket(host: str, port: int) -> socket.socket:
    """A connected socket, which pg8000 would make without these options.

    Without TCP_NODELAY the kernel holds the second of two small packets back until the first is acknowledged: 40 ms
    for each COPY. Keepalive: a server that is gone without a word is noticed within 30 + 3 x 10 = 60 s.
    """
    connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    connection.settimeout(SOCKET_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # macOS calls the first one otherwise
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _ssl_context(mode: str, root: str | None) -> ssl.SSLContext | bool | None:
    """libpq's ``sslmode`` in pg8000's terms: False never, None if it can, True unchecked, a context checks."""
    if mode in ("disable", "prefer", "require"):
        return {"disable": False, "prefer": None, "require": True}[mode]
    if mode not in ("verify-ca", "verify-full"):
        raise SettingsError(f"store.url: sslmode={mode} is not supported (disable, prefer, require, verify-full)")
    try:
        context = ssl.create_default_context(cafile=root)
    except OSError as error:
        raise SettingsError(f"store.url: sslrootcert={root}: {error.strerror}") from None
    context.check_hostname = mode == "verify-full"
    return context


def _translate(context: ExceptionContext) -> BaseException | None:
    """Turn whatever the driver raises into DatabaseError, and tell SQLAlchemy which connections are dead."""
    error = context.original_exception
    if context.is_pre_ping:  # the pool only asks whether the connection lives, and makes another if not
        context.is_disconnect = True
        return None
    details = error.args[0] if error.args and isinstance(error.args[0], Mapping) else None
    if details is not None:  # PostgreSQL's answer; its detail field may hold values of rows and is left out
        state = str(details.get("C", ""))
        message = f"database: {details.get('M', 'unknown error')} (SQLSTATE {state})"
        if state.startswith(GONE_CLASSES) or details.get("V") == "FATAL":
            context.is_disconnect = True
        if state == UNIQUE_VIOLATION:
            return AlreadyThere(message, retriable=False)
        return DatabaseError(message, retriable=state.startswith(RETRIABLE_CLASSES))
    text = " ".join(str(error).split())
    if isinstance(error, OSError) or type(error).__name__ == "InterfaceError":
        # pg8000 lets some errors of its socket through as they are, and SQLAlchemy would keep the connection.
        context.is_disconnect = True
        return DatabaseError(f"database connection failed: {text}", retriable=True)
    if context.sqlalchemy_exception is None:
        return None  # not the database's: a programming error, or an interrupt
    file = context.dialect.name == "sqlite" and context.engine is not None and context.engine.url.database
    message = f"{file or 'database'}: {text}"
    if "UNIQUE constraint failed" in text:
        return AlreadyThere(message, retriable=False)
    passing = "locked" in text or "busy" in text or "disk is full" in text
    return DatabaseError(message, retriable=passing)
