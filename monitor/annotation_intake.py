"""Labels as annotation tools send them: read, checked and stored as an import is, all or nothing.

What a webhook repeats or brings in another order changes nothing: the version of an annotation is the time of its last
change, and of one annotator's annotations of an input the highest version counts.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from monitor.annotation_tools.cvat import Cvat
from monitor.annotation_tools.http import ToolError
from monitor.drift import Baselines
from monitor.errors import InputError, SegwatchError, StoreError
from monitor.label_import import classes_of, import_labels
from monitor.labels.coco_json import part_fault
from monitor.labels.cvat_json import CvatJson
from monitor.labels.known import only_known
from monitor.labels.label_studio import Annotation, Task, drafts_of
from monitor.labels.records import Draft, Request, check_all
from monitor.live_settings import LiveSettings
from monitor.records import Limits
from monitor.records.reasons import shorten
from monitor.settings import Settings
from monitor.store.store import Store

log = logging.getLogger(__name__)

TAKEN = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
LABEL_STUDIO, CVAT = "webhook:labelstudio", "webhook:cvat"
"""Who sends, in the audit log and as the place that labels come from."""
ATTEMPTS = 6
FIRST_PAUSE_S = 2.0
MAX_WAITING = 1000


class _Task(msgspec.Struct, frozen=True):
    id: int
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Event(msgspec.Struct, frozen=True):
    action: str
    task: _Task | None = None
    annotation: Annotation | None = None


_event: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)


def take_label_studio(store: Store, settings: Settings, body: bytes) -> Counter[str] | None:
    """Store the annotation of a webhook's body; what became of it. None where the event brings none.

    Raises InputError with the reason; nothing is stored then.
    """
    try:
        event = _event.decode(body)
    except (ValueError, RecursionError) as error:
        raise InputError(part_fault(error, msgspec.Raw(body), "the event")) from None
    if event.action not in TAKEN:
        return None
    if event.task is None or event.annotation is None:
        raise InputError(f"{event.action} without task or annotation: is send_payload off?")
    if event.annotation.updated_at is None:
        raise InputError("annotation.updated_at is missing: which of two is the newer one cannot be told")
    name, request = _request(store, settings, "labelstudio")
    task = Task([event.annotation], event.task.id, event.task.data)
    return _store(store, LABEL_STUDIO, list(drafts_of([task], request)), request, name)


def take_cvat(store: Store, settings: Settings, document: dict[str, Any]) -> Counter[str]:
    """Store the annotations of a job (`monitor.labels.cvat_json`). Raises InputError as above."""
    name, request = _request(store, settings, "cvat")
    with tempfile.TemporaryDirectory(prefix="segwatch-") as folder:
        path = Path(folder) / f"job-{document['job']['id']}.json"
        path.write_bytes(msgspec.json.encode(document))
        try:
            return _store(store, CVAT, CvatJson(path, request), request, name)
        except InputError as error:
            raise InputError(str(error).replace(f"{path}: ", "")) from None


def _request(store: Store, settings: Settings, annotator: str) -> tuple[str, Request]:
    """The model that the labels are for, and what is said about them where they do not say it themselves."""
    baselines = Baselines(store)
    model = settings.annotation.model or None
    name, classes = classes_of(store, lambda identity: baselines.of(identity).classes, model)
    limits = Limits.from_settings(settings)
    return name, Request(annotator, 0, datetime.now(UTC), classes=classes, limits=limits)


def _store(store: Store, source: str, drafts: Iterable[Draft], request: Request, model: str) -> Counter[str]:
    path = Path(source)
    check_all(path, drafts, request)
    records = only_known(path, (record for _, record in drafts), store.exports.known)
    return import_labels(store, path, (msgspec.json.encode(one) for one in records), request.limits, model, source)


class CvatPulls:
    """Fetches the annotations of CVAT's jobs, one after the other: its webhook says only that a job has changed.

    A job that waits is not queued twice. What a process does not get to before it ends is fetched by
    ``segwatch labels pull``.
    """

    def __init__(
        self,
        store: Store,
        settings: LiveSettings,
        *,
        client: Callable[[Settings], Cvat] = lambda settings: Cvat(settings.annotation),
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._store, self._settings, self._client, self._first_pause_s = store, settings, client, first_pause_s
        self._waiting: queue.Queue[int] = queue.Queue(MAX_WAITING)
        self._queued: set[int] = set()
        self._lock = threading.Lock()

    def add(self, job_id: int) -> bool:
        """Fetch a job soon. False where too many wait."""
        with self._lock:
            if job_id in self._queued:
                return True
            try:
                self._waiting.put_nowait(job_id)
            except queue.Full:
                return False
            self._queued.add(job_id)
            return True

    def run(self, stop: threading.Event) -> None:
        """Fetch until told to stop."""
        while not stop.is_set():
            try:
                job_id = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            with self._lock:  # from here on, a further change queues it again
                self._queued.discard(job_id)
            self._fetch(job_id, stop)

    def _fetch(self, job_id: int, stop: threading.Event) -> None:
        pause_s = self._first_pause_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                settings = self._settings.current
                outcomes = take_cvat(self._store, settings, self._client(settings).job_document(job_id))
                log.info("CVAT's job %d: %s", job_id, dict(outcomes))
                return
            except (ToolError, StoreError) as error:
                gone = isinstance(error, ToolError) and error.status in (401, 403, 404)
                if gone or attempt == ATTEMPTS:
                    log.error("CVAT's job %d is not fetched (segwatch labels pull will): %s", job_id, error)
                    return
                log.warning("CVAT's job %d, attempt %d: %s", job_id, attempt, error)
            except SegwatchError as error:
                log.error("CVAT's job %d is refused, nothing of it is stored: %s", job_id, shorten(str(error)))
                return
            except Exception:
                # What a server answers may have any shape, and this thread has to outlive it.
                log.exception("CVAT's job %d is not fetched", job_id)
                return
            if stop.wait(pause_s):
                return
            pause_s *= 2
