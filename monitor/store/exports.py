"""What annotation tools are given: the masks that are kept of samples, and the labels that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sqlalchemy
from sqlalchemy import select

from monitor.store.bulk import portions
from monitor.store.database import Database
from monitor.store.tables import label, relabel, sample, spot_check
from monitor.store.values import LabelRow

AT_ONCE = 100
"""Masks of so many records are in memory together."""


class KeptSample(NamedTuple):
    """A record whose masks are kept. ``masks`` is for `monitor.kept_masks.kept`."""

    input_id: str
    model: str
    version: str
    event_time_us: int
    masks: bytes


class Exports:
    """Reads of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, inputs: Sequence[str]) -> set[str]:
        """Of these inputs those that some model has seen, or that were asked for."""
        found: set[str] = set()
        with self._database.read() as connection:
            for some in portions(inputs, AT_ONCE):
                for table in (sample, relabel, spot_check):
                    found.update(
                        connection.execute(select(table.c.input_id).where(table.c.input_id.in_(some))).scalars()
                    )
        return found

    def kept(self, identities: Sequence[tuple[str, str, str]]) -> Iterator[KeptSample]:
        """Of these (input, model, version) those whose masks are kept, portion by portion."""
        key = sqlalchemy.tuple_(sample.c.input_id, sample.c.model, sample.c.version)
        columns = [sample.c[name] for name in KeptSample._fields]
        for some in portions(identities, AT_ONCE):
            query = select(*columns).where(key.in_(some), sample.c.masks.is_not(None))
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            yield from (KeptSample._make(row) for row in rows)

    def versions_of(self, inputs: Sequence[str], model: str) -> dict[str, str]:
        """The version of a model that saw each input last, of those with masks."""
        found: dict[str, str] = {}
        with self._database.read() as connection:
            for some in portions(inputs, AT_ONCE):
                query = (
                    select(sample.c.input_id, sample.c.version)
                    .where(sample.c.input_id.in_(some), sample.c.model == model)
                    .where(sample.c.masks.is_not(None))
                    .order_by(sample.c.event_time_us, sample.c.version)
                )
                found.update((row.input_id, row.version) for row in connection.execute(query))
        return found

    def labels(self, *, since_us: int | None = None, until_us: int | None = None) -> Iterator[LabelRow]:
        """All labels made in [since_us, until_us), in the order of their keys, portion by portion."""
        key = sqlalchemy.tuple_(*(label.c[name] for name in ("input_id", "annotator", "model", "version")))
        query = select(*(label.c[name] for name in LabelRow._fields))
        if since_us is not None:
            query = query.where(label.c.label_time_us >= since_us)
        if until_us is not None:
            query = query.where(label.c.label_time_us < until_us)
        query = query.order_by(label.c.input_id, label.c.annotator, label.c.model, label.c.version).limit(AT_ONCE)
        last: tuple[str, str, str, str] | None = None
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query if last is None else query.where(key > last)).all()
            yield from (LabelRow._make(row) for row in rows)
            if len(rows) < AT_ONCE:
                return
            last = (rows[-1].input_id, rows[-1].annotator, rows[-1].model, rows[-1].version)
