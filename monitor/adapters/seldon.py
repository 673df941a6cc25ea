"""Seldon's request logger: CloudEvents ``io.seldon.serving.inference.request`` and ``.response``.

Both halves carry the request's id in ``requestid`` (else in ``id``); a graph of several models logs one such pair for
each ``modelid``. Feedback, outliers and drift are other events. Source: SeldonIO/MLServer, ``mlserver/cloudevents.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from monitor.adapters.events import read_event
from monitor.adapters.pairing import Pairing
from monitor.adapters.protocol import EntryError, Exchange, Part

ROLES: Final[dict[str, Literal["request", "response"]]] = {
    "io.seldon.serving.inference.request": "request",
    "io.seldon.serving.inference.response": "response",
}
SAME: Final = ("inferenceservicename", "namespace", "endpoint", "modelid")
"""What two halves must have in common besides the id."""


class Seldon:
    """Implements ``Adapter``."""

    def __init__(self, need_request: bool) -> None:
        self._pairing = Pairing(need_request)
        self.counts = self._pairing.counts

    def feed(self, where: str, line: bytes) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        event = read_event(line)
        role = ROLES.get(str(event.attributes.get("type", "")))
        if role is None:
            self.counts["other_event"] += 1
            return ()
        id = str(event.attributes.get("requestid") or event.attributes.get("id") or "")
        if not id:
            raise EntryError("requestid: missing, and id too")
        key = (*(str(event.attributes.get(name)) for name in SAME), id)
        part = Part(where, event.body, event.content_type, event.time_us)
        return self._pairing.add(key, role, id, part, event.attributes)

    def rest(self) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        return self._pairing.rest()
