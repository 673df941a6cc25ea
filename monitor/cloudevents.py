"""CloudEvents 1.0 on Kafka: what the headers say about a value, and the headers of what segwatch sends.

In *binary mode* the value is the record itself and headers ``ce_...`` describe it. In *structured mode* (content type
``application/cloudevents...``) the value is an envelope with the record in ``data``, or in ``data_base64``. Headers may
be missing altogether, as in files: the record then speaks for itself.

The record's own time always wins over ``ce_time``: a file has no headers, and replaying it must give the same
statistics.

Source: CloudEvents 1.0.2, "Kafka Protocol Binding" and "JSON Event Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from monitor.errors import BadRecord

Encoding = Literal["json", "msgpack"]

SPEC_VERSION = "1.0"
JSON_CONTENT = "application/json"
MSGPACK_CONTENT = "application/msgpack"
STRUCTURED = "application/cloudevents"

ENCODINGS: dict[str, Encoding] = {
    JSON_CONTENT: "json",
    MSGPACK_CONTENT: "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}
"""Media types that name the encoding; with any other one the first byte decides."""

_ENCODING_OF_HEADER = {media_type.encode(): encoding for media_type, encoding in ENCODINGS.items()}

MSGPACK_CONTAINERS = frozenset([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
"""First bytes of a map or list in MessagePack; none of them starts a JSON text."""


class Envelope(msgspec.Struct, frozen=True):
    """A structured-mode event; ``data`` is left as it stands, to be decoded as a record."""

    type: str
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    data_base64: bytes | None = None
    datacontenttype: str | None = None


class Payload(NamedTuple):
    """The record's bytes, how they are encoded, and the type that headers or envelope claim (None: they are silent)."""

    value: bytes | memoryview
    encoding: Encoding
    claimed_type: str | None


_json_envelope = msgspec.json.Decoder(Envelope)
_msgpack_envelope = msgspec.msgpack.Decoder(Envelope)


def payload_of(value: bytes, headers: Iterable[tuple[str, bytes]]) -> Payload:
    """Find the record in a message. Raises BadRecord (``bad_envelope``)."""
    claimed_type = content = None
    for name, bytes_ in headers:
        if name == "ce_type":
            claimed_type = bytes_.decode("utf-8", "replace")
        elif name == "content-type":
            content = bytes_
    if content is None:
        return Payload(value, sniff(value), claimed_type)
    encoding = _ENCODING_OF_HEADER.get(content)
    if encoding is None:  # parameters, upper case, or another type
        media_type = _media_type(content.decode("latin-1"))
        if media_type.startswith(STRUCTURED):
            return _open_envelope(value, claimed_type)
        encoding = ENCODINGS.get(media_type) or sniff(value)
    return Payload(value, encoding, claimed_type)


def sniff(value: bytes | memoryview) -> Encoding:
    """Tell MessagePack from JSON by the first byte."""
    return "msgpack" if len(value) and value[0] in MSGPACK_CONTAINERS else "json"


def _media_type(content: str) -> str:
    return content.partition(";")[0].strip().lower()


def _open_envelope(value: bytes, header_type: str | None) -> Payload:
    encoding = sniff(value)
    try:
        envelope = (_json_envelope if encoding == "json" else _msgpack_envelope).decode(value)
    except (ValueError, RecursionError) as error:
        raise BadRecord("bad_envelope", f"structured CloudEvent: {ascii(str(error))[1:-1][:200]}") from None
    if header_type is not None and header_type != envelope.type:
        raise BadRecord(
            "type_mismatch", f"header ce_type is {_short(header_type)}, the envelope's type {_short(envelope.type)}"
        )
    data = memoryview(envelope.data)
    if bytes(data[:5]) in (b"null", b"\xc0"):
        data = data[:0]
    if envelope.data_base64 is None:
        if not len(data):
            raise BadRecord("bad_envelope", "structured CloudEvent has neither data nor data_base64")
        return Payload(data, encoding, envelope.type)
    if len(data):
        raise BadRecord("bad_envelope", "structured CloudEvent has both data and data_base64")
    inner = ENCODINGS.get(_media_type(envelope.datacontenttype or ""))
    return Payload(envelope.data_base64, inner or sniff(envelope.data_base64), envelope.type)


def _short(text: str) -> str:
    return ascii(text[:80])


def binary_headers(
    *,
    id: str,
    type: str,
    source: str,
    time: str,
    content_type: str = JSON_CONTENT,
    extensions: Mapping[str, str] | None = None,
    traceparent: str | None = None,
) -> Sequence[tuple[str, bytes]]:
    """Kafka headers of an event in binary mode. ``time``: RFC 3339; ``extensions``: names without ``ce_``.

    >>> binary_headers(id="1", type="segwatch.alert.v1", source="/segwatch", time="2026-11-23T02:45:33Z")[2]
    ('ce_type', b'segwatch.alert.v1')
    """
    pairs = {
        "ce_specversion": SPEC_VERSION,
        "ce_id": id,
        "ce_type": type,
        "ce_source": source,
        "ce_time": time,
        **{f"ce_{name}": value for name, value in (extensions or {}).items()},
        "content-type": content_type,
    }
    if traceparent is not None:
        pairs["traceparent"] = traceparent
    return [(name, value.encode()) for name, value in pairs.items()]
