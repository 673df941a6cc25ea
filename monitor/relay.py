"""The outbox's relay: takes messages that transactions left behind, delivers them, and marks them sent.

At least once with the same id; a crash between delivery and marking sends it again. Any role may run it:
claimed messages are locked, so no two relays send the same one at the same time.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from monitor.errors import StoreError
from monitor.sinks.protocol import Sink, SinkError
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from monitor.tallies import OUTBOX_FAILURES, TallyKey

log = logging.getLogger(__name__)

BATCH = 100
POLL_S, RETRY_S = 0.5, 5.0


def relay_once(store: Store, sink: Sink) -> int:
    """Deliver one batch; returns how many were delivered. A batch that fails is counted by topic, and tried again.

    Raises SinkError.
    """
    claimed: Sequence[OutboxMessage] = ()
    try:
        with store.claim_outbox(BATCH) as messages:
            claimed = messages
            for message in messages:
                sink.add(message)
            if messages:
                sink.flush()
    except SinkError:
        _count(store, Counter(message.topic for message in claimed))
        raise
    return len(claimed)


def _count(store: Store, failed: Counter[str]) -> None:
    with store.transaction() as tx:
        tx.add_tallies({TallyKey(OUTBOX_FAILURES, "", "", topic, 0): count for topic, count in failed.items()})


def relay(store: Store, make_sink: Callable[[], Sink], stop: threading.Event) -> None:
    """Deliver until ``stop`` is set; a receiver that is away is tried again, one log line an outage."""
    sink: Sink | None = None
    failing = False
    try:
        while not stop.is_set():
            try:
                if sink is None:
                    sink = make_sink()
                delivered = relay_once(store, sink)
                failing = False
                if not delivered:
                    stop.wait(POLL_S)
            except (SinkError, StoreError) as error:
                if isinstance(error, StoreError) and not error.retriable:
                    raise
                if not failing:
                    log.warning("outbox: %s; messages wait in the store", error)
                failing = True
                if sink is not None:
                    sink.close()
                    sink = None
                stop.wait(RETRY_S)
    finally:
        if sink is not None:
            sink.close()
