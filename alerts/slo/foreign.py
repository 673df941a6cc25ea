"""What importing from other tools' SLO files shares, and what our exports say of themselves in an annotation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alerts.slo.parse import parse
from alerts.slo.queries import windowed
from alerts.slo.spec import Slo, SpecError
from alerts.slo.write import to_dict

Path = tuple[str | int, ...]

ANNOTATION: Final = "segwatch_slo"
"""Annotation with the fields of our SLO file that the other form has no words for, as JSON."""

NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Note:
    """What could not be kept. ``path``: as in SpecError, the number of the document first."""

    path: Path
    message: str


@dataclass(slots=True)
class Imported:
    """SLOs with what was lost on the way."""

    slos: list[Slo] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def lose(self, tree: Mapping[str, Any], path: Path, known: set[str], why: str) -> None:
        """Note every field of a mapping that is not known."""
        self.notes += [Note((*path, key), f"not kept: {why}") for key in tree if key not in known]


def mapping(tree: Any, path: Path) -> dict[str, Any]:
    """Raises SpecError for anything but a mapping."""
    if not isinstance(tree, dict):
        raise SpecError(path, f"expected a mapping, got {tree!r}")
    return tree


def needed(tree: Mapping[str, Any], key: str, path: Path) -> Any:
    """Raises SpecError where the key is missing."""
    if key not in tree:
        raise SpecError(path, f"{key} is missing")
    return tree[key]


def text(value: Any, path: Path) -> str:
    """Raises SpecError for anything but a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise SpecError(path, f"expected a text, got {value!r}")
    return value


def share(value: Any, path: Path, *, percent: bool) -> float:
    """A ratio above 0 and below 1. Raises SpecError."""
    top = 100 if percent else 1
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < top:
        raise SpecError(path, f"expected a number above 0 and below {top}, got {value!r}")
    return round(float(value) / top, 12)  # 99.9 / 100 is 0.9990000000000001


def percent(objective: float) -> float:
    """A ratio in per cent, without noise from floating point."""
    return round(100 * objective, 10)


def name_of(*words: str) -> str:
    """A name that we allow from those of other tools, which may have other letters.

    >>> name_of("my/service", "availability")
    'my-service-availability'
    """
    found = re.sub(r"[^a-zA-Z0-9_.-]+", "-", "-".join(word for word in words if word)).strip("-")
    return (found if NAME.match(found) else f"slo-{found}")[:100]


def slug(name: str) -> str:
    """A name of RFC 1123, which OpenSLO and Sloth both allow: lower case, digits and ``-``, at most 63.

    >>> slug("Street.Cars_2")
    'street-cars-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-") or "segwatch"


def check_slugs(slos: Iterable[Slo]) -> None:
    """Raises SpecError where two names differ only in what other tools do not allow."""
    seen: dict[str, str] = {}
    for slo in slos:
        other = seen.setdefault(slug(slo.name), slo.name)
        if other != slo.name:
            raise SpecError((*slo.path, "name"), f"{slo.name!r} and {other!r} would both become {slug(slo.name)}")


def annotate(slo: Slo, *spoken: str) -> str:
    """The annotation of an SLO: all its fields but those that the other form says itself."""
    kept = {key: value for key, value in to_dict(slo).items() if key not in ("objective", "description", *spoken)}
    # Annotations of alerts are templates: two braces would begin one.
    return json.dumps(kept).replace("{{", "{\\u007b")


def restore(annotation: Any, said: Mapping[str, Any], path: Path, paths: Mapping[str, Path]) -> Slo:
    """The SLO of an annotation, with what the other form says itself (``said``) in the place of what it said then.

    ``paths``: where those fields stand, for errors. Raises SpecError.
    """
    try:
        kept = json.loads(annotation)
    except (TypeError, ValueError, RecursionError):
        raise SpecError(
            path, "expected what segwatch slo export writes there; without it the queries are read"
        ) from None
    kept = mapping(kept, path)
    if slug(str(kept.get("name"))) == said["name"]:
        said = {**said, "name": kept["name"]}
    try:
        (slo,) = parse({**kept, **said})
    except SpecError as error:
        where = paths.get(str(error.path[0]), path) if error.path else path
        raise SpecError(where, error.message) from None
    windowed(slo)
    return slo
