"""Small pieces of PromQL."""

from __future__ import annotations

import re
from collections.abc import Iterable

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


def counted(series: str, window: str, by: str) -> str:
    """Events of a counter within a window, those from before its first sample included.

    ``increase`` counts from a series' first sample on, so that what a counter had when it appeared (a new version whose
    first records came between two scrapes) is lost. It is added where the series was born in the window while its
    target was being scraped: it has fewer samples than its target had good scrapes, and none before the window.
    A Prometheus that is itself new sees as many of both, so that it does not take a total of years for an event.
    """
    born = (
        f"(min_over_time({series}[{window}]) unless last_over_time({series}[1h] offset {window}))"
        f" and (count_over_time({series}[{window}])"
        f" < on (job, instance) group_left () max by (job, instance) (sum_over_time(up[{window}])))"
    )
    return f'sum by ({by}) (increase({series}[{window}]) or label_replace({born}, "born", "1", "", ""))'
