"""`segwatch audit` and `segwatch purge`: who did what, and what is to be forgotten."""

from __future__ import annotations

import json

import click

from monitor.commands.common import State, json_option, open_store, parsed, print_json
from monitor.windows import parse_time


@click.command()
@click.option("--since", help="RFC 3339 time; older lines are left out.")
@click.option("--what", help="Only lines of this kind, such as purge.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@json_option
@click.pass_obj
def audit(state: State, since: str | None, what: str | None, limit: int, as_json: bool) -> None:
    """Who did what to what, the oldest line first."""
    from monitor.present import table
    from monitor.windows import to_text

    since_us = parsed("--since", parse_time, since) if since else None
    store = open_store(state.settings(), write=False)
    try:
        lines = store.read_audit(since_us=since_us, what=what, limit=limit)
    finally:
        store.close()
    if as_json:
        names = ("who", "what", "subject", "detail")
        shown = [{"at": to_text(line.at_us), **{name: getattr(line, name) for name in names}} for line in lines]
        print_json({"lines": shown})
    elif lines:
        rows = [[to_text(line.at_us), line.who, line.what, line.subject, _short(line.detail)] for line in lines]
        click.echo(table(["at", "who", "what", "subject", "detail"], rows))
    else:
        click.echo("The audit log has no such line.")


@click.command()
@click.option("--input-id", "inputs", multiple=True, required=True, help="The input; may be given several times.")
@click.option("--model", help="Only what this model made of it; default: of every model.")
@click.option("--reason", default="", help="For the audit log.")
@click.pass_obj
def purge(state: State, inputs: tuple[str, ...], model: str | None, reason: str) -> None:
    """Delete all that is stored of inputs, for good, and print what was removed and what is out of reach, as JSON."""
    from monitor.audit import os_user
    from monitor.images import open_images
    from monitor.purge import PurgeRequest, purge_inputs

    settings = state.settings()
    images = open_images(settings)
    store = open_store(settings, write=True)
    try:
        request = PurgeRequest(tuple(dict.fromkeys(inputs)), model, os_user(), reason)
        print_json(purge_inputs(store, images, settings, request))
    finally:
        store.close()


def _short(detail: object) -> str:
    text = json.dumps(detail, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 100 else text[:99] + "…"
