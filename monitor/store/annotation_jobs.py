"""Jobs of an annotation tool whose annotations are to be fetched: what its webhook said, kept until it is done.

A job is claimed by moving its next attempt behind the end of a lease, so that one that a process died over is free
again when the lease ends. A change that is reported while a job is fetched leaves it waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import sqlalchemy
from sqlalchemy import and_, delete, func, select, update

from monitor.store import bulk
from monitor.store.database import Database
from monitor.store.tables import annotation_job

JobState = Literal["waiting", "refused"]
"""``refused``: nothing of it could be stored, and nothing will before it changes."""
KEEP_REFUSED_US = 30 * 86_400_000_000


class Job(NamedTuple):
    """A job that is this process's to fetch, until its lease ends."""

    number: int
    asked_us: int
    """When a change was reported last."""
    attempt: int
    """Counts from 1."""


class JobRow(NamedTuple):
    """How far a job has come."""

    number: int
    state: JobState
    asked_us: int
    attempts: int
    next_us: int
    """Of the next attempt, while it waits."""
    error: str
    """Of the last attempt."""


class AnnotationJobs:
    """Use `monitor.store.store.Store.annotation_jobs`."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database, self._clock = database, clock

    def add(self, number: int) -> None:
        """Note that a job has changed: it is fetched at once, also one that was refused."""
        now_us = self._clock()
        columns = annotation_job.c
        row = {"number": number, "state": "waiting", "asked_us": now_us, "attempts": 0, "next_us": now_us, "error": ""}
        with self._database.write() as connection:
            old = and_(columns.state == "refused", columns.asked_us < now_us - KEEP_REFUSED_US)
            connection.execute(delete(annotation_job).where(old))
            change = {**dict.fromkeys(row, "replace"), "asked_us": "larger"}
            del change["number"]
            bulk.upsert(connection, annotation_job, [row], change)

    def claim(self, lease_us: int) -> Job | None:
        """The job that is due longest, None where none is."""
        columns = annotation_job.c
        now_us = self._clock()
        due = and_(columns.state == "waiting", columns.next_us <= now_us)
        query = select(columns.number, columns.asked_us, columns.attempts).where(due)
        query = query.order_by(columns.next_us, columns.number).limit(1)
        with self._database.read() as connection:
            if connection.execute(query).first() is None:
                return None
        with self._database.write() as connection:
            row = connection.execute(query.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            own = columns.number == row.number
            values = {"attempts": row.attempts + 1, "next_us": now_us + lease_us}
            connection.execute(update(annotation_job).where(own).values(values))
            return Job(row.number, row.asked_us, row.attempts + 1)

    def done(self, job: Job) -> None:
        """Forget a job, unless it has changed since it was claimed."""
        with self._database.write() as connection:
            connection.execute(delete(annotation_job).where(_same(job)))

    def failed(self, job: Job, error: str, next_us: int) -> None:
        """Note a failed attempt, and when to make the next one."""
        self._note(job, {"error": error, "next_us": next_us})

    def refused(self, job: Job, error: str) -> None:
        """Note that a job cannot be stored as it is."""
        self._note(job, {"error": error, "state": "refused"})

    def rows(self) -> list[JobRow]:
        """All that wait or were refused, the oldest first."""
        columns = annotation_job.c
        with self._database.read() as connection:
            found = connection.execute(select(annotation_job).order_by(columns.asked_us, columns.number))
            return [JobRow._make(row) for row in found]

    def counts(self) -> dict[JobState, tuple[int, int]]:
        """Of each state in which there are any: how many, and when the oldest was reported."""
        columns = annotation_job.c
        query = select(columns.state, func.count(), func.min(columns.asked_us)).group_by(columns.state)
        with self._database.read() as connection:
            return {row[0]: (row[1], row[2]) for row in connection.execute(query)}

    def _note(self, job: Job, values: dict[str, object]) -> None:
        with self._database.write() as connection:
            connection.execute(update(annotation_job).where(_same(job)).values(values))


def _same(job: Job) -> sqlalchemy.ColumnElement[bool]:
    """The job as it was claimed: neither reported again since, nor claimed by somebody else."""
    columns = annotation_job.c
    return and_(columns.number == job.number, columns.asked_us == job.asked_us, columns.attempts == job.attempt)
