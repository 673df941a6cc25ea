"""Labels on a real PostgreSQL: what ``tests/test_joining.py`` and ``tests/test_quality.py`` say of a late, a corrected
and a repeated label, and workers that write labels of the same inputs at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy

from monitor import label_spool
from monitor.label_import import import_labels
from monitor.records import Limits
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import LABELS
from tests import test_joining, test_quality
from tests.embedded import encode, feed, open_store, settings_of
from tests.made_labels import after, label, seen, square
from tests.real.postgres import Postgres
from tests.test_joining import EVENT_US, finish, judged, sums

TestOrder = test_joining.TestOrder
TestTooLate = test_joining.TestTooLate
TestOnceEach = test_joining.TestOnceEach
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


def test_large_imports_and_workers_that_write_the_same_labels_never_wait_in_a_circle(
    store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, importers, workers = 240, 2, 2
    monkeypatch.setattr(label_spool, "AT_ONCE", 40)
    everything = np.random.default_rng(0).permutation(inputs).tolist()
    record = [label(i, after(EVENT_US), ("car", square(10))) for i in range(inputs)]
    # Some are there already: those are locked, the others inserted.
    feed(store, settings, [encode(record[i]) for i in range(0, inputs, 3)], topic_id="before")
    limits, failed = Limits.from_settings(settings), []

    def run(number: int, work: Callable[[Store, int], None]) -> None:
        try:
            with Store.open(settings, write=True) as own:
                for turn in range(2):
                    work(own, 10 * (turn + 1) + number)
        except Exception as error:
            failed.append(error)

    def bring_in(own: Store, version: int) -> None:
        order = everything if version % 2 else everything[::-1]
        lines = [encode({**record[i], "annotation_version": version}) for i in order]
        outcomes = import_labels(own, tmp_path / "export.jsonl", lines, limits, "street")
        assert outcomes.total() == inputs

    def ingest(own: Store, version: int) -> None:
        for start in range(0, inputs, 80):
            some = everything[start : start + 80]
            lines = [encode({**record[i], "annotation_version": version}) for i in some]
            feed(own, settings, lines, topic_id=f"worker-{version}-{start}")

    jobs = [(number, bring_in) for number in range(importers)] + [(5 + number, ingest) for number in range(workers)]
    threads = [threading.Thread(target=run, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert failed == []
    names = [f"input-{i:06d}" for i in range(inputs)]
    assert {row.annotation_version for rows in store.labels_of(names).values() for row in rows} == {26}
    with store._database.engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_stat_force_next_flush()"))
        found = connection.execute(
            sqlalchemy.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )
        assert found.scalar_one() == 0
