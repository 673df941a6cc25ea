"""The web pages, rendered on the server: no script at all, so that nothing in a record can run in a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from fastapi import APIRouter, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from monitor.version import __version__
from monitor.web import WebState
from monitor.windows import parse_time

WINDOWS_SHOWN: Final = 12
WINDOWS_READ: Final = 4 * WINDOWS_SHOWN
"""Half a day of hourly windows: enough to see an onset, small enough for one screen."""
BAR_WIDTH: Final = 120
"""Of a score's bar, in SVG units; the threshold stands in its middle."""

STATES: Final = {
    "alarm": "Drift alarm",
    "ok": "No drift",
    "too_few_records": "Too few records for a verdict",
    "too_few_sequences": "Too few sequences for a verdict",
    "unsupported": "The baseline has too few sequences for any verdict",
    "empty": "No records",
    "no_baseline": "No baseline for this version: counted, not scored",
    "unknown_season": "The baseline has no records of this time: counted, not scored",
    "no_windows": "No closed window yet",
}


def pages(state: WebState) -> APIRouter:
    """The pages at ``/`` and what they need; pass them to ``monitor.web.create_app``."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def overview() -> Response:
        status = state.status()
        cards = [_card(state, model) for model in status["models"]]
        text = _templates().get_template("overview.html").render(
            version=__version__, status=status, cards=cards, bar_width=BAR_WIDTH, states=STATES
        )
        # A record's text may hold lone surrogates, which UTF-8 cannot say.
        return Response(text.encode("utf-8", "replace"), media_type="text/html; charset=utf-8")

    @router.get("/static/style.css")
    def style() -> Response:
        return Response(_style(), media_type="text/css", headers={"cache-control": "max-age=300"})

    return router


@dataclass(frozen=True, slots=True)
class Cell:
    """A score beside its threshold. ``bar``: 0..BAR_WIDTH, where the threshold stands at half of it."""

    js: float | None
    threshold: float | None
    p_value: float | None
    alarm: bool
    bar: float


@dataclass(frozen=True, slots=True)
class Row:
    """A window; ``cells`` in the order of the card's signals, None where the window has no such score."""

    start: str
    end: str
    records: int
    state: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A model version."""

    model: str
    version: str
    baseline: str | None
    baseline_created: str | None
    outcomes: tuple[tuple[str, int], ...]
    state: str
    signals: tuple[str, ...]
    rows: tuple[Row, ...]
    slices_in_alarm: tuple[str, ...]


def _card(state: WebState, model: Mapping[str, Any]) -> Card:
    newest = state.windows(model["model"], model["version"], "", None, None, WINDOWS_READ)
    # Windows of several lengths are scored; side by side they would only confuse, and the shortest say it first.
    shortest = min((_length_us(window) for window in newest), default=0)
    windows = [window for window in reversed(newest) if _length_us(window) == shortest][:WINDOWS_SHOWN]
    signals = tuple(dict.fromkeys(score["signal"] for window in windows for score in window["scores"]))
    return Card(
        model["model"],
        model["version"],
        model["baseline"],
        model["baseline_created"],
        tuple(sorted(model["records"].items())),
        windows[0]["status"] if windows else "no_windows",
        signals,
        tuple(_row(window, signals) for window in windows),
        tuple(
            window["slice"]
            for window in model["windows"]
            if window["slice"] and window["alarm"] and _length_us(window) == shortest
        ),
    )


def _length_us(window: Mapping[str, Any]) -> int:
    return parse_time(window["end"]) - parse_time(window["start"])


def _row(window: Mapping[str, Any], signals: Sequence[str]) -> Row:
    scores = {score["signal"]: score for score in window["scores"]}
    cells = tuple(_cell(scores[signal]) if signal in scores else None for signal in signals)
    return Row(window["start"], window["end"], window["records"], window["status"], cells)


def _cell(score: Mapping[str, Any]) -> Cell:
    js, threshold = score["js"], score["threshold"]
    share = 0.0 if js is None or not threshold else min(1.0, max(0.0, js) / (2 * threshold))
    return Cell(js, threshold, score["p_value"], bool(score["alarm"]), round(share * BAR_WIDTH, 1))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("dashboards"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["minute"] = _minute
    return environment


def _number(value: float | None, digits: int = 3) -> str:
    """Short; a dash for what is absent.

    >>> _number(0.012345), _number(None)
    ('0.0123', '–')
    """
    return "–" if value is None else f"{value:.{digits}g}"


def _minute(time: str) -> str:
    """An RFC 3339 time in UTC to the minute, for people.

    >>> _minute("2026-11-23T02:45:00Z")
    '2026-11-23 02:45'
    """
    return time[:16].replace("T", " ")


@cache
def _style() -> bytes:
    return resources.files("dashboards").joinpath("static", "style.css").read_bytes()
