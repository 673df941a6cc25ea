"""Where exports are written: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from monitor.errors import InputError


@contextmanager
def target(out: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``out`` when the block ends well. Raises InputError where it cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.chmod(name, 0o644)  # mkstemp lets nobody else read
        os.replace(name, out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
