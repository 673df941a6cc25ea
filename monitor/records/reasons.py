"""Why a record is bad: a fixed set of words, and msgspec's errors in those words.

The word becomes the label ``reason`` of ``segwatch_dead_letter_records_total`` and the header ``segwatch_reason``, so
the set is small and fixed. The detail is for a person: the field's path and its value, shortened and escaped, so that
no image, no control character and no novel gets into a log.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from monitor.cloudevents import Encoding
from monitor.errors import BadRecord

REASONS: dict[str, str] = {
    "empty": "The message has no value (a tombstone), or one of zero bytes.",
    "too_large": "The value is longer than the limit.",
    "not_json": "The value is not well-formed JSON: broken, cut short, not UTF-8, or nested too deeply.",
    "not_msgpack": "The value is not well-formed MessagePack: broken, cut short, not UTF-8, or nested too deeply.",
    "bad_envelope": "A structured CloudEvent cannot be opened, or carries no data, or carries it twice.",
    "unknown_type": "The field `type` is none of the types that segwatch reads.",
    "type_mismatch": "The CloudEvents type contradicts the record's own.",
    "missing_field": "A required field is missing, or all fields of which one is needed.",
    "wrong_type": "A field has the wrong type or shape.",
    "out_of_bounds": "A number, a length or a word is outside what is allowed.",
    "bad_text": "A name or id has a character that cannot be stored, or a slice key has '='.",
    "bad_base64": "A binary field is not base64.",
    "bad_time": "A time is not RFC 3339 with its offset, or lies before the year 2000.",
    "future_time": "A time lies further ahead of the broker's clock than the tolerance.",
    "uri_refused": "The image's URI is outside the allowed prefixes, or written so that it cannot be judged.",
    "image_unavailable": "The image that the URI names cannot be read.",
    "image_format": "The image has a format that segwatch does not read.",
    "image_truncated": "The image is cut short, or empty.",
    "image_too_large": "The image has more bytes or pixels than the limits.",
    "image_undecodable": "The image is damaged.",
    "bad_mask": "A mask's counts, polygons or size are not valid, or the sizes of one record differ.",
    "mask_too_large": "A mask's size has more pixels than the limit.",
    "bad_semantic": "A semantic map is not a single-channel or palette PNG that fits its record.",
    "semantic_too_large": "A semantic map has more pixels than the limit.",
    "unknown_model": "No baseline has this model's name.",
    "unknown_class": "A label names a class that the model's baseline does not have.",
    "label_mismatch": "A label does not fit its prediction: another size, or a list where the other has a map.",
    "embedding_mismatch": "The embedding does not fit the baseline's.",
}
"""Every reason, with one sentence."""

BINARY_FIELDS = ("data", "classes_png", "confidence_png", "data_base64")
"""Fields whose value is never shown."""
SHOWN_CHARACTERS = 60
INSPECTED_BYTES = 64 * 1024
"""Values longer than this are not decoded a second time to show what is wrong in them."""

_STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")


def shorten(value: Any) -> str:
    """A value in at most SHOWN_CHARACTERS printable ASCII characters or so; bytes and containers only by their size.

    >>> shorten("a\\n" + "b" * 100)
    "'a\\\\nbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'..."
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return ascii(value) if len(value) <= SHOWN_CHARACTERS else ascii(value[:SHOWN_CHARACTERS]) + "..."
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return ascii(value)


def explain(error: Exception, value: bytes | memoryview, encoding: Encoding, prefix: str = "") -> BadRecord:
    """The BadRecord for what a msgspec decoder raised on ``value``; ``prefix`` is the path of what it decoded."""
    broken = "not_json" if encoding == "json" else "not_msgpack"
    if isinstance(error, RecursionError):
        return BadRecord(broken, "nested too deeply")
    if not isinstance(error, msgspec.ValidationError):
        return BadRecord(broken, _printable(str(error)))
    what, _, where = str(error).rpartition(" - at ")
    if not what:
        what, where = where, ""
    where = where.replace("`", "").replace("$.", prefix + "." if prefix else "").replace("$", prefix or "the record")
    if where.startswith("key in "):
        where = f"a key of {where.removeprefix('key in ')}"
    reason = _reason_of(what, where)
    if reason == "missing_field":
        field = what.rpartition("field ")[2].replace("`", "")
        return BadRecord(reason, f"{f'{where}.' if where else ''}{field} is missing")
    place = where or prefix or "the record"
    shown = "" if what.startswith("Invalid") else _value_at(value, encoding, where)
    return BadRecord(reason, f"{place}: {_printable(what.replace('`', ''))}{shown and f', value {shown}'}")


def _reason_of(what: str, where: str) -> str:
    field = where.rpartition(".")[2]
    if ".mask" in where and ".class" not in where:
        return "mask_too_large" if ".size" in where and "<=" in what else "bad_mask"
    if what.startswith("Object missing required field"):
        return "missing_field"
    if where == "type":
        return "unknown_type"
    if field in ("event_time", "label_time"):
        return "bad_time"
    if "base64" in what:
        return "bad_base64"
    if ", got `" in what:
        return "wrong_type"
    return "out_of_bounds"


def _printable(text: str) -> str:
    return ascii(text[:160])[1:-1].replace("\\'", "'")


def _value_at(value: bytes | memoryview, encoding: Encoding, where: str) -> str:
    """What stands at a path, shortened; empty where it is binary, or too long to look for."""
    if len(value) > INSPECTED_BYTES or where.startswith("a key of") or "..." in where:
        return ""
    try:
        node = msgspec.json.decode(value) if encoding == "json" else msgspec.msgpack.decode(value)
        for name, index in _STEP.findall("." + where):
            if name in BINARY_FIELDS:
                return ""
            node = node[name] if name else node[int(index)]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return shorten(node)
