"""A canary that wins is promoted by request: once, with its evidence, and never after its rollback was requested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from monitor.canary import Asked, compare
from monitor.drift import Baselines
from monitor.evaluate import Evaluator
from monitor.schemas import read_schema
from monitor.settings import Settings
from monitor.store.canary import StoredCanary
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from tests.embedded import NOW_US, encode, feed, open_store, settings_of
from tests.made_canary import WIDTH, both, labels, offsets
from tests.made_labels import square

BETTER, OLD = offsets(400, 1.0, 1), offsets(400, 3.0, 2)
LABELLED = 200


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, canary={"watch": ["street:1:2"]})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def put(store: Store, settings: Settings, records: list[dict[str, Any]], topic: str = "log") -> None:
    feed(store, settings, [encode(record) for record in records], topic_id=topic)
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()


def requests(store: Store, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(one.message.value or b"") for one in store.actions.queued("segwatch.actions")]
    return [one for one in found if one["type"] == f"segwatch.{kind}_requested.v1"]


def test_the_leader_requests_a_promotion_once_with_its_evidence(store: Store, settings: Settings) -> None:
    put(store, settings, [*both(OLD, BETTER), *labels(range(LABELLED))])
    [request] = requests(store, "promote")
    jsonschema.validate(request, read_schema("segwatch.promote_requested.v1"))
    assert (request["model"], request["stable"]) == ({"name": "street", "version": "2"}, "1")
    evidence = request["evidence"]
    assert evidence["sequential"]["mean_iou"] >= evidence["thresholds"]["sequential"]
    assert evidence["pairs"] == request["request"]["pairs"] == LABELLED
    assert evidence["classes"] == []
    assert request["request"]["seconds_from_first_pair"] == pytest.approx(24 * 3600)
    put(store, settings, labels(range(LABELLED, 400)), "later")
    assert [one["id"] for one in requests(store, "promote")] == [request["id"]]
    shown = compare(store, settings, Asked("street", "1", "2"), Baselines(store))
    assert shown["promotion"] == request["request"]  # the first request's, however many labels came later
    assert shown["request"] is None


def test_too_few_pairs_promote_nothing(store: Store, settings: Settings) -> None:
    put(store, settings, [*both(OLD, BETTER), *labels(range(20))])
    assert requests(store, "promote") == []


def test_one_whose_rollback_was_requested_is_not_promoted_by_later_labels(store: Store, settings: Settings) -> None:
    put(store, settings, [*both(BETTER, OLD), *labels(range(LABELLED))])
    assert len(requests(store, "rollback")) == 1
    # The annotator corrects himself: the canary had been right all along, and was asked to be taken back.
    corrected = [{**one, "annotation_version": 2} for one in labels(range(LABELLED))]
    for one, off in zip(corrected, OLD, strict=False):
        one["instances"] = [{"class": "car", "mask": square(off, WIDTH)}]
    put(store, settings, corrected, "later")
    shown = compare(store, settings, Asked("street", "1", "2"), Baselines(store))
    assert shown["verdict"] == "promote"
    assert requests(store, "promote") == []


def test_one_whose_rollback_an_alert_requested_is_not_promoted_either(store: Store, settings: Settings) -> None:
    with store.transaction() as tx:
        message = OutboxMessage("alert-1", "segwatch.actions", None, b'{"type": "test"}')
        assert tx.request(message, "street", "2", once=("rollback", 0)) is None
    put(store, settings, [*both(OLD, BETTER), *labels(range(LABELLED))])
    assert compare(store, settings, Asked("street", "1", "2"), Baselines(store))["verdict"] == "promote"
    assert requests(store, "promote") == []


def test_a_rollback_that_is_requested_meanwhile_keeps_the_promotion_back(store: Store, settings: Settings) -> None:
    message = OutboxMessage("promote-1", "segwatch.actions", None, b'{"type": "test"}')
    with store.transaction() as tx:
        rollback = OutboxMessage("alert-1", "segwatch.actions", None, b'{"type": "test"}')
        assert tx.request(rollback, "street", "2", once=("rollback", 0)) is None
    leader = store.try_lead()
    assert leader is not None
    with leader:
        assert not leader.record_canary(StoredCanary("street", "1", "2", NOW_US, None, b"{}"), [message])
    assert store.canaries.verdicts() == [] and store.outbox_pending() == 1
