"""`segwatch baseline` and `segwatch backbone`: what a model version looked like when it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from monitor.commands.common import (
    FILE,
    Lines,
    State,
    json_option,
    open_store,
    print_json,
    slice_option,
)
from monitor.errors import InputError


@click.group()
def baseline() -> None:
    """What a model version looked like when it was trained."""


@baseline.command("build")
@click.option("--model", required=True)
@click.option("--version", required=True)
@click.option(
    "--records", "records", type=FILE, multiple=True, help="Prediction records (.jsonl, .jsonl.gz); several may follow."
)
@click.argument("more", nargs=-1, type=FILE)
@click.option(
    "--classes", "classes_file", type=FILE, help="Class names, ignored indices, critical classes (YAML or JSON)."
)
@click.option("--labels", "labels_files", type=FILE, multiple=True, help="Label records of these inputs, for quality.")
@slice_option
@click.option("--activate", is_flag=True, help="Score this version against it from now on.")
@json_option
@click.pass_obj
def baseline_build(
    state: State,
    model: str,
    version: str,
    records: tuple[Path, ...],
    more: tuple[Path, ...],
    classes_file: Path | None,
    labels_files: tuple[Path, ...],
    slice_key: str,
    activate: bool,
    as_json: bool,
) -> None:
    """Build a baseline from prediction records of the training or validation set."""
    from monitor.baseline_build import describe
    from monitor.classes import read_classes
    from monitor.offline import make_baseline

    files = [*records, *more]
    if not files:
        raise InputError("no file: name the prediction records with --records FILE...")
    settings = state.settings()
    classes = read_classes(classes_file) if classes_file else None
    store = open_store(settings, write=True)
    try:
        baseline_id, built, counts = make_baseline(
            settings,
            store,
            files,
            model=model,
            version=version,
            slice_key=slice_key,
            classes=classes,
            labels=labels_files,
            activate=activate,
            on_bad=Lines(),
        )
    finally:
        store.close()
    if as_json:
        print_json(
            {
                "id": baseline_id,
                "model": model,
                "version": version,
                "active": activate,
                "counts": describe(counts),
                **built.summary(),
            }
        )
        return
    click.echo(
        f"baseline {baseline_id[:12]} of {model} version {version}: {counts.used} records,"
        f" {built.statistic.sequences} sequences, {len(built.classes.names)} classes, {built.plan.identity}"
    )
    if labels_files:
        click.echo(f"quality: {counts.labelled} records judged by their labels")
    left_out = ", ".join(f"{count} {name}" for name, count in describe(counts).items() if count and name != "used")
    if left_out:
        click.echo(f"left out: {left_out}")
    click.echo("active" if activate else f"not active yet: segwatch baseline activate {baseline_id[:12]}")


@baseline.command("list")
@click.option("--model")
@json_option
@click.pass_obj
def baseline_list(state: State, model: str | None, as_json: bool) -> None:
    """All baselines, the active ones marked."""
    from monitor.present import table
    from monitor.windows import to_text

    store = open_store(state.settings(), write=False)
    try:
        active = {entry.meta.id for entry in store.active_baselines().values()}
        rows: list[dict[str, Any]] = [
            {
                "id": meta.id,
                "model": meta.model,
                "version": meta.version,
                "created": to_text(meta.created_us),
                "active": meta.id in active,
                **meta.meta,
            }
            for meta in store.baselines(model)
        ]
    finally:
        store.close()
    if as_json:
        print_json({"baselines": rows})
    elif rows:
        click.echo(
            table(
                ["id", "model", "version", "created", "active", "records", "embedding"],
                [
                    [
                        row["id"][:12],
                        row["model"],
                        row["version"],
                        row["created"],
                        "yes" if row["active"] else "",
                        row["records"],
                        row["embedding"],
                    ]
                    for row in rows
                ],
            )
        )
    else:
        click.echo("No baselines yet: segwatch baseline build makes one.")


@baseline.command("show")
@click.argument("baseline_id")
@json_option
@click.pass_obj
def baseline_show(state: State, baseline_id: str, as_json: bool) -> None:
    """One baseline, by its id or the beginning of it."""
    from monitor.windows import to_text

    store = open_store(state.settings(), write=False)
    try:
        meta = store.baseline(baseline_id).meta
        active = meta.id in {entry.meta.id for entry in store.active_baselines().values()}
    finally:
        store.close()
    shown = {
        "id": meta.id,
        "model": meta.model,
        "version": meta.version,
        "created": to_text(meta.created_us),
        "active": active,
        "format": meta.format_version,
        **meta.meta,
    }
    if as_json:
        print_json(shown)
    else:
        for name, value in shown.items():
            click.echo(f"{name}: {value}")


@baseline.command("activate")
@click.argument("baseline_id")
@click.pass_obj
def baseline_activate(state: State, baseline_id: str) -> None:
    """Score its model version against this baseline from now on."""
    from monitor.audit import os_user

    store = open_store(state.settings(), write=True)
    try:
        meta = store.activate(baseline_id, who=os_user())
    finally:
        store.close()
    click.echo(f"{meta.model} version {meta.version} is scored against {meta.id[:12]} from now on")


@click.group()
def backbone() -> None:
    """Backbones for embeddings."""


@backbone.command("export")
@click.option("--source", required=True, help="timm:NAME, torchvision:NAME, or an exported or TorchScript file.")
@click.option("--weights", type=FILE, help="Local weights (safetensors or a torch checkpoint, read weights-only).")
@click.option("--layer", required=True, help="Name of the layer whose output is the embedding.")
@click.option("--input-size", type=click.IntRange(32, 1024), default=224, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
def backbone_export(source: str, weights: Path | None, layer: str, input_size: int, out: Path) -> None:
    """Cut a network at a layer, for embedding.backbone: exported:FILE."""
    from embeddings.cutting import export_backbone

    try:
        export_backbone(source, weights, layer, out, input_size)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from None
    click.echo(f"{out}: set embedding.backbone to exported:{out}")
