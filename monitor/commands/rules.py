"""`segwatch rules`: SLO files to Prometheus rules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import (
    State,
    parsed,
)
from monitor.windows import parse_length


@click.group()
def rules() -> None:
    """Prometheus rules and Alertmanager's configuration, from SLO files."""


def rules_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `rules render` and `rules check` are told alike; it arrives as ``options``."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, slo_files: tuple[Path, ...], retention: str, **rest: Any) -> Any:
        from monitor.rules import Options

        names = ("job", "instance", "runbooks", "pages", "dashboard", "receivers", "maintenance")
        own = {name: rest.pop(name) for name in names}
        retention_s = parsed("--retention", parse_length, retention) // 1_000_000
        return function(*arguments, options=Options(slo_files, retention_s, **own), **rest)

    for option in (
        click.option(
            "--maintenance",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="When alerts are kept quiet (default: never).",
        ),
        click.option(
            "--receivers",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Who is told of pages, tickets, actions and the watchdog (default: segwatch, of actions).",
        ),
        click.option("--dashboard", default="", help="Address of a Grafana dashboard, for links (default: PAGES)."),
        click.option("--pages", default="", help="Address of segwatch's pages, for links (default: web.public_url)."),
        click.option("--runbooks", default="", help="Address of the folder of runbooks (default: PAGES/runbooks)."),
        click.option("--instance", default="segwatch", show_default=True, help="The instance label of that job."),
        click.option("--job", default="segwatch", show_default=True, help="Prometheus's job that scrapes segwatch."),
        click.option("--retention", default="31d", show_default=True, help="How long Prometheus keeps samples."),
        click.option(
            "--slo",
            "slo_files",
            type=click.Path(path_type=Path, exists=True),
            multiple=True,
            help="SLO file or folder of them, repeatable (default: packaged SLOs of each model).",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


@rules.command("render")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@rules_options
@click.pass_obj
def rules_render(state: State, out: Path, options: Any) -> None:
    """Write rules, their promtool tests and Alertmanager's configuration to a folder.

    Earlier files that are no longer needed go; files of your own stay.
    """
    from monitor.rules import render

    files = render(state.settings(), options, out, lambda line: click.echo(line, err=True))
    click.echo(f"{len(files)} files in {out}")


@rules.command("check")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A folder of rendered rules."
)
@rules_options
@click.pass_obj
def rules_check(state: State, folder: Path | None, options: Any) -> None:
    """Have promtool check the rules and run their tests, and amtool check Alertmanager's configuration.

    Where they are installed; exit 1 where they find fault.
    """
    from monitor.rules import check, check_rendered

    if folder is not None:
        check(folder, click.echo)
    else:
        check_rendered(state.settings(), options, click.echo)


@rules.command("schema")
def rules_schema() -> None:
    """Print the JSON Schema of SLO files, for editors."""
    from monitor.rules import schema_text

    click.echo(schema_text(), nl=False)
