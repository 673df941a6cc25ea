"""Logs and spans: what gets out, in which form, and what must not."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from monitor.errors import SettingsError
from monitor.settings import LogSettings
from monitor.sources.protocol import Partition, RawRecord
from monitor.telemetry import consume_span, setup_logging, setup_tracing, span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01".encode())


def record(*headers: tuple[str, bytes]) -> RawRecord:
    partition = Partition("cluster", "id", "segwatch.predictions", 3)
    return RawRecord(partition, 41, b"value", b"cam7", headers, 0)


@pytest.fixture
def logs(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    setup_logging(LogSettings(format=request.param), stream)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)


json_lines = pytest.mark.parametrize("logs", ["json"], indirect=True)
both = pytest.mark.parametrize("logs", ["json", "text"], indirect=True)


@json_lines
def test_json_has_one_object_a_line_with_the_extra_fields(logs: io.StringIO) -> None:
    logging.getLogger("monitor.ingest").info("committed %d", 3, extra={"records": 3, "topic": "a\nb"})
    (line,) = logs.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info", "logger": "monitor.ingest", "message": "committed 3", "records": 3, "topic": "a\\nb",
    }  # fmt: skip


@both
def test_no_secret_and_no_bytes_get_out(logs: io.StringIO) -> None:
    fields = {"sasl_password": "hunter2", "web_token": "hunter2", "image": b"\xff\xd8hunter2" * 1000}
    logging.getLogger("x").warning("connecting", extra=fields)
    assert "hunter2" not in logs.getvalue()
    assert "<9000 bytes>" in logs.getvalue()


@both
def test_a_message_with_line_breaks_stays_one_line(logs: io.StringIO) -> None:
    logging.getLogger("x").error("cannot read %s", "a\n2026-01-01 INFO forged: all is well")
    assert len(logs.getvalue().splitlines()) == 1


@both
def test_what_is_below_the_level_is_left_out(logs: io.StringIO) -> None:
    logging.getLogger("x").debug("quiet")
    assert logs.getvalue() == ""


@json_lines
def test_setting_up_twice_does_not_write_twice(logs: io.StringIO) -> None:
    setup_logging(LogSettings(format="text"), logs)
    logging.getLogger("x").info("once")
    assert logs.getvalue().count("once") == 1


def test_spans_continue_the_trace_of_the_record() -> None:
    exporter = InMemorySpanExporter()
    with setup_tracing(LogSettings(), exporter), consume_span(record(TRACEPARENT), "segwatch"):
        pass
    (finished,) = exporter.get_finished_spans()
    assert finished.context is not None
    assert f"{finished.context.trace_id:032x}" == TRACE
    assert finished.parent is not None
    assert f"{finished.parent.span_id:016x}" == PARENT
    assert dict(finished.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "segwatch.predictions",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 41,
        "messaging.kafka.message.key": "cam7",
        "messaging.consumer.group.name": "segwatch",
    }


def test_spans_of_batches_nest_and_carry_their_size() -> None:
    exporter = InMemorySpanExporter()
    with setup_tracing(LogSettings(), exporter), span("chunk", records=256), span("score", model="street"):
        pass
    inner, outer = exporter.get_finished_spans()
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert dict(outer.attributes or {}) == {"messaging.batch.message_count": 256}
    assert dict(inner.attributes or {}) == {"segwatch.model": "street"}


def test_a_damaged_traceparent_starts_a_trace_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    with setup_tracing(LogSettings(), exporter), consume_span(record(("traceparent", b"\xff not one"))):
        pass
    (finished,) = exporter.get_finished_spans()
    assert finished.parent is None


def test_a_record_without_a_trace_makes_no_span() -> None:
    exporter = InMemorySpanExporter()
    with setup_tracing(LogSettings(), exporter), consume_span(record()):
        pass
    assert exporter.get_finished_spans() == ()


def test_tracing_is_off_until_an_endpoint_is_set_and_off_again_afterwards() -> None:
    exporter = InMemorySpanExporter()
    with setup_tracing(LogSettings()), span("x"):
        pass
    with setup_tracing(LogSettings(), exporter):
        pass
    with span("x"), consume_span(record(TRACEPARENT)):
        pass
    assert exporter.get_finished_spans() == ()


def test_off_it_costs_next_to_nothing() -> None:
    begun = time.thread_time()
    for _ in range(1000):
        with span("x", records=1):
            pass
    assert time.thread_time() - begun < 0.1  # 100 us each would still be 100 times what it takes


def test_an_endpoint_that_is_no_address_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"log\.otlp_endpoint"):
        setup_tracing(LogSettings(otlp_endpoint="collector:4318"))
