"""Argo Workflows: a workflow from a template, under a name made from the action's id (server's REST API).

Whether it is there is asked before it is submitted, and after a submission that failed: what the server answers for a
name that is taken is not always the same, and a 409 may mean a quota, too (argo-workflows issues 7580, 14106).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec

from monitor.receivers.events import cut
from monitor.receivers.http import Http
from monitor.receivers.protocol import Event, ReceiverError, ReceiverSettings
from monitor.receivers.secrets import bearer

MOST_PARAMETER: Final = 256 * 1024
"""Of the 1.5 MB that etcd takes for a whole object."""
NAME: Final = "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"


class Settings(ReceiverSettings, frozen=True, kw_only=True, tag_field="preset", tag="argo"):
    """``template`` gets the CloudEvent as the parameter of this name."""

    namespace: Annotated[str, msgspec.Meta(pattern=NAME)]
    template: Annotated[str, msgspec.Meta(pattern=NAME)]
    kind: Literal["WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"] = "WorkflowTemplate"
    parameter: str = "event"


class Argo:
    """Implements ``monitor.receivers.protocol.Receiver``: once, by the name, as long as the workflow is kept."""

    def __init__(self, settings: Settings) -> None:
        bearer(settings)
        self._settings = settings
        self._http = Http(settings)

    def deliver(self, event: Event) -> str:
        """Submit the workflow, unless it is there."""
        name = f"segwatch-{event['id']}"
        if self._is_there(name):
            return f"workflow {name} was there"
        parameter = msgspec.json.encode(cut(event, MOST_PARAMETER)).decode()
        asked = {
            "namespace": self._settings.namespace,
            "resourceKind": self._settings.kind,
            "resourceName": self._settings.template,
            "submitOptions": {"name": name, "parameters": [f"{self._settings.parameter}={parameter}"]},
        }
        path = f"/api/v1/workflows/{quote(self._settings.namespace)}/submit"
        try:
            self._http.send("POST", path, asked, headers=bearer(self._settings))
        except ReceiverError:
            if not self._is_there(name):
                raise
        return f"workflow {name}"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _is_there(self, name: str) -> bool:
        path = f"/api/v1/workflows/{quote(self._settings.namespace)}/{quote(name)}?fields=metadata.name"
        return self._http.send("GET", path, headers=bearer(self._settings), good=(200, 404)).status == 200
