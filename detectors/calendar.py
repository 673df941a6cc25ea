"""Parts of a day and of a week: which of them a moment belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
STEP_US = HOUR_US // 4
"""All zones are off UTC by a multiple of a quarter of an hour, and change at one."""
HOURS, WEEKDAYS = 24, 7
NOWHERE = -1
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
THURSDAY = 3
"""The first of January 1970."""


@dataclass(frozen=True, slots=True)
class LocalTimes:
    """Of moments (N,): the local day since 1970, the hour 0..23, the weekday 0..6 (Monday first), the week."""

    day: NDArray[np.int64]
    hour: NDArray[np.int64]

    @property
    def weekday(self) -> NDArray[np.int64]:
        return (self.day + THURSDAY) % WEEKDAYS

    @property
    def week(self) -> NDArray[np.int64]:
        return (self.day + THURSDAY) // WEEKDAYS


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises ValueError where this machine knows none of that name."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone has the name {name!r} on this machine (for example Europe/Berlin)") from None


def local_times(times_us: NDArray[np.int64], zone: str) -> LocalTimes:
    """Clock and calendar of ``zone`` at these moments, microseconds since 1970 in UTC.

    >>> found = local_times(np.array([0, 23 * HOUR_US]), "UTC")
    >>> found.hour.tolist(), found.weekday.tolist()
    ([0, 23], [3, 3])
    """
    times_us = np.asarray(times_us, dtype=np.int64)
    steps, place = np.unique(times_us // STEP_US, return_inverse=True)
    where = zone_of(zone)
    offsets = np.zeros(len(steps), dtype=np.int64)
    if where is not UTC:
        for index, step in enumerate(steps.tolist()):
            offset = (EPOCH + timedelta(microseconds=step * STEP_US)).astimezone(where).utcoffset() or timedelta()
            offsets[index] = round(offset.total_seconds()) * 1_000_000
    local = times_us + offsets[place.reshape(-1)]
    return LocalTimes(local // DAY_US, local % DAY_US // HOUR_US)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Blocks of hours and of weekdays; a *part* is one block of hours on one block of weekdays.

    >>> calendar = Calendar("UTC", (1,) * 6 + (0,) * 16 + (1,) * 2, (0,) * 5 + (1,) * 2)
    >>> calendar.parts, calendar.name(0), calendar.name(3)
    (4, '06:00-22:00 Mon-Fri', '22:00-06:00 Sat-Sun')
    >>> calendar.of(np.array([0, 7 * HOUR_US])).tolist()
    [2, 0]
    """

    zone: str
    hours: tuple[int, ...]
    """The block of each hour, 0.. without gaps; `NOWHERE` for those that the baseline has no records of."""
    weekdays: tuple[int, ...]
    """The same for each weekday, Monday first."""

    def __post_init__(self) -> None:
        if len(self.hours) != HOURS or len(self.weekdays) != WEEKDAYS:
            raise ValueError(f"a calendar has 24 hours and 7 weekdays, got {len(self.hours)} and {len(self.weekdays)}")
        for blocks in (self.hours, self.weekdays):
            if set(blocks) - {NOWHERE} != set(range(max(blocks) + 1)):
                raise ValueError("a calendar's blocks are numbered from 0 without gaps")

    @property
    def parts(self) -> int:
        return (max(self.hours) + 1) * (max(self.weekdays) + 1)

    def of(self, times_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part of each moment (N,), `NOWHERE` where the baseline knows nothing of it."""
        local = local_times(times_us, self.zone)
        hours = np.array(self.hours)[local.hour]
        weekdays = np.array(self.weekdays)[local.weekday]
        part = hours * (max(self.weekdays) + 1) + weekdays
        return np.where((hours < 0) | (weekdays < 0), NOWHERE, part)

    def name(self, part: int) -> str:
        """For people: local hours and weekdays, as far as the baseline tells them apart."""
        hour, weekday = divmod(part, max(self.weekdays) + 1)
        names = []
        if max(self.hours) > 0:
            names.append(", ".join(f"{a:02}:00-{(b + 1) % HOURS:02}:00" for a, b in _runs(self.hours, hour)))
        if max(self.weekdays) > 0:
            runs = _runs(self.weekdays, weekday)
            names.append(", ".join(DAYS[a] if a == b else f"{DAYS[a]}-{DAYS[b]}" for a, b in runs))
        return " ".join(names)


def _runs(blocks: Sequence[int], block: int) -> list[tuple[int, int]]:
    """First and last place of each run of ``block`` on the circle."""
    size = len(blocks)
    starts = [i for i in range(size) if blocks[i] == block != blocks[i - 1]]
    if not starts:
        return [(0, size - 1)]
    runs = []
    for start in starts:
        length = next(n for n in range(1, size + 1) if blocks[(start + n) % size] != block)
        runs.append((start, (start + length - 1) % size))
    return runs
