"""Where each partition stands. The compare-and-set here is what keeps a worker that lost its partition out."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, case, select, update

from monitor.errors import PartitionLost
from monitor.sources.protocol import Partition
from monitor.store import bulk
from monitor.store.tables import source_offset
from monitor.store.values import Advance, PartitionProgress


def advance(connection: Connection, step: Advance, now_us: int) -> None:
    """Move a partition's offset, if it is where the worker believes it to be.

    The row stays locked until the transaction ends: a second worker waits here, then finds another offset than it
    expected. Raises PartitionLost with the stored offset.
    """
    partition = step.partition
    values = {
        "next_offset": step.next_offset,
        "end_offset": step.end_offset,
        "caught_up_at_us": step.caught_up_at_us,
        "updated_at_us": now_us,
    }
    if step.expected is None:
        row = {
            "cluster": partition.cluster,
            "topic_id": partition.topic_id,
            "number": partition.number,
            "topic": partition.topic,
            "max_event_time_us": step.max_event_time_us,
            "retired": False,
            **values,
        }
        if bulk.upsert(connection, source_offset, [row]) == 1:
            return
    else:
        column = source_offset.c.max_event_time_us
        latest = step.max_event_time_us
        change = (
            update(source_offset).where(_is(partition), source_offset.c.next_offset == step.expected).values(**values)
        )
        if latest is not None:
            change = change.values(max_event_time_us=case((column > latest, column), else_=latest))
        if connection.execute(change).rowcount == 1:
            return
    raise PartitionLost(partition, step.expected, load(connection, partition))


def load(connection: Connection, partition: Partition) -> int | None:
    """The first offset that has not been counted, None where the partition is new."""
    offset: int | None = connection.execute(
        select(source_offset.c.next_offset).where(_is(partition))
    ).scalar_one_or_none()
    return offset


def register_topic(connection: Connection, cluster: str, topic: str, topic_id: str) -> None:
    """Say which id the topic has now: partitions of its earlier ids are retired and no longer hold the watermark."""
    connection.execute(
        update(source_offset)
        .where(source_offset.c.cluster == cluster, source_offset.c.topic == topic)
        .values(retired=source_offset.c.topic_id != topic_id)
    )


def progress(connection: Connection) -> list[PartitionProgress]:
    """All partitions that are not retired, in order."""
    columns = source_offset.c
    rows = connection.execute(
        select(source_offset)
        .where(columns.retired.is_(False))
        .order_by(columns.cluster, columns.topic, columns.topic_id, columns.number)
    )
    return [
        PartitionProgress(
            partition=Partition(row.cluster, row.topic_id, row.topic, row.number),
            next_offset=row.next_offset,
            end_offset=row.end_offset,
            max_event_time_us=row.max_event_time_us,
            caught_up_at_us=row.caught_up_at_us,
            updated_at_us=row.updated_at_us,
        )
        for row in rows
    ]


def _is(partition: Partition) -> ColumnElement[bool]:
    columns = source_offset.c
    return (
        (columns.cluster == partition.cluster)
        & (columns.topic_id == partition.topic_id)
        & (columns.number == partition.number)
    )
