"""A bounded queue between a service and segwatch, and the thread that empties it.

    service --publish--> queue --thread--> Sender --> Kafka, or whatever a function does
              never waits,       encodes, tries again
              never raises       until it arrives

What does not fit is dropped and counted: monitoring may lose records, a service may not lose requests.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from monitor.producer.kafka_sender import KafkaSender
from monitor.producer.sampler import Sampler
from monitor.producer.sending import CallSender, Message, Sender, encode

log = logging.getLogger("segwatch.producer")

PREDICTION_TYPE: Final = "segwatch.prediction.v1"
BATCH_RECORDS: Final = 100
BATCH_BYTES: Final = 4 * 1024 * 1024
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
AT_EXIT_S: Final = 2.0


class Producer:
    """Takes prediction records (dicts, see docs/records.md) and sends them in the background.

    Kafka by ``bootstrap_servers``, or anything by ``send``, which gets one Message at a time and raises Refused for
    what can never go, anything else for what shall be tried again. ``sampler``: of the records given to ``publish``
    only its sample is sent, with ``sampling_probability`` written into each (times the one that stands there already).
    ``queue_size`` and ``queue_bytes`` (about) bound what waits. The thread and the connection begin with the first
    record, so that a server which forks its workers may make a Producer before.

    A record belongs to the Producer from then on: change it no more. Bytes (images, maps) stay bytes until they are
    sent; ``type`` and ``event_time`` (now) are filled in where they are missing.

    Delivery is at least once; segwatch counts a repeat as a duplicate. Raises ValueError where neither or both of
    ``bootstrap_servers`` and ``send`` are given, and never again after that.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        send: Callable[[Message], object] | None = None,
        topic: str = "segwatch.predictions",
        sampler: Sampler | None = None,
        queue_size: int = 1000,
        queue_bytes: int = 64 * 1024 * 1024,
        max_record_bytes: int = 8 * 1024 * 1024,
        kafka_options: Mapping[str, Any] | None = None,
        say_every_s: float = 60.0,
    ) -> None:
        if (bootstrap_servers is None) == (send is None):
            raise ValueError("give either bootstrap_servers or send")
        self._sender: Sender = (
            CallSender(send)
            if send is not None
            else KafkaSender(bootstrap_servers or "", topic, max_record_bytes, kafka_options)
        )
        self._sampler = sampler
        self._size, self._bytes = queue_size, queue_bytes
        self._say_every_s = say_every_s
        self._begin()
        _producers.add(self)

    def _begin(self) -> None:
        """Everything that a fork leaves in a state that nobody knows."""
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[tuple[Mapping[str, Any], int]] = deque()
        self._waiting_bytes = 0
        self._on_the_way = 0
        self._sent = self._skipped = 0
        self._dropped: Counter[str] = Counter()
        self._said, self._said_at_s = 0, float("-inf")
        self._why: str | None = None
        self._thread: threading.Thread | None = None
        self._closing = self._over = False
        self._hurry = threading.Event()

    def wants(self, input_id: str) -> bool:
        """Whether ``publish`` would send a record of this input: ask before making one that is dear."""
        return self._sampler is None or self._sampler.takes(input_id)

    def publish(self, record: Mapping[str, Any]) -> bool:
        """Queue a record. False where it is not in the sample, or was dropped. Never waits, never raises."""
        try:
            return self._take(record)
        except Exception:
            with self._changed:
                self._dropped["bad"] += 1
            return False

    def _take(self, record: Mapping[str, Any]) -> bool:
        if self._sampler is not None:
            if not self._sampler.takes(record["input_id"]):
                with self._changed:
                    self._skipped += 1
                return False
            probability = self._sampler.probability * record.get("sampling_probability", 1.0)
            record = {**record, "sampling_probability": probability}
        if "event_time" not in record or "type" not in record:
            record = {"type": PREDICTION_TYPE, "event_time": datetime.now(UTC), **record}
        size = _size_of(record)
        with self._changed:
            full = len(self._queue) + self._on_the_way >= self._size or self._waiting_bytes + size > self._bytes
            if self._closing or full:
                self._dropped["closed" if self._closing else "queue_full"] += 1
                return False
            self._queue.append((record, size))
            self._waiting_bytes += size
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="segwatch-producer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return True

    @property
    def sent(self) -> int:
        """Records that arrived."""
        return self._sent

    @property
    def queued(self) -> int:
        """Records that wait, or are on their way."""
        return len(self._queue) + self._on_the_way

    @property
    def skipped(self) -> int:
        """Records that are not in the sample."""
        return self._skipped

    @property
    def dropped(self) -> int:
        """Records that were given up, for whatever reason."""
        return sum(self.dropped_by_reason.values())

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """``queue_full``, ``closed``, ``refused`` (too large, or by who sends), ``bad`` (cannot be encoded)."""
        return dict(self._dropped)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that waits now and later is sent; whether that came about within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.queued == 0, timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Take nothing more, send what waits within the time, drop the rest; whether all went."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        done = self.flush(timeout_s)
        self._hurry.set()
        self._sender.close(max(0.0, min(1.0, until_s - time.monotonic())))
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.1, until_s - time.monotonic()))
        with self._changed:
            self._over = True
            if self.queued:
                self._dropped["closed"] += self.queued
                self._queue.clear()
                self._on_the_way = self._waiting_bytes = 0
        self._say(at_once=True)
        return done

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            batch, size = self._next()
            if not batch:
                return
            try:
                self._deliver(self._encoded(batch))
            except Exception as error:  # a bug here must not end the thread with records waiting
                self._why = f"{type(error).__name__}: {error}"
                with self._changed:
                    self._dropped["bad"] += self._on_the_way
            with self._changed:
                self._on_the_way = 0
                self._waiting_bytes = max(0, self._waiting_bytes - size)
                self._changed.notify_all()
            self._say()

    def _next(self) -> tuple[list[Mapping[str, Any]], int]:
        """The next batch, and about how many bytes it has; empty when it is over."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return [], 0
                self._changed.wait()
            batch: list[Mapping[str, Any]] = []
            size = 0
            while self._queue and len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
                record, bytes_ = self._queue.popleft()
                batch.append(record)
                size += bytes_
            self._on_the_way = len(batch)
            return batch, size

    def _encoded(self, batch: Sequence[Mapping[str, Any]]) -> list[Message]:
        messages = []
        for record in batch:
            try:
                messages.append(encode(record))
            except Exception as error:
                self._why = f"{type(error).__name__}: {error}"
                with self._changed:
                    self._dropped["bad"] += 1
                    self._on_the_way -= 1
        return messages

    def _deliver(self, messages: Sequence[Message]) -> None:
        """Until all arrived, or time is up."""
        pause_s = FIRST_PAUSE_S
        while messages:
            delivery = self._sender.deliver(messages)
            with self._changed:
                if self._over:
                    return  # counted as dropped already: nobody waited for this answer
                self._sent += delivery.sent
                self._on_the_way = len(delivery.left)
                if delivery.refused:
                    self._dropped["refused"] += delivery.refused
            self._why = delivery.why
            messages = delivery.left
            if not messages:
                return
            pause_s = FIRST_PAUSE_S if delivery.sent else min(2 * pause_s, LONGEST_PAUSE_S)
            self._say()
            if self._hurry.wait(pause_s):
                with self._changed:
                    if not self._over:
                        self._dropped["closed"] += len(messages)
                        self._on_the_way = 0
                return

    def _say(self, at_once: bool = False) -> None:
        """One line about what was dropped since the last one, every so often; by the thread, for writing may wait."""
        dropped, now_s = self.dropped, time.monotonic()
        if dropped > self._said and (at_once or now_s - self._said_at_s >= self._say_every_s):
            log.warning(
                "%d records dropped since the last word of it, %d in all (%s); %d wait%s",
                dropped - self._said,
                dropped,
                ", ".join(f"{reason} {count}" for reason, count in self.dropped_by_reason.items()),
                self.queued,
                f"; last error: {' '.join(self._why.split())[:200]}" if self._why else "",
            )
            self._said, self._said_at_s = dropped, now_s

    def after_fork(self) -> None:
        """In the child: what waits is the parent's to send; the child begins with nothing."""
        self._sender.forget()
        self._begin()


_producers: weakref.WeakSet[Producer] = weakref.WeakSet()


def _size_of(record: Mapping[str, Any]) -> int:
    """About how much memory a record holds: what is large in it are bytes, and lists of instances."""
    size = 1000
    for part in (record.get("image"), record.get("semantic")):
        if isinstance(part, Mapping):
            size += sum(len(value) for value in part.values() if isinstance(value, (bytes, bytearray, str)))
    instances = record.get("instances")
    if isinstance(instances, Sequence):
        for instance in instances:
            mask = instance.get("mask") if isinstance(instance, Mapping) else None
            counts = mask.get("counts") if isinstance(mask, Mapping) else mask
            size += 300 + (8 * len(counts) if isinstance(counts, (str, bytes, list)) else 0)
    return size


def _after_fork() -> None:
    for producer in list(_producers):
        producer.after_fork()


def _at_exit() -> None:
    for producer in list(_producers):
        if producer.queued:
            producer.close(AT_EXIT_S)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
