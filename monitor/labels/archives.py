"""A zip archive around an export, read with bounds.

A few kilobytes of zip can claim gigabytes: sizes are limited by what really comes out, not by what the headers say, and
the list of members by its own length, before it is read.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from monitor.errors import InputError

MAGIC = b"PK\x03\x04"
MAX_ARCHIVE_BYTES = 8 * 1024**3
MAX_DIRECTORY_BYTES = 64 * 1024**2
"""Of the list of members: half a million of them."""
MAX_UNPACKED_BYTES = 1024**3
MAX_RATIO = 200
"""Unpacked to packed. XML with masks packs to a tenth; runs of one byte, of which bombs are made, to a thousandth."""
FREE_BYTES = 16 * 1024**2
"""Unpacked, to which no ratio applies."""
PART_BYTES = 1024 * 1024
_END = struct.Struct("<4s4H2LH")


def is_archive(path: Path) -> bool:
    """Whether a regular file begins like a zip archive."""
    try:
        if not os.path.isfile(path):
            return False
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except (OSError, ValueError):
        return False


def has_member(path: Path, name: str) -> bool:
    """Whether a zip archive has a member of this file name, in whatever folder. False also for a damaged one."""
    try:
        with _opened(path) as archive:
            return bool(_members(archive, name))
    except InputError:
        return False


def unpack(path: Path, name: str) -> Iterator[bytes]:
    """The one member of this file name, part by part. Raises InputError without the path."""
    with _opened(path) as archive:
        found = _members(archive, name)
        if len(found) != 1:
            raise InputError(f"the archive has {len(found)} files {name}, expected one")
        total = 0
        try:
            with archive.open(found[0]) as file:
                while part := file.read(PART_BYTES):
                    total += len(part)
                    if total > MAX_UNPACKED_BYTES:
                        raise InputError(f"{name} unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                    if total > FREE_BYTES and total > MAX_RATIO * found[0].compress_size:
                        raise InputError(
                            f"{name} unpacks to more than {MAX_RATIO} times its {found[0].compress_size} bytes"
                        )
                    yield part
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise InputError(f"{name} in the archive cannot be unpacked: {error}") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        size = path.stat().st_size
        if size > MAX_ARCHIVE_BYTES:
            raise InputError(f"has {size} bytes, the limit is {MAX_ARCHIVE_BYTES}")
        with path.open("rb") as file:
            file.seek(max(0, size - 65_535 - _END.size))
            tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise InputError("is no complete zip archive")
        directory = _END.unpack_from(tail, at)[5]
        if directory > MAX_DIRECTORY_BYTES:  # zip64 says 2^32 - 1 here, and is refused with it
            raise InputError(f"the archive's list of members has {directory} bytes, the limit is {MAX_DIRECTORY_BYTES}")
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"is no zip archive: {error}") from None


def _members(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    return [info for info in archive.infolist() if info.filename.rpartition("/")[2] == name]
