"""``segwatch slo``: SLO files from OpenSLO and Sloth, and to them, as YAML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from alerts.slo import openslo, sloth
from alerts.slo.queries import plain
from alerts.slo.spec import Slo, SpecError
from alerts.slo.write import to_dict
from monitor.errors import CheckFailed, InputError
from monitor.slo_files import SloFiles, find_files

WRITERS = {"openslo": openslo.write, "sloth": sloth.write}


def import_text(
    files: Sequence[Path], form: Literal["auto", "openslo", "sloth"], say: Callable[[str], None]
) -> tuple[str, int]:
    """Our SLO file with the SLOs of others', and how many they are; what could not be kept is said.

    Raises InputError that names file, line and field.
    """
    found = SloFiles(find_files(files), form)
    for note in found.notes:
        say(note)
    if not found.slos:
        raise InputError(f"{', '.join(map(str, files))}: no SLO in it")
    return _dump({"slos": [to_dict(slo) for slo in found.slos]}), len(found.slos)


def export_text(slos: Sequence[Slo], to: str, say: Callable[[str], None]) -> tuple[str, int]:
    """The SLOs in another tool's words, and how many have such; those that have none are said.

    Raises CheckFailed where none has, InputError where two names would become one.
    """
    kept = []
    for slo in slos:
        try:
            plain(slo)
        except SpecError as error:
            say(f"not exported: {error.message}")
            continue
        kept.append(slo)
    if not kept:
        raise CheckFailed("no SLO could be exported")
    try:
        documents, notes = WRITERS[to](kept)
    except SpecError as error:
        raise InputError(error.message) from None
    for note in notes:
        say(note)
    return "---\n".join(_dump(document) for document in documents), len(kept)


def _dump(tree: Any) -> str:
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))
