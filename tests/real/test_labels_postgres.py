"""Labels on a real PostgreSQL: what ``tests/test_joining.py`` and ``tests/test_quality.py`` say of a late, a corrected
and a repeated label, and workers that write labels of the same inputs at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import LABELS
from tests import test_joining, test_quality
from tests.embedded import encode, feed, open_store, settings_of
from tests.made_labels import after, label, seen, square
from tests.real.postgres import Postgres
from tests.test_joining import EVENT_US, finish, judged, sums

TestOrder = test_joining.TestOrder
TestVersions = test_joining.TestVersions
TestBadLabels = test_joining.TestBadLabels
TestWindows = test_quality.TestWindows


@pytest.fixture
def settings(tmp_path: Path, postgres: Postgres) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, store={"url": postgres.fresh_database()})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def test_workers_that_write_versions_of_the_same_labels_at_once_end_as_one(store: Store, settings: Settings) -> None:
    inputs, workers = 40, 4
    feed(store, settings, [encode(seen(i, EVENT_US, ("car", 0.9, square(10)))) for i in range(inputs)])

    def write(worker: int) -> None:
        # Every worker has each input in another version and another order.
        order = range(inputs) if worker % 2 else range(inputs - 1, -1, -1)
        mine = [
            label(i, after(EVENT_US, worker), ("car", square(10 + worker)), annotation_version=worker) for i in order
        ]
        with Store.open(settings, write=True) as own:
            feed(own, settings, [encode(one) for one in mine], topic_id=f"worker-{worker}")

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    finish(store, settings)
    # Version 3 is three pixels off, whoever came first.
    assert [sums(one) for one in judged(store)] == [{"car": (70, 130)}] * inputs
    outcomes: Counter[str] = Counter()
    for key, count in store.read_tallies().items():
        if key.series == LABELS:
            outcomes[key.label] += count
    assert outcomes["accepted"] == inputs
    assert outcomes.total() == inputs * workers
