"""Delivers actions to receivers over HTTP, each in a thread of its own: one that is down delays nobody else.

At least once with the same id: a crash between the delivery and the note of it delivers again once the claim's lease is
over, which is renewed while a delivery goes on. What fails is tried again after 5 s, 10 s, 20 s and so on up to an
hour, a part of it by chance, so that many that failed together do not come back together.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from alerts.actions import model_of
from monitor.errors import SegwatchError, StoreError
from monitor.receivers.events import TAKES, cloud_event
from monitor.receivers.files import make_receiver
from monitor.receivers.protocol import Receiver, ReceiverError, ReceiverSettings
from monitor.store.deliveries import Claimed
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from monitor.windows import SECOND_US

log = logging.getLogger(__name__)

POLL_S, RETRY_S, NOTE_S = 1.0, 5.0, 60.0
FIRST_S, LONGEST_S = 5.0, 3600.0
LEASE_S, RENEW_S = 30.0, 10.0
"""Of a claim: two renewals may fail before somebody else may take it."""
LEASE_US = round(LEASE_S * SECOND_US)
REQUESTS = 16
"""Most requests that one delivery takes (MLflow's); a claim is held no longer than all of their timeouts."""


class Deliverer:
    """Delivers to one receiver. One thread."""

    def __init__(
        self,
        store: Store,
        settings: ReceiverSettings,
        topic: str,
        *,
        most_age_us: int | None = None,
        make: Callable[[ReceiverSettings], Receiver] = make_receiver,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._settings = settings
        self._topic = topic
        self._most_age_us = most_age_us
        self._chance = chance
        self._receiver = make(settings)
        self._renewals = math.ceil(REQUESTS * settings.timeout_seconds / RENEW_S)

    def once(self) -> Literal["delivered", "failed", "nothing"]:
        """Deliver the next action that is due."""
        self._store.deliveries.spread(self._settings.name, self._topic, self._wants)
        self._give_up_old()
        claimed = self._store.deliveries.claim(self._settings.name, LEASE_US)
        if claimed is None:
            return "nothing"
        try:
            with self._held(claimed):
                told = self._receiver.deliver(cloud_event(claimed.message))
        except SegwatchError as error:
            self._failed(claimed, str(error), error.after_s if isinstance(error, ReceiverError) else None)
        except Exception as error:
            # An answer that nobody foresaw must not end the service: the others still get theirs.
            log.exception("receiver %s", self._settings.name)
            self._failed(claimed, f"{type(error).__name__}: {error}", None)
        else:
            self._store.deliveries.delivered(claimed, told)
            log.info("receiver %s: %s: %s", self._settings.name, claimed.message.id, told)
            return "delivered"
        return "failed"

    def close(self) -> None:
        self._receiver.close()

    @contextmanager
    def _held(self, claimed: Claimed) -> Iterator[None]:
        """Renews the claim's lease during the block, in a thread that dies with this process."""
        done = threading.Event()
        thread = threading.Thread(target=self._renew, args=(claimed, done), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _renew(self, claimed: Claimed, done: threading.Event) -> None:
        for _ in range(self._renewals):
            if done.wait(RENEW_S):
                return
            try:
                if not self._store.deliveries.renew(claimed, LEASE_US):
                    return
            except StoreError as error:
                log.warning("receiver %s: the lease is not renewed: %s", self._settings.name, error)

    def _give_up_old(self) -> None:
        if self._most_age_us is None:
            return
        before_us = self._store.now_us() - self._most_age_us
        for identity in self._store.deliveries.give_up_old(self._settings.name, before_us):
            log.error("receiver %s: %s is given up: too old to be delivered", self._settings.name, identity)

    def _wants(self, message: OutboxMessage) -> bool:
        if message.value is None:
            return False
        event = cloud_event(message)
        model = model_of(event["data"])[0]
        taken = TAKES.get(str(event.get("type"))) in self._settings.actions
        return taken and (not self._settings.models or model in self._settings.models)

    def _failed(self, claimed: Claimed, error: str, after_s: float | None) -> None:
        if claimed.attempt >= self._settings.attempts:
            log.error(
                "receiver %s: %s is given up after %d attempts: %s",
                self._settings.name,
                claimed.message.id,
                claimed.attempt,
                error,
            )
            self._store.deliveries.failed(claimed, error, None)
            return
        wait_s = max(after_s or 0.0, backoff_s(claimed.attempt, self._chance()))
        log.warning(
            "receiver %s: %s, attempt %d: %s; again in %.0f s",
            self._settings.name,
            claimed.message.id,
            claimed.attempt,
            error,
            wait_s,
        )
        self._store.deliveries.failed(claimed, error, self._store.now_us() + round(wait_s * SECOND_US))


def backoff_s(attempt: int, chance: float) -> float:
    """How long to wait after the ``attempt``-th failure; ``chance`` in 0..1 gives between half of it and all.

    >>> [backoff_s(attempt, 1.0) for attempt in (1, 2, 3, 10, 11, 60)]
    [5.0, 10.0, 20.0, 2560.0, 3600.0, 3600.0]
    >>> backoff_s(1, 0.0)
    2.5
    """
    return min(FIRST_S * 2.0 ** min(attempt - 1, 20), LONGEST_S) * (0.5 + chance / 2)


def register(store: Store, receivers: Sequence[ReceiverSettings]) -> None:
    """Make receivers known to the store; says what those that come back do not get."""
    for name, skipped in store.deliveries.register([one.name for one in receivers]).items():
        log.warning("receiver %s is back: it gets what is asked from now on; %d waiting actions skipped", name, skipped)


def note_running(store: Store, receivers: Sequence[ReceiverSettings], stop: threading.Event) -> None:
    """Say every minute, until ``stop`` is set, which receivers this process has."""
    names = [one.name for one in receivers]
    while not stop.is_set():
        try:
            store.deliveries.note_running(names)
        except StoreError as error:
            if not error.retriable:
                raise
            log.warning("store: %s", error)
        stop.wait(NOTE_S)


def deliver(
    store: Store, settings: ReceiverSettings, topic: str, stop: threading.Event, most_age_us: int | None = None
) -> None:
    """Deliver to one receiver until ``stop`` is set; a database that is away is waited for."""
    deliverer = Deliverer(store, settings, topic, most_age_us=most_age_us)
    try:
        while not stop.is_set():
            try:
                if deliverer.once() != "delivered":
                    stop.wait(POLL_S)
            except StoreError as error:
                if not error.retriable:
                    raise
                log.warning("store: %s", error)
                stop.wait(RETRY_S)
    finally:
        deliverer.close()


def deliver_waiting(
    store: Store, receivers: Sequence[ReceiverSettings], topic: str, most_age_us: int | None = None
) -> None:
    """What waits, up to the first failure, for a command that ends; the rest is for ``segwatch run``."""
    for settings in receivers:
        deliverer = Deliverer(store, settings, topic, most_age_us=most_age_us)
        try:
            while deliverer.once() == "delivered":
                pass
        finally:
            deliverer.close()
