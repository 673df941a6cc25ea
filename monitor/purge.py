"""Forgetting inputs: out of the store, the kept images and the files of an embedded service; and a proof of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monitor.images import ImageStore, input_digest
from monitor.images.names import ImageName, digest, name_of
from monitor.pane_state import PaneState
from monitor.settings import Settings
from monitor.store.purges import scrubbed_message
from monitor.store.store import Store
from monitor.store.values import PurgedInput
from monitor.windows import to_text

FILES = ("dead-letter.jsonl", "actions.jsonl")
"""What a service without Kafka appends to, under ``data_dir``."""


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """``model`` None: of every model."""

    inputs: tuple[str, ...]
    model: str | None
    who: str
    reason: str


def purge_inputs(store: Store, images: ImageStore, settings: Settings, request: PurgeRequest) -> dict[str, Any]:
    """Purge, and say what was done. Doing it again removes what has turned up since, if anything, and says so.

    The store comes first: from then on nothing new of the inputs is stored. Raises StoreError and ImageStoreError; what
    was not reached then is reached by doing it again.
    """
    done = store.purge(request.inputs, request.model, request.who, request.reason, without_exemplar)
    pictures = _images(images, settings, request, done)
    lines = {name: _files(Path(settings.data_dir), name, request) for name in request.inputs}
    return {
        "at": to_text(store.now_us()),
        "who": request.who,
        "reason": request.reason,
        "model": request.model,
        "store": store.description,
        "images": images.describe(),
        "inputs": [
            {
                "input_id": input_id,
                "reference": one.reference,
                "purged_before": not one.is_new,
                "nothing_left": not (one.removed or pictures[input_id] or lines[input_id]),
                "records": [
                    {"model": each.model, "version": each.version, "event_time": to_text(each.event_time_us)}
                    for each in one.samples
                ],
                "removed": {**one.removed, "images": pictures[input_id], "files": lines[input_id]},
            }
            for input_id, one in zip(request.inputs, done, strict=True)
        ],
        "not_reached": out_of_reach(settings, store.is_postgres),
    }


def without_exemplar(state: bytes, input_id: str) -> bytes:
    """A pane's state without an input among its exemplars; the same bytes where it has none."""
    if input_id.encode("utf-8", "surrogatepass") not in state:
        return state
    pane = PaneState.from_bytes(state)
    left = pane.exemplars.without(lambda identity: identity == input_id)
    return state if len(left) == len(pane.exemplars) else replace(pane, exemplars=left).to_bytes()


def _images(
    images: ImageStore, settings: Settings, request: PurgeRequest, done: Sequence[PurgedInput]
) -> dict[str, int]:
    """How many images went, by input. Every image there is is looked at by name, since one may be without a record."""
    by_digest = {input_digest(name): name for name in request.inputs}
    found: dict[str, set[ImageName]] = {name: set() for name in request.inputs}
    for day in images.days():
        for image in images.names(day):
            of = by_digest.get(image.input)
            if of is not None and (request.model is None or image.model == digest(request.model)[:16]):
                found[of].add(image)
    gone = {}
    for name, one in zip(request.inputs, done, strict=True):
        # A listing may lag behind: what the store knew of is asked for by name as well.
        form = settings.samples.format
        known = {name_of(each.model, each.version, name, each.event_time_us, form) for each in one.samples}
        found[name] |= {each for each in known - found[name] if images.has(each)}
        gone[name] = images.delete(sorted(found[name]))
    return gone


def _files(folder: Path, input_id: str, request: PurgeRequest) -> dict[str, int]:
    """Lines of the files that name an input, overwritten in place: how many, by file.

    In place and at the same length, because the service may be appending at this moment.
    """
    changed: dict[str, int] = {}
    for file in FILES:
        path = folder / file
        count = _overwrite(path, input_id, request.model) if path.exists() else 0
        if count:
            changed[file] = count
    return changed


def _overwrite(path: Path, input_id: str, model: str | None) -> int:
    forms: Collection[bytes] = {input_id.encode("utf-8", "replace"), json.dumps(input_id)[1:-1].encode()}
    count = 0
    with path.open("r+b") as file:
        place = 0
        while line := file.readline():
            if line.endswith(b"\n") and _holds(line, forms):
                left = _line_without(line[:-1], input_id, model)
                if left is not None:
                    file.seek(place)
                    file.write((left if len(left) < len(line) else b"{}").ljust(len(line) - 1))
                    file.flush()
                    file.seek(place + len(line))
                    count += 1
            place += len(line)
    return count


def _holds(line: bytes, forms: Collection[bytes]) -> bool:
    # Bytes that are no text stand in a line as base64, which hides every name: those are looked at one by one.
    return any(form in line for form in forms) or b'_base64":' in line


def _line_without(line: bytes, input_id: str, model: str | None) -> bytes | None:
    """A dead letter or an action without the input; None where it stays as it is."""
    try:
        tree = json.loads(line)
    except ValueError:
        return None
    if not isinstance(tree, dict):
        return None
    value = tree.get("value")
    raw = value.encode("utf-8", "replace") if isinstance(value, str) else None
    if "value_base64" in tree:
        raw = base64.b64decode(tree["value_base64"])
    if raw is not None and scrubbed_message(raw, input_id, model) != raw:
        return json.dumps({"id": tree.get("id"), "reason": tree.get("reason"), "purged": True}).encode()
    left = scrubbed_message(line, input_id, model)
    return None if left in (None, line) else left


def out_of_reach(settings: Settings, is_postgres: bool) -> list[dict[str, str]]:
    """Where the inputs may still be, and until when: what no command of segwatch can delete."""
    places = []
    if settings.kafka.bootstrap_servers:
        names = settings.kafka
        topics = (names.predictions_topic, names.labels_topic, names.actions_topic, names.dead_letter_topic)
        places += [
            {"place": f"Kafka topic {topic}", "until": "the topic's retention; what is read again is not stored again"}
            for topic in topics
        ]
    places += [
        {
            "place": "annotation tools (CVAT, Label Studio) and their exports",
            "until": "tasks and images are deleted there; labels that they send of these inputs are refused",
        },
        {"place": "backups and replicas of the database", "until": "their own retention; purge again after a restore"},
        {"place": "files that records were read from, and the image's own place (image.uri)", "until": "deleted there"},
        {"place": "Prometheus", "until": "its retention; series carry no input, but slices' names"},
        {"place": "receivers of actions, logs and traces", "until": "their own retention"},
    ]
    if is_postgres:
        places.append(
            {"place": "dead rows in PostgreSQL's files, and its write-ahead log", "until": "VACUUM, and log recycling"}
        )
    if settings.samples.url.startswith("s3:"):
        until = "the bucket's lifecycle rules, if it keeps versions"
        places.append({"place": "older versions of objects in S3", "until": until})
    return places
