"""Chooses records to be labelled, and writes down with which probability: the leader's work, as panes close."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from detectors.quality.selection import Chances, chances
from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.kept_masks import kept
from monitor.records import decode_semantic
from monitor.settings import Settings
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import SpotCheckRow
from monitor.windows import DAY_US, END_OF_TIME_US, SECOND_US

MOST_NAMED = 5
SPAN_PANES = 12
"""Panes of one choice: enough records for rare classes to be among them, and few enough to hold in memory."""


class SpotChecks:
    """One thread, the leader's. Records that come after their pane was looked at are never asked for."""

    def __init__(self, store: Store, settings: Settings, baselines: Baselines, wall_us: Callable[[], int]) -> None:
        self._store = store
        self._settings = settings
        self._baselines = baselines
        self._wall_us = wall_us
        self._span_us = SPAN_PANES * settings.windows.pane_seconds * SECOND_US

    def step(self, leader: Leader, watermark_us: int) -> int:
        """Choose among the records of closed panes. Returns how many were chosen."""
        quality = self._settings.quality
        if not quality.spot_checks_per_day or not quality.keep_masks_days:
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

    def _choose(
        self, model: str, version: str, classes: Classes, found: list[tuple[str, int, float | None, bytes]]
    ) -> list[SpotCheckRow]:
        quality = self._settings.quality
        wanted = quality.spot_checks_per_day * self._span_us / DAY_US
        names = [self._names(masks, classes) for *_, masks in found]
        confidence = np.array([np.nan if one is None else one for _, _, one, _ in found], np.float64)
        drawn = chances(
            names,
            confidence,
            wanted * (1 - quality.training_share),
            wanted * quality.training_share,
            frozenset(name for name, _ in classes.critical),
        )
        now_us = self._wall_us()
        rows = []
        for row, (input_id, event_time_us, _, _) in enumerate(found):
            stream = _stream(drawn, row, model, version, input_id)
            if stream:
                reason = (
                    "unsure" if stream == "training" else ", ".join(sorted(names[row])[:MOST_NAMED]) or "nothing found"
                )
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

    def _names(self, masks: bytes, classes: Classes) -> frozenset[str]:
        """Classes that the model found in a record."""
        record = kept(masks)
        names = {one.class_name for one in record.instances or ()}
        if record.semantic is not None:
            indices, _ = decode_semantic(record.semantic, self._settings.images.max_pixels)
            position = classes.position_of_index
            names |= {classes.names[position[value]] for value in np.unique(indices).tolist() if value in position}
        return frozenset(names & classes.position.keys())  # a name that nobody knows is no class to look for


def _stream(drawn: Chances, row: int, model: str, version: str, input_id: str) -> str:
    """By which draw a record is chosen, "" for none: the same one whoever draws, and however often."""
    draw = _draw("uniform", model, version, input_id)
    if draw < drawn.floor[row]:
        return "uniform"
    if draw < drawn.uniform[row]:
        return "stratified"
    return "training" if _draw("training", model, version, input_id) < drawn.training[row] else ""


def _draw(stream: str, *identity: str) -> float:
    """A number in [0, 1) that depends on nothing but the record."""
    text = "\0".join((stream, *identity)).encode("utf-8", "surrogatepass")
    hashed = hashlib.blake2b(text, digest_size=8, person=b"spot checks").digest()
    return int.from_bytes(hashed) / 2.0**64
