"""Kafka's settings: each mistake is named before anything is connected."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import FencedInstanceIdError, InconsistentGroupProtocolError, InvalidSessionTimeoutError, KafkaError

from monitor.errors import SettingsError
from monitor.kafka_client import (
    Outage,
    connection_config,
    consumer_config,
    missing_packages,
    producer_config,
    raise_if_hopeless,
    reason,
)
from monitor.settings import KafkaSettings

SASL = {"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": "hush", "sasl_mechanism": "PLAIN"}


def settings(**values: Any) -> KafkaSettings:
    return KafkaSettings(**{"bootstrap_servers": "one:9092, two:9092", **values})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bootstrap_servers": " "}, "kafka.bootstrap_servers"),
        (SASL | {"sasl_mechanism": ""}, "kafka.sasl_mechanism"),
        (SASL | {"sasl_mechanism": "GSSAPI"}, "kafka.sasl_mechanism"),
        (SASL | {"sasl_username": ""}, "kafka.sasl_username"),
        (SASL | {"sasl_password": ""}, "kafka.sasl_password"),
        ({"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"}, "kafka.ssl_cafile: /nowhere/ca.pem"),
        ({"security_protocol": "SSL", "ssl_keyfile": "/nowhere/key.pem"}, "kafka.ssl_keyfile: /nowhere/key.pem"),
    ],
)
def test_a_mistake_in_the_settings_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connection_config(settings(**values))
    assert str(caught.value).startswith(named) and "hush" not in str(caught.value)


def test_sasl_and_tls_reach_the_client(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"")
    config = connection_config(settings(**SASL, ssl_cafile=str(ca), ssl_password="p"))
    assert config["bootstrap_servers"] == ["one:9092", "two:9092"]
    assert (config["sasl_mechanism"], config["sasl_plain_username"]) == ("PLAIN", "u")
    assert (config["ssl_cafile"], config["ssl_password"]) == (str(ca), "p")


def test_a_fetch_holds_the_largest_record_and_kafka_neither_commits_nor_resets_offsets() -> None:
    config = consumer_config(settings(max_message_bytes=50_000_000))
    assert config["max_partition_fetch_bytes"] == 50_000_000 <= config["fetch_max_bytes"]
    assert not config["enable_auto_commit"] and config["auto_offset_reset"] == "none"
    assert config["isolation_level"] == "read_committed" and config["group_instance_id"] is None
    assert config["heartbeat_interval_ms"] * 3 <= config["session_timeout_ms"] == 30_000


@pytest.mark.parametrize(("compression", "expected"), [("none", None), ("lz4", "lz4"), ("zstd", "zstd")])
def test_a_producer_waits_for_all_replicas_and_compresses_as_set(compression: str, expected: str | None) -> None:
    config = producer_config(settings(compression=compression))
    assert (config["acks"], config["enable_idempotence"], config["compression_type"]) == ("all", True, expected)


def test_the_packages_that_kafka_python_needs_are_there() -> None:
    assert missing_packages() == []


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (FencedInstanceIdError(), "kafka.group_instance_id"),
        (InconsistentGroupProtocolError(), "kafka.group_id"),
        (InvalidSessionTimeoutError(), "kafka.session_timeout_seconds"),
    ],
)
def test_what_waiting_cannot_mend_names_the_setting(error: KafkaError, named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named}: "):
        raise_if_hopeless(error, settings())


def test_an_error_becomes_one_line() -> None:
    assert reason(KafkaError("two\n  lines")) == "KafkaError: two lines"
    assert reason(KafkaError()) == "KafkaError"


def test_an_outage_is_mentioned_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([100.0, 107.25])
    outage = Outage(logging.getLogger("monitor.test"), "Kafka at x", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        outage.end()
        outage.begin("refused")
        outage.begin("refused")
        outage.end()
        outage.end()
    assert caplog.messages == [
        "Kafka at x: refused; trying again until it answers",
        "Kafka at x: answers again after 7.2 s",
    ]
