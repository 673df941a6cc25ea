"""Label Studio: tasks into a project, and its raw JSON back.

Source: label-studio-sdk 2.1: ``POST /api/projects/{id}/import``, ``GET /api/projects/{id}/export``, and
``POST /api/token/refresh/``, by which a personal access token becomes one for a few minutes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from monitor.annotation_tools.http import ToolApi, ToolError
from monitor.exports.items import Item
from monitor.exports.label_studio import task_of
from monitor.settings import AnnotationSettings

AT_ONCE = 50
"""Tasks of one request: a mask of a megapixel takes some kilobytes."""
FRESH_S = 240.0
"""A token is taken anew after this; Label Studio's own live for five minutes."""


class LabelStudioClient:
    """A client; raises ToolError."""

    def __init__(self, settings: AnnotationSettings) -> None:
        self._token = settings.token
        self._access, self._until_s = "", 0.0
        self._plain = ToolApi(settings.url, lambda: "", settings.timeout_seconds)
        self._api = ToolApi(settings.url, self._authorization, settings.timeout_seconds)

    def push(self, project: int, items: Sequence[Item]) -> set[str]:
        """Add tasks with their predictions; returns the inputs of those that were taken."""
        done: set[str] = set()
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            self._api.call("POST", f"/api/projects/{project}/import", body=[task_of(item) for item in some])
            done.update(item.input_id for item in some)
        return done

    def export(self, project: int) -> bytes:
        """The raw JSON of all annotated tasks."""
        return self._api.call("GET", f"/api/projects/{project}/export", query={"exportType": "JSON"})

    def _authorization(self) -> str:
        if self._token.count(".") != 2:  # a key of the older kind
            return f"Token {self._token}"
        if time.monotonic() >= self._until_s:
            answer: Any = self._plain.json("POST", "/api/token/refresh/", body={"refresh": self._token}, retry=True)
            if not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
                raise ToolError("POST /api/token/refresh/: the answer has no access token")
            self._access, self._until_s = answer["access"], time.monotonic() + FRESH_S
        return f"Bearer {self._access}"
