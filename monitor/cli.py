"""The command line. Errors are one line on stderr: exit code 2 for bad input or settings, 1 for a failed check."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from monitor.errors import BadRecord, CheckFailed, InputError, SegwatchError
from monitor.settings import Settings, load_settings
from monitor.sources.protocol import RawRecord
from monitor.version import __version__
from monitor.windows import parse_length, parse_time

if TYPE_CHECKING:
    from monitor.store.store import Store

SHOWN_BAD = 20


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


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output (stable, documented).")
FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


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


@cli.command()
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
def demo(no_serve: bool, folder: Path, corruption: str, strength: int) -> None:
    """The main job on data that comes with the project: traffic, a shift midway, what is detected when."""
    from monitor.demo.corruptions import CORRUPTIONS

    if corruption not in CORRUPTIONS:  # said before anything slow is loaded
        raise InputError(f"--corruption {corruption}: choose one of {', '.join(CORRUPTIONS)}")
    from monitor.demo.run import run_demo

    run_demo(folder, corruption=corruption, strength=strength, serve=not no_serve, say=click.echo)


@cli.command()
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


@cli.group()
def baseline() -> None:
    """What a model version looked like when it was trained."""


@baseline.command("build")
@click.option("--model", required=True)
@click.option("--version", required=True)
@click.option(
    "--records", "records", type=FILE, multiple=True, help="Prediction records (.jsonl, .jsonl.gz); several may follow."
)
@click.argument("more", nargs=-1, type=FILE)
@click.option(
    "--classes", "classes_file", type=FILE, help="Class names, ignored indices, critical classes (YAML or JSON)."
)
@click.option("--labels", "labels_files", type=FILE, multiple=True, help="Label records of these inputs, for quality.")
@slice_option
@click.option("--activate", is_flag=True, help="Score this version against it from now on.")
@json_option
@click.pass_obj
def baseline_build(
    state: State,
    model: str,
    version: str,
    records: tuple[Path, ...],
    more: tuple[Path, ...],
    classes_file: Path | None,
    labels_files: tuple[Path, ...],
    slice_key: str,
    activate: bool,
    as_json: bool,
) -> None:
    """Build a baseline from prediction records of the training or validation set."""
    from monitor.baseline_build import describe
    from monitor.classes import read_classes
    from monitor.offline import make_baseline

    files = [*records, *more]
    if not files:
        raise InputError("no file: name the prediction records with --records FILE...")
    settings = state.settings()
    classes = read_classes(classes_file) if classes_file else None
    store = _open(settings, write=True)
    try:
        baseline_id, built, counts = make_baseline(
            settings,
            store,
            files,
            model=model,
            version=version,
            slice_key=slice_key,
            classes=classes,
            labels=labels_files,
            activate=activate,
            on_bad=Lines(),
        )
    finally:
        store.close()
    if as_json:
        _print_json(
            {
                "id": baseline_id,
                "model": model,
                "version": version,
                "active": activate,
                "counts": describe(counts),
                **built.summary(),
            }
        )
        return
    click.echo(
        f"baseline {baseline_id[:12]} of {model} version {version}: {counts.used} records,"
        f" {built.statistic.sequences} sequences, {len(built.classes.names)} classes, {built.plan.identity}"
    )
    if labels_files:
        click.echo(f"quality: {counts.labelled} records judged by their labels")
    left_out = ", ".join(f"{count} {name}" for name, count in describe(counts).items() if count and name != "used")
    if left_out:
        click.echo(f"left out: {left_out}")
    click.echo("active" if activate else f"not active yet: segwatch baseline activate {baseline_id[:12]}")


@baseline.command("list")
@click.option("--model")
@json_option
@click.pass_obj
def baseline_list(state: State, model: str | None, as_json: bool) -> None:
    """All baselines, the active ones marked."""
    from monitor.present import table
    from monitor.windows import to_text

    store = _open(state.settings(), write=False)
    try:
        active = {entry.meta.id for entry in store.active_baselines().values()}
        rows: list[dict[str, Any]] = [
            {
                "id": meta.id,
                "model": meta.model,
                "version": meta.version,
                "created": to_text(meta.created_us),
                "active": meta.id in active,
                **meta.meta,
            }
            for meta in store.baselines(model)
        ]
    finally:
        store.close()
    if as_json:
        _print_json({"baselines": rows})
    elif rows:
        click.echo(
            table(
                ["id", "model", "version", "created", "active", "records", "embedding"],
                [
                    [
                        row["id"][:12],
                        row["model"],
                        row["version"],
                        row["created"],
                        "yes" if row["active"] else "",
                        row["records"],
                        row["embedding"],
                    ]
                    for row in rows
                ],
            )
        )
    else:
        click.echo("No baselines yet: segwatch baseline build makes one.")


@baseline.command("show")
@click.argument("baseline_id")
@json_option
@click.pass_obj
def baseline_show(state: State, baseline_id: str, as_json: bool) -> None:
    """One baseline, by its id or the beginning of it."""
    from monitor.windows import to_text

    store = _open(state.settings(), write=False)
    try:
        meta = store.baseline(baseline_id).meta
        active = meta.id in {entry.meta.id for entry in store.active_baselines().values()}
    finally:
        store.close()
    shown = {
        "id": meta.id,
        "model": meta.model,
        "version": meta.version,
        "created": to_text(meta.created_us),
        "active": active,
        "format": meta.format_version,
        **meta.meta,
    }
    if as_json:
        _print_json(shown)
    else:
        for name, value in shown.items():
            click.echo(f"{name}: {value}")


@baseline.command("activate")
@click.argument("baseline_id")
@click.pass_obj
def baseline_activate(state: State, baseline_id: str) -> None:
    """Score its model version against this baseline from now on."""

    store = _open(state.settings(), write=True)
    try:
        meta = store.activate(baseline_id)
    finally:
        store.close()
    click.echo(f"{meta.model} version {meta.version} is scored against {meta.id[:12]} from now on")


@cli.command()
@click.option("--role", type=click.Choice(["all", "ingest", "evaluate", "web"]), default="all", show_default=True)
@click.pass_obj
def run(state: State, role: Any) -> None:
    """The service."""
    from monitor.app import run as run_service

    run_service(state.settings(), role, lambda: load_settings(state.config))


@cli.command()
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
        _print_json(
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


@cli.group()
def topics() -> None:
    """Kafka topics."""


@topics.command("create")
@click.pass_obj
def topics_create(state: State) -> None:
    """Create the topics that are missing."""
    from monitor.topics import create_topics

    for line in create_topics(state.settings()):
        click.echo(line)


@cli.command()
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


@cli.command()
@json_option
@click.pass_obj
def status(state: State, as_json: bool) -> None:
    """Per model: records, lag, last windows with their scores and thresholds."""
    from monitor.present import status_text
    from monitor.status import status as read_status

    store = _open(state.settings(), write=False)
    try:
        shown = read_status(store, time.time_ns() // 1000)
    finally:
        store.close()
    if as_json:
        _print_json(shown)
    else:
        click.echo(status_text(shown))


@cli.command()
@click.option("--model", required=True)
@click.option("--version")
@click.option("--since", help="RFC 3339 time; windows that begin before it are left out.")
@click.option("--until", help="RFC 3339 time; windows that begin at it or after it are left out.")
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
    since_us, until_us, length_us = _range(settings, since, until, window)
    if alpha is not None and not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha}: expected a rate between 0 and 1")
    store = _open(settings, write=False)
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
        _print_json({"windows": shown})
    elif shown:
        click.echo(drift_table(shown))
    else:
        click.echo("No records in this range.")


@cli.command()
@click.option("--model", required=True)
@click.option("--version")
@click.option("--since", help="RFC 3339 time; windows that begin before it are left out.")
@click.option("--until", help="RFC 3339 time; windows that begin at it or after it are left out.")
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
    from monitor.present import plan_table, quality_table
    from monitor.quality import quality_windows
    from monitor.quality_now import VersionFacts

    settings = state.settings()
    since_us, until_us, length_us = _range(settings, since, until, window)
    store = _open(settings, write=False)
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
                told["plan"] = one.plan(settings.quality.label_price)
    finally:
        store.close()
    if as_json:
        _print_json({"windows": shown})
    elif shown:
        click.echo(plan_table(shown) if planned else quality_table(shown))
    else:
        click.echo("No records in this range.")


@cli.command()
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
    store = _open(settings, write=False)
    try:
        found = read_comparison(store, settings, model=model, version=version, slice_key=slice_key, window=window)
    finally:
        store.close()
    write_page(out, lambda: report_html(found))
    shown = found.scored.to_json()
    click.echo(f"{out}: {shown['start']} to {shown['end']}, {shown['records']} records, {shown['status']}")


@cli.group()
def labels() -> None:
    """Labels: annotations of inputs that the model was asked about."""


@labels.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="auto",
    show_default=True,
    help="coco (LVIS too), coco-panoptic, png-folder or jsonl (label records).",
)
@click.option("--model", help="Whose classes they are; not needed where there is one model.")
@click.option("--version", help="Only for this version; default: for every one.")
@click.option("--annotator", default="import", show_default=True)
@click.option("--annotation-version", type=click.IntRange(0), default=1, show_default=True)
@click.option("--label-time", help="RFC 3339; default: now.")
@click.option("--purpose", type=click.Choice(["spot_check", "relabel", "audit"]), default="spot_check")
@click.option("--selection-probability", type=float, help="With which each of the inputs was chosen.")
@click.option(
    "--input-id",
    type=click.Choice(["stem", "file_name", "id"]),
    default="stem",
    show_default=True,
    help="What an input's id is made of (a field images[].input_id wins).",
)
@click.option("--png-folder", type=click.Path(path_type=Path, file_okay=False), help="Of a panoptic export.")
@json_option
@click.pass_obj
def labels_import(
    state: State,
    path: Path,
    form: str,
    model: str | None,
    version: str | None,
    annotator: str,
    annotation_version: int,
    label_time: str | None,
    purpose: str,
    selection_probability: float | None,
    input_id: Any,
    png_folder: Path | None,
    as_json: bool,
) -> None:
    """Put an annotation export into the store: all of it, or, where an entry is bad, nothing."""
    from monitor.label_import import ImportRequest, import_file

    if selection_probability is not None and not 0 < selection_probability <= 1:
        raise InputError(f"--selection-probability {selection_probability}: expected a probability above 0, at most 1")
    request = ImportRequest(
        path,
        form,
        _parsed("--label-time", parse_time, label_time) if label_time else time.time_ns() // 1000,
        model=model,
        version=version,
        annotator=annotator,
        annotation_version=annotation_version,
        purpose=purpose,
        selection_probability=selection_probability,
        input_id=input_id,
        png_folder=png_folder,
    )
    settings = state.settings()
    store = _open(settings, write=True)
    try:
        outcomes, (judged, unjoinable) = import_file(store, settings, request)
    finally:
        store.close()
    shown = {name: outcomes.get(name, 0) for name in ("accepted", "replaced", "duplicate", "superseded")}
    if as_json:
        counts = {"labels": sum(outcomes.values()), "outcomes": shown, "judged": judged, "unjoinable": unjoinable}
        _print_json(counts)
    else:
        text = ", ".join(f"{count} {name}" for name, count in shown.items() if count)
        late = f"; {unjoinable} unjoinable: made later than quality.join_days after the event" if unjoinable else ""
        click.echo(f"{sum(outcomes.values())} labels: {text or 'none'}; {judged} records judged by them{late}")


@labels.command("agreement")
@click.option("--model", required=True)
@click.option("--version")
@click.option("--since", help="RFC 3339 time of the inputs' events.")
@click.option("--until", help="RFC 3339 time of the inputs' events.")
@json_option
@click.pass_obj
def labels_agreement(
    state: State, model: str, version: str | None, since: str | None, until: str | None, as_json: bool
) -> None:
    """How far annotators agree where several labelled the same input, and where they differ most."""
    from monitor.annotators import agreements
    from monitor.drift import Baselines
    from monitor.label_import import classes_of
    from monitor.present import agreement_table
    from monitor.records import Limits

    settings = state.settings()
    since_us, until_us, _ = _range(settings, since, until, "all")
    store = _open(settings, write=False)
    try:
        baselines = Baselines(store)
        _, classes = classes_of(store, lambda identity: baselines.of(identity).classes, model)
        pairs = agreements(
            store,
            Limits.from_settings(settings),
            classes,
            model=model,
            version=version,
            since_us=since_us,
            until_us=until_us,
        )
    finally:
        store.close()
    if as_json:
        _print_json({"pairs": pairs})
    else:
        click.echo(agreement_table(pairs) if pairs else "No input has labels of two annotators.")


@cli.group()
def relabel() -> None:
    """What is to be labelled."""


@relabel.command("list")
@click.option("--model")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@json_option
@click.pass_obj
def relabel_list(state: State, model: str | None, limit: int, as_json: bool) -> None:
    """Records that wait for a label, and why they were chosen."""
    from monitor.present import table
    from monitor.windows import to_text

    store = _open(state.settings(), write=False)
    try:
        rows = store.open_spot_checks(model, limit)
    finally:
        store.close()
    items = [
        {
            "model": row.model,
            "version": row.version,
            "input_id": row.input_id,
            "event_time": to_text(row.event_time_us),
            "stream": row.stream,
            "probability": row.probability,
            "reason": row.reason,
            "chosen": to_text(row.chosen_at_us),
        }
        for row in rows
    ]
    if as_json:
        _print_json({"items": items})
    elif items:
        header = ["model", "version", "input_id", "event_time", "stream", "probability", "reason"]
        click.echo(table(header, [[item[name] for name in header] for item in items]))
    else:
        click.echo("Nothing waits for a label (quality.spot_checks_per_day says how many are asked for).")


@cli.group()
def rules() -> None:
    """Prometheus rules from SLO files."""


def rules_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `rules render` and `rules check` are told alike; it arrives as ``options``."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, slo_files: tuple[Path, ...], retention: str, **rest: Any) -> Any:
        from monitor.rules import Options

        own = {name: rest.pop(name) for name in ("job", "runbooks", "pages")}
        retention_s = _parsed("--retention", parse_length, retention) // 1_000_000
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


@cli.group()
def backbone() -> None:
    """Backbones for embeddings."""


@backbone.command("export")
@click.option("--source", required=True, help="timm:NAME, torchvision:NAME, or an exported or TorchScript file.")
@click.option("--weights", type=FILE, help="Local weights (safetensors or a torch checkpoint, read weights-only).")
@click.option("--layer", required=True, help="Name of the layer whose output is the embedding.")
@click.option("--input-size", type=click.IntRange(32, 1024), default=224, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
def backbone_export(source: str, weights: Path | None, layer: str, input_size: int, out: Path) -> None:
    """Cut a network at a layer, for embedding.backbone: exported:FILE."""
    from embeddings.cutting import export_backbone

    try:
        export_backbone(source, weights, layer, out, input_size)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from None
    click.echo(f"{out}: set embedding.backbone to exported:{out}")


def _open(settings: Settings, *, write: bool) -> Store:
    # Imported here: --help needs no database driver.
    from monitor.store.store import Store

    return Store.open(settings, write=write)


def _range(
    settings: Settings, since: str | None, until: str | None, window: str
) -> tuple[int | None, int | None, int | None]:
    """``--since``, ``--until`` and ``--window``; the length is None for 'all'."""
    length_us = None if window == "all" else _parsed("--window", parse_length, window)
    since_us = _parsed("--since", parse_time, since) if since else None
    until_us = _parsed("--until", parse_time, until) if until else None
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise InputError(f"--since {since} is not before --until {until}")
    if length_us is not None and length_us % (settings.windows.pane_seconds * 1_000_000):
        raise InputError(f"--window {window} is no multiple of the pane ({settings.windows.pane_seconds} s)")
    return since_us, until_us, length_us


def _parsed(option: str, parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=False, allow_nan=False))


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
