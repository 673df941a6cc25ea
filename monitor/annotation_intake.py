"""Labels as annotation tools send them: read, checked and stored as an import is, all or nothing.

What a webhook repeats or brings in another order changes nothing: the version of an annotation is the time of its last
change, and of one annotator's annotations of an input the highest version counts.
"""

from __future__ import annotations

import logging
import random
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
from monitor.delivering import backoff_s
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
from monitor.store.annotation_jobs import Job
from monitor.store.store import Store
from monitor.windows import SECOND_US

log = logging.getLogger(__name__)

TAKEN = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
LABEL_STUDIO, CVAT = "webhook:labelstudio", "webhook:cvat"
"""Who sends, in the audit log and as the place that labels come from."""
POLL_S, RETRY_S = 1.0, 5.0
LEASE = 20
"""A claim of a job lasts so many timeouts of a request; fetching one takes four requests and more, mostly quick."""


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

    Jobs wait in the store until they are fetched, whoever dies meanwhile; any number of processes may take them. One
    that is fetched twice changes nothing.
    """

    def __init__(
        self,
        store: Store,
        settings: LiveSettings,
        *,
        client: Callable[[Settings], Cvat] = lambda settings: Cvat(settings.annotation),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._settings, self._client, self._chance = store, settings, client, chance
        self._new = threading.Event()

    def add(self, job_id: int) -> None:
        """Fetch a job soon. Raises StoreError where that cannot be noted."""
        self._store.annotation_jobs.add(job_id)
        self._new.set()

    def run(self, stop: threading.Event) -> None:
        """Fetch until told to stop."""
        while not stop.is_set():
            try:
                busy = self.once()
            except StoreError as error:
                log.warning("store: %s", error)
                stop.wait(RETRY_S)
                continue
            if not busy:
                self._new.wait(POLL_S)
                self._new.clear()

    def once(self) -> bool:
        """Fetch the job that is due longest; False where there is none."""
        settings = self._settings.current
        if settings.annotation.tool != "cvat" or not self._store.writable:
            return False
        job = self._store.annotation_jobs.claim(round(LEASE * settings.annotation.timeout_seconds * SECOND_US))
        if job is None:
            return False
        try:
            outcomes = take_cvat(self._store, settings, self._client(settings).job_document(job.number))
        except ToolError as error:
            if error.status == 404:
                self._refused(job, str(error))
            else:
                # Not what the tool says, which may name inputs: what is purged would stay in it.
                log.warning("CVAT's job %d: %s", job.number, shorten(str(error)))
                self._failed(job, f"HTTP {error.status}" if error.status else "no answer")
        except StoreError:
            raise  # the store is away: the lease ends, and the job is taken again
        except SegwatchError as error:
            self._refused(job, str(error))
        except Exception as error:
            # What a server answers may have any shape, and this thread has to outlive it.
            log.exception("CVAT's job %d", job.number)
            self._failed(job, type(error).__name__)
        else:
            self._store.annotation_jobs.done(job)
            log.info("CVAT's job %d: %s", job.number, dict(outcomes))
        return True

    def _failed(self, job: Job, error: str) -> None:
        wait_s = backoff_s(job.attempt, self._chance())
        log.warning("CVAT's job %d, attempt %d: %s; again in %.0f s", job.number, job.attempt, error, wait_s)
        self._store.annotation_jobs.failed(job, error, self._store.now_us() + round(wait_s * SECOND_US))

    def _refused(self, job: Job, error: str) -> None:
        log.error("CVAT's job %d is refused, nothing of it is stored: %s", job.number, shorten(error))
        # Without the reason itself, which may name inputs: what is purged would stay in it.
        self._store.annotation_jobs.refused(job, "refused; the log says why")
