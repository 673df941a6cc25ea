"""Which part of a baseline a window is compared with: that of its hours and weekdays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.baseline import BaselineStatistic
from monitor.store.values import StoredPane


@dataclass(frozen=True)
class InSeason:
    """``baseline`` None: it knows too little of these times. ``names``: the parts, None where it tells none apart."""

    baseline: BaselineStatistic | None
    names: tuple[str, ...] | None = None


def in_season(baseline: BaselineStatistic, panes: Sequence[StoredPane]) -> InSeason:
    """What a window made of these panes is compared with; a pane's records count at its start.

    A window over several parts is compared with a mixture of them, in the proportions of its own records.
    """
    seasons = baseline.seasons
    if seasons is None or seasons.rhythm.calendar is None:
        return InSeason(baseline)
    calendar = seasons.rhythm.calendar
    part = calendar.of(np.array([pane.key.start_us for pane in panes], dtype=np.int64))
    weights = np.array([pane.records for pane in panes])
    records = np.bincount(part % (calendar.parts + 1), weights, minlength=calendar.parts + 1)  # -1: the last one
    mixture = seasons.mixture([round(count) for count in records.tolist()])
    if mixture is None:
        return InSeason(None, ())
    names = tuple(calendar.name(number) for number, weight in enumerate(mixture) if weight)
    return InSeason(baseline.in_season(mixture), names)
