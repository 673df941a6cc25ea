"""Read model of ``segwatch report``: one window and its baseline, column by column, for a tool that wants values.

The store has counts over the baseline's bins, not values. A value is made for each counted one: its bin's
representative. So every column has the right share in every bin, and quantiles that are right to the width of a bin;
rows mean nothing, for what belonged to one record is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.binning import Binning
from detectors.layout import Layout
from detectors.statistic import PaneStatistic
from monitor.drift import Baselines, ScoredWindow, alpha_per_window, score_panes, with_slices
from monitor.errors import BaselineError, InputError
from monitor.pane_state import PaneState
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.windows import SECOND_US, Window, parse_length, parse_time, to_text

MOST_ROWS: Final = 5000
"""A side: a bin's share is right to 0.02 %, and Evidently takes seconds."""

Latest = Literal["last", "last-alarm"]
Frame = dict[str, NDArray[np.float64]]
"""Columns by "signal: dimension", all of one length."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A window's verdict, and both sides' columns, under the same names in the same order."""

    scored: ScoredWindow
    baseline_records: int
    window: Frame
    baseline: Frame
    left_out: tuple[str, ...]
    """Columns with a finite value on one side only, where there is nothing to compare. Those with none on either are
    not mentioned: the signal is not in use."""


def representatives(binning: Binning) -> NDArray[np.float64]:
    """One value for each bin, (D, B + 1): it lies in the bin, so counting it again gives the same counts.

    The middle of the bin's edges; a constant's bin (next to no width) has the constant itself. The ends are open: half
    the width of the neighbouring bin beyond the edge, of the widest bin where that is a constant's, and where
    there is no width at all half the edge (0.5 at 0). NaN for values that are not finite and for bins not in use.

    >>> representatives(Binning(np.array([[0.0, 2.0, 3.0]]))).tolist()
    [[-1.0, 1.0, 2.5, 3.5, nan]]
    """
    result = np.full((binning.dimensions, binning.cells), np.nan)
    for row, edges in zip(result, binning.edges, strict=True):
        used = edges[np.isfinite(edges)]
        row[: len(used) + 1] = _of_column(used)
    return result


def _of_column(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Representatives of the bins around and between these finite edges (E,), (E + 1,)."""
    if not len(edges):
        return np.zeros(1)
    low, high = edges[:-1], edges[1:]
    # As in Binning: the number after 0 counts as the smallest normal one.
    constant = high <= np.where(low == 0, np.finfo(np.float64).tiny, np.nextafter(low, np.inf))
    middle = low / 2 + high / 2
    inner = np.where(constant | (middle < low) | (middle >= high), low, middle)
    half = np.where(constant, 0.0, high / 2 - low / 2)
    widest = float(half.max(initial=0.0))
    first, last = float(edges[0]), float(edges[-1])
    limit = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        below = first - _step(float(half[0]) if len(half) else 0.0, widest, first)
        above = last + _step(float(half[-1]) if len(half) else 0.0, widest, last)
    below = min(max(below, -limit), float(np.nextafter(first, -np.inf)))
    return np.concatenate([[below], inner, [min(above, limit)]])


def _step(neighbour: float, widest: float, edge: float) -> float:
    return neighbour or widest or abs(edge) / 2 or 0.5


def apportioned(counts: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Counts scaled down to add up to ``rows``, by largest remainder; as they are where there are no more than that.

    >>> apportioned(np.array([600, 301, 99]), 10).tolist()
    [6, 3, 1]
    """
    total = int(counts.sum())
    if total <= rows:
        return counts
    whole, rest = np.divmod(counts * rows, total)
    up = np.argsort(-rest, kind="stable")[: rows - int(whole.sum())]
    whole[up] += 1
    return whole


def frame(layout: Layout, binning: Binning, counts: NDArray[np.int64], rows: int = MOST_ROWS) -> Frame:
    """Every column's counts (D, B + 1) as values, at most ``rows`` of them.

    Each column is shuffled by itself, with a fixed seed: in the order of bins, a plot over the row number would
    show a trend, and any two columns would seem to go together.
    """
    values, result = representatives(binning), Frame()
    for column, name in enumerate(_names(layout)):
        made = np.repeat(values[column], apportioned(counts[column], rows))
        result[name] = np.random.default_rng(column).permutation(made)
    return result


def _names(layout: Layout) -> list[str]:
    """Every column's name, once. A class's name comes from records: no tool that makes HTML of it may see markup."""
    names: list[str] = []
    for part in layout.signals:
        for dimension in part.dimensions:
            name = f"{part.signal}: {dimension}".replace("<", "‹").replace(">", "›")
            while name in names:
                name += "'"
            names.append(name)
    return names


def comparison(scored: ScoredWindow, baseline: BaselineStatistic, window: PaneStatistic) -> Comparison:
    """Both sides as frames, without the columns that one side has no finite value of."""
    here = frame(baseline.layout, baseline.binning, window.counts())
    there = frame(baseline.layout, baseline.binning, baseline.counts)
    some = {name: (np.isfinite(here[name]).any(), np.isfinite(there[name]).any()) for name in here}
    both = [name for name, sides in some.items() if all(sides)]
    return Comparison(
        scored=scored,
        baseline_records=baseline.records,
        window={name: here[name] for name in both},
        baseline={name: there[name] for name in both},
        left_out=tuple(name for name, sides in some.items() if any(sides) and not all(sides)),
    )


def parse_window(text: str, length_us: int, pane_us: int) -> Window | Latest:
    """``last``, ``last-alarm``, or a time, alone (``length_us`` long) or with ``/`` and the end or the length.

    Raises InputError; also where the window does not begin and end with a pane of ``pane_us``.

    >>> parse_window("1970-01-01T01:00:00Z/2h", 3600 * SECOND_US, 300 * SECOND_US)
    Window(start_us=3600000000, end_us=10800000000)
    """
    if text == "last":
        return "last"
    if text == "last-alarm":
        return "last-alarm"
    try:
        return _span(text, length_us, pane_us)
    except InputError as error:
        raise InputError(f"--window: {error}") from None


def _span(text: str, length_us: int, pane_us: int) -> Window:
    begin, slash, end = text.partition("/")
    start_us = parse_time(begin)
    if not slash:
        end_us = start_us + length_us
    elif "-" in end:
        end_us = parse_time(end)
    else:
        end_us = start_us + parse_length(end)
    if end_us <= start_us:
        raise InputError(f"{text!r} ends before it begins")
    if start_us % pane_us or end_us % pane_us:
        raise InputError(f"{text!r} does not begin and end on a multiple of the pane ({pane_us // SECOND_US} s)")
    try:
        to_text(end_us)
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} ends after the year 9999") from None
    return Window(start_us, end_us)


def read_comparison(
    store: Store, settings: Settings, *, model: str, version: str | None, slice_key: str, window: str
) -> Comparison:
    """The window that was asked for, scored as ``segwatch drift`` scores it, against its version's active baseline.

    Without ``version``, the one that has a baseline and records there; of ``last`` windows, the latest.
    Raises InputError where there is no such window, or more than one; BaselineError where there is no baseline.
    """
    pane_us = settings.windows.pane_seconds * SECOND_US
    first_us = settings.windows.lengths_seconds[0] * SECOND_US
    asked = parse_window(window, first_us, pane_us)
    baseline_ids = _baselines(store, model, version)
    found = {
        name: place
        for name, baseline_id in baseline_ids.items()
        if (place := _find(store, model, name, slice_key, baseline_id, asked, first_us)) is not None
    }
    if not found:
        raise InputError(_nothing(store, model, slice_key, baseline_ids, asked))
    latest_us = max(place.start_us for place in found.values())
    chosen = sorted(name for name, place in found.items() if place.start_us == latest_us)
    if len(chosen) > 1:
        raise InputError(f"{window!r} has records of versions {', '.join(chosen)}: choose one with --version")
    return _compare(store, settings, model, chosen[0], slice_key, baseline_ids[chosen[0]], found[chosen[0]])


def _baselines(store: Store, model: str, version: str | None) -> Mapping[str, str]:
    """Active baselines' ids by version, of one version or all."""
    active = {of: entry.meta.id for (name, of), entry in store.active_baselines().items() if name == model}
    known = set(active) | {extent.version for extent in store.pane_extent(model)}
    if not known:
        raise BaselineError(f"model {model!r}: no baseline and no records")
    if version is not None and version not in known:
        raise BaselineError(f"model {model!r} has no version {version!r}, but {', '.join(sorted(known))}")
    chosen = {of: baseline_id for of, baseline_id in active.items() if version in (None, of)}
    if not chosen:
        what = f"version {version!r}" if version is not None else "any version"
        raise BaselineError(f"model {model!r} has no active baseline of {what} to compare with (segwatch baseline)")
    return chosen


def _find(
    store: Store, model: str, version: str, slice_key: str, baseline_id: str, asked: Window | Latest, first_us: int
) -> Window | None:
    """The window as it was asked for, where this version has records in it."""
    if isinstance(asked, Window):
        panes = store.read_panes(
            model, version, slice=slice_key, since_us=asked.start_us, until_us=asked.end_us, baseline_id=baseline_id
        )
        return asked if panes else None
    scores = store.scores(model, version, slice=slice_key, length_us=first_us if asked == "last" else None)
    begun = [
        (score.start_us, -score.length_us)  # of those that began together the shortest
        for score in scores
        if score.baseline_id == baseline_id and score.records and (score.alarm or asked == "last")
    ]
    if not begun:
        return None
    start_us, negative_us = max(begun)
    return Window(start_us, start_us - negative_us)


def _nothing(store: Store, model: str, slice_key: str, baseline_ids: Mapping[str, str], asked: Window | Latest) -> str:
    """Why no window was found, in words for the user."""
    of = f"model {model!r} version {' or '.join(sorted(baseline_ids))}" + (f" slice {slice_key}" if slice_key else "")
    if not isinstance(asked, Window):
        kind = "alarm" if asked == "last-alarm" else "closed window"
        return f"{of}: no {kind} yet; name a window by its time (START or START/END)"
    there = [
        extent
        for extent in store.pane_extent(model)
        if extent.slice == slice_key and baseline_ids.get(extent.version) == extent.baseline_id
    ]
    span = f"{to_text(asked.start_us)} to {to_text(asked.end_us)}"
    if not there:
        return f"{of}: no records that were counted under the active baseline"
    first, last = min(one.first_start_us for one in there), max(one.last_start_us for one in there)
    return f"{of}: no records from {span}; their panes begin from {to_text(first)} to {to_text(last)}"


def _compare(
    store: Store, settings: Settings, model: str, version: str, slice_key: str, baseline_id: str, window: Window
) -> Comparison:
    panes = store.read_panes(
        model, version, slice=slice_key, since_us=window.start_us, until_us=window.end_us, baseline_id=baseline_id
    )
    baseline = Baselines(store).of(baseline_id)
    own = baseline.statistic_of(slice_key)
    if own is None:
        raise BaselineError(f"baseline {baseline_id[:12]} of {model!r} version {version!r} has no slice {slice_key!r}")
    alpha = alpha_per_window(window.length_us, settings.drift, settings.windows, slice_key, len(baseline.slices))
    scored = score_panes(panes, window, baseline, alpha)
    if scored is None:
        raise InputError(f"model {model!r} version {version!r}: retention has taken the records of this window")
    statistic = PaneState.merged(pane.state for pane in panes).statistic
    result = comparison(with_slices(scored, store, baseline), own, statistic)
    if not result.window:
        raise InputError(f"model {model!r} version {version!r}: no column has values in the window and in the baseline")
    return result
