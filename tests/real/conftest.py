"""Session-wide servers: each starts when the first test asks for it and stops at the end."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from tests.real.kafka_server import KafkaServer
from tests.real.postgres import Postgres

# Kafka's client drops the sockets of failed attempts without closing them, and Python says so when it finds them.


def pytest_configure(config: pytest.Config) -> None:
    """Found during a later test: no fault of that test."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


def pytest_sessionfinish() -> None:
    """Found after the last test: what logs and tracebacks held until then goes here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(5):  # what one round frees may hold more
            gc.collect()


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """The broker that tests share: give each test its own topics (``fresh_topic``) and group. Never kill this one."""
    with KafkaServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server that tests share: take a ``fresh_database`` each. Never kill this one."""
    with Postgres.start() as server:
        yield server
