"""``/canary``: two versions held against each other, with the inputs on which the new one lost most."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from dashboards.page_data import PageData
from dashboards.render import page
from monitor.canary import Asked
from monitor.errors import InputError
from monitor.web_canary import CanaryState

THUMB: Final = 224


def canary_page(data: PageData, canaries: CanaryState) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/canary")
    def compare(request: Request, model: str = "", stable: str = "", canary: str = "") -> Response:
        watched = [
            {"model": one.model, "stable": one.stable, "canary": one.canary} for one in data.store.canaries.verdicts()
        ]
        shown: dict[str, Any] | None = None
        fault = ""
        if model and stable and canary:
            try:
                shown = dict(canaries.compare(Asked(model, stable, canary), False))
            except InputError as error:
                fault = str(error)
        versions: dict[str, list[str]] = {}
        for name, version in sorted(data.store.active_baselines()):
            versions.setdefault(name, []).append(version)
        return page(
            request,
            "canary.html",
            watched=watched,
            shown=shown,
            fault=fault,
            asked={"model": model, "stable": stable, "canary": canary},
            versions=versions,
            thumb=THUMB,
        )

    return router
