"""SageMaker's data capture of real-time endpoints: JSON Lines, request and response in one entry.

``inferenceId``, which the caller may give, wins over ``eventId``. ``data`` is as ``encoding`` says: ``JSON`` and
``CSV`` text, ``BASE64`` anything else. Source: Amazon SageMaker AI developer guide, "Data capture".
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterable
from typing import Any

from monitor.adapters.events import read_object
from monitor.adapters.protocol import EntryError, Exchange, Part
from monitor.errors import InputError
from monitor.windows import parse_time


class SageMaker:
    """Implements ``Adapter``."""

    def __init__(self, need_request: bool) -> None:
        self._need_request = need_request
        self.counts: Counter[str] = Counter()

    def feed(self, where: str, line: bytes) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        tree = read_object(line)
        captured = _object(tree, "captureData", "")
        meta = _object(tree, "eventMetadata", "")
        id = meta.get("inferenceId") or meta.get("eventId")
        if not isinstance(id, str):
            raise EntryError("eventMetadata.eventId: missing, and inferenceId too")
        try:
            time_us = parse_time(str(meta.get("inferenceTime")))
        except InputError as error:
            raise EntryError(f"eventMetadata.inferenceTime: {error}") from None
        request = _part(captured, "endpointInput", where, time_us)
        response = _part(captured, "endpointOutput", where, time_us)
        if response is None:
            self.counts["request_alone"] += 1
            return ()
        if request is None and self._need_request:
            self.counts["response_alone"] += 1
            return ()
        return (Exchange(id, request, response, meta),)

    def rest(self) -> Iterable[Exchange]:
        """Implements ``Adapter``: nothing, for halves come together."""
        return ()


def _object(tree: dict[str, Any], name: str, above: str) -> dict[str, Any]:
    found = tree.get(name)
    if not isinstance(found, dict):
        raise EntryError(f"{above}{name}: missing or not an object")
    return found


def _part(captured: dict[str, Any], name: str, where: str, time_us: int) -> Part | None:
    if captured.get(name) is None:
        return None
    half = _object(captured, name, "captureData.")
    data, encoding = half.get("data"), half.get("encoding")
    field = f"captureData.{name}"
    if not isinstance(data, str):
        raise EntryError(f"{field}.data: missing or not a text")
    if encoding == "BASE64":
        try:
            body = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            raise EntryError(f"{field}.data: not base64") from None
    elif encoding in ("JSON", "CSV"):
        body = data.encode()
    else:
        raise EntryError(f"{field}.encoding: {encoding!r} is none of BASE64, JSON, CSV")
    return Part(where, body, str(half.get("observedContentType") or ""), time_us)
