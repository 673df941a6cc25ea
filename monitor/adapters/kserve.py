"""KServe's inference logger: CloudEvents 1.0, request and response apart, with the same ``id``.

Posted over HTTP in binary mode; usually a Knative broker or trigger takes them on to Kafka. Extensions:
``inferenceservicename``, ``namespace``, ``component``, ``endpoint``, ``metadata``. A response is logged only when its
status was 200, and carries the request's content type. Source: kserve/kserve, ``pkg/logger``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from monitor.adapters.events import Event, read_event
from monitor.adapters.pairing import Pairing
from monitor.adapters.protocol import EntryError, Exchange, Part

ROLES: Final[dict[str, Literal["request", "response"]]] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}


class KServe:
    """Implements ``Adapter``. Halves belong together by (``source``, ``id``)."""

    def __init__(self, need_request: bool) -> None:
        self._pairing = Pairing(need_request)
        self.counts = self._pairing.counts

    def feed(self, where: str, line: bytes) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        return self.take(where, read_event(line))

    def take(self, where: str, event: Event) -> Iterable[Exchange]:
        """Exchanges that an event completes. Raises EntryError."""
        role = ROLES.get(str(event.attributes.get("type", "")))
        if role is None:
            self.counts["other_event"] += 1
            return ()
        for name in ("id", "source"):
            if not event.attributes.get(name):
                raise EntryError(f"{name}: missing")
        id, source = str(event.attributes["id"]), str(event.attributes["source"])
        part = Part(where, event.body, event.content_type, event.time_us)
        return self._pairing.add((source, id), role, id, part, event.attributes)

    def rest(self) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        return self._pairing.rest()
