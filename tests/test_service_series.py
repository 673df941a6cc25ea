"""What the service says of itself on /metrics: leaders, outbox, devices, reload, refused requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from dashboards.pages import pages
from embeddings.backbones import backbone_spec
from embeddings.embedder import Embedder
from monitor.errors import SettingsError
from monitor.http_server import serve
from monitor.live_settings import LiveSettings
from monitor.relay import relay_once
from monitor.settings import Settings, load_settings
from monitor.sinks.memory import MemorySink
from monitor.sinks.protocol import SinkError
from monitor.snapshot import snapshot
from monitor.store import heartbeats
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from monitor.tallies import DEVICES, STATUSES
from monitor.web import create_app
from monitor.web_state import StoreState
from tests.embedded import HOUR_US, NOW_US, add_baseline, embedders, encode, feed, image_record, open_store, settings_of
from tests.made_records import prediction
from tests.test_metrics import Labels, page_of, samples

SECOND_US = 1_000_000


class Clock:
    """A wall that only a test moves."""

    def __init__(self) -> None:
        self.now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(settings_of(tmp_path), write=True, clock=clock) as opened:
        yield opened


def shown(store: Store, now_us: int, **more: object) -> dict[tuple[str, Labels], float]:
    return samples(page_of(snapshot(store, HOUR_US, now_us, 200, **more)))  # type: ignore[arg-type]


class TestLeaders:
    def test_a_store_that_nobody_leads_has_0_and_no_time(self, store: Store) -> None:
        found = shown(store, NOW_US)
        assert found["segwatch_leaders", ()] == 0
        assert ("segwatch_leader_timestamp_seconds", ()) not in found

    def test_a_leader_that_works_is_one_until_a_minute_after_its_last_work(self, store: Store, clock: Clock) -> None:
        leader = store.try_lead()
        assert leader is not None
        with leader:
            for _ in range(100):
                clock.now_us += SECOND_US
                leader.due(0)
        last_us = clock.now_us
        found = shown(store, last_us)
        assert found["segwatch_leaders", ()] == 1
        # At most every 5 s is written down.
        assert last_us / 1e6 - 5 < found["segwatch_leader_timestamp_seconds", ()] <= last_us / 1e6
        assert shown(store, last_us + 61 * SECOND_US)["segwatch_leaders", ()] == 0

    def test_a_beat_is_undone_with_the_work_that_failed(self, store: Store) -> None:
        leader = store.try_lead()
        assert leader is not None
        with leader, pytest.raises(AttributeError):
            leader.record_quality("street", [object()])  # type: ignore[list-item]
        assert store.heartbeats() == []

    def test_a_change_of_leader_shows_two_for_a_minute_and_two_that_stay_show_two(
        self, store: Store, clock: Clock
    ) -> None:
        for _ in range(2):
            leader = store.try_lead()
            assert leader is not None
            with leader:
                leader.due(0)
            clock.now_us += 10 * SECOND_US
        assert shown(store, clock.now_us)["segwatch_leaders", ()] == 2
        assert shown(store, NOW_US + 65 * SECOND_US)["segwatch_leaders", ()] == 1
        # A lock that does not hold: both go on.
        for _ in range(30):
            clock.now_us += 10 * SECOND_US
            for name in ("a/1/x", "b/1/y"):
                with store._database.write() as connection:
                    heartbeats.beat(connection, name, NOW_US, clock.now_us)
            assert shown(store, clock.now_us)["segwatch_leaders", ()] >= 2
        assert {one.holder for one in store.heartbeats()[:2]} == {"a/1/x", "b/1/y"}

    def test_beats_of_the_day_before_are_forgotten(self, store: Store, clock: Clock) -> None:
        for _ in range(3):
            leader = store.try_lead()
            assert leader is not None
            with leader:
                leader.due(0)
            clock.now_us += 20 * HOUR_US
        assert [one.beat_us for one in store.heartbeats()] == [NOW_US + 40 * HOUR_US, NOW_US + 20 * HOUR_US]


class Away(MemorySink):
    def flush(self) -> None:
        raise SinkError("the receiver is away")


class TestOutbox:
    def queue(self, store: Store, *names: str) -> None:
        with store.transaction() as tx:
            tx.add_outbox([OutboxMessage(name, name.split("-")[0], None, b"{}", keep_sent=True) for name in names])

    def test_what_waits_and_since_when(self, store: Store, clock: Clock) -> None:
        found = shown(store, NOW_US)
        assert found["segwatch_outbox_pending_messages", ()] == 0
        assert ("segwatch_outbox_oldest_message_timestamp_seconds", ()) not in found
        self.queue(store, "actions-1")
        clock.now_us += HOUR_US
        self.queue(store, "actions-2")
        found = shown(store, clock.now_us)
        assert found["segwatch_outbox_pending_messages", ()] == 2
        assert found["segwatch_outbox_oldest_message_timestamp_seconds", ()] == NOW_US / 1e6
        relay_once(store, MemorySink())
        assert shown(store, clock.now_us)["segwatch_outbox_pending_messages", ()] == 0

    def test_failures_are_counted_by_topic_and_exist_at_0(self, store: Store) -> None:
        name = "segwatch_outbox_delivery_failures_total"
        assert shown(store, NOW_US, topics=("actions",))[name, (("topic", "actions"),)] == 0
        self.queue(store, "actions-1", "actions-2", "dead-1")
        for _ in range(2):
            with pytest.raises(SinkError):
                relay_once(store, Away())
        found = shown(store, NOW_US, topics=("actions",))
        assert found[name, (("topic", "actions"),)] == 4
        assert found[name, (("topic", "dead"),)] == 2
        assert relay_once(store, MemorySink()) == 3


class TestTheWebProcess:
    def test_refused_requests_and_failed_reloads_are_on_its_page(self, tmp_path: Path) -> None:
        file = tmp_path / "segwatch.yaml"
        text = f"data_dir: {tmp_path}\nweb: {{token: secret, refresh_seconds: 0.1}}\n"
        file.write_text(text)
        settings, clock = load_settings(file, {}), Clock()
        live = LiveSettings(settings, lambda: load_settings(file, {}), wall_us=clock)
        with Store.open(settings, write=True) as store:
            state = StoreState(store, live, wall_us=clock)
            server = serve(create_app(state, "127.0.0.1", [pages(state)]), "127.0.0.1", 0)
            try:
                right = {"authorization": "Bearer secret"}
                with httpx.Client(base_url=server.address, trust_env=False, timeout=10) as client:
                    self.ask(client, right)
                    found = samples(state.metrics("openmetrics", False).decode())
                    assert {code: self.refused(found, code) for code in (401, 403, 421)} == {401: 2, 403: 1, 421: 1}
                    assert found["segwatch_settings_reload_success", ()] == 1
                    assert found["segwatch_settings_reload_timestamp_seconds", ()] == NOW_US / 1e6
                    clock.now_us += HOUR_US
                    file.write_text(text + "nonsense: 1\n")
                    with pytest.raises(SettingsError):
                        live.reload()
                    assert (live.failed, live.loaded_us) == (True, NOW_US)
                    file.write_text(text)
                    assert client.post("/-/reload", headers=right).status_code == 200
                    assert (live.failed, live.loaded_us) == (False, clock.now_us)
            finally:
                server.stop()

    def ask(self, client: httpx.Client, right: dict[str, str]) -> None:
        answers = [
            client.get("/metrics"),
            client.get("/", headers={"authorization": "Bearer wrong"}),
            client.post("/-/reload", headers={**right, "origin": "https://elsewhere.example"}),
            client.get("/", headers={**right, "host": "elsewhere.example"}),
            client.get("/-/ready"),
            client.get("/", headers=right),
        ]
        assert [answer.status_code for answer in answers] == [401, 401, 403, 421, 200, 200]

    def refused(self, found: dict[tuple[str, Labels], float], code: int) -> float:
        return found["segwatch_unauthorised_requests_total", (("code", str(code)),)]


class TestIngest:
    def test_each_status_is_counted_once_with_its_record(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        told = ["ok"] * 5 + ["oom"] * 3 + ["timeout"] * 2 + ["error"]
        records = [prediction(number, NOW_US - HOUR_US + number, status=status) for number, status in enumerate(told)]
        for record in records:
            if record["status"] != "ok":
                record.pop("instances", None)
        with open_store(settings) as store:
            feed(store, settings, [encode(record) for record in [*records, *records[:7]]])
            found = shown(store, NOW_US)
        version = (("model", "street"),)
        statuses = {
            status: found["segwatch_inference_status_total", (*version, ("status", status), ("version", "1"))]
            for status in STATUSES
        }
        assert statuses == dict(Counter(told))
        assert found["segwatch_records_total", (*version, ("outcome", "failed"), ("version", "1"))] == 6

    def test_batches_and_their_time_are_counted_once_by_device(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        assert embedders() is embedders()  # the one of all tests: what it did for others is not counted here
        with Store.open(settings, write=True) as store:
            add_baseline(store, "yard")
            records = [encode(image_record(number, NOW_US - HOUR_US + number)) for number in range(20)]
            feed(store, settings, records)
            first = shown(store, NOW_US)
            feed(store, settings, records, topic_id="again")
            second = shown(store, NOW_US)
        batches, took = "segwatch_embedding_batches_total", "segwatch_embedding_busy_seconds_total"
        used = {name for name in DEVICES if first[batches, (("device", name),)]}
        assert len(used) == 1
        (one,) = ((("device", name),) for name in used)
        size = settings.embedding.batch_size
        assert 20 / size <= first[batches, one] <= 20
        assert 0 < first[took, one] < 60
        assert first[batches, one] < second[batches, one] <= 2 * 20
        (other,) = ((("device", name),) for name in DEVICES if name not in used)
        assert first[batches, other] == first[took, other] == 0


def test_an_embedder_times_whole_batches_and_not_its_own_start() -> None:
    embedder = Embedder(backbone_spec("segmenter", input_size=64), "cpu", "float32", batch_size=4, threads=1)
    assert embedder.work() == {"cpu": (0, 0)}
    embedder.embed(np.zeros((9, 64, 64, 3), np.uint8))
    (batches, took_us), *_ = embedder.work().values()
    assert batches == 3
    assert took_us > 0


def test_settings_that_were_never_reloaded_were_read_at_the_start() -> None:
    live = LiveSettings(Settings(), Settings, wall_us=lambda: NOW_US)
    assert (live.failed, live.loaded_us) == (False, NOW_US)
