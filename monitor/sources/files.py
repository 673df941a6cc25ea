"""Records from files: JSON Lines, plain or gzipped, and standard input. One line is one record, blank ones are skipped.

A file is streamed: memory holds one poll's lines, whatever the file's size. A line beyond the size limit is not even
kept; it comes as a record without value whose ``problem`` is ``too_large``, and the next line is read as usual.

Gzip is recognised by its first bytes, whatever the name. A file that ends in the middle of its gzip stream gives every
whole line before that, and then raises InputError with the number of the last one: half a line is no record, and a file
that was cut off must not look like one that ended.
"""

from __future__ import annotations

import gzip
import io
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from monitor.errors import InputError
from monitor.sources.protocol import Partition, Polled, Progress, RawRecord

STDIN: Final = "-"
CLUSTER: Final = "file"
TOO_LARGE: Final = "too_large"

# Lines of one poll together: 256 records of 8 MB would be 2 GB.
POLL_BYTES: Final = 32 * 1024 * 1024
BUFFER_BYTES: Final = 1024 * 1024
GZIP_MAGIC: Final = b"\x1f\x8b"
UTF8_BOM: Final = b"\xef\xbb\xbf"


class FileSource:
    """Implements ``monitor.sources.protocol.Source`` over ``paths``, one after the other; ``-`` is standard input.

    The partition is (``file``, path, path, 0), the offset is the line's number from 1, so that a message can name
    ``file:line``. There is no broker, hence no timestamp, and nothing in a file is ever late.

    Raises InputError that names the file: at once for one that is missing, a directory, unreadable, or named .gz and
    not gzipped; from ``poll`` for one that is damaged further in.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        max_line_bytes: int,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._paths = [str(path) for path in paths]
        self._limit = max_line_bytes
        self._wall_us = wall_us
        self._sizes = [_size_of(path) for path in self._paths]
        self._at = 0
        self._raw: BinaryIO | None = None
        self._damaged: BaseException | None = None
        self._lines: Iterator[RawRecord] | None = None
        self._line = 0
        self._ended: dict[int, tuple[int, int]] = {}
        self._paused = False

    @property
    def exhausted(self) -> bool:
        """Whether every file has been read to its end."""
        return self._at >= len(self._paths)

    @property
    def fraction(self) -> float | None:
        """Share of the bytes read so far, 0..1 (of gzipped files: compressed bytes); None with standard input."""
        sizes = [size for size in self._sizes if size is not None]
        if len(sizes) < len(self._sizes):
            return None
        done = sum(sizes[: self._at])
        # Another thread asks, so that the file may be closed at any moment.
        with suppress(ValueError):
            done += raw.tell() if (raw := self._raw) is not None else 0
        return min(1.0, done / sum(sizes)) if sum(sizes) else 1.0

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """The next lines; a file never makes it wait (standard input does)."""
        if self._paused:
            time.sleep(timeout_s)
            return Polled(())
        records: list[RawRecord] = []
        size = 0
        while len(records) < max_records and size < POLL_BYTES and not self.exhausted:
            record = self._next()
            if self._damaged is not None:
                if records:
                    break  # what was read comes first, the damage with the next poll
                path, damage, self._damaged = self._paths[self._at], self._damaged, None
                self._end_file()
                raise InputError(f"{path}: {_damage(damage)} after line {self._line}")
            if record is None:
                self._end_file()
            else:
                records.append(record)
                size += len(record.value or b"")
        return Polled(records)

    def _next(self) -> RawRecord | None:
        if self._lines is None:
            self._lines = self._open(self._paths[self._at])
        if self._damaged is None:
            try:
                return next(self._lines, None)
            except (EOFError, OSError, zlib.error) as error:
                self._damaged = error
        return None

    def assigned(self) -> Sequence[Partition]:
        """All files, read or not."""
        return [_partition(path) for path in self._paths]

    def progress(self) -> Sequence[Progress]:
        """Files that were begun. The end of one is known only when it is reached."""
        found = []
        for index, path in enumerate(self._paths[: self._at + 1]):
            line, caught_up_at_us = self._ended.get(index, (self._line, None))
            if index in self._ended or self._lines is not None:
                found.append(Progress(_partition(path), line + 1, line + 1, caught_up_at_us))
        return found

    def rewind(self, partition: Partition) -> None:
        """No effect: a file's offsets are not kept in the store, and nobody else can take it over."""

    def pause(self) -> None:
        """Return nothing until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Return records again."""
        self._paused = False

    def close(self) -> None:
        """Close the file that is open."""
        self._lines = None
        if self._raw is not None and self._raw is not sys.stdin.buffer:
            self._raw.close()
        self._raw = None

    def _end_file(self) -> None:
        self._ended[self._at] = (self._line, self._wall_us())
        self.close()
        self._at += 1

    def _open(self, path: str) -> Iterator[RawRecord]:
        self._line = 0
        try:
            # Not unbuffered: the first bytes are looked at and read again.
            self._raw = sys.stdin.buffer if path == STDIN else Path(path).open("rb", buffering=BUFFER_BYTES)  # noqa: SIM115 - close() does
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        stream = cast(io.BufferedReader, self._raw)
        if stream.peek(2)[:2] == GZIP_MAGIC:
            # Without a buffer around it: one would lose the lines that come before the place where a stream is cut off.
            return self._records(_partition(path), cast(BinaryIO, gzip.GzipFile(fileobj=stream)))
        return self._records(_partition(path), stream)

    def _records(self, partition: Partition, stream: BinaryIO) -> Iterator[RawRecord]:
        # The longest line that is taken, with its line end (two bytes at most), and on line 1 with a byte order mark.
        asked = self._limit + 2 + len(UTF8_BOM)
        while line := stream.readline(asked):
            self._line += 1
            whole = line.endswith(b"\n") or len(line) < asked
            if not whole:
                _skip_line(stream)
            if self._line == 1:
                line = line.removeprefix(UTF8_BOM)
            value = line.removesuffix(b"\n").removesuffix(b"\r")
            if not whole or len(value) > self._limit:
                yield RawRecord(partition, self._line, None, None, (), None, problem=TOO_LARGE)
            elif value.strip():
                yield RawRecord(partition, self._line, value, None, (), None)


def _size_of(path: str) -> int | None:
    if path == STDIN:
        return None
    found = Path(path)
    if found.is_dir():
        raise InputError(f"{path}: is a directory")
    if not found.exists():
        raise InputError(f"{path}: no such file")
    try:
        with found.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if path.endswith(".gz") and start != GZIP_MAGIC:
        raise InputError(f"{path}: not a gzip file")
    return found.stat().st_size if found.is_file() else None


def _partition(path: str) -> Partition:
    return Partition(CLUSTER, path, path, 0)


def _skip_line(stream: BinaryIO) -> None:
    while True:
        part = stream.readline(BUFFER_BYTES)
        if not part or part.endswith(b"\n"):
            return


def _damage(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "the gzip stream is cut off"
    if isinstance(error, (gzip.BadGzipFile, zlib.error)):
        return f"the gzip stream is damaged ({error})"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"
