"""Values as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monitor.actions_view import open_text


def printable(text: str) -> str:
    r"""Text from records, safe for a terminal: control and direction marks are shown, not obeyed.

    >>> printable("a\nb\x1b[2J\u202e")
    'a\\nb\\x1b[2J\\u202e'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right.

    >>> print(table(["signal", "js"], [["embedding", 0.25], ["x", None]]))
    signal     js
    embedding  0.25
    x          -
    """
    cells = [[printable(str(cell)) if cell is not None else "-" for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *cells]
    ]
    return "\n".join(lines)


def number(value: float | None, digits: int = 4) -> str | None:
    """Short, or None for what is absent."""
    return None if value is None else f"{value:.{digits}g}"


def drift_table(windows: Sequence[dict[str, Any]]) -> str:
    """One line a window and signal; windows as in ``segwatch drift --json``."""
    rows = []
    for window in windows:
        first = [
            f"{window['model']}/{window['version']}",
            window["slice"],
            window["start"],
            window["end"],
            window["records"],
        ]
        if not window["scores"]:
            rows.append([*first, None, None, None, None, None, window["status"]])
        for score in window["scores"]:
            rows.append(
                [
                    *first,
                    score["signal"],
                    number(score["js"]),
                    number(score["threshold"]),
                    number(score["kl_nats"]),
                    number(score["p_value"], 3),
                    "ALARM" if score["alarm"] else window["status"] if score["p_value"] is None else "ok",
                ]
            )
        rolling = window["rolling"]
        if rolling:
            worst = min(rolling["scores"], key=lambda score: score["p_value"], default=None)
            rows.append(
                [
                    *first,
                    "last days" + (f" ({worst['signal']})" if worst else ""),
                    number(worst["js"]) if worst else None,
                    None,
                    None,
                    number(rolling["p_value"], 3),
                    "ALARM" if rolling["alarm"] else rolling["status"],
                ]
            )
    header = ["model", "slice", "start", "end", "records", "signal", "js", "threshold", "kl nats", "p", "state"]
    return table(header, rows)


def quality_table(windows: Sequence[dict[str, Any]]) -> str:
    """One line a window and class; windows as in ``segwatch quality --json``."""
    rows = []
    for window in windows:
        first = [
            f"{window['model']}/{window['version']}",
            window["slice"],
            window["start"],
            window["end"],
            window["records"],
            window["labelled"],
        ]
        for one in window["classes"]:
            state = one["status"].replace("_", " ")
            if one["needed"]:
                state += f": {one['needed']} more {one['needed_of']} needed"
            values = [number(one[name], 3) for name in ("point", "lower", "upper")]
            rows.append([*first, one["class"] or "(all)", one["metric"], one["estimator"], *values, state])
    header = ["model", "slice", "start", "end", "records", "labelled", "class", "metric", "estimator", "value"]
    return table([*header, "lower", "upper", "state"], rows)


def plan_table(windows: Sequence[dict[str, Any]]) -> str:
    """One line a window and class: labels that would halve its interval."""
    rows = [
        [
            f"{window['model']}/{window['version']}",
            window["start"],
            window["labelled"],
            one["class"],
            *(number(one[name], 3) for name in ("width", "target")),
            one["labels"],
            one["with_class"],
            number(one["cost"]),
        ]
        for window in windows
        for one in window["plan"]
    ]
    header = ["model", "start", "labelled", "class", "width", "target", "labels needed", "with the class", "cost"]
    return table(header, rows)


def agreement_table(pairs: Sequence[dict[str, Any]]) -> str:
    """One line a pair and class, then the records on which they differ most."""
    rows = [
        [
            *pair["annotators"],
            pair["records"],
            one["class"],
            *(number(one[name], 3) for name in ("iou", "kappa", "surplus")),
        ]
        for pair in pairs
        for one in pair["classes"]
    ]
    worst = [
        [*pair["annotators"], one["input_id"], one["class"], one["disputed_pixels"], number(one["iou"], 3)]
        for pair in pairs
        for one in pair["disagreements"]
    ]
    text = table(["first", "second", "records", "class", "iou", "kappa", "surplus"], rows)
    return f"{text}\n\n{table(['first', 'second', 'input', 'class', 'disputed pixels', 'iou'], worst)}"


def status_text(status: dict[str, Any]) -> str:
    """``segwatch status`` for people."""
    lines = []
    if not status["models"]:
        lines.append("No models yet: segwatch baseline build makes the first baseline.")
    for model in status["models"]:
        lines.append(f"{model['model']} version {model['version']}")
        baseline = model["baseline"]
        lines.append(
            f"  baseline {baseline[:12]} of {model['baseline_created']}"
            if baseline
            else "  no baseline for this version: counted, not scored"
        )
        lines.append(
            "  records " + (", ".join(f"{count} {name}" for name, count in sorted(model["records"].items())) or "none")
        )
        for window in model["windows"]:
            state = window["status"].replace("_", " ")
            worst = max(window["scores"], key=lambda score: score["js"] or 0.0, default=None)
            text = f"  {window['slice'] or 'all records'} {window['start']} to {window['end']}:"
            text += f" {window['records']} records, {state}"
            if worst is not None:
                text += (
                    f" (highest: {worst['signal']} js {number(worst['js'])}, threshold {number(worst['threshold'])})"
                )
            lines.append(text)
        known = [one for one in model["quality"] if one["point"] is not None]
        for one in known:
            text = f"  {one['metric']} of {one['class'] or 'all classes'} by {one['estimator']}:"
            between = f"{number(one['lower'], 3)} to {number(one['upper'], 3)}"
            lines.append(f"{text} {number(one['point'], 3)} ({between}, {one['labels']} labels)")
        lines += [f"  {_budget_text(one)}" for one in model["budgets"]]
        lines += [f"  action: {open_text(one)}" for one in model["open_actions"]]
    for outcome, count in sorted(status["unattributed"].items()):
        lines.append(f"of no known model: {count} {outcome}")
    for partition in status["partitions"]:
        lines.append(
            f"{partition['topic']}[{partition['partition']}] offset {partition['offset']},"
            f" {partition['lag_records']} behind, seen {partition['seen_seconds_ago']} s ago"
        )
    lines += [_budget_text(one) for one in status["budgets"]]
    if status["budgets_unknown"]:
        lines.append(f"error budgets: unknown, {status['budgets_unknown']}")
    lines.append(f"outbox: {status['outbox_pending']} waiting")
    lines += [
        f"relabel queue of {queue['model']}: {queue['open']} open, {queue['claimed']} claimed, the oldest since"
        f" {queue['oldest']}"
        for queue in status["relabel"]
    ]
    return "\n".join(map(printable, lines))


def _budget_text(one: Mapping[str, Any]) -> str:
    left = "unknown" if one["left"] is None else f"{one['left']:.1%} left"
    burning = "".join(f", {number(rate, 2)}x over {window}" for window, rate in one["burn_rates"].items())
    return f"budget of SLO {one['slo']}, {one['class'] or 'all'}, {one['period'] or 'no period'}: {left}{burning}"
