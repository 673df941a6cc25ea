"""Who did what: lines that are only ever added, and go when their time is over."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from monitor.store.tables import audit
from monitor.store.values import AuditLine


def append(connection: Connection, at_us: int, who: str, what: str, subject: str, detail: Mapping[str, object]) -> None:
    """Add a line in the caller's transaction, so that what was done and the word of it are there together or not."""
    text = json.dumps(detail, ensure_ascii=False, sort_keys=True, allow_nan=False)
    values = {"who": who, "what": what, "subject": subject, "detail": text}
    # Neither NUL nor half of a surrogate pair can be stored in PostgreSQL.
    clean = {name: value.replace("\0", "?").encode("utf-8", "replace").decode() for name, value in values.items()}
    connection.execute(insert(audit).values(at_us=at_us, **clean))


def read(
    connection: Connection,
    since_us: int | None = None,
    what: str | None = None,
    subject: str | None = None,
    limit: int | None = None,
) -> list[AuditLine]:
    """Lines from ``since_us`` on, the oldest first; of more than ``limit`` the newest."""
    columns = audit.c
    query = select(columns.at_us, columns.who, columns.what, columns.subject, columns.detail)
    if since_us is not None:
        query = query.where(columns.at_us >= since_us)
    if what is not None:
        query = query.where(columns.what == what)
    if subject is not None:
        query = query.where(columns.subject == subject)
    rows = connection.execute(query.order_by(columns.id.desc()).limit(limit)).all()
    return [AuditLine(row.at_us, row.who, row.what, row.subject, json.loads(row.detail)) for row in reversed(rows)]
