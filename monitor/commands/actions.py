"""Commands about actions."""

from __future__ import annotations

import click

from monitor.commands.common import State, json_option, open_store, parsed, print_json


@click.group()
def actions() -> None:
    """What segwatch has asked others to do."""


@actions.command("list")
@click.option("--since", help="RFC 3339 time; actions that were requested before it are left out.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many.")
@json_option
@click.pass_obj
def listed(state: State, since: str | None, limit: int, as_json: bool) -> None:
    """The newest actions, and what has become of their delivery."""
    from monitor.actions_view import listing, listing_text
    from monitor.present import printable
    from monitor.windows import parse_time

    settings = state.settings()
    since_us = parsed("--since", parse_time, since) if since else None
    store = open_store(settings, write=False)
    try:
        found = listing(store, settings.kafka.actions_topic, since_us=since_us, limit=limit)
    finally:
        store.close()
    if as_json:
        print_json({"actions": found})
    else:
        click.echo("\n".join(map(printable, listing_text(found).splitlines())))


@actions.command()
@click.argument("identity", metavar="ID")
@json_option
@click.pass_obj
def show(state: State, identity: str, as_json: bool) -> None:
    """One action with its evidence; the beginning of its id will do."""
    from monitor.actions_view import shown, shown_text
    from monitor.present import printable

    settings = state.settings()
    store = open_store(settings, write=False)
    try:
        found = shown(store, settings.kafka.actions_topic, identity)
    finally:
        store.close()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(map(printable, shown_text(found).splitlines())))
