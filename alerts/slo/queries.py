"""Queries of events as other tools write them: ours to theirs, and theirs to those of kind ``ratio``.

Sloth's queries give events, or events a second, of ``{{.window}}``; tools around OpenSLO took the same placeholder.
Events are wanted here: guards and budgets need numbers. ``rate`` is ``increase`` over the window's seconds, so that an
expression of rates in which nothing but the scale changes becomes one of events by writing ``increase`` for ``rate``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from alerts.slo.kinds import SELECTOR, WINDOW, events, parts
from alerts.slo.spec import Ratio, Slo, SpecError

THEIRS: Final = "{{.window}}"
PLACEHOLDER: Final = re.compile(r"\{\{-?\s*\.window\s*-?\}\}")
STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
COUNTED: Final = re.compile(rf"(rate|increase)\s*\(\s*({SELECTOR.pattern})\s*\[\$window\]\s*\)")
OVER: Final = re.compile(r"\b(\w+)\s*\(")
OR_ZERO: Final = re.compile(r"\s+or(?:\s+on\s*\(\s*\))?\s+vector\s*\(\s*0\s*\)$", re.IGNORECASE)
PER_WINDOW: Final = frozenset({"increase", "count_over_time", "sum_over_time"})
NO_COUNTS: Final = re.compile(
    r"irate|idelta|delta|deriv|(?:avg|min|max|last|quantile|stddev|stdvar|present|absent|mad)_over_time"
    r"|changes|resets|predict_linear|holt_winters"
)
RANGE: Final = re.compile(r"\[\s*(\d+[smhdwy])\s*\]")


@dataclass(frozen=True, slots=True)
class Queries:
    """All events, and the good or the bad ones: exactly one of ``good`` and ``bad`` is set.

    ``counters``: the counters themselves, added up; else expressions over ``{{.window}}``.
    """

    total: str
    good: str = ""
    bad: str = ""
    counters: bool = False


def plain(slo: Slo) -> Queries:
    """An SLO's counters where it has such, else expressions. Raises SpecError for kinds that count no shares."""
    own = events(slo).counters
    if own is not None:
        added = _added(own.by)
        return Queries(added(own.total), own.good and added(own.good), own.bad and added(own.bad), counters=True)
    source = slo.source
    if isinstance(source, Ratio) and WINDOW not in source.total + source.good + source.bad:
        return Queries(_sums(source.total), _sums(source.good), _sums(source.bad), counters=True)
    return windowed(slo)


def windowed(slo: Slo) -> Queries:
    """An SLO's events of ``{{.window}}``. Raises SpecError for kinds that count no shares."""
    found = events(slo)
    if not slo.bounded:
        raise SpecError(
            (*slo.path, "kind"), f"SLO {slo.name!r}: {slo.kind} has a limit, not a share of good events: no other form"
        )
    if found.state:
        return Queries(
            f"count_over_time(({found.state})[{THEIRS}:1m])", bad=f"sum_over_time(({found.state})[{THEIRS}:1m])"
        )
    own = found.counters
    if own is not None:
        added = _added(own.by)
        total, good, bad = (text and added(f"increase({text}[{THEIRS}])") for text in (own.total, own.good, own.bad))
        return Queries(total, good, bad)
    assert isinstance(slo.source, Ratio)
    bad = _over(slo.source.bad)
    # Rules of others have no ratio while nothing has failed yet and the counter of failures is not there.
    return Queries(_over(slo.source.total), _over(slo.source.good), bad and f"{bad} or vector(0)")


def _added(by: str) -> Callable[[str], str]:
    return lambda text: f"sum by ({by}) ({text})" if by else f"sum({text})"


def _sums(text: str) -> str:
    return " + ".join(f"sum({part})" for part in parts(text)) if text else ""


def _over(text: str) -> str:
    if WINDOW in text:
        return text.replace(WINDOW, THEIRS)
    return " + ".join(f"sum(increase({part}[{THEIRS}]))" for part in parts(text)) if text else ""


def tidy(query: str) -> str:
    """One line, without comments, and ``$window`` for the placeholder. Raises ValueError for other templates."""
    lines = [line[: len(_blanked(line).partition("#")[0])].strip() for line in query.splitlines()]
    text = PLACEHOLDER.sub(WINDOW, " ".join(line for line in lines if line))
    if "{{" in text:
        raise ValueError("a template other than {{.window}}, and only that is known here")
    return _bare(text)


def _blanked(text: str) -> str:
    """The text with the inside of every string blanked: as long as before."""
    return STRING.sub(lambda found: '"' + "_" * (len(found[0]) - 2) + '"', text)


def _bare(text: str) -> str:
    """Without parentheses around the whole."""
    text = text.strip()
    while text.startswith("(") and _closing(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closing(text: str) -> int:
    """Where the parenthesis that the text begins with is closed; -1: nowhere."""
    depth = 0
    for position, letter in enumerate(_blanked(text)):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position
    return -1


def split(text: str, operator: str) -> list[str]:
    """The parts that a binary operator joins outside of brackets, each without parentheses around it.

    >>> split('(sum(a{b="x-y"}) - sum(c - d))', "-")
    ['sum(a{b="x-y"})', 'sum(c - d)']
    """
    text = _bare(text)
    depth, begin, found = 0, 0, []
    for position, letter in enumerate(_blanked(text)):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and letter == operator:
            found.append(text[begin:position])
            begin = position + 1
    return [_bare(part) for part in [*found, text[begin:]]]


def counter(query: str) -> str:
    """``sum(a) + sum(b)`` or ``a`` of plain counters as a ratio has them: ``a + b``. Raises ValueError."""
    found = []
    for part in split(tidy(OR_ZERO.sub("", query.strip())), "+"):
        summed = re.fullmatch(r"sum\s*\((.*)\)", part, re.DOTALL)
        text = _bare(summed[1] if summed else part)
        if not SELECTOR.fullmatch(text):
            raise ValueError(f"expected a counter, or a sum of one, got {text!r}")
        found.append(text)
    return " + ".join(found)


def of_window(query: str) -> str:
    """Events, or events a second, of ``{{.window}}`` as a ratio has them: a counter, or an expression over ``$window``.

    Raises ValueError where the query gives no number of events.

    >>> of_window('sum(rate(http_requests_total{code="500"}[{{.window}}])) or vector(0)')
    'http_requests_total{code="500"}'
    """
    text = OR_ZERO.sub("", tidy(query))
    if f"[{WINDOW}" not in text:
        raise ValueError(f"expected {THEIRS} in brackets, as in rate(requests_total[{THEIRS}])")
    found = []
    for part in split(text, "+"):
        summed = re.fullmatch(r"sum\s*\((.*)\)", part, re.DOTALL)
        inside = COUNTED.fullmatch(_bare(summed[1])) if summed else None
        if inside is None:
            return _expression(text)
        found.append(inside[2].strip())
    return " + ".join(found)


def per_second(query: str) -> bool:
    """Whether a query gives events a second rather than events."""
    return bool(re.search(r"\brate\s*\(", _blanked(query)))


def _expression(text: str) -> str:
    bare = _blanked(text)
    names = set(OVER.findall(bare))
    wrong = sorted(name for name in names if NO_COUNTS.fullmatch(name))
    if wrong:
        raise ValueError(f"{wrong[0]} gives no number of events; rate, increase, count_over_time, sum_over_time do")
    if "rate" not in names:
        return text
    if names & PER_WINDOW:
        raise ValueError("rate counts by the second, and another function by the window: write increase for rate")
    plain = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", "", bare)
    scaled = re.sub(r"[*/]\s*\d+(?:\.\d+)?(?![\w.(])|(?<![\w.)])\d+(?:\.\d+)?\s*\*", "", plain)
    if re.search(r"[<>/%^*]|[!=]=", scaled):
        raise ValueError("comparing or dividing rates gives no events: write increase for rate and say what is meant")
    return _replaced(text, bare)


def _replaced(text: str, bare: str) -> str:
    """``increase`` for ``rate``, outside of strings."""
    found, begin = "", 0
    for match in re.finditer(r"\brate(?=\s*\()", bare):
        found += text[begin : match.start()] + "increase"
        begin = match.end()
    return found + text[begin:]


def with_placeholder(query: str) -> tuple[str, str]:
    """A query over one fixed range, with the placeholder in its place, and that range ("" where there is none).

    Raises ValueError where there are several.
    """
    if PLACEHOLDER.search(query):
        return query, ""
    ranges = set(RANGE.findall(_blanked(query)))
    if len(ranges) > 1:
        raise ValueError(f"several ranges ({', '.join(sorted(ranges))}): write {THEIRS} where the window belongs")
    return RANGE.sub(f"[{THEIRS}]", query), next(iter(ranges), "")
