"""The web pages, rendered on the server: no script at all, so that nothing in a record can run in a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.addresses import model_path, segment
from dashboards.render import page, style_sheet
from dashboards.sign_in import sign_in_pages
from monitor.web import WebState
from monitor.windows import SECOND_US, parse_time

WINDOWS_SHOWN: Final = 12
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
    def overview(
        request: Request, model: str | None = None, version: str | None = None, window: str | None = None
    ) -> Response:
        if model and version and window:  # as actions' links have it
            return RedirectResponse(f"{model_path(model, version)}/windows/{segment(window)}", 307)
        status = state.status()
        newest = state.newest_windows(WINDOWS_SHOWN)
        cards = [_card(one, newest.get((one["model"], one["version"]), ())) for one in status["models"]]
        return page(request, "overview.html", status=status, cards=cards, bar_width=BAR_WIDTH, states=STATES)

    @router.get("/static/style.css")
    def style() -> Response:
        return style_sheet()

    router.include_router(sign_in_pages(state))
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
    since: str | None
    """Start of the first window of the alarm that stands; None without one."""
    longer: bool
    """Whether that is the oldest window read, so that the alarm may be older."""
    carried: tuple[str, ...]
    harm: str
    length_s: int


def _card(model: Mapping[str, Any], newest: Sequence[Mapping[str, Any]]) -> Card:
    windows = list(reversed(newest))
    shortest = _length_us(windows[0]) if windows else 0
    signals = _loudest_first(windows)
    alarmed = list(takewhile(lambda window: bool(window["alarm"]), windows))
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
        alarmed[-1]["start"] if alarmed else None,
        len(alarmed) == len(windows),
        tuple(one["signal"] for one in alarmed[0]["attribution"][:3]) if alarmed else (),
        windows[0]["harm"] if windows else "unknown",
        shortest // SECOND_US,
    )


def _loudest_first(windows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Signals by their divergence in times of the threshold, the highest of any window shown."""
    found: dict[str, float] = {}
    for window in windows:
        for one in window["scores"]:
            times = one["js"] / one["threshold"] if one["js"] is not None and one["threshold"] else 0.0
            found[one["signal"]] = max(times, found.get(one["signal"], 0.0))
    return tuple(sorted(found, key=lambda name: -found[name]))


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
