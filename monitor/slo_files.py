"""SLO files: YAML (or JSON) in, SLOs out; every error names the file, the line and the field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml

from alerts.slo import openslo, sloth
from alerts.slo.foreign import Imported
from alerts.slo.parse import check_names, parse
from alerts.slo.spec import Slo, SpecError
from monitor.errors import InputError

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Aliases are written out when read: a few bytes of them can stand for millions of nodes."""

Steps = tuple[str | int, ...]


class Document:
    """One YAML document: its tree, and the line of each field."""

    def __init__(self, file: Path, node: yaml.Node, loader: yaml.SafeLoader) -> None:
        self.file = file
        self._loader = loader
        self._lines: dict[Steps, int] = {}
        self._count = 0
        self.tree = self._build(node, ())

    def error(self, error: SpecError) -> InputError:
        """The error with its place: that of the field, or of what should hold it."""
        path = error.path
        while path and path not in self._lines:
            path = path[:-1]
        field = f"{error.field}: " if error.path else ""
        return InputError(f"{self.file}:{self._lines[path]}: {field}{error.message}")

    def _build(self, node: yaml.Node, path: Steps) -> Any:
        self._count += 1
        if self._count > MAX_NODES or len(path) > 20:
            raise InputError(f"{self.file}:{node.start_mark.line + 1}: too many or too deeply nested values")
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            where = f"{self.file}:{node.start_mark.line + 1}"
            raise InputError(f"{where}: {' '.join(str(error).split())[:200]}") from None

    def _build_mapping(self, node: yaml.MappingNode, path: Steps) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in found:
                raise InputError(f"{self.file}:{line}: {key} stands there twice")
            self._lines[(*path, key)] = line
            found[key] = self._build(value_node, (*path, key))
        return found


def read_documents(file: Path) -> list[Document]:
    """The YAML documents of a file. Raises InputError that names file and line."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{file}: {len(data)} bytes, at most {MAX_BYTES}")
    try:
        loader = yaml.SafeLoader(data.decode("utf-8"))
        found = []
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                found.append(Document(file, node, loader))
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{file}{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not found:
        raise InputError(f"{file}: nothing is in it")
    return found


class SloFiles:
    """SLOs with the documents that they came from, so that errors found later have a place, too.

    Documents of OpenSLO and of Sloth are told from ours by what they say of themselves. ``notes``: what of them could
    not be kept.
    """

    def __init__(self, files: Iterable[Path], form: Literal["auto", "openslo", "sloth"] = "auto") -> None:
        """Raises InputError for a file that cannot be read, an SLO that is wrong, or a name that comes twice.

        ``form``: what all documents must be.
        """
        self._documents = [document for file in files for document in read_documents(file)]
        self.slos: list[Slo] = []
        self.notes: list[str] = []
        with self._placed_errors():
            self._read(form)
        self.check(check_names)

    def _read(self, form: str) -> None:
        foreign: dict[int, Any] = {}
        for number, document in enumerate(self._documents):
            found = "openslo" if openslo.is_openslo(document.tree) else "sloth" if sloth.is_sloth(document.tree) else ""
            if form not in ("auto", found):
                raise SpecError((number,), f"expected a document of {form}")
            if found == "openslo":
                foreign[number] = document.tree
            elif found == "sloth":
                self._take(sloth.read(document.tree, number))
            else:
                self.slos += self._ours(number)
        self._take(openslo.read(foreign))  # all together, since one may name another
        self.slos.sort(key=lambda slo: slo.path[0])

    def _ours(self, number: int) -> list[Slo]:
        try:
            parsed = parse(self._documents[number].tree)
        except SpecError as error:
            raise SpecError((number, *error.path), error.message) from None
        # The document's number goes before the path while SLOs of several are together.
        return [replace(slo, path=(number, *slo.path)) for slo in parsed]

    def _take(self, found: Imported) -> None:
        self.slos += found.slos
        self.notes += [str(self.placed(SpecError(note.path, note.message))) for note in found.notes]

    def check(self, check: Any, *arguments: Any) -> None:
        """Run a check over all SLOs; its SpecError becomes an InputError with file and line."""
        with self._placed_errors():
            check(self.slos, *arguments)

    @contextmanager
    def _placed_errors(self) -> Iterator[None]:
        try:
            yield
        except SpecError as error:
            raise self.placed(error) from None

    def placed(self, error: SpecError) -> InputError:
        """The error of an SLO with its file and line."""
        position, *rest = error.path
        assert isinstance(position, int)
        return self._documents[position].error(SpecError(tuple(rest), error.message))


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders as the YAML and JSON files in them. Raises InputError for an empty folder."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml", ".json"))
            if not inside:
                raise InputError(f"{path}: no .yaml, .yml or .json file in it")
            found += inside
        else:
            found.append(path)
    return found
