"""``/webhooks/alertmanager``: alerts with a label ``action`` become actions.

Who may post is decided before (`monitor.web`): with ``web.token`` Alertmanager sends it as ``authorization``.
Alertmanager tries again after a 5xx, and only then: what is wrong with a body stays wrong.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from monitor.alert_actions import AlertActions, parse_group
from monitor.audit import http_user
from monitor.live_settings import LiveSettings
from monitor.store.store import Store
from monitor.web_json import json_response

MOST_BYTES: Final = 4 * 1024 * 1024
"""Some thousands of alerts."""

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "Not Alertmanager's webhook, version 4; the field at fault is named, nothing was changed"},
    401: {"description": "No token, or a wrong one"},
    413: {"description": f"More than {MOST_BYTES} bytes"},
    503: {"description": "The store does not answer, or this process only reads it"},
}


def alerts_router(store: Store, settings: LiveSettings) -> APIRouter:
    """The webhook; app.py puts it into the application."""
    router = APIRouter(tags=["webhooks"], responses=_REFUSALS)
    actions = AlertActions(store, lambda: settings.current)

    @router.post("/webhooks/alertmanager", response_class=Response, summary="Alerts in, each firing once")
    async def alertmanager(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return json_response({"error": f"more than {MOST_BYTES} bytes"}, 413)
        who = http_user(request.headers, token=bool(settings.current.web.token))
        group = parse_group(body)
        if not store.writable:
            return json_response({"error": "this process only reads the store: post to the one that writes it"}, 503)
        outcome = await run_in_threadpool(actions.take, group, f"alertmanager ({who})")
        return json_response({"actions": outcome.new, "known": outcome.known, "ignored": outcome.ignored})

    return router


async def _body(request: Request) -> bytes | None:
    """The body, None where it is too large: no more than that is ever read."""
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > MOST_BYTES:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)
