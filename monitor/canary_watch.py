"""Judges watched canaries as their labels come, and requests what the sequential test says: a rollback, a promotion."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import msgspec

from alerts.actions import Action
from alerts.promotion import promote_requested
from alerts.rollback import rollback_requested
from monitor.canary import Asked, compare
from monitor.drift import Baselines
from monitor.errors import InputError
from monitor.settings import Settings
from monitor.store.canary import StoredCanary
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import OutboxMessage, PaneExtent
from monitor.windows import DAY_US, END_OF_TIME_US, parse_time, to_text

log = logging.getLogger(__name__)

SHARE = 20
"""Judging takes at most 1 / 20 of the time."""
Watched = tuple[str, str, str]
"""Model, stable version, canary."""


class CanaryWatch:
    """One thread, the leader's."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        baselines: Baselines,
        wall_us: Callable[[], int],
        publish: Callable[[Action], OutboxMessage],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._baselines = baselines
        self._wall_us = wall_us
        self._publish = publish
        self._clock = clock
        self._next_at = float("-inf")
        self._changed: set[tuple[str, str]] = set()
        self._judged: set[Watched] = set()

    def step(self, leader: Leader, watermark_us: int, changed: Iterable[tuple[str, str]]) -> int:
        """Judge the canaries of which labels have said something new. Returns how many were judged."""
        canary = self._settings.canary
        if not canary.watch and not canary.automatic:
            return 0
        self._changed |= set(changed)
        began = self._clock()
        if began < self._next_at and watermark_us < END_OF_TIME_US:
            return 0
        judged = 0
        for watched in self._watched():
            model, stable, new = watched
            if watched in self._judged and not self._changed & {(model, stable), (model, new)}:
                continue
            if self._judge(leader, Asked(model, stable, new)):
                self._judged.add(watched)
            else:
                self._judged.discard(watched)  # to be looked at again without any new label
            judged += 1
        self._changed.clear()
        took = self._clock() - began
        self._next_at = began + max(canary.check_seconds, SHARE * took) if judged else began
        return judged

    def _watched(self) -> list[Watched]:
        found: list[Watched] = []
        for one in self._settings.canary.watch:
            model, stable, new = one.rsplit(":", 2)
            found.append((model, stable, new))
        if self._settings.canary.automatic:
            active = {key: one.activated_us for key, one in self._store.active_baselines().items()}
            found += newest_versions(self._store.pane_extent(), active)
        return list(dict.fromkeys(found))

    def _judge(self, leader: Leader, asked: Asked) -> bool:
        """Judge, and ask for what follows; False where that has to wait."""
        key = (asked.model, *asked.versions)
        before = {(one.model, one.stable, one.canary): one for one in self._store.canaries.verdicts()}.get(key)
        requested_us = None if before is None else before.requested_at_us
        try:
            shown = compare(self._store, self._settings, asked, self._baselines, masks=False)
        except InputError as error:
            log.info("canary %s %s against %s: %s", asked.model, asked.canary, asked.stable, error)
            shown = refused(asked, str(error))
        now_us = self._wall_us()
        messages: list[OutboxMessage] = []
        asks = ""
        cooldown_us = self._settings.actions.cooldown_us
        # Somebody else, an alert say, may have asked for the same; not noted, so that it is asked for after that.
        covered = self._store.actions.is_cooling("rollback", asked.model, asked.canary, now_us, cooldown_us)
        unwanted = self._store.actions.requested("rollback", asked.model, asked.canary) is not None
        if shown["rollback"] and requested_us is None and not covered:
            requested_us = now_us
            shown["request"] = request_of(shown, now_us)
            messages.append(self._publish(rollback_requested(shown, self._page(asked))))
            asks = "rollback"
        elif before is not None and requested_us is not None:
            shown["request"] = msgspec.json.decode(before.payload).get("request")
        promotion = None if before is None else msgspec.json.decode(before.payload).get("promotion")
        if shown["promote"] and requested_us is None and promotion is None and not unwanted:
            promotion = shown["promotion"] = promotion_of(shown, now_us)
            messages.append(self._publish(promote_requested(shown, self._page(asked))))
            asks = "promotion"
        shown["promotion"] = promotion
        # Without the inputs that it names: of a purged one nothing may stay, and whoever asks anew gets them.
        kept = {name: value for name, value in shown.items() if name != "worst"}
        row = StoredCanary(*key, now_us, requested_us, msgspec.json.encode(kept))
        if not leader.record_canary(row, messages, cooldown_us=cooldown_us):
            return False
        if asks:
            log.warning("canary %s %s: %s requested: %s", asked.model, asked.canary, asks, "; ".join(shown["reasons"]))
        return requested_us is not None or not shown["rollback"]

    def _page(self, asked: Asked) -> str:
        query = {"model": asked.model, "stable": asked.stable, "canary": asked.canary}
        return f"{self._settings.web.address}/api/v1/canary?{urlencode(query)}"


def refused(asked: Asked, reason: str) -> dict[str, Any]:
    """What is said of versions that cannot be compared."""
    return {
        "model": asked.model,
        "stable": asked.stable,
        "canary": asked.canary,
        "verdict": "continue",
        "promote": False,
        "rollback": False,
        "score": 0,
        "reasons": [f"cannot be compared: {reason}"],
        "missing": [],
        "pairs": 0,
        "classes": [],
    }


def request_of(shown: dict[str, Any], now_us: int) -> dict[str, Any]:
    """How long it took from the first images to the request, in seconds of the clock."""
    sequential = shown["sequential"]
    times = {"first_pair": sequential["first_at"], "regression": sequential["regression_since"]}
    told: dict[str, Any] = {"requested_at": to_text(now_us), "pairs": sequential["crossed_after_pairs"]}
    for name, at in times.items():
        told[f"{name}_at"] = at
        told[f"seconds_from_{name}"] = round((now_us - parse_time(at)) / 1e6, 3)
    return told


def promotion_of(shown: dict[str, Any], now_us: int) -> dict[str, Any]:
    """When the promotion was requested, by how many pairs, and how long it took from the first of them."""
    first_at = shown["sequential"]["first_at"]
    seconds = round((now_us - parse_time(first_at)) / 1e6, 3)
    told = {"requested_at": to_text(now_us), "pairs": shown["pairs"], "first_pair_at": first_at}
    return {**told, "seconds_from_first_pair": seconds}


def newest_versions(extents: Iterable[PaneExtent], activated_us: dict[tuple[str, str], int]) -> list[Watched]:
    """Of each model the version whose records began last, against the one in use beside it.

    In use: with records within a day of the model's last ones, and the newest active baseline but for the canary's
    own. A version without any baseline beside it is in use where no other has one.
    """
    spans: dict[str, dict[str, tuple[int, int]]] = {}
    for one in extents:
        if not one.slice:
            own = spans.setdefault(one.model, {})
            first, last = own.get(one.version, (one.first_start_us, one.last_start_us))
            own[one.version] = min(first, one.first_start_us), max(last, one.last_start_us)
    found = []
    for model, versions in sorted(spans.items()):
        end_us = max(last for _, last in versions.values())
        live = {version: first for version, (first, last) in versions.items() if last >= end_us - DAY_US}
        new = max(live, key=lambda version: (live[version], version))
        rest = [version for version in live if version != new and live[version] < live[new]]
        if rest:
            stable = max(rest, key=lambda version: (activated_us.get((model, version), -1), live[version], version))
            found.append((model, stable, new))
    return found
