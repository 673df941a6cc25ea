"""``/slo``: error budgets as Prometheus keeps them, and quality against its targets as the store knows it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from dashboards.page_data import PageData
from dashboards.render import page
from monitor.budgets import Budgets
from monitor.windows import to_text


def slo_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    kept = Budgets(lambda: data.settings.current.prometheus.url)

    @router.get("/slo")
    def budgets(request: Request) -> Response:
        rows: list[dict[str, Any]] = []
        active = data.store.active_baselines()
        for one in data.store.quality():
            entry = active.get((one.model, one.version))
            targets = dict(data.baselines.of(entry.meta.id).classes.critical) if entry else {}
            for each in json.loads(one.payload)["classes"]:
                if each["metric"] in ("iou", "mean_iou") and (each["class"] is None or each["class"] in targets):
                    target = targets.get(each["class"])
                    rows.append(
                        {
                            "model": one.model,
                            "version": one.version,
                            "until": to_text(one.end_us),
                            **each,
                            "target": target,
                            "verdict": _verdict(each, target),
                        }
                    )
        found = kept.read()
        return page(
            request,
            "slo.html",
            rows=rows,
            budgets=found.budgets,
            why=found.why,
            several=len({one.place.instance for one in found.budgets if one.place.instance}) > 1,
            prometheus=data.settings.current.prometheus.url,
        )

    return router


def _verdict(estimate: dict[str, Any], target: float | None) -> str:
    """Whether the target is met, as surely as the interval allows."""
    if target is None:
        return "no target"
    if estimate["lower"] is None or estimate["upper"] is None:
        return "too few labels"
    if estimate["lower"] >= target:
        return "met"
    return "missed" if estimate["upper"] < target else "not certain"
