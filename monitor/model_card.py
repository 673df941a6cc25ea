"""A model card (Mitchell and others 2019) of what segwatch knows: the baseline, and how good the model is in use.

What nobody but its makers knows, such as what it is meant for, is left for them to write: the card says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from monitor.errors import InputError
from monitor.store.store import Store
from monitor.version import __version__
from monitor.windows import to_text

OWN_WORDS = ("Intended use", "Out of scope", "Training data", "Ethical considerations")


def model_card(store: Store, model: str, version: str | None, now_us: int) -> str:
    """Markdown. Raises InputError where no version, or more than one and none is named, has an active baseline."""
    active = {name: one for (each, name), one in sorted(store.active_baselines().items()) if each == model}
    if not active:
        raise InputError(f"--model {model}: no active baseline has this name")
    if version is None and len(active) > 1:
        raise InputError(f"{model} has several versions, name one with --version ({', '.join(active)})")
    chosen = next(iter(active)) if version is None else version
    if chosen not in active:
        raise InputError(f"--version {chosen}: {model} has no active baseline of it")
    meta = active[chosen].meta
    quality = next((one for one in store.quality() if (one.model, one.version) == (model, chosen)), None)
    facts = meta.meta
    lines = [
        f"# {text(model)}, version {text(chosen)}",
        "",
        f"Written by segwatch {__version__} at {to_text(now_us)}"
        f" from the baseline `{meta.id[:12]}` of {to_text(meta.created_us)}.",
        "",
        "## What it was measured on",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text(_shown(facts.get(key)))} |" for name, key in BASELINE_FACTS),
        "",
        "## Quality on the baseline's labelled records",
        "",
        *_reference(facts.get("iou")),
        "",
        "## Quality in use",
        "",
        *(_in_use(quality.payload, quality.start_us, quality.end_us) if quality else ["No labels yet."]),
        "",
        "## Drift",
        "",
        *_drift(store, model, chosen),
        "",
    ]
    for title in OWN_WORDS:
        lines += [f"## {title}", "", "*Not known to segwatch: for the model's makers to write.*", ""]
    return "\n".join(lines)


BASELINE_FACTS = (
    ("Records", "records"),
    ("Sequences", "sequences"),
    ("Labelled records", "labelled"),
    ("Classes", "classes"),
    ("Critical classes and their targets", "critical"),
    ("Embedding", "embedding"),
    ("Slice", "slice"),
    ("Seasons", "seasons"),
)


def _reference(figures: object) -> list[str]:
    if not isinstance(figures, Mapping) or not figures:
        return ["The baseline was built without labels."]
    rows = [(name, one) for name, one in figures.items() if isinstance(one, Mapping)]
    return [
        "| Class | IoU | 95 % interval | Labels |",
        "|---|---|---|---|",
        *(
            f"| {text(name)} | {_number(one.get('point'))} | {_interval(one)} | {one.get('labels', '')} |"
            for name, one in rows
        ),
    ]


def _in_use(payload: bytes, start_us: int, end_us: int) -> list[str]:
    window = json.loads(payload)
    classes: Sequence[dict[str, Any]] = [one for one in window["classes"] if one["metric"] == "iou"]
    return [
        f"Records from {to_text(start_us)} to {to_text(end_us)},"
        f" {window.get('labelled', 0)} of {window.get('records', 0)} labelled.",
        "",
        "| Class | Estimator | IoU | 95 % interval | Labels | Status |",
        "|---|---|---|---|---|---|",
        *(
            f"| {text(one['class'] or 'all')} | {one['estimator']} | {_number(one['point'])} | {_interval(one)}"
            f" | {one['labels']} | {one['status']} |"
            for one in classes
        ),
    ]


def _drift(store: Store, model: str, version: str) -> list[str]:
    last = [one for one in store.latest_scores() if (one.model, one.version, one.slice) == (model, version, "")]
    if not last:
        return ["No window has been scored yet."]
    lines = ["| Last window of each length | Records | Alarm | Harm |", "|---|---|---|---|"]
    for one in sorted(last, key=lambda each: each.length_us):
        verdict = json.loads(one.payload)
        alarm = "no verdict" if one.alarm is None else "yes" if one.alarm else "no"
        when = f"{to_text(one.start_us)} to {to_text(one.end_us)}"
        lines.append(f"| {when} | {one.records} | {alarm} | {verdict.get('harm', '')} |")
    return lines


def _shown(value: object) -> str:
    if value is None or value == {} or value == []:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(str(name) if one is None else f"{name} {one}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(one: Mapping[str, Any]) -> str:
    lower, upper = one.get("lower"), one.get("upper")
    return "-" if lower is None or upper is None else f"{lower:.3f} to {upper:.3f}"


def text(value: str) -> str:
    r"""A name from records as text in Markdown: neither markup, nor HTML, nor another cell.

    >>> text("a|b <b> `c`\n")
    'a\\|b \\<b\\> \\`c\\` '
    """
    plain = "".join(letter if letter.isprintable() else " " for letter in value)
    return "".join("\\" + letter if letter in "\\`*_{}[]<>#|!" else letter for letter in plain)
