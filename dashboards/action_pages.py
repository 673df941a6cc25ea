"""``/actions``: what segwatch has asked for, and the evidence of each."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from dashboards.action_texts import asked_of, headline
from dashboards.page_data import PageData
from dashboards.render import missing, page
from monitor.store.views import Queued
from monitor.windows import SECOND_US, parse_time, to_text

PER_PAGE: Final = 50
THUMB: Final = 160


def action_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    def topic() -> str:
        return data.settings.current.kafka.actions_topic

    @router.get("/actions")
    def actions(request: Request, number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1) -> Response:
        found = data.store.views.actions(topic(), PER_PAGE + 1, (number - 1) * PER_PAGE)
        rows = [_row(one) for one in found[:PER_PAGE]]
        return page(request, "actions.html", rows=rows, number=number, more=len(found) > PER_PAGE)

    @router.get("/actions/{identity}")
    def action(request: Request, identity: str) -> Response:
        found = data.store.views.action(topic(), identity)
        if found is None:
            return missing(request, "There is no such action, or it is older than store.retention_days.")
        row = _row(found)
        text = json.dumps(row["asked"].content, indent=2, ensure_ascii=False)
        return page(request, "action.html", row=row, text=text, thumb=THUMB)

    return router


def _row(one: Queued) -> dict[str, Any]:
    asked = asked_of(one.value)
    length_s = 0
    if asked.window:
        length_s = (parse_time(asked.window[1]) - parse_time(asked.window[0])) // SECOND_US
    return {
        "id": one.id,
        "asked": asked,
        "headline": headline(asked),
        "queued": to_text(one.created_us),
        "sent": None if one.sent_us is None else to_text(one.sent_us),
        "attempts": one.attempts,
        "length_s": length_s,
    }
