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
    """Prometheus rules from SLO files."""


def rules_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `rules render` and `rules check` are told alike; it arrives as ``options``."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, slo_files: tuple[Path, ...], retention: str, **rest: Any) -> Any:
        from monitor.rules import Options

        own = {name: rest.pop(name) for name in ("job", "runbooks", "pages")}
        retention_s = parsed("--retention", parse_length, retention) // 1_000_000
        return function(*arguments, options=Options(slo_files, retention_s, **own), **rest)

    for option in (
        click.option("--pages", default="", help="Address of segwatch's pages, for links (default: web.public_url)."),
        click.option("--runbooks", default="", help="Address of the folder of runbooks (default: PAGES/runbooks)."),
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
    """Write rules and their promtool tests to a folder; earlier ones that are no longer needed go."""
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
    """Have promtool, where there is one, check the rules and run their tests; exit 1 where it finds fault."""
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
