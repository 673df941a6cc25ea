"""Values as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


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
    header = ["model", "slice", "start", "end", "records", "signal", "js", "threshold", "kl nats", "p", "state"]
    return table(header, rows)


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
    for outcome, count in sorted(status["unattributed"].items()):
        lines.append(f"of no known model: {count} {outcome}")
    for partition in status["partitions"]:
        lines.append(
            f"{partition['topic']}[{partition['partition']}] offset {partition['offset']},"
            f" {partition['lag_records']} behind, seen {partition['seen_seconds_ago']} s ago"
        )
    lines.append(f"outbox: {status['outbox_pending']} waiting")
    return "\n".join(map(printable, lines))
