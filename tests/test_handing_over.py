"""What a command has asked for goes out at its end, unless a service that reads Kafka is to send it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.handing_over import handing_over
from monitor.offline import replay
from monitor.settings import Settings
from monitor.store.store import Store
from tests.embedded import NOW_US, embedders, encode, feed, open_store, settings_of
from tests.made_records import prediction
from tests.test_receivers import action, queue


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path / "data")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@pytest.fixture
def live(store: Store, settings: Settings) -> Store:
    """A store that a service has filled from Kafka; one of its messages is on its way there."""
    feed(store, settings, [encode(prediction(0, NOW_US))])
    queue(store, action())
    return store


def actions(settings: Settings) -> Path:
    return Path(settings.data_dir) / "actions.jsonl"


def test_messages_of_a_service_that_reads_kafka_go_into_no_file(live: Store, settings: Settings) -> None:
    said: list[str] = []
    with handing_over(live, settings, said.append):
        pass
    assert live.outbox_backlog().pending == 1 and not actions(settings).exists()
    assert said == [
        "warning: messages wait in the store for segwatch run (1): it is filled from Kafka, and"
        " kafka.bootstrap_servers is not set here"
    ]


def test_a_replay_leaves_them_to_the_service_too(
    live: Store, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "day.jsonl"
    file.write_bytes(encode(prediction(1, NOW_US)))
    with caplog.at_level(logging.WARNING):
        replay(settings, [file], store=live, embedders=embedders())
    assert live.outbox_backlog().pending == 1 and not actions(settings).exists()
    assert "messages wait in the store for segwatch run (1)" in caplog.text


def test_nothing_is_said_where_nothing_waits(store: Store, settings: Settings) -> None:
    feed(store, settings, [encode(prediction(0, NOW_US))])
    said: list[str] = []
    with handing_over(store, settings, said.append):
        pass
    assert not said


def test_without_such_a_service_they_go_into_a_file(store: Store, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "day.jsonl"
    file.write_bytes(encode(prediction(1, NOW_US)))
    queue(store, action())
    replay(settings, [file], store=store, embedders=embedders())
    assert store.outbox_backlog().pending == 0
    assert len(actions(settings).read_text().splitlines()) == 1
