"""The outbox's relay: what a transaction left behind is delivered, at least once, with the same id."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.dead_letters import dead_letter
from monitor.errors import BadRecord, StoreError
from monitor.relay import BATCH, relay, relay_once
from monitor.settings import Settings
from monitor.sinks.files import FileSink
from monitor.sinks.memory import MemorySink
from monitor.sinks.protocol import SinkError
from monitor.sources.protocol import RawRecord
from monitor.store.database import DatabaseError
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from tests.embedded import eventually, partition, settings_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, write=True) as opened:
        yield opened


def queue(store: Store, *names: str, keep_sent: bool = True) -> None:
    with store.transaction() as tx:
        tx.add_outbox([OutboxMessage(name, "segwatch.actions", None, b"{}", keep_sent=keep_sent) for name in names])


class Faulty(MemorySink):
    """Fails ``times`` times in ``flush``; counts how often it was made and closed."""

    times = 0
    made = 0
    closed = 0
    everything: list[OutboxMessage]

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1

    def flush(self) -> None:
        if type(self).times:
            type(self).times -= 1
            raise SinkError("the receiver is away")
        super().flush()
        type(self).everything += self.delivered
        self.delivered = []

    def close(self) -> None:
        type(self).closed += 1
        super().close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    monkeypatch.setattr("monitor.relay.POLL_S", 0.01)
    monkeypatch.setattr("monitor.relay.RETRY_S", 0.01)
    return type("Own", (Faulty,), {"everything": []})


class TestOnce:
    def test_everything_is_delivered_once_and_in_batches(self, store: Store) -> None:
        names = [f"id-{number:03d}" for number in range(2 * BATCH + 5)]
        queue(store, *names)
        sink = MemorySink()
        assert [relay_once(store, sink) for _ in range(4)] == [BATCH, BATCH, 5, 0]
        assert sorted(message.id for message in sink.delivered) == names
        assert store.outbox_pending() == 0

    def test_what_could_not_be_delivered_waits(self, store: Store, faulty: type[Faulty]) -> None:
        queue(store, "a", "b")
        faulty.times = 1
        with pytest.raises(SinkError):
            relay_once(store, faulty())
        assert store.outbox_pending() == 2
        assert relay_once(store, faulty()) == 2
        assert {message.id for message in faulty.everything} == {"a", "b"}

    def test_the_same_cause_is_not_delivered_again(self, store: Store) -> None:
        sink = MemorySink()
        for _ in range(3):
            queue(store, "a")
            relay_once(store, sink)
        assert [message.id for message in sink.delivered] == ["a"]

    def test_a_dead_letter_leaves_nothing_behind(self, store: Store) -> None:
        sink = MemorySink()
        for _ in range(2):
            queue(store, "a", keep_sent=False)
            relay_once(store, sink)
        assert len(sink.delivered) == 2  # offsets, not ids, keep dead letters from coming twice

    def test_two_relays_share_the_work(self, store: Store) -> None:
        queue(store, *(f"id-{number}" for number in range(5 * BATCH)))
        sinks = [MemorySink(), MemorySink()]

        def work(sink: MemorySink) -> None:
            while relay_once(store, sink):
                pass

        threads = [threading.Thread(target=work, args=(sink,)) for sink in sinks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        delivered = [message.id for sink in sinks for message in sink.delivered]
        assert len(delivered) == len(set(delivered)) == 5 * BATCH


class TestUntilToldToStop:
    def test_a_receiver_that_was_away_gets_everything_from_a_new_sink(self, store: Store, faulty: type[Faulty]) -> None:
        faulty.times = 3
        queue(store, "a", "b")
        stop = threading.Event()
        thread = threading.Thread(target=relay, args=(store, faulty, stop))
        thread.start()
        try:
            eventually("delivered", lambda: store.outbox_pending() == 0)
            queue(store, "c")
            eventually("delivered", lambda: len(faulty.everything) == 3)
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()
        assert sorted(message.id for message in faulty.everything) == ["a", "b", "c"]
        assert faulty.made == faulty.closed == 4

    def test_a_sink_that_cannot_be_made_is_tried_again(self, store: Store, faulty: type[Faulty]) -> None:
        attempts = 0

        def make() -> MemorySink:
            nonlocal attempts
            attempts += 1
            if attempts < 3:
                raise SinkError("no broker answers")
            return faulty()

        queue(store, "a")
        stop = threading.Event()
        thread = threading.Thread(target=relay, args=(store, make, stop))
        thread.start()
        try:
            eventually("delivered", lambda: store.outbox_pending() == 0)
        finally:
            stop.set()
            thread.join(20)
        assert attempts == 3

    @pytest.mark.parametrize("retriable", [True, False])
    def test_a_database_that_is_away_is_waited_for_and_one_that_refuses_ends_it(
        self, store: Store, faulty: type[Faulty], monkeypatch: pytest.MonkeyPatch, retriable: bool
    ) -> None:
        queue(store, "a")
        left = 2
        claim = Store.claim_outbox

        def away(self: Store, limit: int) -> object:
            nonlocal left
            if left:
                left -= 1
                raise DatabaseError("away", retriable=retriable)
            stop.set()
            return claim(self, limit)

        monkeypatch.setattr(Store, "claim_outbox", away)
        stop = threading.Event()
        if retriable:
            relay(store, faulty, stop)
            assert [message.id for message in faulty.everything] == ["a"]
        else:
            with pytest.raises(StoreError, match="away"):
                relay(store, faulty, stop)
            assert left == 1
        assert faulty.made == faulty.closed


class TestDeadLetters:
    RAW = RawRecord(partition(2), 7, b"value", b"key", [("own", b"1"), ("segwatch_reason", b"forged")], None)

    def test_the_same_record_always_has_the_same_id(self) -> None:
        first = dead_letter(self.RAW, BadRecord("not_json", "x"), "dead")
        second = dead_letter(self.RAW, BadRecord("not_json", "said otherwise"), "dead")
        other = RawRecord(partition(2), 8, b"value", b"key", [], None)
        assert first.id == second.id == str(uuid.UUID(first.id))
        assert dead_letter(other, BadRecord("not_json", "x"), "dead").id != first.id

    def test_a_detail_that_is_no_utf_8_or_too_long_does_not_stop_it(self) -> None:
        message = dead_letter(self.RAW, BadRecord("bad_text", "\ud800" + "x" * 5000), "dead")
        detail = dict(message.headers)["segwatch_detail"]
        assert len(detail) <= 1000
        detail.decode("utf-8")

    def test_in_a_file_it_is_one_line_with_reason_place_and_value(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        with store.transaction() as tx:
            tx.add_outbox([dead_letter(self.RAW, BadRecord("not_json", "x"), settings.kafka.dead_letter_topic)])
        sink = FileSink(tmp_path, settings.kafka)
        relay_once(store, sink)
        sink.close()
        [letter] = [json.loads(line) for line in (tmp_path / "dead-letter.jsonl").read_text().splitlines()]
        assert (letter["reason"], letter["partition"], letter["offset"]) == ("not_json", 2, 7)
        assert (letter["key"], letter["value"], letter["headers"]) == ("key", "value", [["own", "1"]])
