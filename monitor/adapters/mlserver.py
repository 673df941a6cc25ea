"""MLServer's Kafka topics of inputs and outputs: JSON V2 in both.

A request names its model in the header ``mlserver-model`` (and ``mlserver-version``); its id is the message's key,
which wins over the body's. The response has the same id. Source: SeldonIO/MLServer, ``mlserver/kafka``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from monitor.adapters.events import read_event, read_object
from monitor.adapters.pairing import Pairing
from monitor.adapters.protocol import EntryError, Exchange, Part

MODEL: Final = "mlserver-model"


class MLServer:
    """Implements ``Adapter``. Halves belong together by (model, id)."""

    def __init__(self, need_request: bool) -> None:
        self._pairing = Pairing(need_request)
        self.counts = self._pairing.counts

    def feed(self, where: str, line: bytes) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        event = read_event(line)
        tree = read_object(event.body)
        role: Literal["request", "response"]
        if "outputs" in tree and "model_name" in tree:
            role, model = "response", tree["model_name"]
        elif "inputs" in tree:
            role, model = "request", event.headers.get(MODEL)
        else:
            self.counts["other_event"] += 1
            return ()
        if not isinstance(model, str) or not model:
            raise EntryError("response.model_name: not a text" if role == "response" else f"header {MODEL}: missing")
        id = event.key or tree.get("id")
        if not isinstance(id, str) or not id:
            raise EntryError(f"{role}.id: missing, and the message has no key")
        part = Part(where, event.body, event.content_type, event.time_us)
        return self._pairing.add((model, id), role, id, part, {**event.attributes, **event.headers})

    def rest(self) -> Iterable[Exchange]:
        """Implements ``Adapter``."""
        return self._pairing.rest()
