"""Airflow 3: a run of a DAG with the action's id as its run id, which Airflow takes once (REST API, ``/api/v2``)."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from monitor.errors import SettingsError
from monitor.receivers.events import cut
from monitor.receivers.http import Http
from monitor.receivers.protocol import Event, ReceiverError, ReceiverSettings
from monitor.receivers.secrets import bearer, secret

MOST_CONF: Final = 512 * 1024


class Settings(ReceiverSettings, frozen=True, kw_only=True, tag_field="preset", tag="airflow"):
    """``dag``: which one is run. Its ``conf`` is the CloudEvent. A token, or a user of ``/auth/token``."""

    dag: Annotated[str, msgspec.Meta(min_length=1, max_length=250)]
    username: str = ""
    password_file: str = ""
    password_env: str = ""


class Airflow:
    """Implements ``monitor.receivers.protocol.Receiver``: once, by the run id."""

    def __init__(self, settings: Settings) -> None:
        if not bearer(settings) and not (settings.username and secret(settings, "password")):
            raise SettingsError(f"receiver {settings.name}: a token, or username and password, is needed")
        self._settings = settings
        self._http = Http(settings)

    def deliver(self, event: Event) -> str:
        """Trigger the DAG. 409: there is a run of this id, so that it has arrived before."""
        path = f"/api/v2/dags/{quote(self._settings.dag, safe='')}/dagRuns"
        # Without a logical date: it, too, would have to be the only one of its DAG.
        run = {"dag_run_id": str(event["id"]), "logical_date": None, "conf": cut(event, MOST_CONF)}
        answer = self._http.send("POST", path, run, headers=self._login(), good=(200, 201, 202, 409))
        return f"run {event['id']} of {self._settings.dag}" + (" was there" if answer.status == 409 else "")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _login(self) -> dict[str, str]:
        """A token of the settings, or a fresh one: they end after a day, and actions are rare."""
        known = bearer(self._settings)
        if known:
            return known
        asked = {"username": self._settings.username, "password": secret(self._settings, "password")}
        answer = self._http.send("POST", "/auth/token", asked, good=(200, 201)).json()
        if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
            raise ReceiverError("POST /auth/token: no access_token, so this is no Airflow 3")
        return {"authorization": f"Bearer {answer['access_token']}"}
