"""The relabel queue over HTTP, for annotation tools: what waits, claims with a lease, and what became of them.

Whoever is known by name, by a token or session of their own, claims in that name alone. Operators may act for others:
an annotation tool does, with a token of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from monitor.audit import http_user
from monitor.errors import LeaseRefused
from monitor.live_settings import LiveSettings
from monitor.relabel_view import claimed, entry, samples
from monitor.store.relabel import Kind, RelabelItem, State
from monitor.store.store import Store
from monitor.web_gate import KEY
from monitor.web_json import json_response
from monitor.web_roles import Person
from monitor.web_tokens import PLAIN
from monitor.windows import SECOND_US

Name = Annotated[str, Field(min_length=1, max_length=256)]
LeaseSeconds = Annotated[float, Field(gt=0, le=30 * 86_400, description="Default: relabel.lease_minutes")]

_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "No token, or a wrong one"},
    403: {"description": "`as` is somebody else, and that is for operators; nothing was changed"},
    409: {"description": "Not leased to whoever says so, or not any more; nothing was changed"},
    503: {"description": "The store does not answer, or this process only reads it"},
}


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    who: Name = Field(alias="as", description="Who asks, as everybody knows them")


class ClaimRequest(_Asked):
    """Who wants how many samples, for how long; of one model or kind alone, where it is named."""

    n: int = Field(default=1, ge=1, le=10_000)
    lease_seconds: LeaseSeconds | None = None
    model: Name | None = None
    kind: Kind | None = None


class ChangeRequest(_Asked):
    """Claimed samples, by their inputs."""

    inputs: list[Name] = Field(min_length=1, max_length=10_000)
    token: Name | None = Field(default=None, description="Of the claim, for programs that share a name")


class RenewRequest(ChangeRequest):
    lease_seconds: LeaseSeconds | None = None


def relabel_router(store: Store, settings: LiveSettings) -> APIRouter:
    """``/api/v1/relabel``; app.py puts it into the application."""
    router = APIRouter(prefix="/api/v1/relabel", tags=["relabel"], responses=_REFUSALS)

    def lease_us(seconds: float | None) -> int:
        return round((seconds or settings.current.relabel.lease_minutes * 60) * SECOND_US)

    def answered(request: Request, asked: _Asked, change: Callable[[str], dict[str, Any]]) -> Response:
        foreign = _foreign(request, asked.who)
        if foreign:
            return json_response({"error": foreign}, 403)
        try:
            return json_response(change(http_user(request.headers, token=bool(settings.current.web.token))))
        except LeaseRefused as refused:
            return json_response({"error": str(refused)}, 409)

    @router.get("", response_class=Response, summary="What is queued, in the order in which it is claimed")
    def listing(
        model: Annotated[str | None, Query(max_length=256)] = None,
        kind: Annotated[Kind | None, Query()] = None,
        state: Annotated[list[State] | None, Query(description="Default: open and claimed")] = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="The first so many")] = 1000,
    ) -> Response:
        items = store.relabel.items(model, states=state or ("open", "claimed"), kind=kind, limit=limit)
        return json_response({"items": [entry(item) for item in items]})

    @router.post("/claim", response_class=Response, summary="Lease samples: nobody else gets them meanwhile")
    def claim(asked: ClaimRequest, request: Request) -> Response:
        only: Any = {"model": asked.model, "kind": asked.kind}
        lease = lease_us(asked.lease_seconds)
        return answered(
            request, asked, lambda by: claimed(store.relabel.claim(asked.n, asked.who, lease, **only, by=by))
        )

    @router.post("/renew", response_class=Response, summary="Keep samples for longer, from now")
    def renew(asked: RenewRequest, request: Request) -> Response:
        lease = lease_us(asked.lease_seconds)
        return answered(
            request, asked, lambda by: _told(store.relabel.renew(asked.inputs, asked.who, lease, asked.token, by=by))
        )

    @router.post("/release", response_class=Response, summary="Give samples back")
    def release(asked: ChangeRequest, request: Request) -> Response:
        return answered(
            request, asked, lambda by: _told(store.relabel.release(asked.inputs, asked.who, asked.token, by=by))
        )

    @router.post("/done", response_class=Response, summary="Close samples of which no label will come")
    def done(asked: ChangeRequest, request: Request) -> Response:
        return answered(
            request, asked, lambda by: _told(store.relabel.complete(asked.inputs, asked.who, asked.token, by=by))
        )

    return router


def _told(items: Sequence[RelabelItem]) -> dict[str, Any]:
    return {"items": samples(items)}


def _foreign(request: Request, who: str) -> str:
    """Why somebody may not act in this name; "" where they may, or where nobody had to say who they are."""
    person = request.scope.get(KEY)
    if not isinstance(person, Person) or person.name in ("", PLAIN, who) or person.may("operator"):
        return ""
    return f"as: {person.name} may not act for {who}: that is for operators"
