"""A model version's windows on one axis of time: drift, quality, labels, records, releases, alarms and actions.

Only geometry: numbers in, coordinates out. The template draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 960
LEFT: Final = 56
RIGHT: Final = 14
DRIFT: Final = (24, 150)
QUALITY: Final = (182, 282)
LABELS: Final = (314, 354)
EVENTS: Final = (386, 402)
HEIGHT: Final = 440
MOST_TIMES: Final = 3.0
"""Times its threshold: what is above is drawn there."""
TICKS: Final = 6


@dataclass(frozen=True, slots=True)
class Point:
    """A window. ``drift``: the highest divergence of a signal as times its threshold; quality 0..1; None: unknown."""

    start_us: int
    end_us: int
    drift: float | None
    alarm: bool
    records: int
    labelled: int
    quality: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something at a moment: a release, an alarm of the sequential test, an action."""

    at_us: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    point: Point
    index: int


@dataclass(frozen=True, slots=True)
class Mark:
    x: float
    event: Event


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    time_us: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that the drawing needs, in the units of its view box."""

    drift: tuple[Bar, ...]
    labels: tuple[Bar, ...]
    whole: tuple[Bar, ...]
    """Each window's full height, for links."""
    line: tuple[str, ...]
    """Points of the quality line, in pieces where windows without a figure lie between."""
    band: tuple[str, ...]
    """The interval around each piece."""
    dots: tuple[tuple[float, float], ...]
    threshold_y: float
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    most_labelled: int


def timeline(points: Sequence[Point], events: Sequence[Event]) -> Timeline | None:
    """None where there is no window. ``points`` in order of time; events outside their time are left out."""
    if not points:
        return None
    first, last = points[0].start_us, points[-1].end_us
    scale = (WIDTH - LEFT - RIGHT) / max(1, last - first)

    def x(time_us: int) -> float:
        return round(LEFT + (time_us - first) * scale, 1)

    def bar(index: int, lane: tuple[int, int], share: float) -> Bar:
        point = points[index]
        height = round(min(1.0, max(0.0, share)) * (lane[1] - lane[0]), 1)
        start, end = x(point.start_us), x(point.end_us)
        return Bar(start + 0.5, round(lane[1] - height, 1), max(1.0, end - start - 1), height, point, index)

    most = max(1, *(point.labelled for point in points))
    numbers = range(len(points))
    line, band, dots = _quality(points, x)
    return Timeline(
        tuple(bar(i, DRIFT, (points[i].drift or 0.0) / MOST_TIMES) for i in numbers if points[i].drift is not None),
        tuple(bar(i, LABELS, points[i].labelled / most) for i in numbers if points[i].labelled),
        tuple(bar(i, (DRIFT[0], EVENTS[1]), 1.0) for i in numbers),
        line,
        band,
        dots,
        round(_y(DRIFT, 1 / MOST_TIMES), 1),
        tuple(Mark(x(one.at_us), one) for one in events if first <= one.at_us <= last),
        tuple(Tick(x(time_us), time_us) for time_us in (first + (last - first) * i // TICKS for i in range(TICKS + 1))),
        most,
    )


def _y(lane: tuple[int, int], share: float) -> float:
    return lane[1] - min(1.0, max(0.0, share)) * (lane[1] - lane[0])


def _quality(
    points: Sequence[Point], x: Callable[[int], float]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[float, float], ...]]:
    lines: list[str] = []
    bands: list[str] = []
    dots: list[tuple[float, float]] = []
    for piece in _pieces(points):
        middle = [(x((one.start_us + one.end_us) // 2), one) for one in piece]
        sides: list[list[tuple[float, float]]] = [[], [], []]
        for at, one in middle:
            for side, value in zip(sides, (one.quality, one.lower, one.upper), strict=True):
                side.append((at, round(_y(QUALITY, value if value is not None else one.quality or 0.0), 1)))
        lines.append(_text(sides[0]))
        bands.append(_text([*sides[1], *reversed(sides[2])]))
        dots += sides[0]
    return tuple(lines), tuple(bands), tuple(dots)


def _pieces(points: Sequence[Point]) -> list[list[Point]]:
    pieces: list[list[Point]] = [[]]
    for one in points:
        if one.quality is not None:
            pieces[-1].append(one)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _text(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
