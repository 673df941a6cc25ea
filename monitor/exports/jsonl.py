"""Label records as they are, one a line: what `segwatch labels import` and Kafka take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from monitor.classes import Classes
from monitor.errors import InputError
from monitor.exports.items import Item
from monitor.exports.target import target
from monitor.records import Label

_json = msgspec.json.Encoder()


def write_lines(items: Iterable[Item], _classes: Classes, out: Path) -> None:
    """One file. Raises InputError for an item that is no label."""
    with target(out) as file:
        for item in items:
            if item.label is None:
                raise InputError("jsonl holds labels: predictions have none yet")
            file.write(_json.encode(record_of(item.label)) + b"\n")


def record_of(label: Label) -> dict[str, Any]:
    """The record, without what is absent."""
    tree: dict[str, Any] = msgspec.to_builtins(label)
    if tree.get("semantic"):
        tree["semantic"] = {name: value for name, value in tree["semantic"].items() if value is not None}
    return {name: value for name, value in tree.items() if value is not None}
