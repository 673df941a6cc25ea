"""IoU of whole windows, for the timeline: figured out once, and again only where a window's labels have changed.

Bringing a record's label in takes a third of a millisecond, and a model's page shows thousands of them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from dashboards.judged_records import pooled_iou
from detectors.quality.ratio import Estimate
from monitor.quality_evidence import in_slice
from monitor.store.store import Store
from monitor.store.values import StoredScore

MOST_KEPT: Final = 20_000
"""Windows, some 300 bytes each; the one that was not asked for for longest goes first."""


class Pooled(NamedTuple):
    """Of a window: how many records have a label, and the IoU of all classes together; None where nothing is known."""

    labelled: int
    estimate: Estimate | None


NOTHING: Final = Pooled(0, None)
_Key = tuple[object, ...]


class PooledQuality:
    """From any thread."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Pooled] = OrderedDict()

    def of(self, store: Store, scores: Sequence[StoredScore]) -> list[Pooled]:
        """Of each of these windows, which are of one model version, slice and length and in order of time."""
        first, end_us = scores[0], scores[-1].end_us
        of = first.model, first.version, first.slice, first.length_us
        marks = store.views.label_marks(*of, first.start_us, end_us)
        keys: list[_Key | None] = [
            (*of, one.start_us, one.records, marks[one.start_us]) if one.start_us in marks else None for one in scores
        ]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key is not None and key in self._kept}
        missing = [place for place, key in enumerate(keys) if key is not None and key not in found]
        if missing:
            found |= self._figured(store, [scores[place] for place in missing], [keys[place] for place in missing])
        self._keep(found)
        return [NOTHING if key is None else found[key] for key in keys]

    def _figured(self, store: Store, scores: Sequence[StoredScore], keys: Sequence[_Key | None]) -> dict[_Key, Pooled]:
        first = scores[0]
        rows = store.judged(first.model, first.version, since_us=first.start_us, until_us=scores[-1].end_us)
        rows = [row for row in rows if in_slice(row, first.slice)]
        times = [row.event_time_us for row in rows]
        found: dict[_Key, Pooled] = {}
        for score, key in zip(scores, keys, strict=True):
            own = rows[bisect_left(times, score.start_us) : bisect_left(times, score.end_us)]
            if key is not None:
                found[key] = Pooled(len(own), pooled_iou(own, score.records) if own else None)
        return found

    def _keep(self, found: dict[_Key, Pooled]) -> None:
        with self._lock:
            for key, one in found.items():
                self._kept[key] = one
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
