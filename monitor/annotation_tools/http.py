"""Requests to an annotation tool: JSON in and out, bounded in size and time, the token in no message.

Neither redirects are followed nor proxy variables heeded: both would carry the token to where no setting says.

``urllib`` of Python's own library does: a few requests an hour, one after the other, need no pool of connections, and
the runtime no further dependency.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from monitor.errors import SegwatchError, SettingsError

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of JSON that is decoded here, which takes several times as much."""
MAX_FILE_BYTES = 512 * 1024 * 1024
PIECE_BYTES = 65_536
PATIENCE = 10
"""An answer's body may take so many times the timeout, which a single read may take."""
SHOWN = 200
"""Characters of a refusal that are shown."""
ATTEMPTS = 3
RETRIED = frozenset({429, 502, 503, 504})


class ToolError(SegwatchError):
    """The tool refused, or does not answer. ``status`` is HTTP's; None where there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect would carry the token to wherever it points."""


class ToolApi:
    """One tool's interface. ``authorization``: what goes into the header of this name."""

    def __init__(
        self,
        url: str,
        authorization: Callable[[], str],
        timeout_s: float,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise SettingsError("annotation.url: expected http(s)://host[:port][/path], without user name or query")
        self._url, self._authorization, self._timeout_s, self._pause = url.rstrip("/"), authorization, timeout_s, pause
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        retry: bool | None = None,
        most: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        """The answer's body, ``most`` bytes of it. Raises ToolError that names the request.

        ``retry``: whether the request may be made again after one that may have had its effect (default: GET alone).
        429 says that it had none, and is tried again in any case; 503 may be what a proxy says of a server that is at
        work on the request.
        """
        again = method == "GET" if retry is None else retry
        data = None if body is None else json.dumps(body).encode()
        address = f"{self._url}{path}" + (f"?{urlencode(dict(query))}" if query else "")
        for attempt in range(1, ATTEMPTS + 1):
            request = urllib.request.Request(address, data, method=method)
            request.add_header("Authorization", self._authorization())
            request.add_header("Accept", "application/json")
            if data is not None:
                request.add_header("Content-Type", "application/json")
            try:
                with self._opener.open(request, timeout=self._timeout_s) as answer:
                    return _bounded(answer, most, PATIENCE * self._timeout_s, f"{method} {path}")
            except urllib.error.HTTPError as error:
                with error:
                    failure = ToolError(f"{method} {path}: {error.code} {_shown(error)}", error.code)
                harmless = again or error.code == 429
                if error.code not in RETRIED or not harmless or attempt == ATTEMPTS:
                    raise failure from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", error)
                if not again or attempt == ATTEMPTS:
                    raise ToolError(f"{method} {path}: no answer: {reason}") from None
            self._pause(2.0**attempt / 2)
        raise AssertionError  # the last attempt has returned or raised

    def json(self, method: str, path: str, **more: Any) -> Any:
        """The same, decoded."""
        data = self.call(method, path, **more)
        try:
            return json.loads(data) if data else None
        except (ValueError, RecursionError):
            raise ToolError(f"{method} {path}: the answer is no JSON") from None


def _bounded(answer: http.client.HTTPResponse, most: int, within_s: float, what: str) -> bytes:
    until = time.monotonic() + within_s
    data = bytearray()
    while piece := answer.read1(PIECE_BYTES):
        data += piece
        if len(data) > most:
            raise ToolError(f"{what}: the answer has more than {most} bytes")
        if time.monotonic() > until:
            raise ToolError(f"{what}: the answer takes longer than {within_s:g} s")
    if answer.length:  # read1 takes a connection that is cut off for the end
        raise http.client.IncompleteRead(bytes(data[:SHOWN]), answer.length)
    return bytes(data)


def _shown(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(4 * SHOWN).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    return ascii(" ".join(text.split())[:SHOWN])[1:-1]
