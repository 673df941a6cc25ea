"""The audit log: who did what to what, and when. `segwatch audit` shows it.

    with store.transaction() as tx:      # or a leader's, or the store itself
        ...
        record(tx, os_user(), "labels.import", "street", {"file": "week-48.json", "labels": 120})

Within a transaction the line is written if what it tells of is, and only then. ``what`` is a name with a dot, as the
table in docs/privacy.md lists them. Never put an input's id or a secret into a line: it outlives what was purged.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import unquote

MOST = 256
"""Characters that are kept of a name that somebody else gave."""
PERSON = "x-segwatch-person"
"""Header that the server itself adds to a request: who asks."""


class AuditLog(Protocol):
    """A `monitor.store.store.Store`, or a transaction of it."""

    def audit(self, who: str, what: str, subject: str, detail: Mapping[str, object]) -> None:
        """Add a line."""


def record(into: AuditLog, who: str, what: str, subject: str = "", detail: Mapping[str, object] | None = None) -> None:
    """Add a line. ``who`` as `os_user` or `http_user` says; ``subject`` is what it was done to (a model, a file)."""
    into.audit(who[:MOST], what, subject[:MOST], detail or {})


def os_user() -> str:
    """Who runs this command, by the operating system: ``os:maria``; with sudo who called it.

    >>> os_user().startswith("os:")
    True
    """
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        name = str(os.getuid())  # a container's user need not have a name
    behind = os.environ.get("SUDO_USER")
    return f"os:{name} (sudo by {behind})" if behind and behind != name else f"os:{name}"


def http_user(headers: Mapping[str, str], *, token: bool) -> str:
    """Who asks over HTTP. ``token``: the request had to bring the server's token, and did.

    Only then is a proxy's word for the person behind it (``X-Forwarded-User``) believed: on loopback without a token
    any page or program could say so.

    Whom the server itself has made out (by a name's own token, a session or a trusted proxy) stands in `PERSON`, which
    no request can bring: monitor/web_gate.py takes it away.

    >>> http_user({"x-forwarded-user": "maria"}, token=True), http_user({"x-forwarded-user": "maria"}, token=False)
    ('http:maria', 'http:loopback')
    >>> http_user({}, token=True), http_user({PERSON: "http:joe"}, token=False)
    ('http:token', 'http:joe')
    """
    if PERSON in headers:
        return unquote(headers[PERSON])[:MOST]
    if not token:
        return "http:loopback"
    name = "".join(letter for letter in headers.get("x-forwarded-user", "") if letter.isprintable()).strip()
    return f"http:{name[:MOST]}" if name else "http:token"
