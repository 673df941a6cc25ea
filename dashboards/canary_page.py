"""``/canary``: two versions held against each other, with the inputs on which the new one lost most.

Thousands of labels take seconds to compare, for which nobody has to wait: the page shows the last comparison that is
known, of this process or as the leader judged the canary, and says when it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from dashboards.page_data import PageData
from dashboards.render import page
from monitor.canary import Asked
from monitor.errors import InputError
from monitor.store.canary import StoredCanary
from monitor.web_canary import CanaryState, Latest
from monitor.windows import to_text

THUMB: Final = 224
AGAIN_S: Final = 3
"""After so many seconds a browser loads again what has nothing to show yet."""


def canary_page(data: PageData, canaries: CanaryState) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/canary")
    def compare(request: Request, model: str = "", stable: str = "", canary: str = "") -> Response:
        judged = data.store.canaries.verdicts()
        shown: Mapping[str, Any] | None = None
        at_us: int | None = None
        latest, fault = Latest(None, None, under_way=False), ""
        if model and stable and canary:
            asked = Asked(model, stable, canary)
            try:
                latest = canaries.latest(asked)
                shown, at_us = _shown(data, asked, latest, judged)
            except InputError as error:
                fault = str(error)
        versions: dict[str, list[str]] = {}
        for name, version in sorted(data.store.active_baselines()):
            versions.setdefault(name, []).append(version)
        answer = page(
            request,
            "canary.html",
            watched=[{"model": one.model, "stable": one.stable, "canary": one.canary} for one in judged],
            shown=shown,
            compared_at=None if at_us is None else to_text(at_us),
            under_way=latest.under_way,
            pictured=latest.shown is not None,
            fault=fault,
            asked={"model": model, "stable": stable, "canary": canary},
            versions=versions,
            thumb=THUMB,
        )
        if latest.under_way and shown is None:
            answer.headers["refresh"] = str(AGAIN_S)
        return answer

    return router


def _shown(
    data: PageData, asked: Asked, latest: Latest, judged: Sequence[StoredCanary]
) -> tuple[Mapping[str, Any] | None, int | None]:
    """What is known, and when it was compared: here, else by the leader, who keeps no inputs."""
    if latest.shown is not None:
        worst = latest.shown["worst"]
        # What was purged since then is not named.
        there = data.store.views.seen(asked.model, asked.canary, [one["input_id"] for one in worst]) if worst else {}
        return {**latest.shown, "worst": [one for one in worst if one["input_id"] in there]}, latest.compared_at_us
    for one in judged:
        if (one.model, one.stable, one.canary) == (asked.model, *asked.versions):
            return {"labels": None, "worst": [], **msgspec.json.decode(one.payload)}, one.compared_at_us
    return None, None
