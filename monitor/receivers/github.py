"""GitHub: a ``repository_dispatch`` event, which workflows can start on. At least once: GitHub knows no ids of ours."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alerts.actions import model_of
from monitor.errors import SettingsError
from monitor.receivers.events import cut
from monitor.receivers.http import Http
from monitor.receivers.protocol import Event, ReceiverSettings
from monitor.receivers.secrets import bearer

MOST_PAYLOAD: Final = 60_000
"""GitHub refuses a client_payload of more than 65,535 characters, and of more than 10 properties."""
VERSION: Final = "2022-11-28"


class Settings(ReceiverSettings, frozen=True, kw_only=True, tag_field="preset", tag="github"):
    """``repository``: ``owner/name``. ``url`` is only needed for a server of one's own."""

    url: str = "https://api.github.com"
    repository: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$")]
    event_type: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """Empty means the action's type."""


class GitHub:
    """Implements ``monitor.receivers.protocol.Receiver``; ``client_payload.id`` is the action's."""

    def __init__(self, settings: Settings) -> None:
        if not bearer(settings):
            raise SettingsError(f"receiver {settings.name}: token_file or token_env is needed")
        self._settings = settings
        self._http = Http(settings)

    def deliver(self, event: Event) -> str:
        """Dispatch the event; GitHub says no more than that it took it."""
        model, version = model_of(event["data"])
        payload = {
            "id": event["id"],
            "type": event["type"],
            "time": event.get("time"),
            "model": model,
            "version": version,
            "link": event["data"].get("link"),
            "event": cut(event, MOST_PAYLOAD),
        }
        asked = {"event_type": self._settings.event_type or event["type"], "client_payload": payload}
        headers = {
            "accept": "application/vnd.github+json",
            "x-github-api-version": VERSION,
            **bearer(self._settings),
        }
        self._http.send("POST", f"/repos/{self._settings.repository}/dispatches", asked, headers=headers)
        return f"dispatched to {self._settings.repository}"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
