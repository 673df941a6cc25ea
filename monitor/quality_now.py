"""How good each version is now: estimated by the leader when labels or hours have come, for metrics and status."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.quality import quality_windows
from monitor.reference import Reference
from monitor.settings import Settings
from monitor.store.baselines import newest_by_model
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import StoredQuality
from monitor.windows import DAY_US, END_OF_TIME_US, SECOND_US

METRICS = ("iou",)
SHARE = 20
"""Estimating takes at most 1 / 20 of the time."""


class VersionFacts:
    """Classes and training quality of a model's versions, each baseline read when a version is first asked for."""

    def __init__(self, store: Store, baselines: Baselines, model: str) -> None:
        self._baselines = baselines
        active = store.active_baselines()
        self._active = {version: one.meta.id for (name, version), one in active.items() if name == model}
        newest = newest_by_model(active).get(model)
        self._newest = newest.meta.id if newest else ""

    def __bool__(self) -> bool:
        return bool(self._active)

    def classes(self, version: str) -> tuple[str, ...]:
        """Names; a version without a baseline has those of the newest one."""
        ontology = self.ontology(version)
        return ontology.names if ontology else ()

    def ontology(self, version: str) -> Classes | None:
        """The same with what they mean in a map."""
        identity = self._active.get(version, self._newest)
        return self._baselines.of(identity).classes if identity else None

    def reference(self, version: str) -> Reference | None:
        """Quality on the records of the version's own baseline."""
        identity = self._active.get(version)
        return None if identity is None else self._baselines.of(identity).reference


class QualityNow:
    """One thread, the leader's. What was estimated before is not known after a restart, and done again once."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        baselines: Baselines,
        wall_us: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._next_at = float("-inf")
        self._touched: set[str] = set()
        self._store = store
        self._baselines = baselines
        self._wall_us = wall_us
        self._length_us = round(settings.quality.window_days * DAY_US)
        self._step_us = settings.windows.lengths_seconds[0] * SECOND_US
        self._pane_us = settings.windows.pane_seconds * SECOND_US
        self._done: dict[str, int] = {}

    def step(self, leader: Leader, watermark_us: int, changed: set[tuple[str, str]]) -> None:
        """Estimate models whose labels have changed, and all when an hour (the shortest window) has passed.

        Labels may come in a stream: this takes at most a twentieth of the time, but at the end of a replay.
        """
        self._touched |= {name for name, _ in changed}
        began = self._clock()
        if began < self._next_at and watermark_us < END_OF_TIME_US:
            return
        for model in sorted({name for name, _ in self._store.active_baselines()}):
            end_us = self._end_us(model, watermark_us)
            if end_us is None or (model not in self._touched and self._done.get(model) == end_us):
                continue
            self._estimate(leader, model, end_us)
            self._done[model] = end_us
        self._touched.clear()
        self._next_at = self._clock() + SHARE * (self._clock() - began)

    def _end_us(self, model: str, watermark_us: int) -> int | None:
        if watermark_us < END_OF_TIME_US:
            return watermark_us - watermark_us % self._step_us
        extent = [one.last_start_us for one in self._store.pane_extent(model)]
        return max(extent) // self._step_us * self._step_us + self._step_us if extent else None

    def _estimate(self, leader: Leader, model: str, end_us: int) -> None:
        start_us = end_us - self._length_us
        windows = quality_windows(
            self._store,
            model=model,
            facts=VersionFacts(self._store, self._baselines, model),
            since_us=start_us,
            until_us=end_us,
            length_us=None,
            pane_us=self._pane_us,
            metrics=METRICS,
        )
        now_us = self._wall_us()
        leader.record_quality(
            model,
            [
                StoredQuality(model, one.version, start_us, end_us, now_us, msgspec.json.encode(one.to_json()))
                for one in windows
            ],
        )
