"""Read model of drift: panes from the store, merged into windows, scored against their baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import msgspec

from detectors.attribution import slice_shares
from detectors.baseline import BaselineStatistic
from detectors.exemplars import typical
from detectors.frechet import FrechetReading, score_with_frechet
from detectors.harm import Harm, harm_of
from detectors.score import WindowScore
from detectors.statistic import PaneStatistic
from monitor import early, rolling
from monitor.baseline import Baseline
from monitor.errors import BaselineError
from monitor.harm_by_labels import harm_by_labels
from monitor.pane_state import PaneState
from monitor.rolling import Rolling, rolling_of
from monitor.seasonal import in_season
from monitor.settings import DriftSettings, WindowSettings
from monitor.store.store import Store
from monitor.store.values import StoredPane
from monitor.windows import DAY_US, SECOND_US, Window, to_text, window_of

MOST_SAMPLES = 20
LEADING_COLUMNS = 8
"""Columns by which records are called typical; later ones carry little of an alarm, and much noise."""

Pace = Literal["sudden", "slow"]


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
    harm: Harm = "unknown"
    slices: tuple[tuple[str, float], ...] = ()
    """Shares of an alarm by slice: those of one slice key add up to 1."""
    samples: tuple[tuple[str, float], ...] = ()
    """Of the records kept at random those most typical of an alarm: input and evidence in nats, the largest first."""
    unknown_slice: bool = False
    """The baseline has no records of this slice: it is counted, never scored against others by accident."""
    early: Mapping[str, Any] | None = None
    """The first alarm of the sequential test in the window's time, over all records."""
    frechet: FrechetReading | None = None
    """Of all records; None where `detectors.frechet` cannot judge it, and where only a part of the baseline counts."""
    season: tuple[str, ...] | None = None
    """The parts of the baseline that the window was compared with; None where it tells none apart."""
    rolling: Rolling | None = None
    """The verdict against the last days; None where it is off, and for slices."""

    @property
    def pace(self) -> Pace | None:
        """``sudden``: the window differs from the last days. ``slow``: from the frozen baseline only."""
        if self.rolling is None or not self.rolling.score.scores:
            return None
        if self.rolling.score.alarm:
            return "sudden"
        return "slow" if self.score is not None and self.score.alarm else None

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
            "harm": self.harm,
            "alpha": score.alpha if score else None,
            "supported_alpha": score.supported_alpha if score else None,
            "sequences_needed": score.sequences_needed if score else None,
            "status": self._status(),
            "scores": [
                {
                    "signal": one.signal,
                    "js": one.js,
                    "kl_nats": one.kl_nats,
                    "p_value": one.p_value,
                    "threshold": one.threshold,
                    "baseline_js": one.baseline_js,
                    "alarm": one.alarm,
                }
                for one in (score.scores if score else ())
            ],
            "attribution": [
                {"signal": signal, "share": share} for signal, share in (score.attribution if score else ())
            ],
            "dimensions": [
                {
                    "signal": column.signal,
                    "dimension": column.dimension,
                    "share": column.share,
                    "bins": [asdict(change) for change in column.bins],
                }
                for column in (score.dimensions if score else ())
            ],
            "slices": [{"slice": name, "share": share} for name, share in self.slices],
            "early": self.early,
            "frechet": asdict(self.frechet) if self.frechet else None,
            "season": self.season,
            "rolling": self.rolling.to_json() if self.rolling else None,
            "pace": self.pace,
            "samples": [{"input_id": identity, "evidence_nats": evidence} for identity, evidence in self.samples],
        }

    def _status(self) -> str:
        if self.unknown_slice:
            return "unknown_slice"
        if self.score is None:
            return "no_baseline" if self.season is None else "unknown_season"
        return "alarm" if self.score.alarm else self.score.status.replace(" ", "_")


def alpha_per_window(
    length_us: int, drift: DriftSettings, windows: WindowSettings, slice_key: str = "", slices: int = 0
) -> float:
    """A window's share of the budget of false alarms.

    What the sequential test leaves of the budget of 30 days (`monitor.early.SHARE`) is split evenly over the configured
    lengths, and within a length over its windows: with 1 alarm in 30 days and lengths 1 h and 24 h, an hourly window
    gets 0.8 / 2 / 720. Where the baseline knows ``slices``, all records take half of that, and the slices share the
    other half. Where windows are compared with the last days too, that takes `monitor.rolling.SHARE` of what all
    records have.
    """
    windows_in_30_days = 30 * DAY_US / length_us
    budget = drift.false_alarms_per_30_days * (1 - early.SHARE)
    share = min(0.5, budget / len(windows.lengths_seconds) / windows_in_30_days)
    if slice_key:
        return share / 2 / slices if slices else share
    whole = share / 2 if slices else share
    return whole * (1 - rolling.SHARE) if drift.rolling_days else whole


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
    state = PaneState.merged((part.state for part in parts), every_exemplar=True)
    statistic = state.statistic
    key = parts[0].key
    known = baseline.statistic_of(key.slice) if baseline is not None else None
    season = in_season(known, parts) if known is not None else None
    own = season.baseline if season is not None else None
    score, frechet = None, None
    if own is not None:
        # Moments of a part of the baseline are not kept apart.
        moments = baseline.moments if baseline is not None and own is baseline.statistic else None
        score, frechet = score_with_frechet(own, moments, statistic, state.moments, alpha)
    harm: Harm = "unknown"
    if own is not None and score is not None and score.status == "ok":
        harm = harm_of(own, statistic, {one.signal: one.design_effect for one in score.scores})
    return ScoredWindow(
        model=key.model,
        version=key.version,
        slice=key.slice,
        window=window,
        baseline_id=key.baseline_id,
        records=statistic.records,
        sequences=statistic.sequences,
        score=score,
        harm=harm,
        samples=_samples(own, score, state) if own is not None and score is not None and score.alarm else (),
        unknown_slice=baseline is not None and known is None,
        frechet=frechet,
        season=season.names if season is not None else None,
    )


def _samples(baseline: BaselineStatistic, score: WindowScore, state: PaneState) -> tuple[tuple[str, float], ...]:
    """The records most typical of an alarm, by the columns that carry it."""
    layout = baseline.layout
    at = [layout.column(column.signal, column.dimension) for column in score.dimensions[:LEADING_COLUMNS]]
    exemplars = state.exemplars
    found = typical(exemplars.ids, exemplars.codes, state.statistic.counts(), baseline, at, MOST_SAMPLES)
    return tuple(found)


def with_labels(scored: ScoredWindow, store: Store, baseline: Baseline | None) -> ScoredWindow:
    """The same with ``harm`` as labels have it, where an alarm's window has enough of them."""
    if baseline is None or scored.score is None or not scored.score.alarm:
        return scored
    window = scored.window
    rows = store.judged(scored.model, scored.version, since_us=window.start_us, until_us=window.end_us)
    told = harm_by_labels(rows, scored.records, baseline.reference, scored.slice)
    return scored if told is None else replace(scored, harm=told)


def with_slices(scored: ScoredWindow, store: Store, baseline: Baseline | None) -> ScoredWindow:
    """The same verdict, with the shares of each slice where all records of a window alarm."""
    score = scored.score
    if baseline is None or score is None or not score.alarm or scored.slice:
        return scored
    carrying = {signal for signal, _ in score.attribution}
    effects = {one.signal: one.design_effect for one in score.scores if one.signal in carrying}
    by_key: dict[str, dict[str, tuple[BaselineStatistic, PaneStatistic]]] = defaultdict(dict)
    for name, known in baseline.slices.items():
        panes = store.read_panes(
            scored.model,
            scored.version,
            slice=name,
            since_us=scored.window.start_us,
            until_us=scored.window.end_us,
            baseline_id=scored.baseline_id,
        )
        own = in_season(known, panes).baseline if panes else None
        if own is not None:
            by_key[name.partition("=")[0]][name] = own, PaneState.merged(pane.state for pane in panes).statistic
    shares = [pair for key in sorted(by_key) for pair in slice_shares(by_key[key], effects)]
    return replace(scored, slices=tuple(shares))


def with_rolling(
    scored: ScoredWindow,
    panes: Sequence[StoredPane],
    store: Store,
    baseline: Baseline | None,
    drift: DriftSettings,
    windows: WindowSettings,
) -> ScoredWindow:
    """The same verdict, with that of the window, made of these panes, against the last days."""
    if baseline is None or scored.score is None:
        return scored
    alpha = scored.score.alpha
    return replace(scored, rolling=rolling_of(store, baseline.statistic, panes, scored.window, alpha, drift, windows))


def with_early(scored: ScoredWindow, store: Store) -> ScoredWindow:
    """The same verdict, with the first early alarm in the window's time."""
    if scored.slice or not scored.baseline_id:
        return scored
    window = scored.window
    found = store.early_alarms(
        scored.model, scored.version, scored.baseline_id, after_us=window.start_us, until_us=window.end_us
    )
    return replace(scored, early=msgspec.json.decode(found[0].payload)) if found else scored


def with_evidence(
    scored: ScoredWindow,
    panes: Sequence[StoredPane],
    store: Store,
    baseline: Baseline | None,
    drift: DriftSettings,
    windows: WindowSettings,
) -> ScoredWindow:
    """The same verdict, with all that the store tells beside it of the window, made of these panes."""
    scored = with_rolling(scored, panes, store, baseline, drift, windows)
    return with_early(with_slices(with_labels(scored, store, baseline), store, baseline), store)


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
        baseline = baselines.of(baseline_id) if baseline_id else None
        for window, members in _windows(panes, length_us, pane_us):
            share = alpha
            if share is None:
                known_slices = len(baseline.slices) if baseline is not None else 0
                share = alpha_per_window(window.length_us, drift, settings, slice_key, known_slices)
            scored = score_panes(members, window, baseline, share)
            if scored is not None:
                result.append(with_evidence(scored, members, store, baseline, drift, settings))
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
