"""Label Studio: tasks into a project, and its raw JSON back.

Source: label-studio-sdk 2.1: ``POST /api/projects/{id}/import``, ``GET /api/projects/{id}/export``, ``GET /api/tasks``
with a query of the data manager, and ``POST /api/token/refresh/``, by which a personal access token becomes one for a
few minutes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from monitor.annotation_tools.http import MAX_FILE_BYTES, ToolApi, ToolError
from monitor.exports.items import Item
from monitor.exports.label_studio import task_of
from monitor.settings import AnnotationSettings

AT_ONCE = 50
"""Tasks of one request: a mask of a megapixel takes some kilobytes."""
MOST_QUERY = 3000
"""Characters of a query within an address: many servers take 4094 of the whole request line."""
PAGE, MAX_PAGES = 100, 1000
FRESH_S = 240.0
"""A token is taken anew after this; Label Studio's own live for five minutes."""


class LabelStudioClient:
    """A client; raises ToolError."""

    def __init__(self, settings: AnnotationSettings) -> None:
        self._token = settings.token
        self._access, self._until_s = "", 0.0
        self._plain = ToolApi(settings.url, lambda: "", settings.timeout_seconds)
        self._api = ToolApi(settings.url, self._authorization, settings.timeout_seconds)

    def push(self, project: int, items: Sequence[Item]) -> Iterator[set[str]]:
        """Add tasks with their predictions; yields the inputs of those that are there, as they come to be.

        Label Studio takes the same task any number of times. So inputs that have a task which nobody has labelled yet,
        of a push that was cut off, get no other one.
        """
        there: set[str] = set()
        for names in _queries([item.input_id for item in items]):
            there |= self._waiting(project, names)
        if there:
            yield there
        new = [item for item in items if item.input_id not in there]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            self._api.call("POST", f"/api/projects/{project}/import", body=[task_of(item) for item in some])
            yield {item.input_id for item in some}

    def _waiting(self, project: int, inputs: Sequence[str]) -> set[str]:
        """Those of some inputs that have tasks without annotations."""
        asked = {"project": project, "page_size": PAGE, "query": _query(inputs)}
        found: set[str] = set()
        seen = 0
        for page in range(1, MAX_PAGES + 1):
            answer = self._api.json("GET", "/api/tasks", query={**asked, "page": page})
            tasks = answer["tasks"]
            # Names are compared here, too: a server that knows no such query answers with all tasks.
            found |= {str(one["data"].get("input_id")) for one in tasks if not one.get("is_labeled")}
            seen += len(tasks)
            if not tasks or seen >= answer["total"]:
                return found & set(inputs)
        raise ToolError(f"GET /api/tasks: more than {MAX_PAGES} pages")

    def export(self, project: int) -> bytes:
        """The raw JSON of all annotated tasks."""
        return self._api.call(
            "GET", f"/api/projects/{project}/export", query={"exportType": "JSON"}, most=MAX_FILE_BYTES
        )

    def _authorization(self) -> str:
        if self._token.count(".") != 2:  # a key of the older kind
            return f"Token {self._token}"
        if time.monotonic() >= self._until_s:
            answer: Any = self._plain.json("POST", "/api/token/refresh/", body={"refresh": self._token}, retry=True)
            if not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
                raise ToolError("POST /api/token/refresh/: the answer has no access token")
            self._access, self._until_s = answer["access"], time.monotonic() + FRESH_S
        return f"Bearer {self._access}"


def _query(inputs: Sequence[str]) -> str:
    """The data manager's query for tasks of these inputs."""
    items = [
        {"filter": "filter:tasks:data.input_id", "operator": "equal", "type": "String", "value": one} for one in inputs
    ]
    return json.dumps({"filters": {"conjunction": "or", "items": items}}, separators=(",", ":"))


def _queries(inputs: Sequence[str]) -> Iterator[list[str]]:
    """Inputs in portions whose query fits into an address."""
    some: list[str] = []
    for one in inputs:
        if some and len(quote(_query([*some, one]))) > MOST_QUERY:
            yield some
            some = []
        some.append(one)
    if some:
        yield some
