"""Fills the relabel queue on suspicion: the leader's work. Spot checks come by themselves, as they are chosen.

A shift queues the samples most typical of it, in the transaction that stores the verdict. What the other causes ask for
is found again from what is stored, so that a leader that is cut off anywhere leaves nothing out; and since a cause
queues a sample only once, nothing comes twice. Each kind has its share of a budget per model and day (of the clock).

None of these choices is left to chance, so that none has a probability: labels of what they queue stay out of the
estimates of quality, which they would make look worse than it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alerts.actions import Action, relabel_for_drift, relabel_for_quality
from detectors.active_learning import choose_greedily, points, wishes
from monitor.class_need import ClassNeed, needs_in, wish_text
from monitor.classes import Classes
from monitor.drift import Baselines, ScoredWindow
from monitor.kept_masks import found_classes
from monitor.relabel_disagreement import Wanted, between_annotators, between_versions
from monitor.settings import Settings
from monitor.store.leader import Leader
from monitor.store.relabel import PRIORITY, SPAN, Candidate, Kind, RelabelRow
from monitor.store.store import Store
from monitor.store.values import OutboxMessage, StoredQuality
from monitor.windows import DAY_US, END_OF_TIME_US, SECOND_US, to_text

MOST_CANDIDATES = 1000
"""Records among which one choice is made, the newest; their masks are decoded."""
SHARE = 20
"""Looking for disagreement takes at most 1 / 20 of the time."""
MOST_NAMED = 3

Publish = Callable[[Action], OutboxMessage]
PageOf = Callable[[str, str, str], str]
"""Address of the page for a model, version and start of a window."""


class Requested(NamedTuple):
    """What a verdict asks for."""

    rows: Sequence[RelabelRow] = ()
    action: Action | None = None


class RelabelFill:
    """One thread, the leader's."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        baselines: Baselines,
        wall_us: Callable[[], int],
        publish: Publish,
        page: PageOf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._baselines = baselines
        self._wall_us = wall_us
        self._publish = publish
        self._page = page
        self._clock = clock
        self._step_us = settings.windows.lengths_seconds[0] * SECOND_US
        self._ends: dict[str, int] = {}
        self._estimated: dict[tuple[str, str], int] = {}
        self._touched: set[str] | None = None
        """Models whose labels have changed; None: all, since nobody knows what a leader before this one has seen."""
        self._next_at = float("-inf")

    def of_window(self, scored: ScoredWindow) -> Requested:
        """What is typical of a window that has drifted."""
        left = self._left(scored.model, "drift")
        if not left:
            return Requested()
        wanted = self._of_slice(scored, left) if scored.slice else self._typical(scored)
        rows = self._rows("drift", scored.model, scored.version, f"drift: {_window_text(scored)}", wanted[:left])
        if not rows:
            return Requested()
        page = self._page(scored.model, scored.version, to_text(scored.window.start_us))
        return Requested(rows, relabel_for_drift(scored.to_json(), _manifest(rows), page))

    def step(self, leader: Leader, watermark_us: int, changed: Collection[tuple[str, str]]) -> int:
        """Everything else that is due. ``changed``: versions whose labels have changed. Returns how many it queued."""
        if self._touched is not None:
            self._touched |= {model for model, _ in changed}
        ends = self._model_ends(watermark_us)
        moved = [model for model, end_us in ends.items() if self._ends.get(model) != end_us]
        if moved or changed:
            join_us = round(self._settings.quality.join_days * DAY_US)
            leader.tidy_queue({model: ends[model] - join_us for model in moved})
        queued = self._for_quality(leader)
        for model in moved:
            queued += self._to_learn(leader, model, ends[model], finished=watermark_us == END_OF_TIME_US)
        queued += self._disagreements(leader, ends, moved, at_once=watermark_us == END_OF_TIME_US)
        self._ends |= ends
        return queued

    # Drift

    def _typical(self, scored: ScoredWindow) -> list[Wanted]:
        inputs = [name for name, _ in scored.samples]
        times_us = self._store.relabel.times_of(scored.model, scored.version, inputs)
        free = times_us.keys() - self._store.relabel.taken(scored.model, inputs)
        by = ", ".join(signal for signal, _ in (scored.score.attribution if scored.score else ())[:MOST_NAMED])
        return [
            Wanted(name, times_us[name], f"typical of the shift of {by}: {nats:.2f} nats ({_window_text(scored)})")
            for name, nats in scored.samples
            if name in free
        ]

    def _of_slice(self, scored: ScoredWindow, count: int) -> list[Wanted]:
        """A slice keeps no records of its own: its most wanted and most different ones."""
        window = scored.window
        found = self._candidates(scored.model, scored.version, window.start_us, window.end_us, scored.slice)
        chosen = self._greedy(found, self._classes_in(scored, found), {}, count, [])
        return [
            Wanted(one.input_id, one.event_time_us, f"of a shifted slice ({_window_text(scored)})") for one in chosen
        ]

    def _classes_in(self, scored: ScoredWindow, found: Sequence[Candidate]) -> list[frozenset[str]]:
        return self._found_classes(self._baselines.of(scored.baseline_id).classes, found)

    # Quality

    def _for_quality(self, leader: Leader) -> int:
        queued = 0
        active = self._store.active_baselines()
        for estimated in self._store.quality():
            version = estimated.model, estimated.version
            if self._estimated.get(version) == estimated.estimated_at_us or version not in active:
                continue
            classes = self._baselines.of(active[version].meta.id).classes
            queued += self._for_needs(leader, estimated, classes)
            self._estimated[version] = estimated.estimated_at_us
        return queued

    def _for_needs(self, leader: Leader, estimated: StoredQuality, classes: Classes) -> int:
        model, version = estimated.model, estimated.version
        day = to_text(estimated.end_us)[:10]
        asked = self._store.relabel.causes(model, version, "quality")
        needs = {
            cause: need
            for need in needs_in(estimated, self._settings.relabel.interval_width)
            if (cause := f"quality: {need.class_name} {need.why} {day}") not in asked
        }
        left = self._left(model, "quality") if needs else 0
        if not left:
            return 0
        found = self._candidates(model, version, max(estimated.start_us, estimated.end_us - DAY_US), estimated.end_us)
        names = self._found_classes(classes, found)
        weight = sum(need.need for need in needs.values())
        queued = 0
        for cause, need in needs.items():
            share = min(left - queued, max(1, round(left * need.need / weight)))
            own = {need.class_name: 1.0}
            rows = [row for row, seen in enumerate(names) if need.why == "dropped" or need.class_name in seen]
            pool, seen_in = [found[row] for row in rows], [names[row] for row in rows]
            chosen = self._greedy(pool, seen_in, own, share, [])
            taken = {one.input_id for one in chosen}
            wanted = [Wanted(one.input_id, one.event_time_us, need.reason) for one in chosen]
            queued += self._queue_for(leader, estimated, cause, need, wanted)
            rows = [row for row, one in enumerate(found) if one.input_id not in taken]
            found, names = [found[row] for row in rows], [names[row] for row in rows]
        return queued

    def _queue_for(
        self, leader: Leader, estimated: StoredQuality, cause: str, need: ClassNeed, wanted: Sequence[Wanted]
    ) -> int:
        rows = self._rows("quality", estimated.model, estimated.version, cause, wanted)
        if not rows:
            return 0
        window = {"start": to_text(estimated.start_us), "end": to_text(estimated.end_us)}
        action = relabel_for_quality(
            estimated.model,
            estimated.version,
            window,
            need.figures,
            _manifest(rows),
            cause=cause,
            threshold=self._settings.relabel.interval_width,
            page_url=self._page(estimated.model, estimated.version, window["start"]),
        )
        return len(leader.queue_samples(rows, [self._publish(action)]))

    # Active learning

    def _to_learn(self, leader: Leader, model: str, end_us: int, *, finished: bool) -> int:
        """What the model would learn most from, of the last day's records; each hour its part of the day's budget."""
        relabel = self._settings.relabel
        if relabel.strategy != "greedy" or not relabel.active_share:
            return 0
        left = self._left(model, "training")
        if not finished:
            left = min(left, int(np.ceil(relabel.budget_per_day * relabel.active_share * self._step_us / DAY_US)))
        queued = 0
        for (name, version), entry in sorted(self._store.active_baselines().items()):
            if name != model or queued >= left:
                continue
            found = self._candidates(model, version, end_us - DAY_US, end_us)
            classes = self._found_classes(self._baselines.of(entry.meta.id).classes, found)
            need = {one.class_name: one.need for one in self._needs(model, version)}
            known = self._store.relabel.sketches(model, version, end_us - DAY_US)
            chosen = self._greedy(found, classes, need, left - queued, known)
            seen = {one.input_id: names for one, names in zip(found, classes, strict=True)}
            wanted = [
                Wanted(one.input_id, one.event_time_us, wish_text(one.confidence, seen[one.input_id], need))
                for one in chosen
            ]
            rows = self._rows("training", model, version, "active learning", wanted)
            queued += len(leader.queue_samples(rows))
        return queued

    def _needs(self, model: str, version: str) -> list[ClassNeed]:
        own = [one for one in self._store.quality() if (one.model, one.version) == (model, version)]
        return needs_in(own[0], self._settings.relabel.interval_width) if own else []

    # Disagreement

    def _disagreements(self, leader: Leader, ends: Mapping[str, int], moved: Collection[str], *, at_once: bool) -> int:
        began = self._clock()
        touched = set(ends) if self._touched is None else self._touched & ends.keys()
        if not (touched or moved) or (began < self._next_at and not at_once):
            return 0
        queued = 0
        for model in sorted({*touched, *moved}):
            left = self._left(model, "disagreement")
            if not left:
                continue
            asked = between_versions(self._store, self._settings, self._baselines, model, ends[model])
            if model in touched:
                asked += between_annotators(self._store, self._settings, self._baselines, model, ends[model])
            for (version, cause), wanted in asked:
                rows = self._rows("disagreement", model, version, cause, wanted[:left])
                new = leader.queue_samples(rows)
                left, queued = left - len(new), queued + len(new)
        self._touched = set() if self._touched is None else self._touched - touched
        self._next_at = self._clock() + SHARE * (self._clock() - began)
        return queued

    # What all causes share

    def _left(self, model: str, kind: Kind) -> int:
        """What is left of a kind's share of today's budget, in samples."""
        relabel = self._settings.relabel
        if not self._settings.quality.keep_masks_days:
            return 0  # no label could be joined
        shares: dict[str, float] = {
            "drift": relabel.drift_share,
            "quality": relabel.quality_share,
            "disagreement": relabel.disagreement_share,
            "training": relabel.active_share,
        }
        most = int(relabel.budget_per_day * shares[kind] + 1e-9)
        if not most:
            return 0
        now_us = self._wall_us()
        stream = STREAM_OF_GREEDY if kind == "training" else kind
        return max(0, most - self._store.relabel.spent(model, stream, now_us - now_us % DAY_US))

    def _rows(self, kind: Kind, model: str, version: str, cause: str, wanted: Sequence[Wanted]) -> list[RelabelRow]:
        """Items, the first of the highest priority."""
        now_us = self._wall_us()
        stream = STREAM_OF_GREEDY if kind == "training" else kind
        return [
            RelabelRow(
                one.input_id,
                model,
                version,
                cause,
                kind,
                stream,
                PRIORITY[kind] + max(0, SPAN - rank),
                one.reason,
                None,
                one.event_time_us,
                now_us,
            )
            for rank, one in enumerate(wanted)
        ]

    def _candidates(
        self, model: str, version: str, since_us: int, until_us: int, slice_key: str = ""
    ) -> list[Candidate]:
        return self._store.relabel.candidates(model, version, since_us, until_us, MOST_CANDIDATES, slice_key)

    def _found_classes(self, classes: Classes, found: Sequence[Candidate]) -> list[frozenset[str]]:
        return [found_classes(one.masks, classes, self._settings.images.max_pixels) for one in found]

    def _greedy(
        self,
        found: Sequence[Candidate],
        classes: Sequence[frozenset[str]],
        need: Mapping[str, float],
        count: int,
        known: Sequence[bytes | None],
    ) -> list[Candidate]:
        if not found:
            return []
        where = points([one.sketch for one in found] + list(known))
        confidence = np.array([np.nan if one.confidence is None else one.confidence for one in found], np.float64)
        wished = wishes(confidence, classes, need)
        return [found[row] for row in choose_greedily(where[: len(found)], wished, count, where[len(found) :])]

    def _model_ends(self, watermark_us: int) -> dict[str, int]:
        """Up to which whole hour (the shortest window) each model's records are there."""
        last: dict[str, int] = {}
        for one in self._store.pane_extent():
            last[one.model] = max(last.get(one.model, 0), one.last_start_us)
        if watermark_us < END_OF_TIME_US:
            return dict.fromkeys(last, watermark_us - watermark_us % self._step_us)
        return {model: start_us - start_us % self._step_us + self._step_us for model, start_us in last.items()}


STREAM_OF_GREEDY = "greedy"
"""Apart from the training stream of spot checks, which is drawn by chance."""


def _window_text(scored: ScoredWindow) -> str:
    whole = f"{to_text(scored.window.start_us)} to {to_text(scored.window.end_us)}"
    return f"{whole}, {scored.slice}" if scored.slice else whole


def _manifest(rows: Sequence[RelabelRow]) -> list[dict[str, object]]:
    return [
        {
            "input_id": row.input_id,
            "version": row.version,
            "reason": row.reason,
            "priority": row.priority,
            "selection_probability": row.probability,
        }
        for row in rows
    ]
