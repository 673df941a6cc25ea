"""Commands that show what was found: status, drift, quality, report."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from monitor.commands.common import (
    State,
    json_option,
    open_store,
    print_json,
    range_options,
    slice_option,
    time_range,
)
from monitor.errors import InputError


@click.command()
@json_option
@click.pass_obj
def status(state: State, as_json: bool) -> None:
    """Per model: records, lag, last windows with their scores and thresholds, quality, budgets, open actions."""
    from monitor.budgets import Budgets
    from monitor.present import status_text
    from monitor.status import status as read_status

    settings = state.settings()
    store = open_store(settings, write=False)
    try:
        shown = read_status(store, time.time_ns() // 1000, Budgets(lambda: settings.prometheus.url).read())
    finally:
        store.close()
    if as_json:
        print_json(shown)
    else:
        click.echo(status_text(shown))


@click.command()
@click.option("--model", required=True)
@click.option("--version")
@range_options
@click.option("--window", default="1h", show_default=True, help="A multiple of the pane (300s, 1h, 7d), or 'all'.")
@slice_option
@click.option("--alpha", type=float, help="False-alarm rate of each window, all signals together.")
@json_option
@click.pass_obj
def drift(
    state: State,
    model: str,
    version: str | None,
    since: str | None,
    until: str | None,
    window: str,
    slice_key: str,
    alpha: float | None,
    as_json: bool,
) -> None:
    """Windows with their drift scores against the baseline."""
    from monitor.drift import drift_windows
    from monitor.present import drift_table

    settings = state.settings()
    since_us, until_us, length_us = time_range(settings, since, until, window)
    if alpha is not None and not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha}: expected a rate between 0 and 1")
    store = open_store(settings, write=False)
    try:
        windows = drift_windows(
            store,
            settings.windows,
            settings.drift,
            model=model,
            version=version,
            slice_key=slice_key,
            since_us=since_us,
            until_us=until_us,
            length_us=length_us,
            alpha=alpha,
        )
    finally:
        store.close()
    shown = [one.to_json() for one in windows]
    if as_json:
        print_json({"windows": shown})
    elif shown:
        click.echo(drift_table(shown))
    else:
        click.echo(_nothing(slice_key))


@click.command()
@click.option("--model", required=True)
@click.option("--version")
@range_options
@click.option("--window", default="24h", show_default=True, help="A multiple of the pane (1h, 7d), or 'all'.")
@slice_option
@click.option(
    "--population",
    type=click.Choice(["window", "process"]),
    default="window",
    show_default=True,
    help="Quality over the window's own records, or that of the process that made them.",
)
@click.option("--metric", "metrics", multiple=True, help="Only this metric (iou, recall, ap, ...); may be repeated.")
@click.option("--plan", "planned", is_flag=True, help="How many labels would halve the intervals, and what they cost.")
@json_option
@click.pass_obj
def quality(
    state: State,
    model: str,
    version: str | None,
    since: str | None,
    until: str | None,
    window: str,
    slice_key: str,
    population: Any,
    metrics: tuple[str, ...],
    planned: bool,
    as_json: bool,
) -> None:
    """Quality per class from labels, with 95 % intervals."""
    from monitor.drift import Baselines
    from monitor.presence import presence_of
    from monitor.present import plan_table, quality_table
    from monitor.quality import quality_windows
    from monitor.quality_now import VersionFacts

    settings = state.settings()
    since_us, until_us, length_us = time_range(settings, since, until, window)
    store = open_store(settings, write=False)
    try:
        facts = VersionFacts(store, Baselines(store), model)
        if not facts:
            raise InputError(f"--model {model}: no active baseline has this name")
        windows = quality_windows(
            store,
            model=model,
            facts=facts,
            version=version,
            slice_key=slice_key,
            since_us=since_us,
            until_us=until_us,
            length_us=length_us,
            pane_us=settings.windows.pane_seconds * 1_000_000,
            population=population,
            metrics=metrics or (None if as_json else ("iou", "mean_iou")),
        )
        shown = [one.to_json() for one in windows]
        if planned:
            for told, one in zip(shown, windows, strict=True):
                classes, place = facts.ontology(one.version), (model, one.version, slice_key, one.window)
                presence = partial(presence_of, store, *place, classes, settings.images.max_pixels) if classes else None
                told["plan"] = one.plan(settings.quality.label_price, presence)
    finally:
        store.close()
    if as_json:
        print_json({"windows": shown})
    elif shown:
        click.echo(plan_table(shown) if planned else quality_table(shown))
    else:
        click.echo(_nothing(slice_key))


@click.command()
@click.option("--model", required=True)
@click.option("--version", help="Default: the one with a baseline and records in the window.")
@click.option("--window", required=True, help="START, START/END, START/LENGTH, last or last-alarm.")
@slice_option
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The HTML file to write.")
@click.pass_obj
def report(state: State, model: str, version: str | None, window: str, slice_key: str, out: Path) -> None:
    """One window against its baseline, as Evidently's HTML report."""
    from monitor.report import read_comparison
    from monitor.report_html import report_html, write_page

    settings = state.settings()
    store = open_store(settings, write=False)
    try:
        found = read_comparison(store, settings, model=model, version=version, slice_key=slice_key, window=window)
    finally:
        store.close()
    write_page(out, lambda: report_html(found))
    shown = found.scored.to_json()
    click.echo(f"{out}: {shown['start']} to {shown['end']}, {shown['records']} records, {shown['status']}")


def _nothing(slice_key: str) -> str:
    return f"No records of slice {slice_key} in this range." if slice_key else "No records in this range."
