"""`segwatch relabel push` and `segwatch labels pull`: the same as export and import, over the tool's REST interface."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor.commands.common import Lines, State, json_option, open_store, parsed
from monitor.commands.imported import show_imported
from monitor.commands.relabel_export import images, told, waiting
from monitor.errors import SettingsError
from monitor.windows import SECOND_US, parse_length

if TYPE_CHECKING:
    from monitor.settings import AnnotationSettings, Settings


@click.command("push")
@click.option("--model", help="Default: annotation.model; not needed where there is one model.")
@click.option("--version")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Samples.")
@click.option("--claim-as", metavar="NAME", help="Who the samples are leased to; default: the tool's name.")
@click.option("--lease", metavar="LENGTH", default="7d", show_default=True, help="How long (2h, 7d).")
@json_option
@click.pass_obj
def relabel_push(
    state: State,
    model: str | None,
    version: str | None,
    limit: int,
    claim_as: str | None,
    lease: str,
    as_json: bool,
) -> None:
    """Send what waits for a label to the annotation tool, with the model's masks to start from."""
    from monitor.annotation_tools.cvat import Cvat
    from monitor.annotation_tools.label_studio import LabelStudioClient
    from monitor.drift import Baselines
    from monitor.exports.chosen import Skipped, items_of
    from monitor.label_import import classes_of

    settings = state.settings()
    annotation = _configured(settings)
    lease_us = min(parsed("--lease", parse_length, lease), 30 * 86_400 * SECOND_US)
    who = claim_as or annotation.tool
    skipped, pushed = Skipped(), set[str]()
    store = open_store(settings, write=True)
    try:
        baselines = Baselines(store)
        wanted = model or annotation.model or None
        name, classes = classes_of(store, lambda identity: baselines.of(identity).classes, wanted)
        chosen, token = waiting(store, name, version, limit, who, lease_us)
        try:
            image_of = images(settings, None, annotation.image_prefix)
            found = items_of(store.exports, chosen, classes, settings.images.max_pixels, skipped, image_of)
            items = list(found)
            client = Cvat(annotation) if annotation.tool == "cvat" else LabelStudioClient(annotation)
            for there in client.push(annotation.project, items):
                pushed |= there  # at once: what is in the tool stays leased, whatever becomes of the rest
            absent = len(items) - len(pushed)
            if absent:
                skipped.counts[f"whose image {annotation.tool} does not have"] += absent
        finally:  # what did not get there is for others
            left = [one.input_id for one in chosen if one.input_id not in pushed]
            if left:
                store.relabel.release(left, who, token)
    finally:
        store.close()
    where = f"{annotation.url} ({annotation.project})"
    told(as_json, {"out": where, "samples": len(pushed), "skipped": dict(skipped.counts), "token": token}, skipped)


@click.command("pull")
@json_option
@click.pass_obj
def labels_pull(state: State, as_json: bool) -> None:
    """Fetch annotations from the annotation tool; those that are stored already change nothing."""
    from monitor.audit import os_user
    from monitor.handing_over import handing_over
    from monitor.label_import import NOTHING, ImportRequest, import_file

    settings = state.settings()
    annotation = _configured(settings)
    done, on_bad, say = NOTHING, Lines(), partial(click.echo, err=True)
    with tempfile.TemporaryDirectory(prefix="segwatch-") as folder:
        store = open_store(settings, write=True)
        try:
            with handing_over(store, settings, say):
                for path, form in _fetched(annotation, Path(folder)):
                    request = ImportRequest(
                        path,
                        form,
                        time.time_ns() // 1000,
                        model=annotation.model or None,
                        annotator=annotation.tool,
                        who=os_user(),
                    )
                    # Fetched files hold what many people drew: one label that does not fit must not keep out the rest.
                    done += import_file(store, settings, request, on_bad, say)
        finally:
            store.close()
    show_imported(done, as_json)


def _fetched(annotation: AnnotationSettings, folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of what the tool has, and their formats."""
    import msgspec

    from monitor.annotation_tools.cvat import Cvat
    from monitor.annotation_tools.label_studio import LabelStudioClient

    if annotation.tool == "labelstudio":
        path = folder / f"project-{annotation.project}.json"
        path.write_bytes(LabelStudioClient(annotation).export(annotation.project))
        yield path, "labelstudio"
        return
    client = Cvat(annotation)
    for job in client.completed_jobs(annotation.project):
        path = folder / f"job-{job}.json"
        path.write_bytes(msgspec.json.encode(client.job_document(job)))
        yield path, "cvat-json"


def _configured(settings: Settings) -> AnnotationSettings:
    annotation = settings.annotation
    for name in ("tool", "url", "project", "token"):
        if not getattr(annotation, name):
            raise SettingsError(f"annotation.{name} is not set")
    return annotation
