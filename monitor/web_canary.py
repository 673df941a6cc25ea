"""What canaries' controllers ask: Argo Rollouts' web metric (JSON), Flagger's webhooks (a status code)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response

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

Gate = Literal["rollout", "confirm-promotion", "rollback"]


class CanaryState:
    """Comparisons, each kept for a few seconds; asked from several threads."""

    def __init__(self, store: Store, settings: LiveSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._settings = settings
        self._baselines = Baselines(store)
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[Asked, bool], tuple[float, dict[str, Any]]] = {}

    def compare(self, asked: Asked, masks: bool) -> Mapping[str, Any]:
        """As ``segwatch canary compare --json``. Raises InputError."""
        key = (asked, masks)
        # One at a time: a comparison takes a core, and the second to ask mostly wants what the first does.
        with self._lock:
            now = self._clock()
            self._kept = {name: one for name, one in self._kept.items() if now - one[0] < KEPT_S}
            if key not in self._kept:
                while len(self._kept) >= MOST_KEPT:
                    self._kept.pop(next(iter(self._kept)))
                shown = compare(self._store, self._settings.current, asked, self._baselines, masks=masks)
                self._kept[key] = (self._clock(), shown)
            return self._kept[key][1]


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
