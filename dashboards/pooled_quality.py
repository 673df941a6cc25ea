"""IoU of whole windows, for the timeline: figured out once, and again only where a window's labels have changed.

Bringing a record's label in takes a fifth of a millisecond, and a model's page shows thousands of them. So those of the
newest windows are brought in before the page is shown, and the rest behind its back.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from dashboards.judged_records import pooled_iou
from detectors.quality.ratio import Estimate
from monitor.background import Background
from monitor.quality_evidence import in_slice
from monitor.store.store import Store
from monitor.store.values import StoredScore

MOST_KEPT: Final = 20_000
"""Windows, some 300 bytes each; the one that was not asked for for longest goes first."""
AT_ONCE: Final = 500
"""Labelled records that somebody waits for: a tenth of a second."""


class Pooled(NamedTuple):
    """Of a window: how many records have a label, and the IoU of all classes together; None where nothing is known.

    ``pending``: it is being figured out.
    """

    labelled: int
    estimate: Estimate | None
    pending: bool = False


NOTHING: Final = Pooled(0, None)
_Key = tuple[object, ...]


class _Wanted(NamedTuple):
    """A window that is to be figured out."""

    score: StoredScore
    key: _Key
    labelled: int


class PooledQuality:
    """From any thread."""

    def __init__(self, most: int = MOST_KEPT, at_once: int = AT_ONCE) -> None:
        self._most = most
        self._at_once = at_once
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Pooled] = OrderedDict()
        self._background = Background("pooled quality")

    def of(self, store: Store, scores: Sequence[StoredScore]) -> list[Pooled]:
        """Of each of these windows, which are of one model version, slice and length and in order of time."""
        first, end_us = scores[0], scores[-1].end_us
        of = first.model, first.version, first.slice, first.length_us
        marks = store.views.label_marks(*of, first.start_us, end_us)
        labelled = [
            _Wanted(one, (*of, one.start_us, one.records, marks[one.start_us]), marks[one.start_us][0])
            for one in scores
            if one.start_us in marks
        ]
        found = self._known(labelled)
        parts = self._parts(labelled, found)
        if parts and sum(one.labelled for one in parts[0]) <= self._at_once:
            found |= self._figured(store, parts.pop(0))
        if parts:
            self._background.start((*of, first.start_us), lambda: self._figure_rest(store, parts))
        self._keep(found)
        told = {one.score.start_us: found.get(one.key, Pooled(one.labelled, None, pending=True)) for one in labelled}
        return [told.get(one.start_us, NOTHING) for one in scores]

    def _parts(self, labelled: Sequence[_Wanted], known: Mapping[_Key, Pooled]) -> list[list[_Wanted]]:
        """What is not known: neighbours with as many labels together as are brought in at once, or one alone with more;
        the newest first, each in order of time."""
        parts: list[list[_Wanted]] = []
        room = -1
        for one in reversed(labelled):
            if one.key in known:
                room = -1  # a part's records are read from its first to its last: these would be among them
                continue
            room -= one.labelled
            if room < 0:
                parts.append([])
                room = self._at_once - one.labelled
            parts[-1].insert(0, one)
        return parts

    def _figure_rest(self, store: Store, parts: Sequence[Sequence[_Wanted]]) -> None:
        for part in parts:
            for missing in self._parts(part, self._known(part)):  # another page may have figured some out meanwhile
                self._keep(self._figured(store, missing))

    def _known(self, wanted: Sequence[_Wanted]) -> dict[_Key, Pooled]:
        with self._lock:
            return {one.key: self._kept[one.key] for one in wanted if one.key in self._kept}

    def _figured(self, store: Store, wanted: Sequence[_Wanted]) -> dict[_Key, Pooled]:
        first, end_us = wanted[0].score, wanted[-1].score.end_us
        rows = store.judged(first.model, first.version, since_us=first.start_us, until_us=end_us)
        rows = [row for row in rows if in_slice(row, first.slice)]
        times = [row.event_time_us for row in rows]
        found: dict[_Key, Pooled] = {}
        for one in wanted:
            own = rows[bisect_left(times, one.score.start_us) : bisect_left(times, one.score.end_us)]
            found[one.key] = Pooled(len(own), pooled_iou(own, one.score.records) if own else None)
        return found

    def _keep(self, found: dict[_Key, Pooled]) -> None:
        with self._lock:
            for key, one in found.items():
                self._kept[key] = one
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
