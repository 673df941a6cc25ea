"""Read model of drift: panes from the store, merged into windows, scored against their baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from detectors.score import WindowScore, score_window
from detectors.statistic import PaneStatistic
from monitor.baseline import Baseline
from monitor.errors import BaselineError
from monitor.settings import DriftSettings, WindowSettings
from monitor.store.store import Store
from monitor.store.values import StoredPane
from monitor.windows import DAY_US, SECOND_US, Window, to_text, window_of


@dataclass(frozen=True)
class ScoredWindow:
    """A window with its verdict. ``score`` None: the version has no baseline, so it is counted and not scored."""

    model: str
    version: str
    slice: str
    window: Window
    baseline_id: str
    records: int
    sequences: int
    score: WindowScore | None

    def to_json(self) -> dict[str, Any]:
        """As in the contract, under ``windows`` of ``segwatch drift --json``."""
        score = self.score
        return {
            "model": self.model,
            "version": self.version,
            "slice": self.slice or None,
            "start": to_text(self.window.start_us),
            "end": to_text(self.window.end_us),
            "baseline": self.baseline_id or None,
            "records": self.records,
            "sequences": self.sequences,
            "alarm": score.alarm if score else False,
            "harm": "unknown",
            "alpha": score.alpha if score else None,
            "supported_alpha": score.supported_alpha if score else None,
            "status": _status(score),
            "scores": [
                {
                    "signal": one.signal,
                    "js": one.js,
                    "kl_nats": one.kl_nats,
                    "p_value": one.p_value,
                    "threshold": one.threshold,
                    "alarm": one.alarm,
                }
                for one in (score.scores if score else ())
            ],
            "attribution": [
                {"signal": signal, "share": share} for signal, share in (score.attribution if score else ())
            ],
        }


def _status(score: WindowScore | None) -> str:
    if score is None:
        return "no_baseline"
    return "alarm" if score.alarm else score.status.replace(" ", "_")


def alpha_per_window(length_us: int, drift: DriftSettings, windows: WindowSettings) -> float:
    """A window's share of the budget of false alarms.

    The budget of 30 days is split evenly over the configured lengths, and within a length over its windows:
    with 1 alarm in 30 days and lengths 1 h and 24 h, an hourly window gets 1 / 2 / 720.
    """
    windows_in_30_days = 30 * DAY_US / length_us
    return min(0.5, drift.false_alarms_per_30_days / len(windows.lengths_seconds) / windows_in_30_days)


class Baselines:
    """Baselines by id, each read and decoded once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Baseline] = {}

    def of(self, baseline_id: str) -> Baseline:
        if baseline_id not in self._read:
            self._read[baseline_id] = Baseline.from_bytes(self._store.baseline(baseline_id).payload)
        return self._read[baseline_id]


def score_panes(
    panes: Iterable[StoredPane], window: Window, baseline: Baseline | None, alpha: float
) -> ScoredWindow | None:
    """Merge the panes of one model version, slice and baseline, and score them; None where there are none."""
    parts = list(panes)
    if not parts:
        return None
    statistic = PaneStatistic.merged(PaneStatistic.from_bytes(part.state) for part in parts)
    key = parts[0].key
    score = score_window(baseline.statistic, statistic, alpha) if baseline is not None else None
    return ScoredWindow(
        key.model, key.version, key.slice, window, key.baseline_id, statistic.records, statistic.sequences, score
    )


def drift_windows(
    store: Store,
    settings: WindowSettings,
    drift: DriftSettings,
    *,
    model: str,
    version: str | None,
    slice_key: str,
    since_us: int | None,
    until_us: int | None,
    length_us: int | None,
    alpha: float | None,
) -> list[ScoredWindow]:
    """Every window of ``length_us`` that begins in ``[since, until)``; with None one over all panes that begin there.

    Panes of a version that were counted under another baseline than its active one are left out: bins differ.
    Raises BaselineError for a model, or a version, that the store has never seen.
    """
    active = store.active_baselines()
    extents = [extent for extent in store.pane_extent(model) if version is None or extent.version == version]
    known = {name for name, of in active if version is None or of == version} | {extent.model for extent in extents}
    if model not in known:
        what = f"model {model!r}" if version is None else f"model {model!r} version {version!r}"
        raise BaselineError(f"{what}: no baseline and no records (segwatch baseline build makes a baseline)")
    baselines = Baselines(store)
    pane_us = settings.pane_seconds * SECOND_US
    if length_us is not None:  # whole windows: half of one would be shown as if it were all of it
        since_us = None if since_us is None else -(-since_us // length_us) * length_us
        until_us = None if until_us is None else -(-until_us // length_us) * length_us
    result: list[ScoredWindow] = []
    for name in sorted({extent.version for extent in extents}):
        entry = active.get((model, name))
        baseline_id = entry.meta.id if entry else ""
        panes = store.read_panes(
            model, name, slice=slice_key, since_us=since_us, until_us=until_us, baseline_id=baseline_id
        )
        for window, members in _windows(panes, length_us, pane_us):
            share = alpha if alpha is not None else alpha_per_window(window.length_us, drift, settings)
            scored = score_panes(members, window, baselines.of(baseline_id) if baseline_id else None, share)
            if scored is not None:
                result.append(scored)
    return result


def _windows(panes: Sequence[StoredPane], length_us: int | None, pane_us: int) -> list[tuple[Window, list[StoredPane]]]:
    if not panes:
        return []
    if length_us is None:
        starts = [pane.key.start_us for pane in panes]
        return [(Window(min(starts), max(starts) + pane_us), list(panes))]
    groups: dict[Window, list[StoredPane]] = defaultdict(list)
    for pane in panes:
        groups[window_of(pane.key.start_us, length_us)].append(pane)
    return sorted(groups.items(), key=lambda group: group[0])
