"""``/relabel``: what is to be labelled, and claiming it by form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.forms import ProvenForm
from dashboards.page_data import PageData
from dashboards.render import page
from monitor.audit import http_user
from monitor.errors import LeaseRefused
from monitor.relabel_view import samples
from monitor.store.relabel import Kind
from monitor.web_gate import person_of
from monitor.windows import SECOND_US

SHOWN: Final = 200
MOST_CLAIMED: Final = 100
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


def relabel_pages(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    def user(request: Request) -> str:
        return http_user(request.headers, token=bool(data.settings.current.web.token))

    @router.get("/relabel")
    def queue(request: Request, kind: str = "", model: str = "", said: str = "") -> Response:
        wanted = next((one for one in KINDS if one == kind), None)
        items = data.store.relabel.items(model or None, kind=wanted, limit=4 * SHOWN)
        shown = samples(items)
        return page(
            request,
            "relabel.html",
            items=shown[:SHOWN],
            more=len(shown) > SHOWN,
            kinds=KINDS,
            kind=kind,
            wanted_model=model,
            models=sorted({one["model"] for one in shown}),
            said=said,
            writable=data.store.writable,
            most=MOST_CLAIMED,
        )

    @router.post("/relabel/claim")
    def claim(form: ProvenForm, request: Request) -> Response:
        kind = next((one for one in KINDS if one == form.get("kind")), None)
        lease_us = round(data.settings.current.relabel.lease_minutes * 60 * SECOND_US)
        who, model = _who(request, form), form.get("model") or None
        found = data.store.relabel.claim(_count(form), who, lease_us, model=model, kind=kind, by=user(request))
        inputs = {item.sample for item in found.items}
        return _back(f"{len(inputs)} claimed for {who}" if inputs else "Nothing waits")

    @router.post("/relabel/release")
    def release(form: ProvenForm, request: Request) -> Response:
        return change(form, request, "release")

    @router.post("/relabel/done")
    def done(form: ProvenForm, request: Request) -> Response:
        return change(form, request, "done")

    def change(form: Mapping[str, str], request: Request, what: str) -> Response:
        queue = data.store.relabel
        act = queue.release if what == "release" else queue.complete
        try:
            act([form.get("input", "")], _who(request, form), by=user(request))
        except LeaseRefused as refused:
            return _back(str(refused))
        return _back("Given back" if what == "release" else "Closed")

    return router


def _who(request: Request, form: Mapping[str, str]) -> str:
    """Whoever has signed in by name; else the name that the form gives."""
    person = person_of(request.scope)
    name = person.name if person.name not in ("", "token") else form.get("who", "").strip()
    if not 0 < len(name) <= 256:
        raise HTTPException(400, "say who you are: a name of 1 to 256 letters")
    return name


def _count(form: Mapping[str, str]) -> int:
    text = form.get("n", "1")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MOST_CLAIMED:
        raise HTTPException(400, f"claim 1 to {MOST_CLAIMED} samples")
    return int(text)


def _back(said: str) -> Response:
    query = {"said": said[:300]}
    return RedirectResponse(f"/relabel?{urlencode(query, errors='replace')}", 303)
