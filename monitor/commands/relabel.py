"""`segwatch relabel`: what is to be labelled, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from monitor.commands.annotation import relabel_push
from monitor.commands.common import State, json_option, open_store, parsed, print_json
from monitor.commands.relabel_export import relabel_export
from monitor.windows import SECOND_US, parse_length

if TYPE_CHECKING:
    from monitor.store.relabel import RelabelItem
    from monitor.store.store import Store

T = TypeVar("T")

KINDS = ("manual", "spot_check", "drift", "quality", "disagreement", "training")
STATES = ("open", "claimed", "done", "expired")
LONGEST_LEASE_US = 30 * 86_400 * SECOND_US

kind_option = click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
who_option = click.option("--as", "who", required=True, metavar="NAME", help="Who claims, as everybody knows them.")
lease_option = click.option("--lease", metavar="LENGTH", help="How long (90m, 2h); default: relabel.lease_minutes.")
token_option = click.option("--token", help="Of the claim, for programs that share a name.")


@click.group()
def relabel() -> None:
    """What is to be labelled."""


@relabel.command("list")
@click.option("--model")
@kind_option
@click.option(
    "--state", "states", type=click.Choice([*STATES, "all"]), multiple=True, help="Default: open and claimed."
)
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@json_option
@click.pass_obj
def relabel_list(
    state: State, model: str | None, kind: Any, states: tuple[Any, ...], limit: int, as_json: bool
) -> None:
    """Samples that wait for a label, and why they were chosen, in the order in which they are claimed."""
    from monitor.present import table
    from monitor.relabel_view import entry

    wanted = STATES if "all" in states else states or ("open", "claimed")
    store = open_store(state.settings(), write=False)
    try:
        items = [entry(item) for item in store.relabel.items(model, states=wanted, kind=kind, limit=limit)]
    finally:
        store.close()
    if as_json:
        print_json({"items": items})
    elif items:
        header = ["priority", "kind", "model", "version", "input_id", "event_time", "probability", "state", "reason"]
        click.echo(table(header, [[item[name] for name in header] for item in items]))
    else:
        click.echo("Nothing waits for a label (docs/relabel.md says what is queued when).")


@relabel.command("add")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT_ID...")
@click.option("--reason", required=True, help="Why, for whoever labels them.")
@click.option("--model", help="Not needed where one model has seen them.")
@click.option("--version", help="Default: the version that saw them last.")
@json_option
@click.pass_obj
def relabel_add(
    state: State, inputs: tuple[str, ...], reason: str, model: str | None, version: str | None, as_json: bool
) -> None:
    """Queue samples by hand, before all others: all of them, or, where one is not known, none."""
    new = _changing(
        state,
        lambda store, by: store.relabel.add_by_hand(inputs, reason, model=model, version=version, by=by),
    )
    if as_json:
        print_json({"queued": sorted({row.input_id for row in new})})
    else:
        known = len(set(inputs)) - len(new)
        click.echo(f"{len(new)} samples queued" + (f", {known} were already, for this reason" if known else ""))


@relabel.command("claim")
@who_option
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Samples.")
@lease_option
@click.option("--model")
@kind_option
@json_option
@click.pass_obj
def relabel_claim(
    state: State, who: str, count: int, lease: str | None, model: str | None, kind: Any, as_json: bool
) -> None:
    """Take samples to label: nobody else gets them until the lease ends."""
    from monitor.present import table
    from monitor.relabel_view import claimed

    lease_us = _lease_us(state, lease)
    claim = _changing(state, lambda store, by: store.relabel.claim(count, who, lease_us, model=model, kind=kind, by=by))
    found = claimed(claim)
    if as_json:
        print_json(found)
    elif found["items"]:
        header = ["priority", "kind", "model", "input_id", "reason"]
        click.echo(table(header, [[item[name] for name in header] for item in found["items"]]))
        click.echo(f"{len(found['items'])} samples leased to {who} until {found['lease_until']}")
    else:
        click.echo("Nothing waits for a label.")


@relabel.command("renew")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT_ID...")
@who_option
@lease_option
@token_option
@json_option
@click.pass_obj
def relabel_renew(
    state: State, inputs: tuple[str, ...], who: str, lease: str | None, token: str | None, as_json: bool
) -> None:
    """Keep claimed samples for longer, from now."""
    lease_us = _lease_us(state, lease)
    _change(state, "renew", as_json, lambda store, by: store.relabel.renew(inputs, who, lease_us, token, by=by))


@relabel.command("release")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT_ID...")
@who_option
@token_option
@json_option
@click.pass_obj
def relabel_release(state: State, inputs: tuple[str, ...], who: str, token: str | None, as_json: bool) -> None:
    """Give claimed samples back."""
    _change(state, "release", as_json, lambda store, by: store.relabel.release(inputs, who, token, by=by))


@relabel.command("done")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT_ID...")
@who_option
@token_option
@json_option
@click.pass_obj
def relabel_done(state: State, inputs: tuple[str, ...], who: str, token: str | None, as_json: bool) -> None:
    """Close claimed samples of which no label will come; one that comes closes its sample by itself."""
    _change(state, "done", as_json, lambda store, by: store.relabel.complete(inputs, who, token, by=by))


def _lease_us(state: State, lease: str | None) -> int:
    if lease is None:
        return round(state.settings().relabel.lease_minutes * 60 * SECOND_US)
    return min(parsed("--lease", parse_length, lease), LONGEST_LEASE_US)


def _changing(state: State, change: Callable[[Store, str], T]) -> T:
    """What ``change`` gives, which takes the store and who is written to the audit log."""
    from monitor.audit import os_user

    store = open_store(state.settings(), write=True)
    try:
        return change(store, os_user())
    finally:
        store.close()


def _change(state: State, what: str, as_json: bool, change: Callable[[Store, str], Sequence[RelabelItem]]) -> None:
    from monitor.relabel_view import samples

    items = samples(_changing(state, change))
    if as_json:
        print_json({"items": items})
    else:
        until = f", leased until {items[0]['lease_until']}" if what == "renew" and items else ""
        click.echo(f"{len(items)} samples: {what}{until}")


relabel.add_command(relabel_export)
relabel.add_command(relabel_push)
