"""Maintenance windows: when which alerts are kept quiet. The watchdog never is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from alerts.slo.spec import SpecError

Path = tuple[str | int, ...]

CATEGORIES: Final = ("quality", "drift", "ops")
FIELDS: Final = ("name", "categories", "models", "time_intervals")
PARTS: Final = ("times", "weekdays", "days_of_month", "months", "years", "location")


@dataclass(frozen=True, slots=True)
class Window:
    """``models`` empty: of all models, and of what has none. ``intervals``: as Alertmanager takes them."""

    name: str
    categories: tuple[str, ...]
    models: tuple[str, ...]
    intervals: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "time_intervals": [dict(one) for one in self.intervals]}


def parse_maintenance(tree: Any) -> list[Window]:
    """The windows under ``maintenance``. Raises SpecError that leads to the field at fault."""
    if not isinstance(tree, dict) or set(tree) != {"maintenance"}:
        raise SpecError((), "expected one list, maintenance")
    if not isinstance(tree["maintenance"], list):
        raise SpecError(("maintenance",), f"expected a list of windows, got {tree['maintenance']!r}")
    found = [_window(one, ("maintenance", index)) for index, one in enumerate(tree["maintenance"])]
    for index, window in enumerate(found):
        if window.name in [other.name for other in found[:index]]:
            raise SpecError(("maintenance", index, "name"), f"{window.name} stands there twice")
    return found


def _window(tree: Any, path: Path) -> Window:
    _check_fields(tree, FIELDS, path)
    name = tree.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
        raise SpecError((*path, "name"), f"expected a name of letters, digits, '_', '.' and '-', got {name!r}")
    categories = _texts(tree.get("categories", list(CATEGORIES)), (*path, "categories"))
    for index, category in enumerate(categories):
        if category not in CATEGORIES:
            raise SpecError((*path, "categories", index), f"expected one of {', '.join(CATEGORIES)}, got {category!r}")
    models = _texts(tree["models"], (*path, "models")) if "models" in tree else ()
    intervals = tree.get("time_intervals")
    if not isinstance(intervals, list) or not intervals:
        raise SpecError((*path, "time_intervals"), "expected a list of Alertmanager's time intervals")
    for index, interval in enumerate(intervals):
        _check_interval(interval, (*path, "time_intervals", index))
    return Window(name, categories, models, tuple(intervals))


def _texts(value: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise SpecError(path, f"expected a list of names, got {value!r}")
    return tuple(value)


def _check_fields(tree: Any, names: Sequence[str], path: Path) -> None:
    if not isinstance(tree, dict):
        raise SpecError(path, f"expected fields, got {tree!r}")
    for name in tree:
        if name not in names:
            raise SpecError((*path, name), f"no such field; there are {', '.join(names)}")


def _check_interval(tree: Any, path: Path) -> None:
    """What Alertmanager would refuse most often, with a word that helps; amtool sees the rest."""
    _check_fields(tree, PARTS, path)
    if not set(tree) - {"location"}:
        raise SpecError(path, f"expected one of {', '.join(PARTS[:-1])}: an empty interval is all of time")
    times = tree.get("times", [])
    if not isinstance(times, list):
        raise SpecError((*path, "times"), f"expected a list, got {times!r}")
    for index, one in enumerate(times):
        here = (*path, "times", index)
        _check_fields(one, ("start_time", "end_time"), here)
        start, end = (_minutes(one.get(name), (*here, name)) for name in ("start_time", "end_time"))
        if start >= end:
            raise SpecError(here, "ends before it begins; a night is two: from start_time to 24:00, and from 00:00 on")


def _minutes(value: Any, path: Path) -> int:
    match = re.fullmatch(r"([01]\d|2[0-4]):([0-5]\d)", value) if isinstance(value, str) else None
    if match is None or value > "24:00":
        raise SpecError(path, f'expected a time such as "02:30" (in quotes), got {value!r}')
    return int(match[1]) * 60 + int(match[2])
