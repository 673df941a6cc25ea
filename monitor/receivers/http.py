"""Requests to receivers: to the one address of the settings, within a time and a size, and never redirected.

A redirect could point anywhere in the network that segwatch stands in, so it is a failure like any other. Neither
``.netrc`` nor proxy variables are looked at.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import urllib3

from monitor.receivers.protocol import ReceiverError, ReceiverSettings
from monitor.version import __version__

MOST_ANSWER: Final = 4 * 1024 * 1024
PIECE: Final = 65_536
MOST_SHOWN: Final = 200
MOST_WAIT_S: Final = 3600.0
"""A receiver that asks for more patience is asked again after this all the same."""


class Answer(NamedTuple):
    """What a server said."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


class Http:
    """Connections to one receiver."""

    def __init__(self, settings: ReceiverSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._timeout_s = settings.timeout_seconds
        self._pool = urllib3.PoolManager(2, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=settings.ca_file or None)

    def send(
        self,
        method: str,
        path: str = "",
        value: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        good: Collection[int] = range(200, 300),
    ) -> Answer:
        """A request to ``url`` + ``path``, with ``value`` as JSON or ``body`` as it is.

        Raises ReceiverError where no answer came, or none whose status is in ``good``.
        """
        what = f"{method} {urlsplit(self.url).hostname}{path.partition('?')[0]}"
        until = time.monotonic() + self._timeout_s
        sent = {"user-agent": f"segwatch/{__version__}", "accept": "application/json", **(headers or {})}
        if value is not None:
            body = msgspec.json.encode(value)
            sent["content-type"] = "application/json"
        try:
            response = self._pool.request(
                method,
                self.url + path,
                body=body,
                headers=sent,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(total=self._timeout_s),
            )
            try:
                answer = Answer(response.status, _read(response, until, what))
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ReceiverError(f"{what}: {_reason(error)}") from None
        if answer.status not in good:
            after_s = _seconds(response.headers.get("retry-after"))
            raise ReceiverError(f"{what}: status {answer.status}{_shown(answer.body)}", after_s)
        return answer

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


def _read(response: urllib3.BaseHTTPResponse, until: float, what: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.stream(PIECE):
        size += len(part)
        if size > MOST_ANSWER:
            raise ReceiverError(f"{what}: an answer of more than {MOST_ANSWER} bytes")
        if time.monotonic() > until:
            raise ReceiverError(f"{what}: the answer takes too long")
        parts.append(part)
    return b"".join(parts)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, urllib3.exceptions.NewConnectionError):  # which urllib3 takes for a kind of timeout
        return "no connection"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError | urllib3.exceptions.ReadTimeoutError):
        return "no answer in time"
    return " ".join(str(error).split())[:MOST_SHOWN] or type(error).__name__


def _shown(body: bytes) -> str:
    text = "".join(one if one.isprintable() else " " for one in body[:4096].decode("utf-8", "replace"))
    text = " ".join(text.split())[:MOST_SHOWN]
    return f": {text}" if text else ""


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds (RFC 9110, 10.2.3); as a date it is not heeded.

    >>> _seconds("120"), _seconds("Wed, 21 Oct 2026 07:28:00 GMT"), _seconds("1e9")
    (120.0, None, None)
    """
    if retry_after is None or not retry_after.strip().isdecimal():
        return None
    return min(float(retry_after), MOST_WAIT_S)
