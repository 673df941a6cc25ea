"""Signing in to the pages with a token, and out."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.forms import Form, ProvenForm
from dashboards.render import style_sheet, templates
from monitor.version import __version__
from monitor.web import WebState
from monitor.web_address import address_of
from monitor.web_gate import SIGN_IN
from monitor.web_session import COOKIE

WRONG: Final = "This token is not known."
TOO_MANY: Final = "Too many wrong tokens from this address. Wait a minute."


def sign_in_pages(state: WebState) -> APIRouter:
    """``/sign-in`` and ``/sign-out``."""
    router = APIRouter(include_in_schema=False)

    @router.get(SIGN_IN)
    def ask(next: str = "/") -> Response:
        return _page(next)

    @router.get(f"{SIGN_IN}/style.css")
    def style() -> Response:
        return style_sheet()  # the other address of it wants to know who asks

    @router.post(SIGN_IN)
    def sign_in(form: Form, request: Request) -> Response:
        wanted, address = form.get("next", "/"), address_of(request.scope)
        if not state.identity.may_try(address):
            return _page(wanted, TOO_MANY, 429)
        done = state.identity.sign_in(form.get("token", "").strip())
        if done is None:
            state.identity.failed(address)
            return _page(wanted, WRONG, 401)
        state.audit(f"http:{done.person.name}", "web.sign_in", "", {"role": done.person.role})
        answer = RedirectResponse(local(wanted), 303)
        web = state.identity.web
        answer.set_cookie(
            COOKIE,
            done.cookie,
            max_age=round(web.session_hours * 3600),
            httponly=True,
            samesite="strict",
            secure=bool(web.tls_certificate) or web.public_url.startswith("https://"),
        )
        return answer

    @router.post("/sign-out")
    def sign_out(form: ProvenForm) -> Response:
        answer = RedirectResponse(SIGN_IN, 303)
        answer.delete_cookie(COOKIE)
        return answer

    return router


def local(path: str) -> str:
    r"""A path of this server's, "/" for anything else: who signs in must not be led elsewhere.

    >>> local("/models?x=1"), local("//evil.example"), local("https://evil.example"), local("/\\evil.example")
    ('/models?x=1', '/', '/', '/')
    """
    fine = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() and path.isascii()
    return path if fine else "/"


def _page(wanted: str, fault: str = "", status: int = 200) -> Response:
    text = templates().get_template("sign_in.html").render(version=__version__, wanted=local(wanted), fault=fault)
    return Response(text.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8")
