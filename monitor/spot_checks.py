"""Chooses records to be labelled, and writes down with which probability: the leader's work, as panes close."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from detectors.active_learning import draw_spread, points, wishes
from detectors.quality.novelty import NOTABLE, novelty
from detectors.quality.selection import Chances, chances
from monitor.class_need import needs_of, wish_text
from monitor.classes import Classes
from monitor.draws import draw
from monitor.drift import Baselines
from monitor.kept_masks import found_classes
from monitor.settings import Settings
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import SpotCheckRow
from monitor.windows import DAY_US, END_OF_TIME_US, SECOND_US

MOST_NAMED = 5
SPAN_PANES = 12
"""Panes of one choice: enough records for rare classes to be among them, and few enough to hold in memory."""

Found = tuple[str, int, float | None, bytes, bytes | None]
"""A record to choose from: input, event time, confidence, masks, sketch."""


class SpotChecks:
    """One thread, the leader's. Records that come after their pane was looked at are never asked for."""

    def __init__(self, store: Store, settings: Settings, baselines: Baselines, wall_us: Callable[[], int]) -> None:
        self._store = store
        self._settings = settings
        self._baselines = baselines
        self._wall_us = wall_us
        self._span_us = SPAN_PANES * settings.windows.pane_seconds * SECOND_US
        relabel = settings.relabel
        self._active_per_day = relabel.budget_per_day * relabel.active_share if relabel.strategy == "random" else 0.0

    def step(self, leader: Leader, watermark_us: int) -> int:
        """Choose among the records of closed panes. Returns how many were chosen."""
        quality = self._settings.quality
        if not (quality.spot_checks_per_day or self._active_per_day) or not quality.keep_masks_days:
            return 0
        chosen = 0
        extents = {(one.model, one.version): one for one in self._store.pane_extent() if not one.slice}
        for (model, version), entry in sorted(self._store.active_baselines().items()):
            extent = extents.get((model, version))
            if extent is None:
                continue
            first_us = extent.first_start_us - extent.first_start_us % self._span_us
            last_us = extent.last_start_us - extent.last_start_us % self._span_us + self._span_us
            until_us = last_us if watermark_us == END_OF_TIME_US else min(watermark_us, last_us)
            classes = self._baselines.of(entry.meta.id).classes
            while found := leader.spot_check_candidates(model, version, first_us, until_us, self._span_us):
                end_us, records = found
                rows = self._choose(model, version, classes, records)
                leader.record_spot_checks(model, version, end_us, rows)
                chosen += len(rows)
        return chosen

    def _choose(self, model: str, version: str, classes: Classes, found: Sequence[Found]) -> list[SpotCheckRow]:
        quality = self._settings.quality
        share = self._span_us / DAY_US
        checks = quality.spot_checks_per_day * (1 - quality.training_share) * share
        training = (quality.spot_checks_per_day * quality.training_share + self._active_per_day) * share
        names = [found_classes(masks, classes, self._settings.images.max_pixels) for *_, masks, _ in found]
        confidence = np.array([np.nan if one is None else one for _, _, one, _, _ in found], np.float64)
        needs = needs_of(self._store, model, version, self._settings.relabel.interval_width) if training else ()
        need = {one.class_name: one.need for one in needs}
        where = points([sketch for *_, sketch in found])
        novel = novelty(where)
        wished = wishes(confidence, names, need) + novel
        drawn = chances(names, wished, checks, training, frozenset(name for name, _ in classes.critical))
        trained = draw_spread(where, drawn.training, _generator(model, version, found))
        now_us = self._wall_us()
        rows = []
        for row, (input_id, event_time_us, *_) in enumerate(found):
            stream = _stream(drawn, row, bool(trained[row]), model, version, input_id)
            if stream:
                reason = ", ".join(sorted(names[row])[:MOST_NAMED]) or "nothing found"
                if stream == "training":
                    reason = wish_text(None if np.isnan(confidence[row]) else float(confidence[row]), names[row], need)
                    reason += ", unlike the baseline" if novel[row] >= NOTABLE else ""
                rows.append(
                    SpotCheckRow(
                        input_id,
                        model,
                        version,
                        event_time_us,
                        stream,
                        float(drawn.either[row]),
                        reason,
                        now_us,
                    )
                )
        return rows


def _stream(drawn: Chances, row: int, trained: bool, model: str, version: str, input_id: str) -> str:
    """By which draw a record is chosen, "" for none: the same one whoever draws, and however often."""
    chance = draw("uniform", model, version, input_id)
    if chance < drawn.floor[row]:
        return "uniform"
    if chance < drawn.uniform[row]:
        return "stratified"
    return "training" if trained else ""


def _generator(model: str, version: str, found: Sequence[Found]) -> np.random.Generator:
    """The same for the same records, whoever draws."""
    return np.random.default_rng(int(draw("training", model, version, *(one[0] for one in found)) * 2**53))
