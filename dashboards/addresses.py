"""Where things are: one segment of a path for each name, whatever a record calls it.

A name may hold slashes, or be ``..``: percent-encoded, proxies and browsers would still take that for a path. So all
but letters, digits, ``-``, ``_`` and ``.`` is written as ``~`` and two hexadecimal digits for each byte of UTF-8, and a
name of dots alone wholly so. Plain names stand as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_.-]")
_ENCODED: Final = re.compile(rb"~([0-9A-Fa-f]{2})")
MOST_SECONDS: Final = 10**9
"""Longest window that an address may name."""
EMPTY: Final = "~"


def segment(name: str) -> str:
    """A name as a segment of a path.

    >>> segment("cam-1.jpg"), segment("../etc"), segment(".."), segment("a b~")
    ('cam-1.jpg', '..~2Fetc', '~2E~2E', 'a~20b~7E')
    """
    data = name.encode("utf-8", "surrogatepass")
    if not data:
        return EMPTY
    if not data.strip(b"."):
        return "~2E" * len(data)
    return "".join(chr(byte) if _PLAIN.fullmatch(bytes([byte])) else f"~{byte:02X}" for byte in data)


def name_in(text: str) -> str:
    """The name that a segment (already decoded from percent signs) stands for.

    >>> hostile = ["../etc", "..", "", "~7E", "\\u202e"]
    >>> [name_in(segment(one)) for one in hostile] == hostile
    True
    """
    if text == EMPTY:
        return ""
    data = _ENCODED.sub(lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "surrogatepass"))
    return data.decode("utf-8", "replace")


def model_path(model: str, version: str) -> str:
    return f"/models/{segment(model)}/{segment(version)}"


def window_path(
    model: str, version: str, start: str, length_s: int, slice_key: str | None = "", **query: object
) -> str:
    """``start`` as RFC 3339; ``query``: what else the page is told, None for nothing."""
    return _window(model, version, start, "", length_s, slice_key, query)


def map_path(model: str, version: str, start: str, length_s: int, slice_key: str | None = "", **query: object) -> str:
    """The window's embedding map; arguments as of `window_path`."""
    return _window(model, version, start, "/map", length_s, slice_key, query)


def _window(
    model: str,
    version: str,
    start: str,
    part: str,
    length_s: int,
    slice_key: str | None,
    query: Mapping[str, object],
) -> str:
    told = {"length": length_s, "slice": slice_key or None, **query}
    given = {name: value for name, value in told.items() if value is not None}
    return f"{model_path(model, version)}/windows/{segment(start)}{part}?{urlencode(given, errors='surrogatepass')}"


def sample_path(model: str, version: str, input_id: str) -> str:
    return f"/samples/{segment(model)}/{segment(version)}/{segment(input_id)}"


def picture_path(model: str, version: str, input_id: str, view: str, side: int, annotator: str = "") -> str:
    """A picture of a sample, ``side`` pixels at most on its longer side."""
    query = {"view": view, "side": side, **({"annotator": annotator} if annotator else {})}
    return f"{sample_path(model, version, input_id)}/overlay.png?{urlencode(query, errors='surrogatepass')}"
