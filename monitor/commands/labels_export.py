"""`segwatch labels export`: the labels in the store, for an annotation tool or another service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor.commands.common import State, json_option, open_store, parsed
from monitor.commands.relabel_export import FORMATS, out_option, place, told
from monitor.windows import parse_time

if TYPE_CHECKING:
    from monitor.exports.items import Item


@click.command("export")
@click.option("--format", "form", type=click.Choice([*FORMATS, "jsonl"]), required=True)
@click.option("--model", help="Not needed where there is one model.")
@click.option("--version", help="Labels of this version, and those of every one.")
@click.option("--annotator", help="Only this one's; else an audit or the newest label of each input (jsonl: all).")
@click.option("--since", help="RFC 3339: labels made then or later.")
@click.option("--until", help="RFC 3339: labels made before then.")
@out_option
@json_option
@click.pass_obj
def labels_export(
    state: State,
    form: str,
    model: str | None,
    version: str | None,
    annotator: str | None,
    since: str | None,
    until: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Write the labels that are stored."""
    from monitor.drift import Baselines
    from monitor.exports.chosen import Skipped
    from monitor.exports.formats import EXPORTS
    from monitor.exports.stored import items_of, labels_of, one_each
    from monitor.label_import import classes_of
    from monitor.records import Limits

    settings = state.settings()
    since_us = parsed("--since", parse_time, since) if since else None
    until_us = parsed("--until", parse_time, until) if until else None
    skipped, count = Skipped(), 0
    store = open_store(settings, write=False)
    try:
        baselines = Baselines(store)
        name, classes = classes_of(store, lambda identity: baselines.of(identity).classes, model)
        rows = labels_of(store.exports.labels(since_us=since_us, until_us=until_us), name, version, annotator)
        whole = EXPORTS[form].labels_only
        found = items_of(
            rows if whole else one_each(rows, skipped),
            classes,
            Limits.from_settings(settings),
            skipped,
            with_masks=not whole,
        )

        def counted() -> Iterator[Item]:
            nonlocal count
            for item in found:
                count += 1
                yield item

        file, _ = place(out, EXPORTS[form].file_name)
        EXPORTS[form].write(counted(), classes, file)
    finally:
        store.close()
    left = {why: number for why, number in skipped.counts.items() if number}
    skipped.counts.clear()
    skipped.counts.update(left)
    told(as_json, {"out": str(file), "samples": count, "skipped": left}, skipped)
