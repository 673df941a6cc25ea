"""A canary's comparison as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.present import number, printable, table

SHOWN_METRICS = ("iou", "mean_iou", "recall", "precision", "false_positives_per_image", "pixel_accuracy")


def canary_text(shown: Mapping[str, Any]) -> str:
    """As ``segwatch canary compare`` prints it."""
    labels = shown["labels"]
    lines = [
        f"{shown['model']}: {shown['canary']} against {shown['stable']}: {shown['verdict'].upper()}",
        *(f"  {reason}" for reason in shown["reasons"]),
        *(f"  missing: {one}" for one in shown["missing"]),
        f"{shown['pairs']} labelled pairs, {labels['stable']} and {labels['canary']} labelled records,"
        f" {shown['shared_inputs']} inputs of both versions",
    ]
    rows = [
        [
            (one["class"] or "all") + (" (critical)" if one["critical"] else ""),
            one["metric"],
            *(number(one[side]) for side in ("stable", "canary", "difference", "lower", "upper")),
            one["method"],
            one["status"],
        ]
        for one in shown["classes"]
        if one["metric"] in SHOWN_METRICS
    ]
    header = ["class", "metric", "stable", "canary", "difference", "lower", "upper", "method", "status"]
    lines += ["", table(header, rows)] if rows else []
    sequential = shown["sequential"]
    if sequential is not None:
        lines += ["", f"evidence for a loss: {sequential['evidence']:g}, enough is {sequential['enough']:g}"]
    rows = [
        [name, *(number(shown["latency"][name][side]) for side in ("stable", "canary", "difference", "lower", "upper"))]
        for name in ("mean", "p50", "p95", "p99")
    ]
    rows = [[f"latency {row[0]} (s)", *row[1:]] for row in rows]
    for name, title in (("cost", "cost (USD a record)"), ("failures", "failed share")):
        rows.append(
            [title, *(number(shown[name][side]) for side in ("stable", "canary", "difference", "lower", "upper"))]
        )
    lines += ["", table(["", "stable", "canary", "difference", "lower", "upper"], rows)]
    agreed = shown["agreement"]
    if agreed is not None and agreed["classes"]:
        rows = [
            [one["class"], *(None if one[key] is None else number(one[key]["point"]) for key in ("iou", "instances"))]
            for one in agreed["classes"]
        ]
        lines += [
            "",
            f"agreement without labels, of {agreed['compared']} inputs:",
            table(["class", "iou", "instances"], rows),
        ]
    lines += ["", *(f"note: {note}" for note in shown["notes"])]
    return "\n".join(printable_lines(lines))


def printable_lines(lines: list[str]) -> list[str]:
    """Texts from records, safe for a terminal, line by line."""
    return [printable(line) for text in lines for line in text.split("\n")]
