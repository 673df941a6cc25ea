"""Pages from templates: everything that they are given is escaped."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import resources
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from dashboards.addresses import map_path, model_path, picture_path, sample_path, window_path
from monitor.version import __version__
from monitor.web_gate import person_of


def page(request: Request, name: str, status: int = 200, /, **given: Any) -> Response:
    """A page for whoever asks."""
    person = person_of(request.scope)
    here = request.url.path
    text = templates().get_template(name).render(version=__version__, person=person, here=here, **given)
    # A record's text may hold lone surrogates, which UTF-8 cannot say.
    return Response(text.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8")


def missing(request: Request, what: str) -> Response:
    """404, for people."""
    return page(request, "missing.html", 404, what=what)


def style_sheet() -> Response:
    return Response(_style(), media_type="text/css", headers={"cache-control": "private, max-age=300"})


@cache
def templates() -> Environment:
    """The pages' templates."""
    environment = Environment(
        loader=PackageLoader("dashboards"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "minute": minute, "shown": shown, "percent": percent}
    environment.filters |= {"ratio": ratio, "words": words}
    environment.globals |= {
        "model_path": model_path,
        "window_path": window_path,
        "map_path": map_path,
        "sample_path": sample_path,
        "picture_path": picture_path,
    }
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """Short; a dash for what is absent.

    >>> number(0.012345), number(None)
    ('0.0123', '–')
    """
    return "–" if value is None else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """A share for people.

    >>> percent(0.072), percent(None)
    ('7 %', '–')
    """
    return "–" if value is None else f"{value:.0%}".replace("%", " %")


def ratio(value: float | None) -> str:
    """A share of which the last digits count, such as an objective.

    >>> ratio(0.9995), ratio(0.95), ratio(None)
    ('99.95 %', '95 %', '–')
    """
    return "–" if value is None else f"{100 * value:.6g} %"


def minute(time: str | None) -> str:
    """An RFC 3339 time in UTC to the minute, for people.

    >>> minute("2026-11-23T02:45:00Z")
    '2026-11-23 02:45'
    """
    return "–" if time is None else time[:16].replace("T", " ")


def words(name: str | None) -> str:
    """A name of the code's as words.

    >>> words("too_few_labels")
    'too few labels'
    """
    return "" if name is None else name.replace("_", " ")


def shown(text: object) -> str:
    r"""A name from a record as text: marks that steer (direction, control) are spelt out, so that they cannot make it
    look like another.

    >>> shown("a\u202eb\n")
    'a\\u202eb\\n'
    """
    return "".join(
        one if unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else _spelt(one)
        for one in str(text)
    )


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


@cache
def _style() -> bytes:
    return resources.files("dashboards").joinpath("static", "style.css").read_bytes()
