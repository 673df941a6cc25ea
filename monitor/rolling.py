"""Beside the verdict against the frozen baseline: each window of all records against those of the last days."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.baseline import BaselineStatistic
from detectors.calendar import HOUR_US
from detectors.rolling import RollingScore, score_rolling
from detectors.statistic import PaneStatistic
from monitor.pane_state import PaneState
from monitor.settings import DriftSettings, WindowSettings
from monitor.store.store import Store
from monitor.store.values import StoredPane, StoredScore
from monitor.windows import DAY_US, SECOND_US, Window, to_text

SHARE = 0.25
"""Of the budget that all records of a window have; the frozen baseline keeps the rest. Nothing is taken while off."""
MOST_WINDOWS = 48
"""Earlier windows that are read: the noise of 48 adds a hundredth to the window's own."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """The verdict, and the span of the windows that it looked at."""

    score: RollingScore
    since_us: int
    until_us: int

    def to_json(self) -> dict[str, Any]:
        score = self.score
        return {
            "since": to_text(self.since_us),
            "until": to_text(self.until_us),
            "windows": score.windows,
            "records": score.records,
            "status": "alarm" if score.alarm else score.status.replace(" ", "_"),
            "alpha": score.alpha,
            "p_value": score.p_value,
            "alarm": score.alarm,
            "scores": [
                {
                    "signal": one.signal,
                    "js": one.js,
                    "p_value": one.p_value,
                    "reference_js": one.reference_js,
                    "alarm": one.alarm,
                }
                for one in score.scores
            ],
        }


def rolling_of(
    store: Store,
    baseline: BaselineStatistic,
    panes: Sequence[StoredPane],
    window: Window,
    frozen_alpha: float,
    drift: DriftSettings,
    windows: WindowSettings,
) -> Rolling | None:
    """Compare a window of all records with windows of its length and season that were scored in the last days.

    ``panes`` are the window's, of one model version and baseline. The window just before it is left out, so that a
    shift that began in it is no part of both sides. Of the others those that alarmed against the frozen baseline are
    left out while they hold no more than half of the records, so that a shift does not become normal at once; from
    then on they are what is normal, and the rest is left out.

    None where this is switched off, for slices, and for lengths that are not scored as they close.
    """
    if drift.rolling_days <= 0 or not panes or panes[0].key.slice:
        return None
    if window.length_us not in [length * SECOND_US for length in windows.lengths_seconds]:
        return None
    key = panes[0].key
    until_us = window.start_us - window.length_us
    since_us = until_us - round(drift.rolling_days * DAY_US)
    stored = store.scores(
        key.model,
        key.version,
        since_us=since_us,
        until_us=until_us - window.length_us + 1,
        length_us=window.length_us,
    )
    alike = _season_of(baseline, window)
    history = [
        one
        for one in stored
        if one.baseline_id == key.baseline_id
        and one.records
        and _season_of(baseline, Window(one.start_us, one.end_us)) == alike
    ]
    before = []
    for one in _chosen(_majority(history)):
        read = store.read_panes(
            key.model, key.version, since_us=one.start_us, until_us=one.end_us, baseline_id=key.baseline_id
        )
        before.append(_statistics(read))
    score = score_rolling(baseline, _statistics(panes), before, frozen_alpha * SHARE / (1 - SHARE))
    return Rolling(score, since_us, until_us)


def _majority(history: Sequence[StoredScore]) -> list[StoredScore]:
    """Those that alarmed, or those that did not, whichever hold more records."""
    alarmed = [one for one in history if one.alarm]
    others = [one for one in history if not one.alarm]
    more = sum(one.records for one in alarmed) > sum(one.records for one in others)
    return alarmed if more else others


def _chosen(history: Sequence[StoredScore]) -> list[StoredScore]:
    """At most `MOST_WINDOWS`, by a hash of their start, so that neighbouring windows read the same ones."""
    ranked = sorted(history, key=lambda one: hashlib.blake2b(one.start_us.to_bytes(8, "big", signed=True)).digest())
    return sorted(ranked[:MOST_WINDOWS], key=lambda one: one.start_us)


def _season_of(baseline: BaselineStatistic, window: Window) -> frozenset[int]:
    """The parts of the baseline's calendar that a window touches."""
    seasons = baseline.seasons
    if seasons is None or seasons.rhythm.calendar is None:
        return frozenset()
    times = np.arange(window.start_us, window.end_us, HOUR_US, dtype=np.int64)
    return frozenset(seasons.rhythm.calendar.of(times).tolist())


def _statistics(panes: Iterable[StoredPane]) -> list[PaneStatistic]:
    """Each pane's statistic, its parts merged, in order of time."""
    parts: dict[int, list[bytes]] = defaultdict(list)
    for pane in panes:
        parts[pane.key.start_us].append(pane.state)
    return [PaneState.merged(parts[start]).statistic for start in sorted(parts)]
