"""What commands share: settings, options, time ranges, output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.errors import BadRecord, InputError
from monitor.settings import Settings, load_settings
from monitor.sources.protocol import RawRecord
from monitor.windows import parse_length, parse_time

if TYPE_CHECKING:
    from monitor.store.store import Store

SHOWN_BAD = 20
FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output (stable, documented).")


class State:
    """What all commands share."""

    def __init__(self, config: Path | None, debug: bool) -> None:
        self.config = config
        self.debug = debug

    def settings(self) -> Settings:
        from monitor.telemetry import setup_logging

        settings = load_settings(self.config)
        setup_logging(settings.log)
        return settings


class Lines:
    """Bad records on stderr, the first few one by one; all of them are in the dead letters."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, raw: RawRecord, bad: BadRecord) -> None:
        self.count += 1
        if self.count <= SHOWN_BAD:
            click.echo(f"{raw.partition.topic}:{raw.offset}: {bad}", err=True)
        elif self.count == SHOWN_BAD + 1:
            click.echo("... further bad records are not shown", err=True)


def slice_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--slice KEY=VALUE``."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
        if value is None:
            return ""
        key, found, _ = value.partition("=")
        if not (key and found):  # a record's slice may have an empty value
            raise click.BadParameter(f"expected KEY=VALUE, got {value!r}")
        return value

    option = click.option(
        "--slice", "slice_key", metavar="KEY=VALUE", callback=check, help="Only records of this slice."
    )
    return option(function)


def range_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--since`` and ``--until``."""
    until = click.option("--until", help="RFC 3339 time; windows that begin at it or after it are left out.")
    since = click.option("--since", help="RFC 3339 time; windows that begin before it are left out.")
    return since(until(function))


def open_store(settings: Settings, *, write: bool) -> Store:
    # Imported here: --help needs no database driver.
    from monitor.store.store import Store

    return Store.open(settings, write=write)


def time_range(
    settings: Settings, since: str | None, until: str | None, window: str
) -> tuple[int | None, int | None, int | None]:
    """``--since``, ``--until`` and ``--window``; the length is None for 'all'."""
    length_us = None if window == "all" else parsed("--window", parse_length, window)
    since_us = parsed("--since", parse_time, since) if since else None
    until_us = parsed("--until", parse_time, until) if until else None
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise InputError(f"--since {since} is not before --until {until}")
    if length_us is not None and length_us % (settings.windows.pane_seconds * 1_000_000):
        raise InputError(f"--window {window} is no multiple of the pane ({settings.windows.pane_seconds} s)")
    return since_us, until_us, length_us


def parsed(option: str, parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=False, allow_nan=False))
