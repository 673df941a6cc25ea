"""Read model of quality: labels of the store, brought into windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from detectors.harm import Harm
from detectors.quality.expected import ExpectedSums
from monitor.pane_state import expected_in, merged_expected
from monitor.quality_evidence import evidence_of, in_slice
from monitor.quality_window import Population, QualityWindow
from monitor.reference import Reference
from monitor.store.store import Store
from monitor.store.values import JudgedRow
from monitor.windows import Window, window_of

HARMS: tuple[Harm, ...] = ("unlikely", "unknown", "likely")
"""From the best to the worst."""


class Facts(Protocol):
    """What is known of a model's versions."""

    def classes(self, version: str) -> tuple[str, ...]:
        """Names of the classes, for windows without a label."""

    def reference(self, version: str) -> Reference | None:
        """Quality on the baseline's records."""


class _Verdict(msgspec.Struct, frozen=True):
    """Of a stored verdict on drift, what counts here."""

    harm: Harm = "unknown"


def quality_windows(
    store: Store,
    *,
    model: str,
    facts: Facts,
    version: str | None = None,
    slice_key: str = "",
    since_us: int | None = None,
    until_us: int | None = None,
    length_us: int | None,
    pane_us: int,
    population: Population = "window",
    metrics: Collection[str] | None = None,
) -> list[QualityWindow]:
    """Windows with records or labels that start in [since, until), by version and time; ``length_us`` None: one."""
    # Records are counted by panes: labels are taken of whole ones, too.
    since_us, until_us = (None if one is None else -(-one // pane_us) * pane_us for one in (since_us, until_us))
    # A window that begins before `until` may hold records from after it.
    reach_us = until_us if until_us is None or length_us is None else until_us + length_us
    records: dict[str, dict[Window, int]] = defaultdict(lambda: defaultdict(int))
    labelled: dict[str, dict[Window, list[JudgedRow]]] = defaultdict(lambda: defaultdict(list))
    counts = store.pane_counts(model, version, slice=slice_key, since_us=since_us, until_us=reach_us)
    rows = [
        row for row in store.judged(model, version, since_us=since_us, until_us=reach_us) if in_slice(row, slice_key)
    ]
    whole = _extent([start for _, start, _ in counts] + [row.event_time_us for row in rows], pane_us)

    def place(time_us: int) -> Window:
        return whole if length_us is None else window_of(time_us, length_us)

    for own, start_us, count in counts:
        records[own][place(start_us)] += count
    for row in rows:
        labelled[row.version][place(row.event_time_us)].append(row)
    found = []
    for own in sorted({*records, *labelled}):
        for window in sorted({*records[own], *labelled[own]}):
            if since_us is not None and length_us is not None and window.start_us < since_us:
                continue
            if until_us is not None and length_us is not None and window.start_us >= until_us:
                continue
            total = records[own].get(window, 0)
            evidence = evidence_of(labelled[own].get(window, []), total, metrics and {*metrics, "iou"})
            names = evidence.classes or facts.classes(own)
            reference = facts.reference(own)
            # Kept for all records, not by slice; of use only where labels say how far confidence can be believed.
            sums = None
            if not slice_key and (evidence.inputs or reference is not None):
                sums = _sums(store, model, own, window)
            drift = _drift(store, model, own, slice_key, window)
            found.append(
                QualityWindow(
                    model,
                    own,
                    slice_key,
                    window,
                    total,
                    evidence,
                    tuple(names),
                    population,
                    metrics,
                    reference,
                    drift,
                    sums,
                    None if sums is None else store.sampling_range(model, own, window.start_us, window.end_us),
                )
            )
    return found


def _drift(store: Store, model: str, version: str, slice_key: str, window: Window) -> Harm | None:
    """The worst harm among the alarmed windows within this one; None where none alarmed."""
    stored = store.scores(model, version, slice=slice_key, since_us=window.start_us, until_us=window.end_us)
    harms = [msgspec.json.decode(one.payload, type=_Verdict).harm for one in stored if one.alarm]
    return max(harms, key=HARMS.index) if harms else None


def _sums(store: Store, model: str, version: str, window: Window) -> ExpectedSums | None:
    panes = store.read_panes(model, version, since_us=window.start_us, until_us=window.end_us)
    return merged_expected([expected_in(pane.state) for pane in panes])


def _extent(times_us: Sequence[int], pane_us: int) -> Window:
    if not times_us:
        return Window(0, 0)
    start, last = min(times_us), max(times_us)
    return Window(start - start % pane_us, last - last % pane_us + pane_us)
