"""The segwatch that rules watch: where Prometheus finds it, and those of its settings that rules depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SLACK_S: Final = 1800
"""For the evaluator's turn, a failover to another leader, a restart, and scrapes: seconds to minutes each."""
DAY_S: Final = 86_400
SCRAPED: Final = 'up{job="segwatch",instance="segwatch"}'
"""The target of an installation, in promtool's notation."""
COUNT: Final = '{{ $value | printf "%.0f" }}'
"""A number of events, in a text: ``increase`` extrapolates, so that one event may be 1.02."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Defaults are those of the settings. ``job`` and ``instance``: what Prometheus scrapes segwatch under."""

    job: str = "segwatch"
    instance: str = "segwatch"
    window_s: int = 3600
    """Length of the windows that feed the metrics (the first of ``windows.lengths_seconds``)."""
    close_delay_s: float = 10.0
    """``windows.close_delay_seconds``."""
    labels_topic: str = "segwatch.labels"

    @property
    def scored_within_s(self) -> int:
        """Seconds after which a record's window has been scored, in whole minutes: its window's length at most until
        the window ends, the delay until it closes, and slack."""
        return math.ceil((self.window_s + self.close_delay_s + SLACK_S) / 60) * 60

    @property
    def first_scored_within_s(self) -> int:
        """The same for the first window of a baseline, which may become active amid one; in whole hours."""
        return math.ceil((2 * self.window_s + self.close_delay_s + SLACK_S) / 3600) * 3600

    @property
    def judged_within_s(self) -> int:
        """A day, and two windows at least: some of what they hold is enough for a verdict."""
        return max(DAY_S, 2 * self.window_s)

    @property
    def slice_silent_after_s(self) -> int:
        """A day, so that a camera which sleeps at night is none, and the window in which it was seen last."""
        return DAY_S + self.window_s
