"""Labels are judged again when a model's classes change: those that were refused for a class get a second chance."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from monitor.store.baselines import newest_by_model
from monitor.store.leader import Leader
from monitor.store.values import ActiveBaseline

log = logging.getLogger(__name__)

Version = tuple[str, str]
"""Model and version."""
Active = Mapping[Version, ActiveBaseline]


class ClassChanges:
    """By which classes the labels of each version were judged. The store remembers it, since a baseline may become
    active while nobody leads. A version without a baseline goes by its model's newest one."""

    def __init__(self) -> None:
        self._leader: Leader | None = None
        self._known: dict[Version, str] = {}

    def notice(self, leader: Leader, active: Active) -> None:
        """Mark the labels of versions whose classes are others now than those that they were judged by."""
        if leader is not self._leader:  # another process may have led meanwhile
            self._leader, self._known = leader, leader.judged_classes()
        newest = newest_by_model(active)
        for version, before in list(self._known.items()):
            entry = active.get(version, newest.get(version[0]))
            if entry is not None and _text(entry) != before:
                log.info("%s version %s: other classes, its labels are judged again", *version)
                leader.judge_again(*version, _text(entry))
                self._known[version] = _text(entry)

    def judged(self, leader: Leader, versions: Mapping[Version, ActiveBaseline]) -> None:
        """Remember versions that are judged for the first time, each with the baseline that it is judged by."""
        for version, entry in versions.items():
            if version not in self._known:
                leader.judged_by(*version, _text(entry))
                self._known[version] = _text(entry)


def _text(entry: ActiveBaseline) -> str:
    return msgspec.json.encode(entry.meta.meta.get("classes")).decode()
