"""Commands that run something: the demo, the checks, the service, files through it, topics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import (
    FILE,
    Lines,
    State,
    json_option,
    print_json,
    slice_option,
)
from monitor.errors import CheckFailed, InputError
from monitor.settings import load_settings


@click.command()
@click.option("--no-serve", is_flag=True, help="End after the summary instead of serving the pages.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".segwatch/demo"),
    show_default=True,
    help="Where the demo keeps its data; made anew each time.",
)
@click.option("--corruption", default="darkness", show_default=True, help="The shift that sets in midway.")
@click.option("--strength", type=click.IntRange(1, 3), default=2, show_default=True)
@click.option("--full-loop", is_flag=True, help="On to labels, a retraining, a canary and its promotion (minutes).")
@click.pass_context
def demo(context: click.Context, no_serve: bool, folder: Path, corruption: str, strength: int, full_loop: bool) -> None:
    """The main job on data that comes with the project: traffic, a shift midway, what is detected when."""
    from monitor.demo.corruptions import CORRUPTIONS

    if corruption not in CORRUPTIONS:  # said before anything slow is loaded
        raise InputError(f"--corruption {corruption}: choose one of {', '.join(CORRUPTIONS)}")
    if full_loop:
        from monitor.full_loop.plan import LoopPlan
        from monitor.full_loop.run import run_full_loop

        plan = LoopPlan(corruption=corruption, strength=strength)
        run_full_loop(context.find_root().command, folder, plan, serve=not no_serve, say=click.echo)
        return
    from monitor.demo.run import run_demo

    run_demo(folder, corruption=corruption, strength=strength, serve=not no_serve, say=click.echo)


@click.command()
@click.pass_obj
def doctor(state: State) -> None:
    """Check settings, Kafka, database, device, baseline and Prometheus; exit 1 where one fails."""
    from monitor.doctor import examine

    failed = 0
    for check in examine(state.settings):
        click.echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.text}")
        failed += not check.ok
    if failed:
        raise CheckFailed(f"{failed} check{'s' if failed > 1 else ''} failed")


@click.command()
@click.option("--role", type=click.Choice(["all", "ingest", "evaluate", "web"]), default="all", show_default=True)
@click.pass_obj
def run(state: State, role: Any) -> None:
    """The service."""
    from monitor.app import run as run_service

    run_service(state.settings(), role, lambda: load_settings(state.config))


@click.group()
def topics() -> None:
    """Kafka topics."""


@topics.command("create")
@click.pass_obj
def topics_create(state: State) -> None:
    """Create the topics that are missing."""
    from monitor.topics import create_topics

    for line in create_topics(state.settings()):
        click.echo(line)


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--topic", help="Default: by the type of each record.")
@click.pass_obj
def publish(state: State, files: tuple[Path, ...], topic: str | None) -> None:
    """Put files' records on Kafka, naming any that cannot go."""
    from monitor.topics import publish as publish_files

    result = publish_files(state.settings(), files, topic, lambda line: click.echo(line, err=True))
    click.echo(f"{result.published} records published, {result.refused} refused")
    if result.refused:
        raise CheckFailed(f"{result.refused} records were not published")


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--labels", "labels_files", type=FILE, multiple=True, help="Label records (.jsonl, .jsonl.gz).")
@slice_option
@click.option("--strict", is_flag=True, help="Exit 1 where a record was bad.")
@json_option
@click.pass_obj
def replay(
    state: State,
    files: tuple[Path, ...],
    labels_files: tuple[Path, ...],
    slice_key: str,
    strict: bool,
    as_json: bool,
) -> None:
    """Files through the same pipeline: event time from the records, as fast as it goes."""
    from monitor.offline import replay as replay_files

    began = time.monotonic()

    def progress(fraction: float | None, counts: Any) -> None:
        share = "" if fraction is None else f"{fraction:4.0%}, "
        rate = counts.read / max(1e-9, time.monotonic() - began)
        click.echo(f"{share}{counts.read} records, {rate:.0f} a second", err=True)

    counts, scored = replay_files(
        state.settings(), files, labels=labels_files, slice_key=slice_key, on_bad=Lines(), on_progress=progress
    )
    outcomes = {
        name: counts.outcomes.get(name, 0) for name in ("ok", "failed", "dead_letter", "duplicate", "late", "dropped")
    }
    if as_json:
        print_json(
            {
                "read": counts.read,
                "outcomes": outcomes,
                "skipped": counts.skipped,
                "reasons": dict(counts.reasons),
                "labels": dict(counts.labels),
                "windows_scored": scored,
            }
        )
    else:
        click.echo(
            f"{counts.read} records: "
            + ", ".join(f"{count} {name}" for name, count in outcomes.items())
            + (f"; {counts.skipped} outside the slice were skipped" if counts.skipped else "")
            + ("; labels: " + ", ".join(f"{n} {name}" for name, n in counts.labels.items()) if counts.labels else "")
            + f"; {scored} windows scored"
        )
    if strict and outcomes["dead_letter"]:
        raise CheckFailed(f"{outcomes['dead_letter']} records were bad")
