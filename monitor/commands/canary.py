"""Commands about canaries."""

from __future__ import annotations

import click

from monitor.commands.common import State, json_option, open_store, print_json, range_options, slice_option, time_range


@click.group()
def canary() -> None:
    """Compare a new version of a model with the one it is to replace."""


@canary.command()
@click.option("--model", required=True)
@click.option("--stable", required=True, help="The version in use.")
@click.option("--canary", "new", required=True, help="The version that is to replace it.")
@range_options
@slice_option
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="OLD=NEW",
    help="The stable version's class OLD is the canary's NEW; OLD= or =NEW leaves one out. May be repeated.",
)
@json_option
@click.pass_obj
def compare(
    state: State,
    model: str,
    stable: str,
    new: str,
    since: str | None,
    until: str | None,
    slice_key: str,
    mapped: tuple[str, ...],
    as_json: bool,
) -> None:
    """Differences per class with intervals, and a verdict: promote, continue or roll back.

    Of records of both versions on the same inputs where there are labels of them, else on split traffic. May be asked
    as often as you like: the chance of a wrong verdict is that of ever being wrong.
    """
    from monitor.canary import Asked, compare
    from monitor.canary_classes import renames
    from monitor.canary_table import canary_text
    from monitor.drift import Baselines

    settings = state.settings()
    since_us, until_us, _ = time_range(settings, since, until, "all")
    asked = Asked(model, stable, new, since_us, until_us, slice_key, renames("--map", mapped))
    store = open_store(settings, write=False)
    try:
        shown = compare(store, settings, asked, Baselines(store))
    finally:
        store.close()
    if as_json:
        print_json(shown)
    else:
        click.echo(canary_text(shown))
