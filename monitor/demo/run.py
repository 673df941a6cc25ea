"""``segwatch demo``: a day of traffic with a shift midway, through the real pipeline, hour by hour."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import yaml

from embeddings.segmenter import load_segmenter
from monitor.app import serve_pages
from monitor.baseline_book import Embedders
from monitor.demo.traffic import TrafficPlan, labels, traffic, write_jsonl
from monitor.drift import Baselines, ScoredWindow
from monitor.errors import InputError
from monitor.offline import make_baseline, replay
from monitor.present import number
from monitor.quality import quality_windows
from monitor.quality_now import VersionFacts
from monitor.settings import Settings, WindowSettings
from monitor.store.store import Store
from monitor.windows import SECOND_US, to_text, to_us

MARKER = "demo.json"
HOURS, SHIFT_AFTER_HOURS = 16, 8
RECORDS_PER_HOUR = 120
BASELINE_HOURS = 12
WORKERS = 2
BASELINE_LABELLED, SPOT_CHECKED = 0.5, 0.25
"""Shares of the records that have labels."""
START = datetime(2026, 11, 1, tzinfo=UTC)
MODEL, VERSION = "digits", "1"
PANE_US = WindowSettings().pane_seconds * SECOND_US


def run_demo(folder: Path, *, corruption: str, strength: int, serve: bool, say: Callable[[str], None]) -> None:
    """Run the demo in ``folder`` and say what happens. Raises InputError where the folder is not the demo's."""
    make_room(folder)
    settings = _settings(folder)
    shift_at = START + timedelta(hours=SHIFT_AFTER_HOURS)
    say(
        f"A small network segments handwritten digits for {HOURS} hours; at {shift_at:%H:%M} {corruption}"
        f" (strength {strength} of 3) sets in on every camera."
    )
    windows: list[ScoredWindow] = []
    outcomes: Counter[str] = Counter()

    def note(scored: ScoredWindow) -> None:
        if not scored.slice:
            windows.append(scored)
            say(_line(scored, shift_at))

    segment = load_segmenter(threads=1).predict
    store = Store.open(settings, write=True)
    try:
        embedders = Embedders(settings)
        plan = _plan(START - timedelta(days=1), BASELINE_HOURS, seed=1)
        file, told = folder / "baseline.jsonl", folder / "baseline-labels.jsonl"
        count = write_jsonl(file, traffic(segment, plan, WORKERS))
        write_jsonl(told, labels(plan, share=BASELINE_LABELLED))
        baseline_id, baseline, _ = make_baseline(
            settings, store, [file], model=MODEL, version=VERSION, labels=[told], activate=True, embedders=embedders
        )
        say(
            f"Baseline {baseline_id[:12]}: {count} records, {baseline.statistic.sequences} sequences,"
            f" {len(baseline.classes.names)} classes, embedded by {baseline.plan.identity.split(':')[0]}.\n"
        )
        say("hour (UTC)    records  lowest p               js  threshold         p")
        plan = _plan(START, HOURS, seed=2, shift_at=shift_at, corruption=corruption, strength=strength)
        day = traffic(segment, plan, WORKERS)
        checked = _by_hour(labels(plan, share=SPOT_CHECKED))
        for hour, records in groupby(day, key=lambda record: str(record["event_time"])[:13]):
            file, told = (folder / f"{name}-{hour[-2:]}.jsonl" for name in ("traffic", "labels"))
            write_jsonl(file, records)
            write_jsonl(told, checked.get(hour, []))
            counts, _ = replay(settings, [file], labels=[told], store=store, embedders=embedders, on_score=note)
            outcomes.update(counts.outcomes)
        quality = _quality(store, shift_at)
    finally:
        store.close()
    summary = {**_summary(windows, shift_at, corruption, strength, outcomes), "quality": quality}
    (folder / MARKER).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    say("")
    for line in _told(summary, folder):
        say(line)
    if serve:
        serve_pages(settings, say)


def _by_hour(checked: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Labels by the hour of their inputs, ``2026-11-01T08``: the input's name tells its minute."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in checked:
        found[one["input_id"].split("-", 1)[1][:13]].append(one)
    return found


def _quality(store: Store, shift_at: datetime) -> dict[str, Any]:
    """Mean IoU over classes before and after the shift, with its interval; from the spot checks alone."""
    found: dict[str, Any] = {}
    spans = {"before": (to_us(START), to_us(shift_at)), "after": (to_us(shift_at), None)}
    for name, (since_us, until_us) in spans.items():
        windows = quality_windows(
            store,
            model=MODEL,
            facts=VersionFacts(store, Baselines(store), MODEL),
            since_us=since_us,
            until_us=until_us,
            length_us=None,
            pane_us=PANE_US,
            metrics=("iou",),
        )
        for window in windows:
            shown = window.to_json()
            means = [
                one
                for one in shown["classes"]
                if (one["metric"], one["estimator"]) == ("mean_iou", "spotcheck")
            ]
            dropped = [one["class"] for one in shown["classes"] if (one.get("drop") or {}).get("found")]
            found[name] = {"labelled": shown["labelled"], "dropped": dropped, "mean_iou": means[0] if means else None}
    return found


def _plan(start: datetime, hours: int, *, seed: int, **shift: Any) -> TrafficPlan:
    return TrafficPlan(
        start=start,
        hours=hours,
        records_per_hour=RECORDS_PER_HOUR,
        seed=seed,
        split="traffic",
        model=MODEL,
        version=VERSION,
        **shift,
    )


def make_room(folder: Path) -> None:
    """Remove an earlier demo; never anything else."""
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / MARKER).exists():
                raise InputError(f"--dir {folder}: holds something that is not an earlier demo; name an empty folder")
            for old in folder.iterdir():  # the marker stays, should this be interrupted
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                elif old.name != MARKER:
                    old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text("{}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--dir {folder}: {error.strerror}") from None


def _settings(folder: Path) -> Settings:
    tree = {
        "data_dir": str(folder.absolute()),
        "windows": {"lengths_seconds": [3600]},
        "embedding": {"backbone": "segmenter", "input_size": 128},
        "log": {"level": "warning"},
        # The demo's days are fixed: none of them is ever too old to be looked at.
        "store": {"retention_days": 36_500},
        "quality": {"keep_masks_days": 36_500},
        "samples": {"keep_images_days": 36_500},
    }
    (folder / "segwatch.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return msgspec.convert(tree, Settings)


def _line(scored: ScoredWindow, shift_at: datetime) -> str:
    hour = to_text(scored.window.start_us)[11:16]
    shifted = "shifted" if scored.window.end_us > to_us(shift_at) else ""
    head = f"{hour} {shifted:<7} {scored.records:>7}"
    if scored.score is None or not scored.score.scores:
        return f"{head}  too few records"
    worst = min(scored.score.scores, key=lambda one: 1.0 if one.p_value is None else one.p_value)
    state = "  ALARM" if scored.score.alarm else ""
    return (
        f"{head}  {worst.signal:<16} {number(worst.js, 3) or '-':>8} {number(worst.threshold, 3) or '-':>10}"
        f" {number(worst.p_value, 2) or '-':>9}{state}"
    )


def _alarms(windows: Sequence[ScoredWindow]) -> int:
    return sum(one.score is not None and one.score.alarm for one in windows)


def _summary(
    windows: Sequence[ScoredWindow], shift_at: datetime, corruption: str, strength: int, outcomes: Mapping[str, int]
) -> dict[str, Any]:
    shift_us = to_us(shift_at)
    before = [one for one in windows if one.window.end_us <= shift_us]
    after = [one for one in windows if one.window.end_us > shift_us]
    first = next((one for one in after if _alarms([one])), None)
    attribution = first.score.attribution if first is not None and first.score is not None else ()
    return {
        "corruption": corruption,
        "strength": strength,
        "shift_at": to_text(shift_us),
        "detected_at": to_text(first.window.end_us) if first else None,
        "delay_seconds": (first.window.end_us - shift_us) / SECOND_US if first else None,
        "false_alarms": _alarms(before),
        "windows_before": len(before),
        "alarms_after": _alarms(after),
        "windows_after": len(after),
        "attribution": [{"signal": signal, "share": share} for signal, share in attribution],
        "outcomes": dict(outcomes),
    }


def _told(summary: Mapping[str, Any], folder: Path) -> list[str]:
    lines = [f"The shift ({summary['corruption']}) happened at {summary['shift_at']}."]
    if summary["detected_at"]:
        carried = ", ".join(f"{one['signal']} {one['share']:.0%}" for one in summary["attribution"])
        lines.append(
            f"Detected when the window to {summary['detected_at']} closed,"
            f" {summary['delay_seconds'] / 60:.0f} minutes later. Carried by: {carried}."
        )
    else:
        lines.append(f"Not detected in the {summary['windows_after']} windows after it.")
    lines += [_quality_line(when, one) for when, one in summary["quality"].items()]
    config = folder / "segwatch.yaml"
    return [
        *lines,
        f"False alarms before it: {summary['false_alarms']} in {summary['windows_before']} windows;"
        f" alarms after it: {summary['alarms_after']} in {summary['windows_after']}.",
        "Records: " + ", ".join(f"{count} {name}" for name, count in sorted(summary["outcomes"].items())) + ".",
        f"Actions are in {folder / 'actions.jsonl'}.",
        f"Look further: segwatch --config {config} drift --model {MODEL} --slice camera=2",
        f"Quality per class: segwatch --config {config} quality --model {MODEL}",
        f"Pages: segwatch --config {config} run --role web, then http://127.0.0.1:8600/",
    ]


def _quality_line(when: str, one: Mapping[str, Any]) -> str:
    mean = one["mean_iou"]
    if mean is None or mean["point"] is None:
        figure = "too few labels for a mean IoU of all classes"
    else:
        figure = f"mean IoU {mean['point']:.2f} (95 %: {mean['lower']:.2f} to {mean['upper']:.2f})"
    dropped = f"; below the baseline for certain: {', '.join(one['dropped'])}" if one["dropped"] else ""
    return f"Quality {when} it, from {one['labelled']} spot checks: {figure}{dropped}."
