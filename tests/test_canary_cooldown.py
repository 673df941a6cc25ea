"""A canary's rollback and somebody else's: within the cooldown it is asked for once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.canary import Asked, compare
from monitor.drift import Baselines
from monitor.evaluate import Evaluator
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from tests.embedded import HOUR_US, NOW_US, add_baseline, encode, feed, settings_of
from tests.made_canary import both, labels
from tests.test_canary import GOOD, WATCH, WORSE, requests


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, canary=WATCH)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=lambda: NOW_US) as opened:
        add_baseline(opened, "street")
        yield opened


def put(store: Store, settings: Settings, labelled: range, now_us: int) -> None:
    records = [*both(GOOD, WORSE), *labels(labelled)]
    feed(store, settings, [encode(record) for record in records], topic_id=f"log-{now_us}")
    evaluator = Evaluator(store, settings, wall_us=lambda: now_us)
    evaluator.finish()
    evaluator.close()


def test_what_an_alert_asked_for_the_canary_asks_for_only_after_the_cooldown(store: Store, settings: Settings) -> None:
    with store.transaction() as tx:
        message = OutboxMessage("alert-1", "segwatch.actions", None, b'{"type": "test"}')
        assert tx.request(message, "street", "2", once=("rollback", settings.actions.cooldown_us)) is None
    put(store, settings, range(280), NOW_US + HOUR_US)
    assert requests(store) == []
    [stored] = store.canaries.verdicts()
    assert stored.requested_at_us is None
    assert compare(store, settings, Asked("street", "1", "2"), Baselines(store))["request"] is None
    put(store, settings, range(280, 300), NOW_US + 24 * HOUR_US)
    assert len(requests(store)) == 1
    [stored] = store.canaries.verdicts()
    assert stored.requested_at_us == NOW_US + 24 * HOUR_US
    last = store.actions.requested("rollback", "street", "2")
    assert last is not None and (last.at_us, last.id) == (stored.requested_at_us, requests(store)[0]["id"])


def test_what_was_held_back_is_asked_for_after_the_cooldown_without_another_label(
    store: Store, settings: Settings
) -> None:
    with store.transaction() as tx:
        message = OutboxMessage("alert-1", "segwatch.actions", None, b'{"type": "test"}')
        assert tx.request(message, "street", "2", once=("rollback", settings.actions.cooldown_us)) is None
    feed(store, settings, [encode(record) for record in [*both(GOOD, WORSE), *labels(range(280))]])
    now = [NOW_US + HOUR_US]
    evaluator = Evaluator(store, settings, wall_us=lambda: now[0])
    evaluator.finish()
    assert requests(store) == []
    now[0] += settings.actions.cooldown_us
    evaluator.finish()
    evaluator.close()
    assert len(requests(store)) == 1
