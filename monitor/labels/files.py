"""Files of an export, read with bounds: regular files alone, and none outside the export's own folder.

An export comes from elsewhere: it may name ``../../etc/passwd``, hold a symbolic link to it, or a pipe that never ends.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from monitor.errors import InputError
from monitor.records.reasons import shorten


def read_bounded(path: str | Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """The bytes of a regular file. Raises InputError without the path: missing, unreadable, no file, too large.

    ``follow``: whether the last part of the path may be a symbolic link.
    """
    try:
        # A pipe must not block the open; whether it is one shows afterwards, on what was really opened.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise InputError(error.strerror or "cannot be opened") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InputError("is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > max_bytes:
            raise InputError(f"has {status.st_size} bytes, the limit is {max_bytes}")
        try:
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise InputError(error.strerror or "cannot be read") from None
    if len(data) != status.st_size:
        raise InputError("changed while it was read")
    return data


def read_inside(folder: Path, name: str, max_bytes: int) -> bytes:
    """The bytes of the file ``name``, relative to ``folder`` and really within it.

    Symbolic links are followed only as long as they stay inside. Raises InputError without the path of the export.
    """
    if not name or "\0" in name:
        raise InputError(f"file name {shorten(name)} is no file name")
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise InputError(f"file name {shorten(name)} leads out of {folder}")
    try:
        root, real = os.path.realpath(folder), os.path.realpath(folder / name)
    except OSError as error:
        raise InputError(f"{shorten(name)}: {error.strerror}") from None
    if not real.startswith(root.rstrip("/") + "/"):
        raise InputError(f"{shorten(name)} is a symbolic link that leads out of {folder}")
    try:
        # The path is resolved: a link in its place means that somebody swapped it since.
        return read_bounded(real, max_bytes, follow=False)
    except InputError as error:
        raise InputError(f"{shorten(name)} in {folder}: {error}") from None
