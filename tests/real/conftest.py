"""Session-wide servers: each starts when the first test asks for it and stops at the end."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from tests.real.kafka_server import KafkaServer
from tests.real.postgres import Postgres


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


@pytest.fixture
def away() -> Iterator[None]:
    """For tests in which a broker is away: Kafka's client drops the sockets of failed attempts without closing them.

    Python mentions each one when it collects it; this collects them here, before another test is blamed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
