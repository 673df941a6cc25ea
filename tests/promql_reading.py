"""Reads a panel's PromQL as far as rules about dashboards need: selectors, their matchers, ranges and functions.

That an expression is PromQL at all is left to promtool. ``$variables`` may stand in strings and ranges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
SELECTOR = re.compile(r"(?<![\w:$])(?P<name>[a-zA-Z_:][\w:]*)\s*(?P<matchers>\{[^{}]*\})?\s*(?:\[(?P<range>[^\]]*)\])?")
WORDS = {"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"}


@dataclass(frozen=True)
class Selector:
    """``within``: the function whose argument it is; "" for none. ``range``: what stands in brackets."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    range: str
    within: str


def selectors(expr: str) -> list[Selector]:
    """All of an expression.

    >>> selectors('sum by (a) (rate(x_total{job=~"$job"}[$__rate_interval])) > bool time() offset 5m')
    [Selector(name='x_total', matchers=(('job', '=~', '$job'),), range='$__rate_interval', within='rate')]
    """
    strings: list[str] = []

    def keep(match: re.Match[str]) -> str:
        strings.append(match[0][1:-1])
        return f'"{len(strings) - 1}"'

    text = LISTS.sub(" ", STRING.sub(keep, expr))
    text = re.sub(r"\boffset\s+\S+?(?=[\s)]|$)", " ", text)
    found = []
    position = 0
    while match := SELECTOR.search(text, position):
        position = match.end()
        name = match["name"]
        called = text[position:].lstrip().startswith("(") and not match["matchers"]
        if called or name.lower() in WORDS:
            position = match.end("name")
            continue
        pairs = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"', match["matchers"] or "")
        matchers = tuple((label, sign, strings[int(index)]) for label, sign, index in pairs)
        within = re.search(r"(\w+)\s*\(\s*$", text[: match.start("name")])
        found.append(Selector(name, matchers, match["range"] or "", within[1] if within else ""))
    return found
