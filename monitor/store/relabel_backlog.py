"""How much of the relabel queue waits: counted where it is, so that nobody has to read the items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, case, func, select

from monitor.store.tables import relabel


@dataclass(frozen=True, slots=True)
class Backlog:
    """Of one model, in samples: one that several causes ask for is labelled once."""

    open: int
    """Free to be claimed. A lease that has ended frees its samples."""
    claimed: int
    """Leased to somebody."""
    oldest_us: int | None
    """When the sample was queued that has waited longest, claimed or not; None where none waits."""


NOTHING: Final = Backlog(0, 0, None)


def read(connection: Connection, now_us: int) -> dict[str, Backlog]:
    """By model; models of which nothing waits are missing. Costs what waits, not what was ever asked for."""
    columns = relabel.c
    leased = case((and_(columns.state == "claimed", columns.lease_until_us > now_us), 1), else_=0)
    query = (
        # A sample is leased as a whole; an item that came later is its next cause, not another sample.
        select(
            columns.model, columns.input_id, func.max(leased).label("leased"), func.min(columns.created_us).label("at")
        )
        .where(columns.state.in_(("open", "claimed")))
        .group_by(columns.model, columns.input_id)
        .subquery()
    )
    of_model = select(
        query.c.model,
        func.count().label("samples"),
        func.sum(query.c.leased).label("leased"),
        func.min(query.c.at).label("oldest_us"),
    ).group_by(query.c.model)
    return {
        row.model: Backlog(row.samples - int(row.leased), int(row.leased), row.oldest_us)
        for row in connection.execute(of_model)
    }
