"""``segwatch convert``: logs of inference servers to files of prediction records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from monitor.adapters import ADAPTERS
from monitor.adapters.mapping import Mapping
from monitor.adapters.protocol import EntryError, Exchange
from monitor.adapters.recording import is_meant, records_of
from monitor.errors import BadRecord
from monitor.records import Limits, decode
from monitor.sources.files import FileSource
from monitor.sources.protocol import Partition, RawRecord

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""An image as a JSON list of numbers takes some 4 bytes a channel: 4096 x 4096 is refused, 2048 x 2048 goes."""
_NOWHERE: Final = Partition("file", "", "", 0)


@dataclass
class Converted:
    """``left_out``: by why; ``refused``: entries that could not become records."""

    records: int = 0
    refused: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def convert(
    files: Sequence[Path], form: str, mapping: Mapping, limits: Limits, out: BinaryIO, say: Callable[[str], None]
) -> Converted:
    """Write a line for each record. ``say`` gets one for each entry that is refused: file, line, field, reason.

    Every record is checked as if it had been read, so that what is written is what ``replay`` takes.
    Raises InputError for a file that cannot be read.
    """
    adapter = ADAPTERS[form](mapping.needs_request)
    done = Converted()
    source = FileSource(files, MAX_LINE_BYTES)
    try:
        for where, line in _lines(source, done, say):
            try:
                exchanges = list(adapter.feed(where, line))
            except EntryError as error:
                done.refused += 1
                say(f"{where}: {error}")
            else:
                _write(exchanges, mapping, limits, out, done, say)
    finally:
        source.close()
    rest = list(adapter.rest())
    if mapping.unanswered == "error":
        adapter.counts["request_alone"] -= len(rest)
        _write(rest, mapping, limits, out, done, say)
    done.left_out.update({why: count for why, count in adapter.counts.items() if count})
    return done


def _lines(source: FileSource, done: Converted, say: Callable[[str], None]) -> Iterator[tuple[str, bytes]]:
    while not source.exhausted:
        for raw in source.poll(0.0, 1).records:  # one at a time: standard input may be a consumer that never ends
            where = f"{raw.partition.topic}:{raw.offset}"
            if raw.value is None:
                done.refused += 1
                say(f"{where}: the line has more than {MAX_LINE_BYTES} bytes")
            else:
                yield where, raw.value


def _write(
    exchanges: Iterable[Exchange],
    mapping: Mapping,
    limits: Limits,
    out: BinaryIO,
    done: Converted,
    say: Callable[[str], None],
) -> None:
    for exchange in exchanges:
        if not is_meant(exchange, mapping):
            done.left_out["other_event"] += 1
            continue
        try:
            values = [msgspec.json.encode(record) for record in records_of(exchange, mapping)]
            for value in values:
                decode(RawRecord(_NOWHERE, 0, value, None, (), None), limits)
        except (EntryError, BadRecord) as error:
            done.refused += 1
            say(f"{exchange.where}: {error}")
            continue
        for value in values:
            out.write(value + b"\n")
        out.flush()
        done.records += len(values)
