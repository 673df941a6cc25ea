"""The command line: the list of all commands, and how errors end.

Errors are one line on stderr: exit code 2 for bad input or settings, 1 for a failed check.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from monitor.commands import (
    actions,
    baselines,
    canary,
    convert,
    dashboards,
    labels,
    privacy,
    relabel,
    rules,
    service,
    slo,
    trace,
    views,
)
from monitor.commands.common import State
from monitor.errors import InputError, SegwatchError
from monitor.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file (default: segwatch.yaml if there)."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(__version__, prog_name="segwatch")
@click.pass_context
def cli(context: click.Context, config: Path | None, debug: bool) -> None:
    """Watches segmentation models in production."""
    context.obj = State(config, debug)


for _command in (
    service.demo,
    service.doctor,
    baselines.baseline,
    service.run,
    service.replay,
    service.topics,
    service.publish,
    convert.convert,
    views.status,
    views.drift,
    views.quality,
    views.report,
    labels.labels,
    relabel.relabel,
    actions.actions,
    canary.canary,
    rules.rules,
    dashboards.dashboards,
    slo.slo,
    trace.trace,
    trace.model_card,
    privacy.purge,
    privacy.audit,
    baselines.backbone,
):
    cli.add_command(_command)


def _common_options_first(arguments: list[str]) -> list[str]:
    """``segwatch drift --config FILE`` means the same as ``segwatch --config FILE drift``."""
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument == "--debug" or argument.startswith("--config="):
            first.append(argument)
        elif argument == "--config":
            first += [argument, *(value for value in [next(waiting, None)] if value is not None)]
        else:
            rest.append(argument)
    return first + rest


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def main() -> NoReturn:
    """Entry point: run a command, turn its error into one line and an exit code."""
    arguments = _common_options_first(sys.argv[1:])
    debug = "--debug" in arguments
    try:
        cli.main(arguments, prog_name="segwatch", standalone_mode=False)
        sys.exit(0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "segwatch"
        click.echo(f"segwatch: {_one_line(error.format_message())} (see {where} --help)", err=True)
        sys.exit(2)
    except SegwatchError as error:
        if debug:
            raise
        click.echo(f"segwatch: {_one_line(error)}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        click.echo(f"segwatch: {type(error).__name__}: {_one_line(error)} (--debug shows where)", err=True)
        sys.exit(1)
