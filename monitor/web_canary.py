"""What canaries' controllers ask: Argo Rollouts' web metric (JSON), Flagger's webhooks (a status code)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response

from monitor.background import Background
from monitor.canary import Asked, compare
from monitor.canary_classes import renames
from monitor.drift import Baselines
from monitor.errors import InputError
from monitor.live_settings import LiveSettings
from monitor.store.store import Store
from monitor.web_json import json_response
from monitor.windows import parse_time

KEPT_S: Final = 10.0
"""For so long an answer serves all who ask the same: several analyses, in short turns, ask for one canary."""
MOST_KEPT: Final = 64
"""Comparisons, and as many that failed: those are cheap to ask for, and must not push the others out."""
PATIENCE_S: Final = 0.15
"""So long a page waits for a comparison before it shows what there is."""
SHARE: Final = 20
"""Pages cause the same comparison for at most 1 / 20 of the time."""
FORGOTTEN_S: Final = 3600.0

Gate = Literal["rollout", "confirm-promotion", "rollback"]
_Key = tuple[Asked, bool]


@dataclass(frozen=True, slots=True)
class Latest:
    """The last comparison that is known; None where none is known yet. ``under_way``: whether another is being made."""

    shown: Mapping[str, Any] | None
    compared_at_us: int | None
    under_way: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """What came of a comparison; without ``shown`` it failed."""

    ended: float
    took_s: float
    at_us: int
    shown: dict[str, Any] | None = None
    error: Exception | None = None


class CanaryState:
    """Comparisons, each kept for a while; asked from several threads."""

    def __init__(
        self,
        store: Store,
        settings: LiveSettings,
        clock: Callable[[], float] = time.monotonic,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._store = store
        self._settings = settings
        self._baselines = Baselines(store)
        self._clock = clock
        self._wall_us = wall_us
        self._patience_s = patience_s
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._kept: dict[_Key, _Kept] = {}
        self._background = Background("canary")

    def compare(self, asked: Asked, masks: bool) -> Mapping[str, Any]:
        """As ``segwatch canary compare --json``, at most `KEPT_S` old. Raises InputError."""
        key = (asked, masks)
        # One at a time: a comparison takes a core, and the second to ask mostly wants what the first does.
        with self._turn:
            kept = self._known(key)
            if kept is not None and kept.shown is not None and self._clock() - kept.ended < KEPT_S:
                return kept.shown
            return self._compared(key)

    def latest(self, asked: Asked) -> Latest:
        """The same without masks and without waiting: the last one, while a newer one is made. Raises InputError."""
        key = (asked, False)
        kept, under_way = self._known(key), False
        if kept is None or self._clock() - kept.ended >= max(KEPT_S, SHARE * kept.took_s):
            done = self._background.start(key, lambda: self.compare(*key))
            if done is not None and (kept is None or kept.took_s < self._patience_s):
                done.wait(self._patience_s)
            kept, under_way = self._known(key), done is None or not done.is_set()
        if kept is None:
            return Latest(None, None, under_way)
        if kept.error is not None:
            raise kept.error.with_traceback(None)
        return Latest(kept.shown, kept.at_us, under_way)

    def _compared(self, key: _Key) -> dict[str, Any]:
        began, at_us = self._clock(), self._wall_us()
        try:
            shown = compare(self._store, self._settings.current, key[0], self._baselines, masks=key[1])
        except Exception as error:
            self._keep(key, _Kept(self._clock(), self._clock() - began, at_us, error=error))
            raise
        self._keep(key, _Kept(self._clock(), self._clock() - began, at_us, shown))
        return shown

    def _known(self, key: _Key) -> _Kept | None:
        with self._lock:
            now = self._clock()
            self._kept = {name: one for name, one in self._kept.items() if now - one.ended < FORGOTTEN_S}
            return self._kept.get(key)

    def _keep(self, key: _Key, one: _Kept) -> None:
        with self._lock:
            self._kept.pop(key, None)
            alike = [name for name, old in self._kept.items() if (old.error is None) == (one.error is None)]
            for name in alike[: max(0, len(alike) + 1 - MOST_KEPT)]:
                del self._kept[name]
            self._kept[key] = one


def canary_router(state: CanaryState) -> APIRouter:
    """``/api/v1/canary`` and the gates below it."""
    router = APIRouter(prefix="/api/v1/canary", tags=["canary"])

    @router.get("", response_class=Response, summary="The comparison of two versions, and what to do")
    def comparison(
        model: Annotated[str, Query(max_length=256)],
        stable: Annotated[str, Query(max_length=256)],
        canary: Annotated[str, Query(max_length=256)],
        slice_key: Annotated[str, Query(alias="slice", description="key=value; without it all records")] = "",
        since: Annotated[str | None, Query(description="RFC 3339")] = None,
        until: Annotated[str | None, Query(description="RFC 3339")] = None,
        mapped: Annotated[list[str] | None, Query(alias="map", description="OLD=NEW; may be repeated")] = None,
        masks: Annotated[bool, Query(description="Compare masks without labels, too; takes longest")] = False,
    ) -> Response:
        if slice_key and not all(slice_key.partition("=")):
            raise InputError(f"slice {slice_key!r}: expected key=value")
        asked = Asked(
            model,
            stable,
            canary,
            parse_time(since) if since else None,
            parse_time(until) if until else None,
            slice_key,
            renames("map", mapped or ()),
        )
        return json_response(state.compare(asked, masks), 200)

    @router.post("/gate/{hook}", response_class=Response, summary="For Flagger's webhooks: 200 is yes, 403 is no")
    def gate(
        hook: Gate,
        model: Annotated[str, Query(max_length=256)],
        stable: Annotated[str, Query(max_length=256)],
        canary: Annotated[str, Query(max_length=256)],
    ) -> Response:
        shown = state.compare(Asked(model, stable, canary), False)
        yes = {"rollout": not shown["rollback"], "confirm-promotion": shown["promote"], "rollback": shown["rollback"]}
        brief = {name: shown[name] for name in ("verdict", "reasons", "missing", "pairs")}
        return json_response(brief, 200 if yes[hook] else 403)

    return router
