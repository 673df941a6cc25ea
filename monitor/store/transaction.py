"""What an ingest worker does in one database transaction: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from monitor.store import labels, offsets, outbox, panes, samples, tallies
from monitor.store.samples import Identity, SampleWriter
from monitor.store.values import Advance, LabelOutcome, LabelRow, OutboxMessage, PaneDelta, PaneKey, SampleRow
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

        Waits for other transactions that are inserting one of them. Raises ValueError when called twice.
        """
        if self._inserted:
            raise ValueError("insert_samples is called once in a transaction, with all its records")
        self._inserted = True
        return self._samples.insert(self._connection, rows)

    def known_samples(self, identities: Sequence[Identity]) -> NDArray[np.bool_]:
        """(N,) True where the identity is stored, this transaction's own included. Nothing is inserted or locked."""
        return samples.known(self._connection, identities)

    def insert_labels(self, rows: Sequence[LabelRow]) -> list[LabelOutcome]:
        """Insert annotations, in the order of reading; what became of each."""
        return labels.insert(self._connection, rows)

    def add_panes(self, deltas: Mapping[PaneKey, PaneDelta]) -> None:
        """Add to panes."""
        panes.append(self._connection, deltas)

    def add_tallies(self, deltas: Mapping[TallyKey, int]) -> None:
        """Add to totals; adding 0 makes a series exist."""
        tallies.append(self._connection, deltas)

    def add_outbox(self, messages: Sequence[OutboxMessage]) -> None:
        """Queue messages for delivery; those whose id has been queued before are ignored."""
        outbox.queue(self._connection, messages, self._now_us)
