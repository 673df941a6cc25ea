"""A folder of PNG files, each the map of class indices of the input that it is named by.

The files go into the records as they are, after every pixel was looked at: an index that the model's classes neither
name nor ignore is refused. Sub-folders are read too; hidden files and those that do not end in ``.png`` are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from monitor.errors import BadRecord, InputError
from monitor.labels.files import read_inside
from monitor.labels.index_png import base64_text
from monitor.labels.records import Draft, Request, label_record, refuse, stem_of
from monitor.records.png import read_samples

MAX_FILES = 1_000_000


class PngFolder:
    """The records of a folder, in the order of the files' names; iterating reads the files, each time anew.

    Raises InputError: from the start for the folder itself, from the iteration for a file.
    """

    def __init__(self, path: Path, request: Request) -> None:
        if request.classes is None:
            raise InputError(f"{path}: a folder of PNG files needs the model's classes (names and indices)")
        if request.input_id == "id":
            raise InputError(f"{path}: input_id: PNG files have no id: take stem or file_name")
        self._path, self._request = path, request
        self._files = list_png_files(path)
        if not self._files:
            raise InputError(f"{path}: no PNG file in it")
        self._known = np.zeros(65_536, np.bool_)
        self._known[[*request.classes.indices, *request.classes.ignore]] = True

    def __iter__(self) -> Iterator[Draft]:
        for name in self._files:
            data = self._checked(name)
            input_id = stem_of(name) if self._request.input_id == "stem" else name
            yield Draft(
                ascii(name), label_record(self._request, input_id, {"semantic": {"classes_png": base64_text(data)}})
            )

    def _checked(self, name: str) -> bytes:
        limits = self._request.limits
        entry = ascii(name)
        try:
            data = read_inside(self._path, name, limits.max_image_bytes)
            indices = read_samples(data, entry, limits.max_pixels)
        except BadRecord as error:
            refuse(self._path, "", error.detail)  # it names the entry
        except InputError as error:
            refuse(self._path, entry, str(error))
        unknown = ~self._known[indices]
        if unknown.any():
            row, column = np.unravel_index(int(np.argmax(unknown)), unknown.shape)
            where = f"index {int(indices[row, column])} at row {row}, column {column}"
            refuse(self._path, entry, f"{where} is neither a class nor ignored")
        return data


def list_png_files(folder: Path) -> list[str]:
    """Paths relative to the folder, with ``/``, sorted. Raises InputError, also for a link to another folder: what
    lies behind it would be left out in silence."""
    found: list[str] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name + "/")
                    elif entry.is_dir():
                        refuse(folder, ascii(name), "is a symbolic link to a folder; give that folder itself")
                    elif entry.name.lower().endswith(".png"):
                        found.append(name)
        except OSError as error:
            refuse(folder, ascii(prefix) if prefix else "", error.strerror or "cannot be read")
        if len(found) > MAX_FILES:
            refuse(folder, "", f"more than {MAX_FILES} PNG files")
    return sorted(found)


def recognises(path: Path) -> bool:
    """Whether this is a folder."""
    return os.path.isdir(path)
