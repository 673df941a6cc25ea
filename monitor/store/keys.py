"""Secret keys that belong to a store: made when first asked for, the same for all its processes, never shown."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select

from monitor.store import bulk
from monitor.store.tables import store_key


def find(connection: Connection, name: str) -> bytes | None:
    """The key of this name, None where there is none yet."""
    value: bytes | None = connection.execute(select(store_key.c.value).where(store_key.c.name == name)).scalar()
    return value


def get(connection: Connection, name: str) -> bytes:
    """The key of this name, made now where there is none: 32 random bytes."""
    bulk.upsert(connection, store_key, [{"name": name, "value": secrets.token_bytes(32)}])
    found = find(connection, name)
    assert found is not None
    return found
