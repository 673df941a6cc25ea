"""Who is signed in on pages: a signed cookie, so that no process has to remember anybody.

The cookie holds a name, an end and a nonce. Its key is derived from the person's token, so that a token that is taken
away, or changed, ends its sessions at once; the role is looked up on every request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final

from monitor.settings import WebSettings
from monitor.web_tokens import Token

COOKIE: Final = "segwatch_session"
MOST: Final = 1024
"""Characters of a cookie that could be one of ours."""


class Sessions:
    """Makes and checks cookies. Without ``web.session_key`` and ``web.token`` they end with the process."""

    def __init__(self, wall_s: Callable[[], float] = time.time) -> None:
        self._random = secrets.token_bytes(32)
        self._wall_s = wall_s

    def start(self, web: WebSettings, token: Token) -> str:
        """A cookie for the owner of this token."""
        ends = int(self._wall_s() + web.session_hours * 3600)
        content = _encoded(json.dumps([token.name, ends, secrets.token_hex(8)]).encode())
        return f"{content}.{self._signature(web, token, content)}"

    def owner(self, web: WebSettings, cookie: str, known: Iterable[Token]) -> Token | None:
        """Whose session this is; None where it is over, was never begun, or its token is gone."""
        content, dot, signature = cookie.partition(".")
        if not dot or len(cookie) > MOST or not cookie.isascii():
            return None
        try:
            name, ends, _ = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
        except (ValueError, TypeError):
            return None
        for one in known:
            if one.name == name and hmac.compare_digest(signature, self._signature(web, one, content)):
                return one if isinstance(ends, int) and ends > self._wall_s() else None
        return None

    def form_token(self, web: WebSettings, who: str) -> str:
        """What a form of this session (its cookie, or ``who`` the proxy says) has to bring back."""
        return self._sign(self._master(web), f"form\0{who}")

    def _master(self, web: WebSettings) -> bytes:
        return (web.session_key or web.token).encode("utf-8", "surrogatepass") or self._random

    def _signature(self, web: WebSettings, token: Token, content: str) -> str:
        key = self._sign(self._master(web), f"session\0{token.name}\0{token.digest}").encode()
        return self._sign(key, content)

    @staticmethod
    def _sign(key: bytes, text: str) -> str:
        return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
