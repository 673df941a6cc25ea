"""Small pieces of PromQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

UNITS_S = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}


def duration(seconds: int) -> str:
    """A duration in the largest units, as Prometheus writes it.

    >>> duration(3600), duration(259_200), duration(5400), duration(300)
    ('1h', '3d', '1h30m', '5m')
    """
    text = ""
    for unit, size in UNITS_S.items():
        if unit != "w" and seconds >= size:
            text += f"{seconds // size}{unit}"
            seconds %= size
    return text or "0s"


def parse_duration(text: str) -> int:
    """Seconds of ``5m``, ``1h30m``, ``30d``. Raises ValueError.

    >>> parse_duration("1h30m"), parse_duration("4w")
    (5400, 2419200)
    """
    parts = re.findall(r"(\d+)([wdhms])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"expected a duration such as 5m, 1h or 30d, got {text!r}")
    return sum(int(number) * UNITS_S[unit] for number, unit in parts)


def quote(value: str) -> str:
    """A PromQL string.

    >>> print(quote('a"b'))
    "a\\"b"
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def number(value: float) -> str:
    """A number without noise from floating point.

    >>> number(14.4 * 0.01), number(6.0)
    ('0.144', '6')
    """
    return f"{value:.10g}"


def one_of(values: Iterable[str]) -> str:
    """A matcher's operator and value for one name or several.

    >>> print(one_of(["car"]), one_of(["car", "a.b"]))
    ="car" =~"car|a\\\\.b"
    """
    names = list(values)
    if len(names) == 1:
        return f"={quote(names[0])}"
    return "=~" + quote("|".join(re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", name) for name in names))


def selector(metric: str, *matchers: str) -> str:
    """A series selector; empty matchers are left out.

    >>> selector("up", 'job="a"', "")
    'up{job="a"}'
    """
    inner = ",".join(matcher for matcher in matchers if matcher)
    return f"{metric}{{{inner}}}" if inner else metric


def births(counters: Sequence[str], period: str, tile: str) -> str:
    """When counters' series first had a sample, for those that were born while their target was being scraped.

    Time is cut into tiles, the last of which still runs. A series was born in the period where the first tile that has
    a sample of it comes after the first in which its target was up: a hole, however long, is no birth, and a Prometheus
    that is itself new sees target and series in the same tile, so that it does not take a total of years for events.
    What had samples in the week before the period came back to it. The targets are looked at once for all counters.
    """

    def first(series: str) -> str:
        tiled = _tiled("min_over_time", f"last_over_time({series}[{tile}]) * 0 + time()", period, tile)
        return f"{tiled} unless last_over_time({series}[{BEFORE}] offset {period})"

    scraped = f"min_over_time(((sum_over_time(up[{tile}]) > 0) * 0 + time())[{period}:{tile}])"
    return f"({_each(counters, first)}) > on (job, instance) group_left () min by (job, instance) ({scraped})"


def _each(counters: Sequence[str], found: Callable[[str], str]) -> str:
    """What is found of each counter's selector, told apart by the label ``counter``."""
    tagged = (f'label_replace({found(one)}, "counter", "{index}", "", "")' for index, one in enumerate(counters))
    return " or ".join(tagged)


def _tiled(function: str, of_tile: str, period: str, tile: str) -> str:
    """A function over the tiles of a period, or over the last tile. Several times quicker than over all samples."""
    return f"({function}(({of_tile})[{period}:{tile}]) or {of_tile})"


def _extreme(name: str, counters: Sequence[str], period: str, tile: str) -> str:
    return _each(counters, lambda series: _tiled(name, f"{name}({series}[{tile}])", period, tile))


def firsts(counters: Sequence[str], period: str, tile: str, birth: str) -> str:
    """What newborn series had at their first sample."""
    return f"({_extreme('min_over_time', counters, period, tile)}) and ignoring (slo) {birth}"


def doubted(counters: Sequence[str], period: str, tile: str, first: str) -> str:
    """First samples of over 100 more than their series have counted since.

    No scrape interval has brought so many: they are totals from before, of metrics that an upgrade has added.
    """
    most = _extreme("max_over_time", counters, period, tile)
    return f"{first} > ignoring (slo) (({most}) + {UNBORN}) / 2"


BEFORE: Final = "7d"
UNBORN: Final = 100
OF_BIRTH: Final = ("slo", "counter")
"""Labels that recorded births have beside those of the counter."""
KEPT: Final = "10m"
"""Births and budgets are recorded every 5 minutes, which is just as far as Prometheus looks back."""
BIRTH: Final = "segwatch:slo_counter_birth:time"
FIRST: Final = "segwatch:slo_counter_birth:first"
DOUBTED: Final = "segwatch:slo_counter_birth:doubted"
BORN_WITH: Final = "segwatch:slo_counter_birth:events"


def tile_s(period_s: int) -> int:
    """Length of the tiles in which births are looked for: 3 h of 30 d, in whole minutes.

    >>> tile_s(30 * 86_400), tile_s(3600)
    (10800, 60)
    """
    return max(60, period_s // TILES // 60 * 60)


TILES: Final = 240


@dataclass(frozen=True, slots=True)
class Counting:
    """How a counter's events are counted: ``recorded``: matchers of its recorded births; ``tile``: of their time."""

    recorded: str
    tile: str

    def __call__(self, series: str, window: str, by: str) -> str:
        """Events of a counter within a window, those from before its first sample included.

        ``increase`` counts from a series' first sample on, so that what a counter had when it appeared (a new version
        whose first records came between two scrapes) is lost. It is added where the birth lies in the window: that is
        known to a tile, and a tile before the window tells whether the first sample was in that.
        """
        birth, events = (f"last_over_time({name}{{{self.recorded}}}[{KEPT}])" for name in (BIRTH, BORN_WITH))
        born = (
            f"{events} and {birth} > time() - {parse_duration(window)}"
            f" unless ignoring ({', '.join(OF_BIRTH)}) last_over_time({series}[{self.tile}] offset {window})"
        )
        return f"sum by ({by}) (increase({series}[{window}]) or {born})"
