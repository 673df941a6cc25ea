"""Canaries on a real PostgreSQL: the same verdict as on SQLite, and one request however many leaders there were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.settings import Settings
from monitor.store.canary import Seen
from monitor.store.store import Store
from tests import test_canary
from tests.embedded import open_store, settings_of
from tests.made_canary import both, labels
from tests.real.postgres import Postgres
from tests.test_canary import GOOD, WATCH, WORSE, put, requests, told

TestClasses = test_canary.TestClasses
TestManyInputs = test_canary.TestManyInputs
TestSplitTraffic = test_canary.TestSplitTraffic


@pytest.fixture
def settings(tmp_path: Path, postgres: Postgres) -> Settings:
    url = postgres.fresh_database()
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, canary=WATCH, store={"url": url})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def test_a_slice_is_counted_by_its_exact_name(store: Store, settings: Settings) -> None:
    put(store, settings, both(GOOD[:30], WORSE[:30]))
    counted = [
        store.canaries.count_shared(Seen("street", ("1", "2"), slice_key=f"{key}=1")) for key in ("camera", "Camera")
    ]
    assert counted == [10, 0]


def test_every_leader_that_comes_judges_again_and_one_request_leaves(store: Store, settings: Settings) -> None:
    put(store, settings, [*both(GOOD, WORSE), *labels(range(200))])
    first = told(store, settings)
    for part in range(4):
        with Store.open(settings, write=True) as own:
            put(own, settings, labels(range(200 + 25 * part, 225 + 25 * part)), f"part-{part}")
    (request,) = requests(store)
    assert (first["verdict"], told(store, settings)["verdict"]) == ("roll back", "roll back")
    assert request["evidence"]["pairs"] == first["pairs"] == 200
    assert [one.payload is not None for one in store.canaries.verdicts()] == [True]
