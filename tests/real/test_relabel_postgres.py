"""The relabel queue on a real PostgreSQL: what ``tests/test_relabel.py`` says, with every claimer on connections of its
own, and claimers that die."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from monitor.settings import Settings, StoreSettings
from monitor.store.leader import Leader
from monitor.store.store import Store
from tests import test_relabel, test_relabel_backlog
from tests.real.postgres import Postgres
from tests.test_relabel import LEASE_US, inputs, label, put, states, wanted
from tests.test_store import Clock

TestBacklog = test_relabel_backlog.TestBacklog
TestQueue = test_relabel.TestQueue
TestClaims = test_relabel.TestClaims
TestMessages = test_relabel.TestMessages
TestAudit = test_relabel.TestAudit
TestRefusals = test_relabel.TestRefusals
TestLabels = test_relabel.TestLabels
TestByHand = test_relabel.TestByHand
TestAtOnce = test_relabel.TestAtOnce

DIE_HALF_WAY = """
import os, signal, sys
from monitor.settings import Settings, StoreSettings
from monitor.store import relabel_queue
from monitor.store.store import Store
store = Store.open(Settings(store=StoreSettings(url=sys.argv[1])), write=True)
when = sys.argv[2]
if when == "after":
    store.relabel.claim(3, "dead", 60_000_000)
else:
    update, calls = relabel_queue.update, []
    def last(*arguments):
        calls.append(1)
        if len(calls) == 2:  # between the lease of the first item and that of the second
            os.kill(os.getpid(), signal.SIGKILL)
        return update(*arguments)
    relabel_queue.update = last
    store.relabel.claim(3, "dead", 60_000_000)
    sys.exit("not killed")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def settings(postgres: Postgres) -> Settings:
    return Settings(store=StoreSettings(url=postgres.fresh_database()))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(settings: Settings, clock: Clock) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=clock) as opened:
        yield opened


@pytest.fixture
def second_store(settings: Settings, store: Store, clock: Clock) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=clock) as opened:
        yield opened


@pytest.fixture
def leader(store: Store) -> Iterator[Leader]:
    led = store.try_lead()
    assert led is not None
    with led:
        yield led


def killed(settings: Settings, when: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIE_HALF_WAY, settings.store.url, when], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_claimer_that_is_killed_within_its_claim_has_claimed_nothing(
    settings: Settings, store: Store, leader: Leader
) -> None:
    leader.queue_samples([wanted("a"), wanted("b")])
    killed(settings, "within")
    assert inputs(store.relabel.claim(5, "ann", LEASE_US)) == ["a", "b"]


def test_what_a_dead_claimer_had_comes_back_when_its_lease_ends(
    settings: Settings, store: Store, leader: Leader, clock: Clock
) -> None:
    leader.queue_samples([wanted(name) for name in "abcd"])
    clock.now_us = 0
    killed(settings, "after")  # by the wall clock, so its lease stands for this store's
    assert inputs(store.relabel.claim(5, "ann", LEASE_US)) == ["d"]
    clock.now_us = 2**60
    assert inputs(store.relabel.claim(5, "ann", LEASE_US)) == ["a", "b", "c", "d"]


def test_a_claimer_passes_over_what_an_arriving_label_is_completing(
    store: Store, second_store: Store, leader: Leader
) -> None:
    leader.queue_samples([wanted("a", rank=0), wanted("b", rank=1)])
    inserted, go_on = threading.Event(), threading.Event()

    def arrive() -> None:
        with second_store.transaction() as tx:
            tx.insert_labels([label("a")])
            inserted.set()
            assert go_on.wait(30)

    thread = threading.Thread(target=arrive)
    thread.start()
    assert inserted.wait(30)
    assert inputs(store.relabel.claim(2, "ann", LEASE_US)) == ["b"]
    go_on.set()
    thread.join(30)
    assert states(store) == {("a", "drift: 02:00"): "done", ("b", "drift: 02:00"): "claimed"}


def test_two_labels_of_the_same_inputs_in_other_orders_do_not_wait_in_a_circle(
    store: Store, second_store: Store, leader: Leader
) -> None:
    names = [f"s{i:03d}" for i in range(40)]
    leader.queue_samples([wanted(name, f"cause {i}") for name in names for i in range(3)])
    failures: list[BaseException] = []

    def write(own: Store, annotator: str, order: list[str]) -> None:
        try:
            put(own, *(label(name, annotator) for name in order))
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=(store, "x", names)),
        threading.Thread(target=write, args=(second_store, "y", names[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert set(states(store).values()) == {"done"}
