"""Requests and responses that are logged apart, brought together in bounded memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from monitor.adapters.protocol import Exchange, Part

MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Half:
    role: Literal["request", "response"]
    part: Part
    event: Mapping[str, Any]
    id: str


class Pairing:
    """Holds halves until their other half comes, in either order.

    At most ``max_waiting`` of them and ``max_bytes`` of bodies; beyond that the one that waits longest is given up and
    counted. Without ``need_request`` a response is complete by itself, and requests are kept only for ``rest``.
    """

    def __init__(self, need_request: bool, max_waiting: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._need_request = need_request
        self._max_waiting, self._max_bytes = max_waiting, max_bytes
        self._waiting: OrderedDict[Hashable, _Half] = OrderedDict()
        self._bytes = 0
        self.counts: Counter[str] = Counter()

    def add(
        self, key: Hashable, role: Literal["request", "response"], id: str, part: Part, event: Mapping[str, Any]
    ) -> Iterable[Exchange]:
        """The exchange that this half completes, if any."""
        half = _Half(role, part, event, id)
        other = self._waiting.get(key)
        if other is not None and other.role == role:
            self.counts["repeated"] += 1
            return
        if other is not None:
            del self._waiting[key]
            self._bytes -= len(other.part.body)
            first, second = (other, half) if role == "response" else (half, other)
            yield Exchange(id, first.part, second.part, {**first.event, **second.event})
            return
        if role == "response" and not self._need_request:
            yield Exchange(id, None, part, event)
            return
        self._waiting[key] = half
        self._bytes += len(part.body)
        while len(self._waiting) > self._max_waiting or self._bytes > self._max_bytes:
            _, oldest = self._waiting.popitem(last=False)
            self._bytes -= len(oldest.part.body)
            self.counts[f"{oldest.role}_alone"] += 1

    def rest(self) -> Iterable[Exchange]:
        """Requests that nobody answered; both kinds are counted."""
        for half in self._waiting.values():
            self.counts[f"{half.role}_alone"] += 1
            if half.role == "request":
                yield Exchange(half.id, half.part, None, half.event)
        self._waiting.clear()
        self._bytes = 0
