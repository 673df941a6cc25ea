"""What an alert that asks for labels has queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from monitor.drift import Baselines
from monitor.relabel_choice import SampleChoice, manifest
from monitor.relabel_disagreement import Wanted
from monitor.store.candidates import Candidate
from monitor.store.relabel import Kind, RelabelRow
from monitor.store.store import Store
from monitor.windows import DAY_US

MOST = 20
"""Samples of one alert, as many as are typical of one window."""
MOST_CANDIDATES = 300
"""Records whose masks are decoded: Alertmanager waits for the answer."""


@dataclass(frozen=True)
class AlertSamples:
    """``rows``: to be queued. ``named``: these and what waits already, as the request names them."""

    rows: Sequence[RelabelRow] = ()
    named: list[dict[str, object]] = field(default_factory=list)


def samples_for(
    store: Store,
    choice: SampleChoice,
    baselines: Baselines,
    model: str,
    version: str,
    *,
    alert: str,
    identity: str,
    class_name: str,
    slice_key: str,
    typical: Sequence[str],
    last_us: int,
) -> AlertSamples:
    """What is to be labelled because of an alert, within the day's budget.

    About a class: of the last day's records unsure ones, unlike each other, in which the model found it. About a slice:
    such of the slice. Else those ``typical`` of the last shift; where there was none, such as above of all records.
    ``last_us``: event time of the version's newest record; 0 where it has none.
    """
    kind: Kind = "quality" if class_name else "drift"
    about = f"alert {alert}" + (f" ({class_name})" if class_name else f" ({slice_key})" if slice_key else "")
    waiting: list[str] = []
    left = min(MOST, choice.left(model, kind))
    if typical and not class_name and not slice_key:
        found = store.candidates.waiting(model, typical)
        waiting = [name for name in typical if name in found]
        free = choice.free(model, version, typical)
        wanted = [Wanted(name, free[name], f"{about}: typical of the last shift") for name in free]
    else:
        chosen = _different(store, choice, baselines, model, version, class_name, slice_key, last_us, left)
        wanted = [Wanted(one.input_id, one.event_time_us, about) for one in chosen]
    rows = choice.rows(kind, model, version, f"alert: {alert} {identity}", wanted[:left])
    others: list[dict[str, object]] = [
        {"input_id": name, "version": version, "selection_probability": None} for name in waiting
    ]
    return AlertSamples(rows, [*manifest(rows), *others])


def _different(
    store: Store,
    choice: SampleChoice,
    baselines: Baselines,
    model: str,
    version: str,
    class_name: str,
    slice_key: str,
    last_us: int,
    count: int,
) -> list[Candidate]:
    entry = store.active_baselines().get((model, version))
    if not count or not last_us or entry is None:
        return []
    found = choice.candidates(model, version, last_us - DAY_US, last_us + 1, slice_key, MOST_CANDIDATES)
    if not found:
        return []
    classes = choice.found_classes(baselines.of(entry.meta.id).classes, found)
    if any(class_name in names for names in classes):  # else what has dropped may be found nowhere any more
        rows = [row for row, names in enumerate(classes) if class_name in names]
        found, classes = [found[row] for row in rows], [classes[row] for row in rows]
    return choice.greedy(found, classes, {class_name: 1.0} if class_name else {}, count)
