"""Actions and their deliveries on a real PostgreSQL: what the fast tests say, and a process that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.settings import Settings
from monitor.store.actions import Requested
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from monitor.windows import SECOND_US
from tests import test_alert_actions, test_receivers, test_retraining
from tests.embedded import settings_of
from tests.made_receiver import MadeReceiver
from tests.real.postgres import Postgres
from tests.seeded_store import NOW_US, seed
from tests.test_receivers import ID, Clock, action, deliverer, made, queue, state
from tests.test_retraining import leading

__all__ = ["leading", "made"]

TestWebhooks = test_receivers.TestWebhooks
TestAgain = test_receivers.TestAgain
TestBack = test_receivers.TestBack
TestTooOld = test_receivers.TestTooOld
TestTheLeader = test_retraining.TestTheLeader

DIE_BEFORE_THE_NOTE = """
import os, signal, sys
from monitor.delivering import Deliverer
from monitor.receivers.files import load_receivers
from monitor.settings import Settings, StoreSettings
from monitor.store import deliveries
from monitor.store.store import Store
store = Store.open(Settings(store=StoreSettings(url=sys.argv[1])), write=True, clock=lambda: int(sys.argv[3]))
deliveries.Deliveries.delivered = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Deliverer(store, load_receivers(sys.argv[2])[0], "segwatch.actions").once()
"""


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.fresh_database()


@pytest.fixture
def settings(tmp_path: Path, url: str) -> Settings:
    rules = {"retrain_after_windows": 2, "retrain_min_labels": 3}
    return settings_of(tmp_path, actions=rules, store={"url": url})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(request: pytest.FixtureRequest, settings: Settings, clock: Clock) -> Iterator[Store]:
    if request.cls is not None and request.cls.__name__ == "TestTheLeader":
        clock.now_us = NOW_US
    with Store.open(settings, write=True, clock=clock) as opened:
        if request.cls is not None and request.cls.__name__ == "TestTheLeader":
            seed(opened)
        yield opened


def test_killed_between_delivery_and_note_it_is_delivered_again_under_the_same_id(
    store: Store, clock: Clock, url: str, tmp_path: Path, made: MadeReceiver
) -> None:
    one = deliverer(store, tmp_path, made.url)
    queue(store, action())
    command = [sys.executable, "-c", DIE_BEFORE_THE_NOTE, url, str(tmp_path / "trainer.yml"), str(clock.now_us)]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL
    assert len(made.got) == 1 and state(store)[0] == "waiting"
    assert one.once() == "nothing"  # the dead one's lease
    clock.now_us += 31 * SECOND_US
    assert one.once() == "delivered"
    assert [got.headers["webhook-id"] for got in made.got] == [ID, ID]
    assert made.got[0].body == made.got[1].body


@pytest.mark.parametrize("action", ["retrain", "rollback"])
def test_of_two_alerts_at_once_in_two_processes_one_asks(
    store: Store, settings: Settings, clock: Clock, action: str
) -> None:
    clock.now_us = NOW_US
    seed(store)
    with Store.open(settings, write=True, clock=clock) as other:
        test_alert_actions.together(store, other, settings, (action, "f1"), (action, "f2"), 1)


def test_the_same_alert_at_once_in_two_processes_is_one_request(store: Store, settings: Settings, clock: Clock) -> None:
    clock.now_us = NOW_US
    seed(store)
    with Store.open(settings, write=True, clock=clock) as other:
        test_alert_actions.together(store, other, settings, ("relabel", "f1"), ("relabel", "f1"), 1)


def test_a_request_within_anothers_transaction_waits_for_its_end(
    store: Store, settings: Settings, clock: Clock
) -> None:
    asked: list[object] = []
    with Store.open(settings, write=True, clock=clock) as other:

        def ask() -> None:
            with other.transaction() as tx:
                asked.append(tx.request(OutboxMessage("b", "t", None, b"{}"), "street", "3", once=("retrain", 10)))

        thread = threading.Thread(target=ask)
        with store.transaction() as tx:
            assert tx.request(OutboxMessage("a", "t", None, b"{}"), "street", "3", once=("retrain", 10)) is None
            thread.start()
            thread.join(1)
            assert thread.is_alive() and not asked
        thread.join(30)
    assert asked == [Requested(clock.now_us, "a")]


def test_actions_are_found_by_what_has_not_arrived(store: Store, clock: Clock) -> None:
    store.deliveries.register(["trainer"])
    queue(store, action("old", "rollback"), action("done", "rollback"))
    for _ in store.actions.queued("segwatch.actions"):
        store.deliveries.spread("trainer", "segwatch.actions", lambda message: message.id == "old")
    with store.claim_outbox(10) as claimed:
        assert len(claimed) == 2
    clock.now_us += 48 * 3600 * SECOND_US
    queue(store, action("new", "retrain"))
    young_us = clock.now_us - 24 * 3600 * SECOND_US
    assert [one.message.id for one in store.actions.unfinished(0, young_us)] == ["new", "old"]
    assert store.actions.one("segwatch.actions", "ol").message.id == "old"
