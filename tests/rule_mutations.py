"""Mutations of rules: a threshold times 1.5, a comparison turned, a window doubled, a matcher dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TURNED: Final = {">": "<", "<": ">", ">=": "<", "<=": ">"}
BEFORE_WINDOW: Final = r"(?:\[|offset |(?<=\d[dhms]):)"
"""A range, how long ago it ends, and the step of a subquery."""
MATCHER: Final = re.compile(r'(?<=[{,])\w+(?:=~|!=|=)"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Mutation:
    """What was changed, and the expression afterwards."""

    what: str
    expr: str


def mutations(expr: str) -> Iterator[tuple[str, str]]:
    """Each place of an expression by itself, for alerts on series as they are scraped."""
    for match in re.finditer(r"(>=|<=|>|<) (\d+(?:\.\d+)?)(?![\w.])", expr):
        value = float(match[2])
        if value:
            grown = f"{match[1]} {value * 1.5:.10g}"
            yield f"{match[0]} -> {grown}", expr[: match.start()] + grown + expr[match.end() :]
        yield f"{match[0]} turned", expr[: match.start()] + f"{TURNED[match[1]]} {match[2]}" + expr[match.end() :]
    for match in re.finditer(r"== (\d)", expr):
        yield f"{match[0]} turned", expr[: match.start()] + f"!= {match[1]}" + expr[match.end() :]
    for match in re.finditer(r"\[(\d+)([mhd])\]", expr):
        yield f"{match[0]} doubled", expr[: match.start()] + f"[{2 * int(match[1])}{match[2]}]" + expr[match.end() :]
    for match in MATCHER.finditer(expr):
        if match[0] == 'model!=""':
            continue  # the series of unknown models are the service's own: no alert of a model is lost or gained
        yield f"{match[0]} dropped", without(expr, match.start(), match.end())


def rule_mutations(expr: str) -> Iterator[Mutation]:
    """Mutations of a rule of an SLO, in which a matcher and a window stand in several places and mean one thing.

    A matcher is dropped, and a window doubled, wherever it stands: ``and``, ``unless`` and ``/`` compare all labels, so
    that a matcher which is dropped on one side alone changes nothing. Comparisons are changed one by one.
    """
    for match in re.finditer(r"(>=|<=|>|<) (bool )?(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)?(?=[\s)]|$)", expr):
        sign, begin, end = match[1], match.start(), match.end()
        if match[3] and float(match[3]):
            grown = f"{sign} {match[2] or ''}{float(match[3]) * 1.5:.12g}"
            yield Mutation(f"{match[0]} at {begin} -> {grown}", expr[:begin] + grown + expr[end:])
        yield Mutation(f"{match[0].strip()} at {begin} turned", expr[:begin] + TURNED[sign] + expr[begin + len(sign) :])
    for window in sorted({match[1] for match in re.finditer(rf"{BEFORE_WINDOW}([0-9dhms]+)", expr)}):
        doubled = re.sub(rf"({BEFORE_WINDOW}){window}(?![0-9dhms])", rf"\g<1>{_twice(window)}", expr)
        yield Mutation(f"{window} doubled", doubled)
    for matcher in sorted(set(MATCHER.findall(expr))):
        changed = expr
        while (found := next((one for one in MATCHER.finditer(changed) if one[0] == matcher), None)) is not None:
            changed = without(changed, found.start(), found.end())
        yield Mutation(f"{matcher} dropped", changed)


def _twice(window: str) -> str:
    return "".join(f"{2 * int(count)}{unit}" for count, unit in re.findall(r"(\d+)([dhms])", window))


def without(expr: str, begin: int, end: int) -> str:
    """The expression without the matcher that stands there."""
    rest = expr[:begin] + expr[end:]
    return re.sub(r"\{\}", "", rest.replace("{,", "{").replace(",,", ",").replace(",}", "}"))
