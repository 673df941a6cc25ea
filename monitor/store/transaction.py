"""What an ingest worker does in one database transaction: all of it, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from monitor.store import actions, audit, labels, offsets, outbox, panes, relabel, samples, tallies
from monitor.store.actions import Cooling, Requested
from monitor.store.purges import Tombstones
from monitor.store.relabel import RelabelRow
from monitor.store.samples import Identity, SampleWriter
from monitor.store.values import Advance, LabelKey, LabelOutcome, LabelRow, OutboxMessage, PaneDelta, PaneKey, SampleRow
from monitor.tallies import TallyKey


class Transaction:
    """Offsets first, then identities of records, then those of labels, then what is only appended.

    In this order no two transactions can wait for each other in a circle: offsets, identities and, last, ids of
    messages are locked each in ascending order and each in one call; panes and tallies are only appended.
    """

    def __init__(self, connection: Connection, samples: SampleWriter, now_us: int) -> None:
        self._connection = connection
        self._samples = samples
        self._now_us = now_us
        self._advanced = False
        self._inserted = False
        self._tombstones: Tombstones | None = None
        self.purged: list[SampleRow] = []
        """Of the inserted samples those of purged inputs: they are no samples, and nothing of them is stored."""

    def advance(self, *steps: Advance) -> None:
        """Move the offsets of one or more partitions by compare-and-set.

        Raises PartitionLost when one is not where it was expected, ValueError when not called first or called twice.
        """
        if self._advanced or self._inserted:
            raise ValueError("advance comes first in a transaction, once, with all its partitions")
        self._advanced = True
        for step in sorted(steps, key=lambda step: step.partition):
            offsets.advance(self._connection, step, self._now_us)

    def insert_samples(self, rows: Sequence[SampleRow]) -> NDArray[np.bool_]:
        """Insert identities; (N,) True where one was new. A repeat is False: in the store, or earlier in ``rows``.

        Those of purged inputs are none either. Waits for other transactions that are inserting one of them. Raises
        ValueError when called twice.
        """
        if self._inserted:
            raise ValueError("insert_samples is called once in a transaction, with all its records")
        self._inserted = True
        gone = self._purged().of((row.model, row.input_id) for row in rows)
        if not gone:
            return self._samples.insert(self._connection, rows)
        is_new = np.array([(row.model, row.input_id) not in gone for row in rows], np.bool_)
        self.purged = [row for row, new in zip(rows, is_new, strict=True) if not new]
        others = [row for row, new in zip(rows, is_new, strict=True) if new]
        is_new[is_new] = self._samples.insert(self._connection, others)
        return is_new

    def known_samples(self, identities: Sequence[Identity]) -> NDArray[np.bool_]:
        """(N,) True where the identity is stored, this transaction's own included. Nothing is inserted or locked."""
        seen = samples.known(self._connection, identities)
        gone = self._purged().of((model, input_id) for model, _, input_id in identities)
        if gone:
            seen |= np.array([(model, input_id) in gone for model, _, input_id in identities], np.bool_)
        return seen

    def insert_labels(self, rows: Sequence[LabelRow]) -> list[LabelOutcome]:
        """Insert annotations, in the order of reading, and complete what waits for them; what became of each."""
        gone = self._purged().of((row.model, row.input_id) for row in rows) if rows else set()
        if gone:
            return self._insert_unpurged(rows, gone)
        outcomes = labels.insert(self._connection, rows)
        news = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome in ("accepted", "replaced")]
        relabel.answer(self._connection, news, self._now_us)
        return outcomes

    def insert_sorted_labels(self, portions: Callable[[], Iterable[Sequence[LabelRow]]]) -> Counter[str]:
        """Insert annotations in portions whose keys ascend; how many ended how.

        Gone through three times: first all new keys are locked, then all that were there, then what waits for them.
        That is the order of `insert_labels`, so that the two never wait for each other in a circle.
        """
        purged = self._purged()
        new: set[LabelKey] = set()
        outcomes: list[LabelOutcome] = []
        for rows in portions():
            new |= labels.insert_new(self._connection, purged.allowed(rows, _input_of))
        for rows in portions():
            gone = purged.of(map(_input_of, rows))
            left = [row for row in rows if _input_of(row) not in gone]
            told = iter(labels.replace_older(self._connection, left, new))
            outcomes += ["purged" if _input_of(row) in gone else next(told) for row in rows]
        news = iter(outcome in ("accepted", "replaced") for outcome in outcomes)
        for rows in portions():
            relabel.answer(self._connection, [row for row in rows if next(news)], self._now_us)
        return Counter(outcomes)

    def _insert_unpurged(self, rows: Sequence[LabelRow], gone: set[tuple[str, str]]) -> list[LabelOutcome]:
        outcomes = iter(self.insert_labels([row for row in rows if (row.model, row.input_id) not in gone]))
        return ["purged" if (row.model, row.input_id) in gone else next(outcomes) for row in rows]

    def _purged(self) -> Tombstones:
        if self._tombstones is None:
            self._tombstones = Tombstones(self._connection)
        return self._tombstones

    def add_panes(self, deltas: Mapping[PaneKey, PaneDelta]) -> None:
        """Add to panes."""
        panes.append(self._connection, deltas)

    def add_tallies(self, deltas: Mapping[TallyKey, int]) -> None:
        """Add to totals; adding 0 makes a series exist."""
        tallies.append(self._connection, deltas)

    def add_outbox(self, messages: Sequence[OutboxMessage]) -> None:
        """Queue messages for delivery; those whose id has been queued before are ignored."""
        outbox.queue(self._connection, messages, self._now_us)

    def request(
        self, message: OutboxMessage, model: str, version: str, *, once: tuple[Cooling, int] | None = None
    ) -> Requested | None:
        """Queue an action about a model's version; None where it is new.

        Else what stands in its way: itself (the same id), or a request that it comes too soon after. ``once``: what it
        asks for, and the cooldown of that.
        """
        scrubbed = message.value and self._purged().scrubbed(model, message.value)
        known = Requested(self._now_us, message.id)
        if actions.queued_at(self._connection, message.id) is not None:
            return known
        if once is not None:
            kind, cooldown_us = once
            earlier = actions.ask(self._connection, kind, model, version, message.id, self._now_us, cooldown_us)
            if earlier is not None:
                return earlier
        is_new = outbox.queue(self._connection, [replace(message, value=scrubbed)], self._now_us)
        return None if is_new else known

    def queue_samples(self, wanted: Sequence[RelabelRow]) -> list[RelabelRow]:
        """Queue samples to be labelled; returns those that were not queued for their cause before."""
        return relabel.add(self._connection, wanted)

    def audit(self, who: str, what: str, subject: str, detail: Mapping[str, object]) -> None:
        """Add a line to the audit log; see `monitor.audit.record`."""
        audit.append(self._connection, self._now_us, who, what, subject, detail)


def _input_of(row: LabelRow) -> tuple[str, str]:
    return row.model, row.input_id
