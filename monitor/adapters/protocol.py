"""What every adapter offers, and the values that travel through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from monitor.errors import InputError


class EntryError(InputError):
    """An entry of a log cannot become a record; the message names the field. The next entry is read as usual."""


@dataclass(frozen=True, slots=True)
class Part:
    """One half of an exchange, as it was logged."""

    where: str
    """``file:line``."""
    body: bytes
    content_type: str = ""
    time_us: int | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and what was answered. ``event``: what the log says about both (names, headers)."""

    id: str
    request: Part | None
    response: Part | None
    event: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Where it ended; a request that nobody answered, where it began."""
        part = self.response or self.request
        return part.where if part is not None else ""


class Adapter(Protocol):
    """Reads one log, entry by entry."""

    counts: Counter[str]
    """What was left out, by why: ``other_event``, ``request_alone``, ``response_alone``, ``repeated``."""

    def feed(self, where: str, line: bytes) -> Iterable[Exchange]:
        """Exchanges that this entry completes. Raises EntryError."""

    def rest(self) -> Iterable[Exchange]:
        """At the end: requests without an answer."""
