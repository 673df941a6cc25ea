"""Leaders say that they live, in the transactions in which they work: so a beat also says that they get something done.

The lock lets one process lead. Where something breaks it (a pooler that hands sessions from client to client, a
database that was restored from a copy), several claim to, and each of them leaves beats of its own.
"""

from __future__ import annotations

import os
import socket
import uuid
from typing import Final

from sqlalchemy import Connection, delete, select

from monitor.store import bulk
from monitor.store.tables import leader_beat
from monitor.store.values import Heartbeat

EVERY_US: Final = 5_000_000
KEPT_US: Final = 86_400_000_000
"""A day: long enough to find out who led in a night."""


def holder() -> str:
    """A name for one leadership: machine, process, and a part that never comes again."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def beat(connection: Connection, name: str, since_us: int, now_us: int) -> None:
    """``name`` leads since ``since_us`` and did so at ``now_us``; beats of the day before are forgotten."""
    row = {"holder": name, "since_us": since_us, "beat_us": now_us}
    bulk.upsert(connection, leader_beat, [row], {"beat_us": "larger"})
    connection.execute(delete(leader_beat).where(leader_beat.c.beat_us < now_us - KEPT_US))


def read(connection: Connection) -> list[Heartbeat]:
    """The last beat of each leadership of the last day, the newest first."""
    rows = connection.execute(select(leader_beat).order_by(leader_beat.c.beat_us.desc(), leader_beat.c.holder))
    return [Heartbeat(row.holder, row.since_us, row.beat_us) for row in rows]
