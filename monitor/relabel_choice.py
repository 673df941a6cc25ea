"""What all that queues samples on suspicion shares: the budget, who may be chosen, and which of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from detectors.active_learning import choose_greedily, points, wishes
from monitor.classes import Classes
from monitor.kept_masks import found_classes
from monitor.relabel_disagreement import Wanted
from monitor.settings import Settings
from monitor.store.candidates import Candidate
from monitor.store.relabel import PRIORITY, SPAN, Kind, RelabelRow
from monitor.store.store import Store
from monitor.windows import DAY_US

MOST_CANDIDATES = 1000
"""Records among which one choice is made, the newest; their masks are decoded."""
STREAM_OF_GREEDY = "greedy"
"""Apart from the training stream of spot checks, which is drawn by chance."""


class SampleChoice:
    """Chooses; queues nothing itself."""

    def __init__(self, store: Store, settings: Settings, wall_us: Callable[[], int]) -> None:
        self._store = store
        self._settings = settings
        self._wall_us = wall_us

    def left(self, model: str, kind: Kind) -> int:
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
        return max(0, most - self._store.candidates.spent(model, _stream(kind), now_us - now_us % DAY_US))

    def rows(self, kind: Kind, model: str, version: str, cause: str, wanted: Sequence[Wanted]) -> list[RelabelRow]:
        """Items, the first of the highest priority."""
        now_us = self._wall_us()
        return [
            RelabelRow(
                one.input_id,
                model,
                version,
                cause,
                kind,
                _stream(kind),
                PRIORITY[kind] + max(0, SPAN - rank),
                one.reason,
                None,
                one.event_time_us,
                now_us,
            )
            for rank, one in enumerate(wanted)
        ]

    def free(self, model: str, version: str, inputs: Sequence[str]) -> dict[str, int]:
        """Event times of those of these inputs that could be judged, and have neither a label nor an item."""
        times_us = self._store.candidates.times_of(model, version, inputs)
        taken = self._store.candidates.taken(model, inputs)
        return {name: times_us[name] for name in inputs if name in times_us and name not in taken}

    def candidates(
        self,
        model: str,
        version: str,
        since_us: int,
        until_us: int,
        slice_key: str = "",
        most: int = MOST_CANDIDATES,
    ) -> list[Candidate]:
        """The newest records of this time, or of a slice of them, that may be chosen."""
        return self._store.candidates.candidates(model, version, since_us, until_us, most, slice_key)

    def found_classes(self, classes: Classes, found: Sequence[Candidate]) -> list[frozenset[str]]:
        """What the model found in each."""
        return [found_classes(one.masks, classes, self._settings.images.max_pixels) for one in found]

    def greedy(
        self,
        found: Sequence[Candidate],
        classes: Sequence[frozenset[str]],
        need: Mapping[str, float],
        count: int,
        known: Sequence[bytes | None] = (),
    ) -> list[Candidate]:
        """The most wanted of them that differ most from each other, and from what is ``known`` (sketches)."""
        if not found:
            return []
        where = points([one.sketch for one in found] + list(known))
        confidence = np.array([np.nan if one.confidence is None else one.confidence for one in found], np.float64)
        wished = wishes(confidence, classes, need)
        return [found[row] for row in choose_greedily(where[: len(found)], wished, count, where[len(found) :])]


def manifest(rows: Sequence[RelabelRow]) -> list[dict[str, object]]:
    """Samples as a request names them, in the order in which they are claimed."""
    return [
        {
            "input_id": row.input_id,
            "version": row.version,
            "reason": row.reason,
            "priority": row.priority,
            "selection_probability": row.probability,
        }
        for row in sorted(rows, key=lambda row: (-row.priority, row.input_id))
    ]


def _stream(kind: Kind) -> str:
    return STREAM_OF_GREEDY if kind == "training" else kind
