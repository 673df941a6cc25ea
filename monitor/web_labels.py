"""Webhooks of annotation tools: ``/webhooks/cvat`` and ``/webhooks/labelstudio``.

Neither can send segwatch's token, so each has a secret of its own, and without one set the path is not there. CVAT
signs the body (``X-Signature-256``: HMAC-SHA256 in hex); Label Studio sends the secret in a header that its webhook is
given. Nothing of a body is looked at before that is right.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from monitor.annotation_intake import CvatPulls, take_label_studio
from monitor.errors import InputError, StoreError
from monitor.live_settings import LiveSettings
from monitor.store.store import Store
from monitor.web_json import json_response

SIGNATURE: Final = "x-signature-256"
SECRET: Final = "x-segwatch-secret"
DONE: Final = "completed"
"""State of a job whose annotations are fetched."""

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "Refused, with the reason; nothing was stored"},
    401: {"description": "No secret or signature, or a wrong one"},
    404: {"description": "No secret is set for this tool"},
    413: {"description": "Larger than annotation.max_webhook_bytes"},
    503: {"description": "The store does not answer, or this process only reads it"},
}


class _Job(msgspec.Struct, frozen=True):
    id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    state: str = ""


class _CvatEvent(msgspec.Struct, frozen=True):
    event: str
    job: _Job | None = None


_cvat_event: msgspec.json.Decoder[_CvatEvent] = msgspec.json.Decoder(_CvatEvent)


class _TooLarge(Exception):
    """The body is larger than allowed."""


def labels_router(store: Store, settings: LiveSettings, pulls: CvatPulls) -> APIRouter:
    """Both webhooks; app.py puts it into the application."""
    router = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=_REFUSALS)

    @router.post("/labelstudio", response_class=Response, summary="Label Studio: an annotation was made or changed")
    async def label_studio(request: Request) -> Response:
        annotation = settings.current.annotation
        if not annotation.labelstudio_secret:
            return json_response({"error": "annotation.labelstudio_secret is not set"}, 404)
        if not _equal(request.headers.get(SECRET, ""), annotation.labelstudio_secret):
            return json_response({"error": f"the header {SECRET} is missing or wrong"}, 401)
        try:
            body = await _body(request, annotation.max_webhook_bytes)
        except _TooLarge:
            return json_response({"error": f"more than {annotation.max_webhook_bytes} bytes"}, 413)
        return await run_in_threadpool(_take, store, settings, body)

    @router.post("/cvat", response_class=Response, summary="CVAT: a job has changed")
    async def cvat(request: Request) -> Response:
        annotation = settings.current.annotation
        if not annotation.cvat_secret:
            return json_response({"error": "annotation.cvat_secret is not set"}, 404)
        try:
            body = await _body(request, annotation.max_webhook_bytes)
        except _TooLarge:
            return json_response({"error": f"more than {annotation.max_webhook_bytes} bytes"}, 413)
        wanted = hmac.new(annotation.cvat_secret.encode(), body, hashlib.sha256).hexdigest()
        given = request.headers.get(SIGNATURE, "").removeprefix("sha256=").lower()
        if not _equal(given, wanted):
            return json_response({"error": f"the header {SIGNATURE} is missing or wrong"}, 401)
        try:
            event = _cvat_event.decode(body)
        except (ValueError, RecursionError):
            return json_response({"error": "no event of CVAT"}, 400)
        if event.event != "update:job" or event.job is None or event.job.state != DONE:
            return json_response({"ignored": event.event})
        if annotation.tool != "cvat" or not store.writable:
            why = "annotation.tool is not cvat" if annotation.tool != "cvat" else "this process only reads the store"
            return json_response({"error": f"annotations cannot be fetched: {why}"}, 503)
        return await run_in_threadpool(_queue, pulls, event.job.id)

    return router


def _queue(pulls: CvatPulls, job_id: int) -> Response:
    try:
        pulls.add(job_id)
    except StoreError as error:
        return json_response({"error": str(error)}, 503)
    return json_response({"queued": job_id}, 202)


def _take(store: Store, settings: LiveSettings, body: bytes) -> Response:
    if not store.writable:
        return json_response({"error": "this process only reads the store"}, 503)
    try:
        outcomes = take_label_studio(store, settings.current, body)
    except InputError as error:
        return json_response({"error": str(error)}, 400)
    except StoreError as error:
        return json_response({"error": str(error)}, 503)
    return json_response({"ignored": True} if outcomes is None else {"outcomes": dict(outcomes)})


async def _body(request: Request, most: int) -> bytes:
    """The body, read no further than allowed. Raises _TooLarge."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise _TooLarge
    return bytes(data)


def _equal(given: str, wanted: str) -> bool:
    """In the same time wherever they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
