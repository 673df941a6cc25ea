"""The routing tree. One cause is one notification: what groups alerts is what one cause has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from alerts.alertmanager.maintenance import Window
from alerts.slo.promql import quote

Tree = dict[str, Any]

PAGE: Final = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}
TICKET: Final = {"group_wait": "2m", "group_interval": "30m", "repeat_interval": "4d"}
"""Alertmanager forgets after 5 days (--data.retention) that it has told somebody, so that it repeats by then."""
ACTION: Final = {"group_wait": "5s", "group_interval": "1m", "repeat_interval": "12h"}
HEARTBEAT: Final = {"group_wait": "0s", "group_interval": "1m", "repeat_interval": "50s"}
"""Shorter than its interval: with 1m the last one is a moment too young each time, and every second is left out."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Alerts of ``categories`` that match go to ``receiver``; ``onward``: later routes are asked, too."""

    receiver: str
    categories: tuple[str, ...]
    matchers: tuple[str, ...]
    group_by: tuple[str, ...]
    times: dict[str, str]
    onward: bool = False


QUALITY: Final = ("quality", "drift")
LEAVES: Final = (
    Leaf("actions", QUALITY, ('action=~".+"',), ("alertname", "model", "version", "shift"), ACTION, True),
    # A class that fails, another one, and the drift that harms both: one cause, one page.
    Leaf("ml_oncall", QUALITY, ('notify="page"',), ("model",), PAGE, True),
    Leaf("sre", QUALITY, ('notify="page"',), ("model",), PAGE),
    Leaf("sre", ("ops",), ('notify="page"',), ("alertname",), PAGE),
    # The fingerprint of a shift: whether the pictures or only the predictions moved. Its slices are listed together.
    Leaf("tickets", ("drift",), ('notify="ticket"',), ("model", "version", "shift"), TICKET),
    Leaf("tickets", ("quality",), ('notify="ticket"',), ("alertname", "model"), TICKET),
    Leaf("tickets", ("ops",), ('notify="ticket"',), ("alertname",), TICKET),
)


def routes(windows: Sequence[Window]) -> Tree:
    """The tree. Whatever matches nothing reaches SRE: an alert that nobody gets is worse than one too many."""
    watchdog = {
        "receiver": "watchdog",
        "matchers": ['notify="watchdog"'],
        "group_by": ["alertname"],
        **HEARTBEAT,
    }
    leaves = [_leaf(leaf, windows) for leaf in LEAVES]
    return {"receiver": "sre", "group_by": ["alertname"], **PAGE, "routes": [watchdog, *leaves]}


def _leaf(leaf: Leaf, windows: Sequence[Window]) -> Tree:
    matchers = [_categories(leaf.categories), *leaf.matchers]
    tree: Tree = {"receiver": leaf.receiver, "matchers": matchers, "group_by": list(leaf.group_by), **leaf.times}
    if leaf.onward:
        tree["continue"] = True
    muted = _muted(leaf.categories, windows)
    return {**tree, "routes": muted} if muted else tree


def _muted(categories: Sequence[str], windows: Sequence[Window]) -> list[Tree]:
    """Routes below a leaf that add nothing but quiet. The first that matches counts: models with windows of their own.

    Categories that are quiet at the same times share a route, since a route groups for itself.
    """
    found: list[Tree] = []
    for model in (*sorted({model for window in windows for model in window.models}), None):
        quiet: dict[tuple[str, ...], list[str]] = {}
        for category in categories:
            own = [window for window in windows if category in window.categories]
            own = [window for window in own if not window.models or model in window.models]
            if any(window.models or model is None for window in own):  # others are quiet by the last route
                names = tuple(window.name for window in own)
                quiet.setdefault(names, []).append(category)
        for names, together in quiet.items():
            matchers = [_categories(together), *([] if model is None else [f"model={quote(model)}"])]
            found.append({"matchers": matchers, "mute_time_intervals": list(names)})
    return found


def _categories(names: Sequence[str]) -> str:
    return f"category={quote(names[0])}" if len(names) == 1 else f"category=~{quote('|'.join(names))}"
