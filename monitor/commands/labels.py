"""`segwatch labels`: annotations in, and how far annotators agree."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from monitor.commands.annotation import labels_pull
from monitor.commands.common import (
    Lines,
    State,
    json_option,
    open_store,
    parsed,
    print_json,
    time_range,
)
from monitor.commands.imported import show_imported
from monitor.commands.labels_export import labels_export
from monitor.errors import InputError
from monitor.windows import parse_time


@click.group()
def labels() -> None:
    """Labels: annotations of inputs that the model was asked about."""


@labels.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="auto",
    show_default=True,
    help="coco (LVIS too), coco-panoptic, cvat (XML, zip), cvat-json, labelstudio, png-folder, jsonl (label records).",
)
@click.option("--model", help="Whose classes they are; not needed where there is one model.")
@click.option("--version", help="Only for this version; default: for every one.")
@click.option("--annotator", default="import", show_default=True, help="Where the export names none; given: of all.")
@click.option("--annotation-version", type=click.IntRange(0), default=1, show_default=True)
@click.option("--label-time", help="RFC 3339; default: now.")
@click.option("--purpose", type=click.Choice(["spot_check", "relabel", "audit"]), default="spot_check")
@click.option("--selection-probability", type=float, help="With which each of the inputs was chosen.")
@click.option(
    "--input-id",
    type=click.Choice(["stem", "file_name", "id"]),
    default="stem",
    show_default=True,
    help="What an input's id is made of (a field images[].input_id wins).",
)
@click.option(
    "--masks-as",
    type=click.Choice(["auto", "instances", "semantic"]),
    default="auto",
    show_default=True,
    help="What an image's masks become; auto: what segwatch asked for, else instances.",
)
@click.option("--png-folder", type=click.Path(path_type=Path, file_okay=False), help="Of a panoptic export.")
@json_option
@click.pass_obj
def labels_import(
    state: State,
    path: Path,
    form: str,
    model: str | None,
    version: str | None,
    annotator: str,
    annotation_version: int,
    label_time: str | None,
    purpose: str,
    selection_probability: float | None,
    input_id: Any,
    png_folder: Path | None,
    masks_as: Any,
    as_json: bool,
) -> None:
    """Put an annotation export into the store: all of it, or, where an entry is bad, nothing."""
    from monitor.audit import os_user
    from monitor.handing_over import handing_over
    from monitor.label_import import ImportRequest, import_file

    if selection_probability is not None and not 0 < selection_probability <= 1:
        raise InputError(f"--selection-probability {selection_probability}: expected a probability above 0, at most 1")
    request = ImportRequest(
        path,
        form,
        parsed("--label-time", parse_time, label_time) if label_time else time.time_ns() // 1000,
        model=model,
        version=version,
        annotator=annotator,
        annotation_version=annotation_version,
        purpose=purpose,
        selection_probability=selection_probability,
        input_id=input_id,
        png_folder=png_folder,
        form=masks_as,
        explicit=_said("annotator", "annotation_version", "label_time", "purpose", "selection_probability"),
        who=os_user(),
    )
    settings = state.settings()
    store = open_store(settings, write=True)
    try:
        with handing_over(store, settings, partial(click.echo, err=True)):
            done = import_file(store, settings, request, Lines())
    finally:
        store.close()
    show_imported(done, as_json)


def _said(*names: str) -> frozenset[str]:
    """Of these parameters of the command those that the caller gave."""
    context = click.get_current_context()
    return frozenset(name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE)


@labels.command("agreement")
@click.option("--model", required=True)
@click.option("--version")
@click.option("--since", help="RFC 3339 time of the inputs' events.")
@click.option("--until", help="RFC 3339 time of the inputs' events.")
@json_option
@click.pass_obj
def labels_agreement(
    state: State, model: str, version: str | None, since: str | None, until: str | None, as_json: bool
) -> None:
    """How far annotators agree where several labelled the same input, and where they differ most."""
    from monitor.annotators import agreements
    from monitor.drift import Baselines
    from monitor.label_import import classes_of
    from monitor.present import agreement_table
    from monitor.records import Limits

    settings = state.settings()
    since_us, until_us, _ = time_range(settings, since, until, "all")
    store = open_store(settings, write=False)
    try:
        baselines = Baselines(store)
        _, classes = classes_of(store, lambda identity: baselines.of(identity).classes, model)
        pairs = agreements(
            store,
            Limits.from_settings(settings),
            classes,
            model=model,
            version=version,
            since_us=since_us,
            until_us=until_us,
        )
    finally:
        store.close()
    if as_json:
        print_json({"pairs": pairs})
    else:
        click.echo(agreement_table(pairs) if pairs else "No input has labels of two annotators.")


labels.add_command(labels_export)
labels.add_command(labels_pull)
