"""`segwatch labels` and `segwatch relabel`: the labelling loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import (
    State,
    json_option,
    open_store,
    parsed,
    print_json,
    time_range,
)
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
    help="coco (LVIS too), coco-panoptic, png-folder or jsonl (label records).",
)
@click.option("--model", help="Whose classes they are; not needed where there is one model.")
@click.option("--version", help="Only for this version; default: for every one.")
@click.option("--annotator", default="import", show_default=True)
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
    as_json: bool,
) -> None:
    """Put an annotation export into the store: all of it, or, where an entry is bad, nothing."""
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
    )
    settings = state.settings()
    store = open_store(settings, write=True)
    try:
        outcomes, (judged, unjoinable) = import_file(store, settings, request)
    finally:
        store.close()
    shown = {name: outcomes.get(name, 0) for name in ("accepted", "replaced", "duplicate", "superseded")}
    if as_json:
        counts = {"labels": sum(outcomes.values()), "outcomes": shown, "judged": judged, "unjoinable": unjoinable}
        print_json(counts)
    else:
        text = ", ".join(f"{count} {name}" for name, count in shown.items() if count)
        late = f"; {unjoinable} unjoinable: made later than quality.join_days after the event" if unjoinable else ""
        click.echo(f"{sum(outcomes.values())} labels: {text or 'none'}; {judged} records judged by them{late}")


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


@click.group()
def relabel() -> None:
    """What is to be labelled."""


@relabel.command("list")
@click.option("--model")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@json_option
@click.pass_obj
def relabel_list(state: State, model: str | None, limit: int, as_json: bool) -> None:
    """Records that wait for a label, and why they were chosen."""
    from monitor.present import table
    from monitor.windows import to_text

    store = open_store(state.settings(), write=False)
    try:
        rows = store.open_spot_checks(model, limit)
    finally:
        store.close()
    items = [
        {
            "model": row.model,
            "version": row.version,
            "input_id": row.input_id,
            "event_time": to_text(row.event_time_us),
            "stream": row.stream,
            "probability": row.probability,
            "reason": row.reason,
            "chosen": to_text(row.chosen_at_us),
        }
        for row in rows
    ]
    if as_json:
        print_json({"items": items})
    elif items:
        header = ["model", "version", "input_id", "event_time", "stream", "probability", "reason"]
        click.echo(table(header, [[item[name] for name in header] for item in items]))
    else:
        click.echo("Nothing waits for a label (quality.spot_checks_per_day says how many are asked for).")
