"""A webhook of anybody's: a CloudEvent over HTTP, signed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from monitor.errors import SettingsError
from monitor.receivers.http import Http
from monitor.receivers.protocol import Event, ReceiverSettings
from monitor.receivers.secrets import bearer, secret
from monitor.receivers.signing import headers


class Settings(ReceiverSettings, frozen=True, kw_only=True, tag_field="preset", tag="generic"):
    """The secret signs; it may have several lines while it is being changed."""

    secret_file: str = ""
    secret_env: str = ""
    mode: Literal["structured", "binary"] = "structured"
    """CloudEvents' content mode: one JSON object, or attributes as headers and the data as the body."""


class Webhook:
    """Implements ``monitor.receivers.protocol.Receiver``: at least once, with the id in ``Idempotency-Key``.

    Source: CloudEvents 1.0.2, "HTTP Protocol Binding"; Standard Webhooks 1.0.0.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        if not secret(settings, "secret"):
            raise SettingsError(f"receiver {settings.name}: secret_file or secret_env is needed, to sign with")
        self._settings = settings
        self._clock = clock
        self._http = Http(settings)

    def deliver(self, event: Event) -> str:
        """POST it; any status of 200 to 299 means that it has arrived."""
        if self._settings.mode == "structured":
            body = msgspec.json.encode(event)
            sent = {"content-type": "application/cloudevents+json; charset=utf-8"}
        else:
            body = msgspec.json.encode(event["data"])
            sent = {f"ce-{name}": _header(str(value)) for name, value in event.items() if name not in NO_HEADERS}
            sent["content-type"] = str(event["datacontenttype"])
        own = {"idempotency-key": str(event["id"]), **bearer(self._settings)}
        signed = headers(secret(self._settings, "secret"), str(event["id"]), int(self._clock()), body)
        return f"status {self._http.send('POST', body=body, headers=sent | own | signed).status}"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


NO_HEADERS = ("data", "datacontenttype")


def _header(value: str) -> str:
    """Percent-encoded as the HTTP binding (3.1.3.2) wants it.

    >>> _header("street/Ü 3%")
    'street/%C3%9C%203%25'
    """
    return "".join(
        one if "!" <= one <= "~" and one not in '"%' else "".join(f"%{byte:02X}" for byte in one.encode())
        for one in value
    )
