"""What Alertmanager is told, from two small files: who is told, and when it is kept quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alerts.alertmanager.maintenance import Window, parse_maintenance
from alerts.alertmanager.receivers import ROLES, Receivers, defaults, parse_receivers
from alerts.slo.spec import SpecError
from monitor.errors import InputError
from monitor.slo_files import read_documents

T = TypeVar("T")


def read_receivers(file: Path | None, pages: str) -> Receivers:
    """The receivers of a file, or the defaults. Raises InputError with file, line and field."""
    return defaults(pages) if file is None else _read(file, lambda tree: parse_receivers(tree, pages))


def read_maintenance(file: Path | None) -> list[Window]:
    """The windows of a file; none without one. Raises InputError with file, line and field."""
    return [] if file is None else _read(file, parse_maintenance)


def notes(receivers: Receivers) -> list[str]:
    """Who is not told."""
    return [f"no receiver for {role}, which is {ROLES[role]} (--receivers)" for role in receivers.silent()]


def _read(file: Path, parse: Callable[[object], T]) -> T:
    document, *more = read_documents(file)
    if more:
        raise InputError(f"{file}: expected one YAML document, got {1 + len(more)}")
    try:
        return parse(document.tree)
    except SpecError as error:
        raise document.error(error) from None
