"""Fills the relabel queue on suspicion: the leader's work. Spot checks come by themselves, as they are chosen.

A shift queues the samples most typical of it, in the transaction that stores the verdict. What the other causes ask for
(early alarms, quality, disagreement, active learning; alerts ask in `monitor.alert_samples`) is found again from what
is stored, so that a leader that is cut off anywhere leaves nothing out; and since a cause queues a sample only once,
nothing comes twice. Each kind has its share of a budget per model and day (of the clock).

None of these choices is left to chance, so that none has a probability: labels of what they queue stay out of the
estimates of quality, which they would make look worse than it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from alerts.actions import Action, relabel_for_drift, relabel_for_quality
from monitor.class_need import ClassNeed, needs_in, wish_text
from monitor.classes import Classes
from monitor.drift import Baselines, ScoredWindow, score_panes
from monitor.early import ENOUGH_RECORDS
from monitor.relabel_choice import SampleChoice, manifest
from monitor.relabel_disagreement import Wanted, between_annotators, between_versions
from monitor.settings import Settings
from monitor.store.leader import Leader
from monitor.store.relabel import RelabelRow
from monitor.store.store import Store
from monitor.store.values import EarlyReading, OutboxMessage, StoredPane, StoredQuality
from monitor.windows import DAY_US, END_OF_TIME_US, SECOND_US, Window, to_text

EARLY_ALPHA = 0.05
"""At which the last records before an early alarm are looked at for what is typical of it: the alarm stands already."""
SHARE = 20
"""Looking for disagreement takes at most 1 / 20 of the time."""
MOST_NAMED = 3

Publish = Callable[[Action], OutboxMessage]
PageOf = Callable[[str, str, str], str]
"""Address of the page for a model, version and start of a window."""


class Requested(NamedTuple):
    """What a verdict asks for; ``message`` names what was newly queued of ``rows``, by the verdict's revision."""

    rows: Sequence[RelabelRow] = ()
    message: Callable[[Sequence[RelabelRow], int], OutboxMessage] | None = None


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
        self._choice = SampleChoice(store, settings, wall_us)
        self._publish = publish
        self._page = page
        self._clock = clock
        self._step_us = settings.windows.lengths_seconds[0] * SECOND_US
        self._ends: dict[str, int] = {}
        self._estimated: dict[tuple[str, str], int] = {}
        self._alarmed: dict[tuple[str, str, str], tuple[int, int]] = {}
        """By model, version and baseline: the early alarm that was looked at last, and the first one of its shift."""
        self._touched: set[str] | None = None
        """Models whose labels have changed; None: all, since nobody knows what a leader before this one has seen."""
        self._next_at = float("-inf")

    def of_window(self, scored: ScoredWindow) -> Requested:
        """What is typical of a window that has drifted."""
        left = self._choice.left(scored.model, "drift")
        if not left:
            return Requested()
        wanted = self._of_slice(scored, left) if scored.slice else self._typical(scored)
        rows = self._choice.rows("drift", scored.model, scored.version, f"drift: {_window_text(scored)}", wanted[:left])
        return Requested(rows, lambda new, revision: self._of_drift(scored, new, revision=revision))

    def step(self, leader: Leader, watermark_us: int, changed: Collection[tuple[str, str]]) -> int:
        """Everything else that is due. ``changed``: versions whose labels have changed. Returns how many it queued."""
        if self._touched is not None:
            self._touched |= {model for model, _ in changed}
        ends = self._model_ends(watermark_us)
        moved = [model for model, end_us in ends.items() if self._ends.get(model) != end_us]
        if moved or changed:
            join_us = round(self._settings.quality.join_days * DAY_US)
            leader.tidy_queue({model: ends[model] - join_us for model in moved})
        queued = self._for_early(leader) + self._for_quality(leader)
        for model in moved:
            queued += self._to_learn(leader, model, ends[model], finished=watermark_us == END_OF_TIME_US)
        queued += self._disagreements(leader, ends, moved, at_once=watermark_us == END_OF_TIME_US)
        self._ends |= ends
        return queued

    # Drift

    def _typical(self, scored: ScoredWindow) -> list[Wanted]:
        free = self._choice.free(scored.model, scored.version, [name for name, _ in scored.samples])
        by = ", ".join(signal for signal, _ in (scored.score.attribution if scored.score else ())[:MOST_NAMED])
        return [
            Wanted(name, free[name], f"typical of the shift of {by}: {nats:.2f} nats ({_window_text(scored)})")
            for name, nats in scored.samples
            if name in free
        ]

    def _of_slice(self, scored: ScoredWindow, count: int) -> list[Wanted]:
        """A slice keeps no records of its own: its most wanted and most different ones."""
        return self._different(scored, count, f"of a shifted slice ({_window_text(scored)})")

    def _different(self, scored: ScoredWindow, count: int, reason: str) -> list[Wanted]:
        window = scored.window
        found = self._choice.candidates(scored.model, scored.version, window.start_us, window.end_us, scored.slice)
        classes = self._choice.found_classes(self._baselines.of(scored.baseline_id).classes, found)
        chosen = self._choice.greedy(found, classes, {}, count)
        return [Wanted(one.input_id, one.event_time_us, reason) for one in chosen]

    def _of_drift(
        self, scored: ScoredWindow, rows: Sequence[RelabelRow], *, revision: int = 0, early: bool = False
    ) -> OutboxMessage:
        page = self._page(scored.model, scored.version, to_text(scored.window.start_us))
        action = relabel_for_drift(scored.to_json(), manifest(rows), page, revision=revision, early=early)
        return self._publish(action)

    def _for_early(self, leader: Leader) -> int:
        """What is typical of an early alarm: half of what is left, the rest is for its window once that has closed.

        The test begins anew after each alarm: those of a shift that goes on are one cause, as long as one stands.
        """
        queued = 0
        active = self._store.active_baselines()
        for one in self._store.early_readings():
            key, at_us = (one.model, one.version, one.baseline_id), one.alarm_at_us
            entry = active.get((one.model, one.version))
            if not one.alarm or at_us is None or entry is None or entry.meta.id != one.baseline_id:
                continue
            last_us, first_us = self._alarmed.get(key, (None, at_us))
            if last_us == at_us:
                continue
            if last_us is None or at_us - last_us >= self._step_us:
                first_us = self._first_alarm(one, at_us)
            if not any(self._window_alarms(one, time_us) for time_us in {first_us, at_us}):
                queued += self._early(leader, one, first_us, at_us)
            self._alarmed[key] = at_us, first_us
        return queued

    def _first_alarm(self, one: EarlyReading, at_us: int) -> int:
        """The first of the alarms up to this one each of which came while the one before it stood."""
        while earlier := self._store.early_alarms(
            one.model, one.version, one.baseline_id, after_us=at_us - self._step_us, until_us=at_us - 1
        ):
            at_us = earlier[0].at_us
        return at_us

    def _early(self, leader: Leader, one: EarlyReading, first_us: int, at_us: int) -> int:
        cause = f"drift: early {to_text(first_us)}"
        left = math.ceil(self._choice.left(one.model, "drift") / 2)
        if not left or cause in self._store.candidates.causes(one.model, one.version, "drift"):
            return 0
        since_us = at_us - self._step_us
        panes = _last(
            self._store.read_panes(
                one.model, one.version, since_us=since_us, until_us=at_us, baseline_id=one.baseline_id
            )
        )
        if not panes:
            return 0
        window = Window(panes[0].key.start_us, at_us)
        scored = score_panes(panes, window, self._baselines.of(one.baseline_id), EARLY_ALPHA)
        assert scored is not None
        wanted = self._typical(scored) or self._different(scored, left, f"of an early alarm ({_window_text(scored)})")
        rows = self._choice.rows("drift", one.model, one.version, cause, wanted[:left])
        return len(leader.queue_samples(rows, lambda new: self._of_drift(scored, new, early=True)))

    def _window_alarms(self, one: EarlyReading, at_us: int) -> bool:
        """Whether the window of an early alarm has closed and asked for itself."""
        start_us = at_us - 1 - (at_us - 1) % self._step_us
        found = self._store.scores(
            one.model, one.version, since_us=start_us, until_us=start_us + 1, length_us=self._step_us
        )
        return any(verdict.alarm for verdict in found)

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
        asked = self._store.candidates.causes(model, version, "quality")
        needs = {
            cause: need
            for need in needs_in(estimated, self._settings.relabel.interval_width)
            if (cause := f"quality: {need.class_name} {need.why} {day}") not in asked
        }
        left = self._choice.left(model, "quality") if needs else 0
        if not left:
            return 0
        found = self._choice.candidates(
            model, version, max(estimated.start_us, estimated.end_us - DAY_US), estimated.end_us
        )
        names = self._choice.found_classes(classes, found)
        weight = sum(need.need for need in needs.values())
        queued = 0
        for cause, need in needs.items():
            share = min(left - queued, max(1, round(left * need.need / weight)))
            own = {need.class_name: 1.0}
            rows = [row for row, seen in enumerate(names) if need.why == "dropped" or need.class_name in seen]
            pool, seen_in = [found[row] for row in rows], [names[row] for row in rows]
            chosen = self._choice.greedy(pool, seen_in, own, share)
            taken = {one.input_id for one in chosen}
            wanted = [Wanted(one.input_id, one.event_time_us, need.reason) for one in chosen]
            queued += self._queue_for(leader, estimated, cause, need, wanted)
            rows = [row for row, one in enumerate(found) if one.input_id not in taken]
            found, names = [found[row] for row in rows], [names[row] for row in rows]
        return queued

    def _queue_for(
        self, leader: Leader, estimated: StoredQuality, cause: str, need: ClassNeed, wanted: Sequence[Wanted]
    ) -> int:
        rows = self._choice.rows("quality", estimated.model, estimated.version, cause, wanted)
        window = {"start": to_text(estimated.start_us), "end": to_text(estimated.end_us)}

        def request(new: Sequence[RelabelRow]) -> OutboxMessage:
            action = relabel_for_quality(
                estimated.model,
                estimated.version,
                window,
                need.figures,
                manifest(new),
                cause=cause,
                threshold=self._settings.relabel.interval_width,
                page_url=self._page(estimated.model, estimated.version, window["start"]),
            )
            return self._publish(action)

        return len(leader.queue_samples(rows, request))

    # Active learning

    def _to_learn(self, leader: Leader, model: str, end_us: int, *, finished: bool) -> int:
        """What the model would learn most from, of the last day's records; each hour its part of the day's budget."""
        relabel = self._settings.relabel
        if relabel.strategy != "greedy" or not relabel.active_share:
            return 0
        left = self._choice.left(model, "training")
        cause = f"active learning: {to_text(end_us)}"
        if not finished:
            part = math.ceil(relabel.budget_per_day * relabel.active_share * self._step_us / DAY_US)
            # A leader before this one may have spent it.
            left = min(left, part - self._store.candidates.of_cause(model, cause, end_us - DAY_US))
        queued = 0
        for (name, version), entry in sorted(self._store.active_baselines().items()):
            if name != model or queued >= left:
                continue
            found = self._choice.candidates(model, version, end_us - DAY_US, end_us)
            classes = self._choice.found_classes(self._baselines.of(entry.meta.id).classes, found)
            need = {one.class_name: one.need for one in self._needs(model, version)}
            known = self._store.candidates.sketches(model, version, end_us - DAY_US)
            chosen = self._choice.greedy(found, classes, need, left - queued, known)
            seen = {one.input_id: names for one, names in zip(found, classes, strict=True)}
            wanted = [
                Wanted(one.input_id, one.event_time_us, wish_text(one.confidence, seen[one.input_id], need))
                for one in chosen
            ]
            rows = self._choice.rows("training", model, version, cause, wanted)
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
            left = self._choice.left(model, "disagreement")
            if not left:
                continue
            asked = between_versions(self._store, self._settings, self._baselines, model, ends[model])
            if model in touched:
                asked += between_annotators(self._store, self._settings, self._baselines, model, ends[model])
            for (version, cause), wanted in asked:
                rows = self._choice.rows("disagreement", model, version, cause, wanted[:left])
                new = leader.queue_samples(rows)
                left, queued = left - len(new), queued + len(new)
        self._touched = set() if self._touched is None else self._touched - touched
        self._next_at = self._clock() + SHARE * (self._clock() - began)
        return queued

    def _model_ends(self, watermark_us: int) -> dict[str, int]:
        """Up to which whole hour (the shortest window) each model's records are there."""
        last: dict[str, int] = {}
        for one in self._store.pane_extent():
            last[one.model] = max(last.get(one.model, 0), one.last_start_us)
        if watermark_us < END_OF_TIME_US:
            return dict.fromkeys(last, watermark_us - watermark_us % self._step_us)
        return {model: start_us - start_us % self._step_us + self._step_us for model, start_us in last.items()}


def _window_text(scored: ScoredWindow) -> str:
    whole = f"{to_text(scored.window.start_us)} to {to_text(scored.window.end_us)}"
    return f"{whole}, {scored.slice}" if scored.slice else whole


def _last(panes: Sequence[StoredPane]) -> list[StoredPane]:
    """The last panes with records enough for an early alarm: of the hour before it, most may lie before the shift."""
    recent: list[StoredPane] = []
    for pane in reversed(panes):
        recent.append(pane)
        if sum(one.records for one in recent) >= ENOUGH_RECORDS:
            break
    return recent[::-1]
