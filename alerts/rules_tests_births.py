"""promtool tests of counters that are born: recorded when they are, counted once, and no hole is a birth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from alerts.rules import Case, Check
from alerts.rules_tests_counts import BEGIN, DECOY, PACE, bad_pace, decoys, labels_of, moment, pace, single, written
from alerts.slo.kinds import Example, born_over_s, events, siblings
from alerts.slo.promql import (
    BEFORE,
    BIRTH,
    BORN_WITH,
    DOUBTED,
    FIRST,
    UNBORN,
    duration,
    parse_duration,
    quote,
    tile_s,
)
from alerts.slo.render import BAD, EVENTS, PERIOD_BAD, PERIOD_EVENTS, of, windows
from alerts.slo.spec import Slo
from alerts.slo.windows import HOUR, fit

LIKELY: Final = 0.4 * UNBORN
"""Of the counter that has most at its first sample."""
UNLIKELY: Final = 1.2 * UNBORN
"""A total from before."""
AGO_S: Final = 480
"""Recorded births are looked at for so long, and not for twice as long; an instant selector does not see them."""


def cases(slo: Slo) -> list[Case]:
    """None where the SLO has no counters, or its queries are somebody's own."""
    if not events(slo).born or not events(slo).examples:
        return []
    sizes = [(size, EVENTS + duration(size), BAD + duration(size)) for size in windows(slo, fit(slo))]
    sizes.append((slo.period_s, PERIOD_EVENTS, PERIOD_BAD))
    return [*_recorded(slo), *(case for size in sizes for case in _counted(slo, *size))]


def _matches(selector: str, series: str) -> bool:
    """Whether a selector takes in a series."""
    if selector.partition("{")[0].strip() != series.partition("{")[0]:
        return False
    labels = labels_of(series)
    matchers = re.findall(r'(\w+)\s*(=~|!=|=)\s*"((?:[^"\\]|\\.)*)"', selector)
    return all(_holds(labels.get(name, ""), operator, value) for name, operator, value in matchers)


def _holds(own: str, operator: str, value: str) -> bool:
    if operator == "=~":
        return re.fullmatch(value.replace("\\\\", "\\"), own) is not None
    return (own == value) == (operator == "=")


def _counters(slo: Slo) -> list[tuple[Example, int]]:
    """The examples that are counted for their events, each with the number of the counter that takes it in."""
    return [
        (example, index)
        for index, selector in enumerate(events(slo).born)
        for example in events(slo).examples
        if _matches(selector, example.series)
    ]


def _first(slo: Slo, example: Example) -> float:
    """What an example has at its first sample, all of them together at the pace of the tests."""
    return LIKELY * pace(example) / max(pace(one) for one, _ in _counters(slo))


def _of_birth(slo: Slo, metric: str, example: Example, counter: int | str, name: str = "") -> str:
    labels = {**labels_of(example.series), "slo": quote(name or slo.name)[1:-1], "counter": str(counter)}
    return written(metric, labels)


def _at(step_s: int, *samples: tuple[int, float]) -> str:
    """Samples at moments (seconds), in steps."""
    text, reached = "", 0
    for moment_s, value in samples:
        missing = moment_s // step_s - reached
        text += (f" _x{missing}" if missing else "") + f" {value:.10g}"
        reached += missing + 1
    return text.strip()


def _recorded(slo: Slo) -> Iterator[Case]:
    period = born_over_s(slo)
    tile, week = tile_s(period), parse_duration(BEFORE)
    half = tile // 2
    at, own = max(moment(slo, 2 * period), period + 2 * week) // half * half, _counters(slo)
    begin = (at - period + 4 * tile) // (2 * tile) * 2 * tile  # a tile of twice the length begins there
    every, listed = duration(at), f"{{slo={quote(slo.name)}}}"

    def case(what: str, texts: dict[str, str], up: str, born: int, counted: bool, unlikely: int = 0) -> Case:
        checks = [Check(every, f"count({BIRTH}{listed})", born or None)]
        checks.append(Check(every, f"count({DOUBTED}{listed})", unlikely or None))
        if not counted:
            checks.append(Check(every, f"{BORN_WITH}{listed}", None))
        for index in {number for _, number in own} if counted else ():
            total = sum(_first(slo, one) for one, number in own if number == index)
            query = f'sum({BORN_WITH}{{slo={quote(slo.name)},counter="{index}"}})'
            checks.append(Check(every, single(query, total), 1))
        series = {**texts, "up": up, "begin": BEGIN}
        return Case(f"{slo.name}: {what}", series, checks, interval=duration(half), every=every)

    def given(*samples: tuple[int, float]) -> dict[str, str]:
        """Moments, and shares of what each has at its first sample."""
        return {
            one.series: _at(half, *((moment_s, share * _first(slo, one)) for moment_s, share in samples))
            for one, _ in own
        }

    born, scraped, all_of = begin + tile + half, _at(half, (begin + half, 1)), len(own)
    others = {text: _at(half, (born, LIKELY)) for one, _ in own for text in decoys(slo, one.series)}
    yield case("born in the tile after the target's first", {**given((born, 1)), **others}, scraped, all_of, True)
    strange = {
        _of_birth(slo, BIRTH, one, counter, name): _at(half, (at, begin))
        for one, index in own
        for counter, name in ((index, DECOY), ("9", slo.name))
    }
    strange |= {_of_birth(slo, FIRST, one, index, DECOY): _at(half, (at, 9 * UNBORN)) for one, index in own}
    same = {**given((begin + half, 1), (born, 1)), **strange}
    yield case("as old as its target", same, scraped, len({_of_birth(slo, BIRTH, one, "9") for one, _ in own}), False)
    older = at - 3 * period // 2
    steady = _at(half, (older - 2 * tile, 1), (at - period + half, 1), (at, 1))
    yield case("born before the period", given((older, 1), (at - period + half, 1), (at, 1)), steady, 0, False)
    back = at - period - week
    yield case("back after the week", given((back - week // 2, 0.1), (born, 1)), scraped, all_of, True)
    yield case("back within the week", given((back + week // 2, 0.1), (born, 1)), scraped, 0, False)
    known = {_of_birth(slo, BIRTH, one, index): _at(half, (at, begin)) for one, index in own if period // 2 <= week}
    yield case("with what it had in the period", {**given((older, 0.1), (born, 1)), **known}, scraped, all_of, True)
    total = _at(half, (born, UNLIKELY))
    many = {one.series: total for one, _ in own}
    yield case("with a total from before", many, scraped, all_of, False, all_of)
    for text in many if len(many) > 1 else ():
        count, found = sum(one.series == text for one, _ in own), {**given((born, 1)), text: total}
        yield case(f"with a total from before of {text}", found, scraped, all_of, False, count)
    longer = {text: _at(half, (older, 9 * UNBORN), (born, UNLIKELY)) for text in many}
    yield case("with a total from before, after a greater one", {**longer, **known}, scraped, all_of, False, all_of)
    foreign = dict.fromkeys(_elsewhere(slo, many), total)
    count = sum(_matches(selector, text) for selector in events(slo).born for text in foreign)
    foreign |= {f'up{{{name}="{DECOY}"}}': scraped for name in ("job", "instance")}
    foreign |= {_of_birth(slo, DOUBTED, one, index, DECOY): _at(half, (at, UNLIKELY)) for one, index in own}
    others = {**given((born, 1)), **foreign}
    yield case("where others have totals from before", others, scraped, all_of + count, True, count)


def _elsewhere(slo: Slo, series: Iterable[str]) -> Iterator[str]:
    """Series that differ in one label from those that are born together with a series."""
    for text in series:
        for name in siblings(slo).split(", "):
            other = quote(slo.classes[-1])[1:-1] if name == "class" and slo.classes[1:] else DECOY
            yield written(text.partition("{")[0], {**labels_of(text), name: other})


def _counted(slo: Slo, size: int, total: str, bad: str) -> Iterator[Case]:
    """What is born within a window counts in it, and what is known to be older does not."""
    tile = tile_s(born_over_s(slo))
    at, step = moment(slo, size + 2 * tile), 60 if size < 12 * HOUR else AGO_S // 2
    own = _counters(slo)
    ratio = LIKELY / max(pace(one) for one, _ in own)
    counts = {total: ratio * PACE, bad: ratio * bad_pace(slo, tuple(one for one, _ in own))}

    def case(what: str, before_s: int, age_s: int, ago_s: int, counted: bool) -> Case:
        series = {one.series: _at(step, (at - size - before_s, 1), (at - step, 1), (at, 1)) for one, _ in own}
        for one, index in own:
            for counter, name, times in ((index, slo.name, 1), (index, DECOY, 50), ("9", slo.name, 50)):
                born = {BIRTH: float(at - age_s), BORN_WITH: times * _first(slo, one)}
                series |= {
                    _of_birth(slo, metric, one, counter, name): _at(step, (at - ago_s, value))
                    for metric, value in born.items()
                }
        series["begin"], every = BEGIN, duration(at)
        checks = [
            Check(
                every,
                single(of(slo, metric), value) if counted else f"max({of(slo, metric)}) > 0",
                1 if counted else None,
            )
            for metric, value in counts.items()
        ]
        return Case(f"{slo.name}: {what} of {duration(size)}", series, checks, interval=duration(step), every=every)

    inside = size - step
    yield case("born in the window", 3 * tile // 2, inside, AGO_S, True)
    yield case("seen before the window", tile // 2, inside, AGO_S, False)
    yield case("born before the window", 3 * tile // 2, size + step, AGO_S, False)
    yield case("recorded too long ago to be born in the window", 3 * tile // 2, inside, 2 * AGO_S, False)
