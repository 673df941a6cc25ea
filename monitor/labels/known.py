"""Labels that come back from an annotation tool are of inputs that it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from monitor.errors import InputError
from monitor.records.reasons import shorten

AT_ONCE = 500


def only_known(
    path: Path, records: Iterable[dict[str, Any]], known: Callable[[Sequence[str]], set[str]]
) -> Iterator[dict[str, Any]]:
    """The records as they are. ``known``: of these inputs those that the store has.

    Raises InputError for the first of another input: an export of another installation, or of something else.
    """
    waiting = iter(records)
    while some := list(islice(waiting, AT_ONCE)):
        there = known([record["input_id"] for record in some])
        for record in some:
            if record["input_id"] not in there:
                raise InputError(f"{path}: input_id {shorten(record['input_id'])} is no input that segwatch has seen")
        yield from some
