"""Purging on a real PostgreSQL: what ``tests/test_purge.py`` says, and workers that write while inputs are purged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.settings import Settings
from monitor.store.store import Store
from tests import test_purge
from tests.embedded import encode, feed, open_store, outcomes_of, records_in, settings_of
from tests.made_labels import after, label, seen, square
from tests.real.postgres import Postgres
from tests.test_purge import EVENT_US, everything, purge

TestPurge = test_purge.TestPurge


@pytest.fixture
def settings(tmp_path: Path, postgres: Postgres) -> Settings:
    return settings_of(
        tmp_path,
        windows={"lengths_seconds": [3600]},
        quality={"spot_checks_per_day": 100_000},
        store={"url": postgres.fresh_database()},
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings, ("street", "yard")) as opened:
        yield opened


def test_a_purge_among_writing_workers_misses_nothing_and_holds_nobody_up(store: Store, settings: Settings) -> None:
    records, workers, rounds = 40, 3, 6
    names = [f"input-{number:06d}" for number in range(records)]
    victims = names[::4]
    failures: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            with Store.open(settings, write=True) as own:
                for turn in range(rounds):
                    # All workers write the same inputs, each time under another version, and labels of them.
                    version = f"{worker}-{turn}"
                    model = {"name": "street", "version": version}
                    values = [seen(i, EVENT_US, ("car", 0.9, square(10)), model=model) for i in range(records)]
                    told = [label(i, after(EVENT_US), ("car", square(9)), annotator=version) for i in range(records)]
                    feed(own, settings, [encode(one) for one in values + told], topic_id=f"log-{version}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for name in victims:
        purge(store, settings, name)
    for thread in threads:
        thread.join(120)
    assert not failures and not any(thread.is_alive() for thread in threads)
    left = everything(store)
    assert [name for name in victims if name.encode() in left] == []
    assert all(name.encode() in left for name in names if name not in victims)
    # Whatever was counted before its purge is counted still; everything else of it is a duplicate.
    outcomes = outcomes_of(store)
    assert outcomes["ok"] + outcomes["duplicate"] == workers * rounds * records
    counted = sum(records_in(store, "street", f"{w}-{turn}") for w in range(workers) for turn in range(rounds))
    assert counted == outcomes["ok"] >= workers * rounds * (records - len(victims))
