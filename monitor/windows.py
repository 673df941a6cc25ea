"""Event time: panes, windows, lateness and the watermark. Pure functions over integer microseconds.

A *pane* is the smallest window kept; a *window* is a run of whole panes, aligned to the epoch. The *watermark* is the
event time up to which everything is believed to have arrived (Akidau et al., "The Dataflow Model", VLDB 2015).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from monitor.errors import InputError

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
END_OF_TIME_US = 2**62
"""Where a replay closes everything."""

LONGEST_US = 36_500 * DAY_US
"""Of a window. Its ends must be dates that can be written."""

_LENGTH = re.compile(r"(\d+)\s*(s|m|min|h|d)?")
_UNIT_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """``[start_us, end_us)`` in microseconds since the epoch, UTC."""

    start_us: int
    end_us: int

    @property
    def length_us(self) -> int:
        return self.end_us - self.start_us


@dataclass(frozen=True, slots=True)
class PartitionClock:
    """What one partition says about time. ``caught_up_at_us`` is None while records wait in it."""

    max_event_time_us: int | None
    caught_up_at_us: int | None


def pane_start(event_time_us: int, pane_us: int) -> int:
    """Start of the pane that holds ``event_time_us``.

    >>> pane_start(61_000_000, 60_000_000)
    60000000
    """
    return event_time_us - event_time_us % pane_us


def window_of(time_us: int, length_us: int) -> Window:
    """The window of this length, aligned to the epoch, that holds ``time_us``."""
    start = time_us - time_us % length_us
    return Window(start, start + length_us)


def is_late(event_time_us: int, timestamp_us: int | None, allowed_lateness_us: int) -> bool:
    """Late: older than the record's own broker timestamp minus the allowed lateness; in files never.

    A property of the record alone, so that the order of reading cannot decide it.

    >>> is_late(event_time_us=0, timestamp_us=11, allowed_lateness_us=10)
    True
    >>> is_late(event_time_us=0, timestamp_us=None, allowed_lateness_us=10)
    False
    """
    return timestamp_us is not None and event_time_us < timestamp_us - allowed_lateness_us


def watermark(clocks: Iterable[PartitionClock]) -> int | None:
    """Event time up to which everything has arrived, or None where nothing is known yet.

    The least over the partitions of: the moment at which its end was last reached (idle, the clock moves it), else its
    largest event time (lagging, it holds the others back). A lagging partition of which nothing was read holds all.

    >>> watermark([PartitionClock(50, None), PartitionClock(10, 90)])
    50
    >>> watermark([PartitionClock(50, 80), PartitionClock(10, 90)])
    80
    >>> watermark([PartitionClock(None, None), PartitionClock(10, 90)]) is None
    True
    """
    marks = [clock.max_event_time_us if clock.caught_up_at_us is None else clock.caught_up_at_us for clock in clocks]
    known = [mark for mark in marks if mark is not None]
    return min(known) if known and len(known) == len(marks) else None


def parse_length(text: str) -> int:
    """A window's length in microseconds: ``300``, ``45s``, ``5m``, ``1h``, ``7d``.

    >>> parse_length("1h") == 3600 * SECOND_US
    True
    """
    match = _LENGTH.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise InputError(f"{text!r} is no length of time: write for example 300s, 5m, 1h or 7d")
    length_us = int(match[1]) * _UNIT_SECONDS[match[2]] * SECOND_US
    if length_us > LONGEST_US:
        raise InputError(f"{text!r} is longer than {LONGEST_US // DAY_US} days")
    return length_us


def parse_time(text: str) -> int:
    """An RFC 3339 time with its zone (or a date, meaning midnight UTC), as microseconds since the epoch.

    >>> parse_time("1970-01-01T00:00:01Z")
    1000000
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is no time: write for example 2026-11-23T02:45:00Z") from None
    if moment.tzinfo is None:
        if len(text) > len("2026-11-23"):
            raise InputError(f"{text!r} has no time zone: write for example 2026-11-23T02:45:00Z")
        moment = moment.replace(tzinfo=UTC)
    return to_us(moment)


def to_us(moment: datetime) -> int:
    """Exact microseconds since the epoch of an aware time."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND_US + delta.microseconds


def to_text(time_us: int) -> str:
    """RFC 3339 in UTC, with a fraction only where there is one.

    >>> to_text(1_000_000)
    '1970-01-01T00:00:01Z'
    """
    seconds, fraction = divmod(time_us, SECOND_US)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{fraction:06d}Z" if fraction else "Z")
