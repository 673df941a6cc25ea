"""`segwatch relabel export`: what is to be labelled, with the model's masks, for an annotation tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from monitor.commands.common import State, json_option, open_store, parsed, print_json
from monitor.errors import InputError
from monitor.windows import SECOND_US, parse_length

if TYPE_CHECKING:
    from monitor.exports.chosen import Chosen
    from monitor.exports.items import Item
    from monitor.settings import Settings
    from monitor.store.exports import KeptSample
    from monitor.store.store import Store

FORMATS = ("coco", "coco-panoptic", "cvat", "labelstudio")
_OPEN: tuple[Literal["open"], ...] = ("open",)
IMAGES = "images"
"""Folder of the images, within the folder that is written."""
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A file, or a folder (it ends in / or is there): then with the images that are kept.",
)
prefix_option = click.option(
    "--image-prefix", default="", metavar="URL", help="Address under which the tool finds the images' files."
)


@click.command("export")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True)
@click.option("--model", help="Not needed where there is one model.")
@click.option("--version")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Samples.")
@click.option("--input-id", "inputs", multiple=True, help="These samples, queued or not.")
@click.option("--claim-as", metavar="NAME", help="Lease what is written to NAME, so that nobody else labels it.")
@click.option("--lease", metavar="LENGTH", help="How long (90m, 2h); default: relabel.lease_minutes.")
@prefix_option
@out_option
@json_option
@click.pass_obj
def relabel_export(
    state: State,
    form: str,
    model: str | None,
    version: str | None,
    limit: int,
    inputs: tuple[str, ...],
    claim_as: str | None,
    lease: str | None,
    image_prefix: str,
    out: Path,
    as_json: bool,
) -> None:
    """Write what waits for a label, with the model's masks to start from."""
    from monitor.drift import Baselines
    from monitor.exports.chosen import Skipped, items_of, named
    from monitor.exports.formats import EXPORTS
    from monitor.label_import import classes_of

    if claim_as and inputs:
        raise InputError("--claim-as takes samples from the queue; --input-id names them: give one of the two")
    settings = state.settings()
    lease_us = (
        parsed("--lease", parse_length, lease) if lease else round(settings.relabel.lease_minutes * 60 * SECOND_US)
    )
    store = open_store(settings, write=bool(claim_as))
    skipped, token = Skipped(), None
    chosen: list[Chosen] = []
    written: set[str] = set()
    try:
        baselines = Baselines(store)
        name, classes = classes_of(store, lambda identity: baselines.of(identity).classes, model)
        if inputs:
            chosen = named(store.exports, inputs, name, version)
        else:
            chosen, token = waiting(store, name, version, limit, claim_as, lease_us)
        file, folder = place(out, EXPORTS[form].file_name)
        image_of = images(settings, folder, image_prefix)

        def counted() -> Iterator[Item]:
            for item in items_of(store.exports, chosen, classes, settings.images.max_pixels, skipped, image_of):
                written.add(item.input_id)
                yield item

        try:
            EXPORTS[form].write(counted(), classes, file)
        except BaseException:
            written.clear()
            raise
        finally:  # what is not in the file is for others
            left = [one.input_id for one in chosen if one.input_id not in written]
            if claim_as and left:
                store.relabel.release(left, claim_as, token)
    finally:
        store.close()
    counts = {"samples": len(written), "skipped": dict(skipped.counts)}
    told(as_json, {"out": str(file), **counts, "token": token}, skipped)


def waiting(
    store: Store, model: str, version: str | None, limit: int, claim_as: str | None, lease_us: int
) -> tuple[list[Chosen], str | None]:
    """Samples from the queue, and the token of their lease; those of another version than the named one go back."""
    from monitor.audit import os_user
    from monitor.exports.chosen import chosen_of

    if claim_as is None:
        items = store.relabel.items(model, states=_OPEN)
        chosen = [one for one in chosen_of(items) if version is None or one.version == version]
        return chosen[:limit], None
    claim = store.relabel.claim(limit, claim_as, lease_us, model=model, by=os_user())
    chosen = chosen_of(claim.items)
    others = [one.input_id for one in chosen if version is not None and one.version != version]
    if others:
        store.relabel.release(others, claim_as, claim.token)
    return [one for one in chosen if one.input_id not in set(others)], claim.token if claim.items else None


def place(out: Path, file_name: str) -> tuple[Path, Path | None]:
    """The file to be written, and the folder for images; None where a file was named."""
    if out.is_dir() or not out.suffix:
        return out / file_name, out
    return out, None


def images(settings: Settings, folder: Path | None, prefix: str) -> Callable[[KeptSample], tuple[str, str]]:
    """Address and ending of a sample's image; copies the image into the folder, where it is kept and there is one."""
    from urllib.parse import quote

    from monitor.exports.target import target
    from monitor.images import ImageStoreError, name_of, open_images

    kept = open_images(settings)

    def of(sample: KeptSample) -> tuple[str, str]:
        name = name_of(sample.model, sample.version, sample.input_id, sample.event_time_us, settings.samples.format)
        try:
            data = kept.get(name) if folder is not None else None
            there = data is not None or (folder is None and kept.has(name))
        except ImageStoreError:
            data, there = None, False
        suffix = name.suffix if there else "png"
        file_name = f"{quote(sample.input_id, safe=' ')}.{suffix}"
        if data is not None and folder is not None:
            with target(folder / IMAGES / file_name) as file:
                file.write(data)
        return (prefix + quote(file_name) if prefix else "", suffix)

    return of


def told(as_json: bool, found: dict[str, object], skipped: object) -> None:
    if as_json:
        print_json(found)
        return
    left = f"; left out: {skipped}" if str(skipped) else ""
    token = f"; leased under token {found['token']}" if found.get("token") else ""
    click.echo(f"{found['samples']} samples written to {found['out']}{left}{token}")
