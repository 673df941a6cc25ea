"""`segwatch slo`: SLO files of other tools, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from monitor.errors import CheckFailed, InputError

SLO_FILE = click.Path(path_type=Path, exists=True)
out_option = click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write (default: standard output)."
)


@click.group()
def slo() -> None:
    """SLO files of other tools: OpenSLO v1 and Sloth's prometheus/v1."""


@slo.command("import")
@click.argument("files", nargs=-1, required=True, type=SLO_FILE)
@click.option(
    "--from",
    "form",
    type=click.Choice(["auto", "openslo", "sloth"]),
    default="auto",
    show_default=True,
    help="What the files must be (auto: each document says it itself).",
)
@out_option
def slo_import(files: tuple[Path, ...], form: Any, out: Path | None) -> None:
    """Write our SLO file from OpenSLO or Sloth documents; what could not be kept is said on stderr."""
    from monitor.slo_exchange import import_text

    text, count = import_text(files, form, _say)
    _write(out, text, count)


@slo.command("export")
@click.option("--to", required=True, type=click.Choice(["openslo", "sloth"]), help="Whose form to write.")
@click.option(
    "--slo",
    "files",
    type=SLO_FILE,
    multiple=True,
    help="SLO file or folder of them, repeatable (default: packaged SLOs of each model).",
)
@out_option
def slo_export(to: str, files: tuple[Path, ...], out: Path | None) -> None:
    """Write SLOs for another tool; exit 1 where some have no form there."""
    from alerts.rules_defaults import default_slos
    from monitor.slo_exchange import export_text
    from monitor.slo_files import SloFiles, find_files

    slos = SloFiles(find_files(files)).slos if files else default_slos()
    text, count = export_text(slos, to, _say)
    _write(out, text, count)
    if count < len(slos):
        raise CheckFailed(f"{len(slos) - count} of {len(slos)} SLOs could not be exported")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _write(out: Path | None, text: str, count: int) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    click.echo(f"{count} SLOs in {out}")
