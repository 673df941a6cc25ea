"""`segwatch dashboards`: Grafana dashboards as files."""

from __future__ import annotations

from pathlib import Path

import click

from monitor.errors import InputError


@click.group()
def dashboards() -> None:
    """Grafana dashboards: executive, on-call, debug, and segwatch itself."""


@dashboards.command("render")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--pages",
    default="http://localhost:8600",
    show_default=True,
    help="Address of segwatch's pages, for links.",
)
def dashboards_render(out: Path, pages: str) -> None:
    """Write the dashboards as JSON to a folder, for Grafana to provision or to import."""
    from dashboards.grafana.render import write

    try:
        files = write(out, pages)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    click.echo(f"{len(files)} files in {out}")
