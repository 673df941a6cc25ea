"""Structured logs and OpenTelemetry spans.

Logs go to stderr through the standard library, as text or as one JSON object a line, with the fields given as
``extra``. Values of secret-looking fields and raw bytes never get out: an image or a password in a log outlives its
reason.

Spans are off until ``log.otlp_endpoint`` is set; off, ``span`` costs a comparison. A span that is given a Kafka
record's headers continues the trace in their ``traceparent`` (W3C Trace Context), and is named and described by
OpenTelemetry's semantic conventions for messaging.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from monitor.errors import SettingsError
from monitor.settings import LogSettings
from monitor.sources.protocol import RawRecord
from monitor.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_SECRET_WORDS: Final = ("password", "secret", "token", "authorization", "credential", "api_key")
_LONGEST: Final = 2000
"""Characters of one field: longer ones are data, not a message."""


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {_message(record)}{fields}"
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    # One record, one line: a line break in somebody's file name must not forge a second one.
    return record.getMessage().replace("\r", "\\r").replace("\n", "\\n")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: _safe(name, value) for name, value in vars(record).items() if name not in _STANDARD}


def _safe(name: str, value: object) -> object:
    if any(word in name.lower() for word in _SECRET_WORDS):
        return "***"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = str(value).replace("\r", "\\r").replace("\n", "\\n")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + f"... ({len(text)} characters)"


def setup_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send all logs of the process to ``stream`` (stderr); replaces what an earlier call set up."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonFormatter() if settings.format == "json" else _TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, _TextFormatter | _JsonFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    # Libraries that tell every request or every fetch at info; their warnings stay.
    for name in ("kafka", "uvicorn.access", "alembic", "numba", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


_tracer: Tracer | None = None


def setup_tracing(settings: LogSettings, exporter: SpanExporter | None = None) -> AbstractContextManager[None]:
    """Turn spans on where ``log.otlp_endpoint`` is set (or ``exporter`` given); leaving the context sends the rest.

    Raises SettingsError where the endpoint is no http address.
    """
    if exporter is None:
        endpoint = settings.otlp_endpoint
        if not endpoint:
            return nullcontext()
        if not endpoint.startswith(("http://", "https://")):
            raise SettingsError(f"log.otlp_endpoint: {endpoint!r} is no http address")
        # Imported only when used: the exporter alone takes 0.2 s.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        address = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(endpoint=address if address.endswith("/v1/traces") else address + "/v1/traces")
    return _tracing(exporter)


@contextmanager
def _tracing(exporter: SpanExporter) -> Iterator[None]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    global _tracer
    resource = Resource.create({"service.name": "segwatch", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("segwatch", __version__)
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def span(
    name: str,
    *,
    records: int | None = None,
    headers: Sequence[tuple[str, bytes]] = (),
    attributes: Mapping[str, str | int | float | bool] | None = None,
    **own: str | int | float | bool,
) -> AbstractContextManager[object]:
    """A span around a block: ``with span("commit", records=256): ...``; does nothing while tracing is off.

    ``records`` becomes ``messaging.batch.message_count``, ``own`` words become attributes under ``segwatch.``;
    ``headers`` are a record's, whose ``traceparent`` is continued.
    """
    if _tracer is None:
        return _OFF
    described: dict[str, str | int | float | bool] = {f"segwatch.{word}": value for word, value in own.items()}
    described.update(attributes or {})
    if records is not None:
        described["messaging.batch.message_count"] = records
    return _tracer.start_as_current_span(name, context=_parent(headers), attributes=described)


_OFF: Final[AbstractContextManager[object]] = nullcontext()


def consume_span(record: RawRecord, group_id: str = "") -> AbstractContextManager[object]:
    """A span for taking in one record, as part of the trace that its producer began.

    Only for records with a ``traceparent``: others would make a trace of one span each.
    """
    if _tracer is None or not any(name == "traceparent" for name, _ in record.headers):
        return _OFF
    partition = record.partition
    described: dict[str, str | int | float | bool] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": partition.topic,
        "messaging.destination.partition.id": str(partition.number),
        "messaging.kafka.offset": record.offset,
    }
    if group_id:
        described["messaging.consumer.group.name"] = group_id
    if record.value is None:
        described["messaging.kafka.message.tombstone"] = True
    if record.key is not None:
        described["messaging.kafka.message.key"] = record.key.decode("utf-8", "replace")
    return span(f"process {partition.topic}", headers=record.headers, attributes=described)


def _parent(headers: Sequence[tuple[str, bytes]]) -> Any:
    if not headers:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {
        name: value.decode("ascii", "replace")
        for name, value in headers
        if name in ("traceparent", "tracestate") and value is not None
    }
    return TraceContextTextMapPropagator().extract(carrier) if carrier else None
