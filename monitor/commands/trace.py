"""`segwatch trace` and `segwatch model-card`: where a figure comes from."""

from __future__ import annotations

import time
from pathlib import Path

import click

from monitor.commands.common import State, json_option, open_store, print_json
from monitor.errors import CheckFailed, InputError


@click.command()
@click.argument("input_id")
@json_option
@click.pass_obj
def trace(state: State, input_id: str, as_json: bool) -> None:
    """What became of an input: model versions, windows, actions, labels, image. Exit 1 where nothing is known of it."""
    from monitor.images import open_images
    from monitor.present import printable
    from monitor.trace import as_text
    from monitor.trace import trace as trace_input

    settings = state.settings()
    store = open_store(settings, write=False)
    try:
        found = trace_input(store, open_images(settings), settings, input_id)
    finally:
        store.close()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(printable(line) for line in as_text(found).splitlines()))
    if not (found["records"] or found["labels"] or found["relabel"]):
        raise CheckFailed(f"{input_id}: purged" if found["purged"] else f"{input_id}: nothing is stored of it")


@click.command("model-card")
@click.option("--model", required=True)
@click.option("--version", help="Not needed where one version alone has an active baseline.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Markdown file.")
@click.pass_obj
def model_card(state: State, model: str, version: str | None, out: Path) -> None:
    """A model card from the baseline, quality in use and drift."""
    from monitor.model_card import model_card as write_card

    store = open_store(state.settings(), write=False)
    try:
        card = write_card(store, model, version, time.time_ns() // 1000)
    finally:
        store.close()
    try:
        out.write_text(card, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: {error.strerror or error}") from None
    click.echo(f"{out}: written")
