"""``segwatch convert``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from monitor.commands.common import FILE, SHOWN_BAD, State
from monitor.errors import CheckFailed, InputError


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--from",
    "form",
    type=click.Choice(["kserve", "seldon", "mlserver", "sagemaker"]),
    required=True,
    help="Which server's log it is.",
)
@click.option("--mapping", "mapping_file", type=FILE, required=True, help="What the model's tensors mean (YAML).")
@click.option("--out", type=FILE, default=Path("-"), help="Default: standard output.")
@click.pass_obj
def convert(state: State, files: tuple[Path, ...], form: str, mapping_file: Path, out: Path) -> None:
    """Logs of inference servers to prediction records, for replay and publish."""
    from monitor.adapters.mapping import read_mapping
    from monitor.convert import convert as convert_files
    from monitor.records import Limits

    limits = Limits.from_settings(state.settings())
    mapping = read_mapping(mapping_file)
    shown = 0

    def say(line: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= SHOWN_BAD:
            click.echo(line, err=True)
        elif shown == SHOWN_BAD + 1:
            click.echo("... further ones are not shown", err=True)

    part = out.with_name(out.name + ".part")
    try:
        with contextlib.ExitStack() as stack:
            stream = sys.stdout.buffer if str(out) == "-" else stack.enter_context(part.open("wb"))
            done = convert_files(files, form, mapping, limits, stream, say)
        if str(out) != "-":
            part.replace(out)  # only whole: half a file would look like a day with less traffic
    except OSError as error:
        raise InputError(f"{out}: {error.strerror or error}") from None
    finally:
        if str(out) != "-":
            part.unlink(missing_ok=True)
    left_out = "".join(f", {count} {why}" for why, count in sorted(done.left_out.items()))
    click.echo(f"{done.records} records, {done.refused} refused{left_out}", err=True)
    if done.refused:
        raise CheckFailed(f"{done.refused} entries could not be converted")
