"""SQLite has one writing process: the holder of this lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from monitor.errors import StoreError, WriterExists


class WriterLock:
    """``writer.lock`` beside the database, held with flock for as long as the process lives.

    The kernel frees it when the process ends, however it ends; the file stays and means nothing by itself. The pid in
    it is for the error message alone. Raises WriterExists when another process (or another Store of this one) holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise WriterExists(
                f"process {holder} already writes to this store ({path}): SQLite takes one writing process;"
                " stop that one, or set store.url to a PostgreSQL database"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let another process write; the file stays, since removing it could race with one that just opened it."""
        os.close(self._descriptor)
