"""Images as files in a folder."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from monitor.images.names import DAY, ImageName
from monitor.images.protocol import ImageStoreError

TEMPORARY = ".tmp-"
LEFT_OVER_S = 3600.0
"""Half-written files of a process that was killed are removed once they are older than this."""
_DAY = re.compile(DAY)


class LocalImages:
    """Implements ``monitor.images.protocol.ImageStore``.

    A file is written under another name, synced, and then linked to its own, which fails where there is one: readers
    and a process that is killed never see half a file. Readable by its owner alone.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def describe(self) -> str:
        return str(self._root)

    def put(self, name: ImageName, data: bytes) -> bool:
        path = self._path(name)
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            descriptor = self._create(temporary)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._failed(error) from None
        return True

    def get(self, name: ImageName) -> bytes | None:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None

    def has(self, name: ImageName) -> bool:
        return self._path(name).is_file()

    def delete(self, names: Iterable[ImageName]) -> int:
        count = 0
        for name in names:
            path = self._path(name)
            try:
                path.unlink()
                count += 1
            except FileNotFoundError:
                pass
            except OSError as error:
                raise self._failed(error) from None
            self._prune(path.parent)
        return count

    def days(self) -> list[str]:
        try:
            return sorted(one.name for one in os.scandir(self._root) if _DAY.fullmatch(one.name) and one.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(error) from None

    def names(self, day: str) -> Iterator[ImageName]:
        folder = self._root / day
        if not _DAY.fullmatch(day) or not folder.is_dir():
            return
        try:
            for parent in sorted(one for one in folder.glob("*/*") if one.is_dir()):
                for file in sorted(entry.name for entry in os.scandir(parent)):
                    name = ImageName.parse(f"{parent.relative_to(self._root).as_posix()}/{file}")
                    if name is not None:
                        yield name
                    elif file.startswith(TEMPORARY):
                        self._remove_left_over(parent / file)
        except OSError as error:
            raise self._failed(error) from None

    def _path(self, name: ImageName) -> Path:
        text = str(name)
        if ImageName.parse(text) != name:
            raise ValueError(f"not the name of an image: {text!r}")
        return self._root / text

    def _create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:  # the day's first, or expiry has just taken the empty folder
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _prune(self, folder: Path) -> None:
        """Remove folders that have become empty, up to the day's."""
        for _ in range(3):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _remove_left_over(self, path: Path) -> None:
        try:
            if time.time() - path.stat().st_mtime > LEFT_OVER_S:
                path.unlink()
        except FileNotFoundError:
            pass

    def _failed(self, error: OSError) -> ImageStoreError:
        return ImageStoreError(f"{self._root}: {error.strerror or type(error).__name__}")
