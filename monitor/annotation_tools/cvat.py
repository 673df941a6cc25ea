"""CVAT: what a job's annotations are, and masks into a task to start from.

Source: CVAT's OpenAPI schema (cvat-sdk 2.80): ``/api/labels``, ``/api/jobs``, ``/api/tasks/{id}/data/meta``,
``/api/tasks/{id}/annotations/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from monitor.annotation_tools.http import ToolApi, ToolError
from monitor.exports.cvat import patch_body
from monitor.exports.items import Item
from monitor.labels.asked import ASKED
from monitor.labels.records import stem_of
from monitor.settings import AnnotationSettings

PAGE = 100
MAX_PAGES = 1000


class Cvat:
    """A client; raises ToolError."""

    def __init__(self, settings: AnnotationSettings) -> None:
        scheme, _, rest = settings.token.partition(" ")
        # A personal access token needs no scheme; a key of older servers is given as "Token ...".
        authorization = (
            settings.token if rest and scheme in ("Token", "Bearer", "Basic") else f"Bearer {settings.token}"
        )
        self._api = ToolApi(settings.url, lambda: authorization, settings.timeout_seconds)

    def job_document(self, job_id: int) -> dict[str, Any]:
        """What `monitor.labels.cvat_json` reads, of a job as it stands.

        The job is asked for before its annotations and after: one that changed in between is asked for again, so that
        the version never names an older state than the one that is read.
        """
        for _ in range(3):
            job = self._api.json("GET", f"/api/jobs/{job_id}")
            document = {
                "labels": list(self._pages("/api/labels", job_id=job_id)),
                "meta": self._api.json("GET", f"/api/jobs/{job_id}/data/meta"),
                "annotations": self._api.json("GET", f"/api/jobs/{job_id}/annotations/"),
                "job": job,
            }
            if self._api.json("GET", f"/api/jobs/{job_id}").get("updated_date") == job.get("updated_date"):
                return document
        raise ToolError(f"job {job_id} changes while it is read")

    def completed_jobs(self, task_id: int) -> list[int]:
        """Numbers of a task's jobs that are said to be done."""
        jobs = self._pages("/api/jobs", task_id=task_id)
        return [int(job["id"]) for job in jobs if job.get("state") == "completed"]

    def push(self, task_id: int, items: Sequence[Item]) -> Iterator[set[str]]:
        """Put masks on the frames of a task whose names are the items'; yields the inputs that are there now.

        Frames that have shapes already are left as they are: a second push, or one that was cut off, doubles nothing.
        """
        meta = self._api.json("GET", f"/api/tasks/{task_id}/data/meta")
        labels = {label["name"]: label for label in self._pages("/api/labels", task_id=task_id)}
        frames = {stem_of(frame["name"]): number for number, frame in enumerate(meta["frames"])}
        frame_of = {
            item.input_id: frames[stem_of(item.file_name)] for item in items if stem_of(item.file_name) in frames
        }
        drawn = {shape["frame"] for shape in self._api.json("GET", f"/api/tasks/{task_id}/annotations/")["shapes"]}
        missing = sorted({mask.class_name for item in items for mask in item.masks} - labels.keys())
        if missing:
            raise ToolError(
                f"task {task_id} has no label {missing[0]}: segwatch relabel export --format cvat writes them"
            )
        specs = {one["name"]: one["id"] for one in labels.get(ASKED, {}).get("attributes", ())}
        new = {name: frame for name, frame in frame_of.items() if frame not in drawn}
        ids = {name: label["id"] for name, label in labels.items()}
        body = patch_body(items, new, ids, specs)
        if body["shapes"] or body["tags"]:
            path = f"/api/tasks/{task_id}/annotations/"
            self._api.call("PATCH", path, query={"action": "create"}, body=body)
        yield set(frame_of)

    def _pages(self, path: str, **query: object) -> Iterable[dict[str, Any]]:
        for page in range(1, MAX_PAGES + 1):
            answer = self._api.json("GET", path, query={**query, "page": page, "page_size": PAGE})
            yield from answer["results"]
            if not answer.get("next"):
                return
        raise ToolError(f"GET {path}: more than {MAX_PAGES} pages")
