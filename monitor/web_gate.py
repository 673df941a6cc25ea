"""Decides who may ask, before anything else is looked at, and adds the security headers to every answer.

Writes that are refused leave a line in the audit log. A page that somebody may not see without signing in leads to the
sign-in page; programs get 401.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.audit import PERSON
from monitor.service_series import REFUSALS
from monitor.web_access import is_loopback
from monitor.web_address import address_of, introduce, peer_of
from monitor.web_identity import Identity
from monitor.web_rate import RateLimit
from monitor.web_roles import SAFE_METHODS, Person, needed
from monitor.web_tokens import PLAIN

log = logging.getLogger(__name__)

SIGN_IN: Final = "/sign-in"
OPEN_PATHS: Final = frozenset({"/-/healthy", "/-/ready", SIGN_IN, f"{SIGN_IN}/style.css"})
SIGNED_PATHS: Final = frozenset({"/webhooks/cvat", "/webhooks/labelstudio"})
"""Their senders cannot send the token: each has a secret of its own (see monitor/web_labels.py)."""
PROGRAM_PATHS: Final = ("/api/", "/-/", "/webhooks/")
"""What pages' forms do not write to; a page's session may, with the form's token in the header `FORM_TOKEN`."""
FORM_TOKEN: Final = "x-csrf-token"
GATES: Final = "/api/v1/canary/gate/"
"""Their 403 is the answer no, not a refusal."""
LINES_PER_MINUTE: Final = 60
"""Of refusals that the audit log takes of one process: it must not become a way to fill the disk."""
KEY: Final = "segwatch.person"

SECURITY_HEADERS: Final = {
    # No script at all and nothing from elsewhere: what a record says can never run in somebody's browser.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with none at all, browsers send our own forms with "Origin: null"
    "cache-control": "no-store",
}


class GateState(Protocol):
    """What the gate needs to know, and tells."""

    @property
    def identity(self) -> Identity:
        """Who is who."""

    def refused(self, code: int) -> None:
        """Count a request that was refused with this HTTP status."""

    def audit(self, who: str, what: str, subject: str, detail: Mapping[str, object]) -> None:
        """A line for the audit log, or where it cannot be written for the process's log."""


def person_of(scope: Mapping[str, Any]) -> Person:
    """Who asks; of any request that has come through the gate."""
    found = scope[KEY]
    assert isinstance(found, Person)
    return found


class Gate:
    """The outermost ASGI middleware. ``local_only``: the server's address is a loopback one."""

    def __init__(self, app: ASGIApp, state: GateState, local_only: bool) -> None:
        self._app = app
        self._state = state
        self._local_only = local_only
        self._lines = RateLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != PERSON.encode()]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._note(scope, message["status"])
                present = {name for name, _ in message["headers"]}
                own = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in present)]
            await send(message)

        answer: ASGIApp = self._app if refusal is None else refusal
        await answer(scope, receive, send_with_headers)

    async def _note(self, scope: Scope, status: int) -> None:
        if status in REFUSALS:
            self._state.refused(status)
        path = scope["path"]
        if status not in (401, 403, 429) or scope["method"] in SAFE_METHODS or path.startswith(GATES):
            return
        if self._lines.take("", LINES_PER_MINUTE):
            detail = {"method": scope["method"], "status": status, "address": address_of(scope)}
            # An input's id must not get into the log: no path that is written to holds more than this of its own.
            subject = "/".join(path.split("/")[:4])
            await run_in_threadpool(self._state.audit, _who(scope.get(KEY)), "web.refused", subject, detail)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        identity, path = self._state.identity, scope["path"]
        address = introduce(scope, identity.web.trusted_proxies)
        host = headers.get("host", "")
        public = identity.web.public_url.partition("://")[2].partition("/")[0]
        if self._local_only and not is_loopback(_host_name(host)) and (not public or host != public):
            return _error("this server answers to loopback names only (Host)", 421)
        writes = scope["method"] not in SAFE_METHODS
        if writes and _is_cross_site(headers, public):
            return _error("requests from other sites' pages are refused (Origin)", 403)
        if path in OPEN_PATHS | SIGNED_PATHS:
            return None
        person, tried = identity.identify(headers, peer_of(scope))
        if person is None:
            return self._unknown(scope, headers, tried and not identity.failed(address))
        _introduce(scope, person)
        role = needed(scope["method"], path)
        if not person.may(role):
            return _error(f"this is for the role {role}, and {person.name} is {person.role}", 403)
        if writes:
            return _write_refusal(identity, person, headers, address, path)
        return None

    def _unknown(self, scope: Scope, headers: Mapping[str, str], too_many: bool) -> Response:
        if too_many:
            return _error("too many wrong tokens from this address: wait a minute", 429)
        if scope["method"] in SAFE_METHODS and "text/html" in headers.get("accept", ""):
            wanted = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            return RedirectResponse(f"{SIGN_IN}?next={quote(wanted, safe='')}", 303)
        response = _error("a token is needed: Authorization: Bearer ...", 401)
        response.headers["www-authenticate"] = 'Bearer realm="segwatch"'
        return response


def _write_refusal(
    identity: Identity, person: Person, headers: Mapping[str, str], address: str, path: str
) -> Response | None:
    # Such a request may have been made by another site's page: only ours know the form's token.
    known = hmac.compare_digest(headers.get(FORM_TOKEN, "").encode("latin-1"), person.csrf.encode())
    if person.way in ("session", "proxy") and path.startswith(PROGRAM_PATHS) and not known:
        return _error(f"the header {FORM_TOKEN} is missing or wrong", 403)
    if not identity.may_write(person, address):
        return _error("too many changes: wait a minute", 429)
    return None


def _introduce(scope: Scope, person: Person) -> None:
    """Tell the application who asks. Of whoever has the one token it may be a proxy that knows (see `http_user`)."""
    scope[KEY] = person
    if person.name and (person.name != PLAIN or person.way == "session"):
        scope["headers"].append((PERSON.encode(), quote(_who(person), safe=":").encode()))


def _who(person: Person | None) -> str:
    return "http:nobody" if person is None else f"http:{person.name or 'loopback'}"


def _error(text: str, status: int) -> Response:
    return Response(json.dumps({"error": text}, ensure_ascii=False), status, media_type="application/json")


def _host_name(host: str) -> str:
    """``Host`` without its port.

    >>> _host_name("localhost:8600"), _host_name("[::1]:8600"), _host_name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_cross_site(headers: Mapping[str, str], public: str) -> bool:
    # Browsers add Origin to every POST; programs such as curl send none.
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] not in {headers.get("host"), public} - {""}
