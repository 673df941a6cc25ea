"""Makes out who asks: by a bearer token, by a page's session, or by what a trusted proxy says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final, NamedTuple

from monitor.settings import WebSettings
from monitor.web_access import wants_sign_in
from monitor.web_address import is_in
from monitor.web_rate import RateLimit
from monitor.web_roles import ROLES, Person, Role
from monitor.web_session import COOKIE, Sessions
from monitor.web_tokens import Tokens, owner_of

MOST_NAME: Final = 100


class Identified(NamedTuple):
    """``person`` None: nobody. ``tried``: something was brought that is wrong, not only missing."""

    person: Person | None
    tried: bool = False


class SignedIn(NamedTuple):
    """A session that has just begun."""

    person: Person
    cookie: str


class Identity:
    """Safe for several threads. ``web``: the settings in force."""

    def __init__(self, web: Callable[[], WebSettings]) -> None:
        self._web = web
        self._tokens = Tokens()
        self._sessions = Sessions()
        self._failed = RateLimit()
        self._writes = RateLimit()

    @property
    def web(self) -> WebSettings:
        return self._web()

    def identify(self, headers: Mapping[str, str], peer: str) -> Identified:
        """``headers`` by lower-case names; ``peer``: the address at the other end of the connection."""
        web = self.web
        if not wants_sign_in(web):
            return Identified(Person("", "admin", "open", self._sessions.form_token(web, "")))
        given = headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            found = owner_of(token.strip(), self._tokens.of(web)) if scheme.lower() == "bearer" else None
            return Identified(Person(found.name, found.role, "token", ""), False) if found else Identified(None, True)
        by_proxy = self._by_proxy(web, headers, peer)
        if by_proxy is not None:
            return Identified(by_proxy)
        cookie = _cookie(headers.get("cookie", ""))
        owner = self._sessions.owner(web, cookie, self._tokens.of(web)) if cookie else None
        if owner is None:
            return Identified(None)  # a session that is over is no attempt at anything
        return Identified(Person(owner.name, owner.role, "session", self._sessions.form_token(web, cookie)))

    def sign_in(self, token: str) -> SignedIn | None:
        """Begin a session; None for a wrong token. The caller minds `may_try`."""
        web = self.web
        owner = owner_of(token, self._tokens.of(web)) if token else None
        if owner is None:
            return None
        cookie = self._sessions.start(web, owner)
        return SignedIn(Person(owner.name, owner.role, "session", self._sessions.form_token(web, cookie)), cookie)

    def may_try(self, address: str) -> bool:
        """Whether another wrong token of this address would still be looked at."""
        return self._failed.left(address, self.web.failed_sign_ins_per_minute)

    def failed(self, address: str) -> bool:
        """Count a wrong token; False where there were too many."""
        return self._failed.take(address, self.web.failed_sign_ins_per_minute)

    def may_write(self, person: Person, address: str) -> bool:
        """Count a write; False where there were too many."""
        return self._writes.take(person.name or address, self.web.writes_per_minute)

    def _by_proxy(self, web: WebSettings, headers: Mapping[str, str], peer: str) -> Person | None:
        name = headers.get(web.proxy_user_header.lower(), "") if web.proxy_user_header else ""
        name = "".join(letter for letter in name if letter.isprintable()).strip()[:MOST_NAME]
        if not name or not is_in(peer, web.trusted_proxies):
            return None
        given = headers.get(web.proxy_roles_header.lower(), "") if web.proxy_roles_header else ""
        told = {one.strip().lower() for one in given.split(",")}
        role: Role = max((one for one in ROLES if one in told), key=ROLES.index, default="viewer")
        return Person(name, role, "proxy", self._sessions.form_token(web, f"proxy {name}"))


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
