"""Error budgets as Prometheus keeps them, for pages: what is left, what was promised and kept, how fast it is spent.

A budget is about events over the SLO's period, by the time of their scrape; the store has totals and no history of
them, so that Prometheus alone can tell. It is asked for the series that ``segwatch rules render`` has it record. What
cannot be had is unknown, with the reason.
"""

from __future__ import annotations

import http.client
import math
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from alerts.rules_dashboards import BURN, GOOD, LEFT, OBJECTIVE

INFO: Final = "segwatch_slo_info"
QUERY: Final = f'{{__name__=~"{INFO}|{OBJECTIVE}|{GOOD}|{LEFT}|{BURN}"}}'
TIMEOUT_S: Final = 2.0
KEPT_S: Final = 15.0
"""An answer, or a failure, serves all who look within this time; rules are evaluated no more often than this."""
MOST_BYTES: Final = 8 << 20
UNSET: Final = "prometheus.url is not set"
NO_RULES: Final = "Prometheus has none of the recorded series: load the rules that segwatch rules render writes"


class Place(NamedTuple):
    """What a budget is of; "" for what its labels do not say. ``instance``: the installation."""

    slo: str
    model: str
    version: str
    class_name: str
    instance: str

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Place:
        return cls(*(labels.get(name, "") for name in ("slo", "model", "version", "class", "instance")))


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one SLO and class. Ratios; ``left`` is 1 untouched, 0 used up, below 0 overspent. None: not known."""

    place: Place
    period: str
    objective: float | None
    good: float | None
    left: float | None
    burns: Mapping[str, tuple[str, float]]
    """By ``short`` and ``long``: the window, and how many times faster than allowed the budget is spent in it."""

    @property
    def spent_up(self) -> bool:
        return self.left is not None and self.left <= 0


class Found(NamedTuple):
    """``why``: the reason where there are none."""

    budgets: list[Budget]
    why: str


NOT_ASKED: Final = Found([], "Prometheus was not asked")


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True):
    result: list[_Series] = []


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data | None = None
    error: str = ""


@dataclass(slots=True)
class Budgets:
    """Asks Prometheus at ``url()``; from any thread. ``clock`` in seconds."""

    url: Callable[[], str]
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: tuple[float, str, Found] | None = None

    def read(self) -> Found:
        """All budgets, the least that is left first; those of which nothing is known last."""
        url = self.url()
        if not url:
            return Found([], UNSET)
        with self._lock:  # who comes meanwhile waits for the same answer
            if self._last is None or self._last[1] != url or self.clock() - self._last[0] >= KEPT_S:
                self._last = (self.clock(), url, _ask(url))
            return self._last[2]


def _ask(url: str) -> Found:
    address = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': QUERY})}"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            data = answer.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            return Found([], f"Prometheus answers with more than {MOST_BYTES} bytes")
        told = msgspec.json.decode(data, type=_Answer)
        series = [(one.metric, float(one.value[1])) for one in told.data.result] if told.data else []
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        return Found([], f"Prometheus does not answer: {error}")
    if told.status != "success" or told.data is None:
        return Found([], f"Prometheus refuses: {told.error or told.status}")
    budgets = budgets_of(series)
    return Found(budgets, "" if budgets else NO_RULES)


def budgets_of(series: list[tuple[dict[str, str], float]]) -> list[Budget]:
    """From series (labels with ``__name__``, value)."""
    values: dict[Place, dict[str, float]] = {}
    burns: dict[Place, dict[str, tuple[str, float]]] = {}
    periods: dict[Place, str] = {}
    known: set[Place] = set()
    inventory: list[Place] = []
    for labels, value in series:
        name = labels.get("__name__", "")
        place = Place.of(labels)
        if name == INFO:
            inventory.append(place)
            continue
        own = values.setdefault(place, {})
        known.add(place)
        periods.setdefault(place, labels.get("period", ""))
        if not math.isfinite(value):
            continue
        if name == BURN:
            if labels.get("span"):
                burns.setdefault(place, {})[labels["span"]] = (labels.get("window", ""), value)
        else:
            own[name] = value
    for place in inventory:  # an SLO without an event has no series but this one
        if not any(one.slo == place.slo for one in known):
            values.setdefault(place, {})
    found = [
        Budget(
            place,
            periods.get(place, ""),
            own.get(OBJECTIVE),
            own.get(GOOD),
            own.get(LEFT),
            burns.get(place, {}),
        )
        for place, own in values.items()
    ]
    return sorted(found, key=lambda one: (one.left is None, one.left or 0.0, one.place))
