"""Prometheus's text formats: OpenMetrics 1.0, and the classic text format 0.0.4 for older readers.

``prometheus_client.generate_latest`` takes 72 ms for 10,000 series and holds the interpreter's lock meanwhile, so that
an ingest loop in the same process stands still. Here the constant part of each line (name and escaped labels) is made
once and kept, both formats share their sample lines, and the work is done in pieces with a pause between them.

Sources: the OpenMetrics specification 1.0 (suffixes, ``# UNIT``, ``# EOF``, canonical ``le`` values) and Prometheus's
"Exposition formats". The tests read the output with prometheus_client's parsers and promtool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CLASSIC_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LINES_PER_PIECE = 100
"""Some 0.1 ms of work between two pauses: well below the 5 ms for which the ingest loop may be held up."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``name`` is the OpenMetrics family name, without ``_total`` or ``_info``."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without infinity."""

    @property
    def series_name(self) -> str:
        """The name that a reader writes in a query: with ``_total`` for counters and ``_info`` for infos."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    @property
    def lines(self) -> int:
        """Sample lines (series) of one label set: a histogram has its buckets, infinity, count and sum."""
        return len(self.bounds) + 3 if self.kind == "histogram" else 1


class Distribution(NamedTuple):
    """A histogram's value: counts by bucket (not cumulative, the last one is the overflow) and the sum."""

    counts: Sequence[int]
    sum: float


class Series(NamedTuple):
    """One label set of a family with its value."""

    labels: tuple[str, ...]
    value: float | Distribution


class Page(NamedTuple):
    """The same samples in both formats."""

    openmetrics: bytes
    classic: bytes


class Writer:
    """Renders families; keeps the constant part of lines from one rendering to the next.

    ``pause`` is called between two pieces of work, to let other threads run. Used by one thread at a time.
    """

    def __init__(self, pause: Callable[[], None] = lambda: None) -> None:
        self._pause = pause
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def render(self, families: Iterable[tuple[Family, Sequence[Series]]]) -> Page:
        """Families without any series are left out: no series says "unknown", a header says nothing.

        >>> lag = Family("lag_seconds", "gauge", "Age.", ("topic",), unit="seconds")
        >>> print(Writer().render([(lag, [Series(("a",), 1.5)])]).openmetrics.decode(), end="")
        # HELP lag_seconds Age.
        # TYPE lag_seconds gauge
        # UNIT lag_seconds seconds
        lag_seconds{topic="a"} 1.5
        # EOF
        """
        openmetrics: list[bytes] = []
        classic: list[bytes] = []
        used: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}
        for family, series in families:
            if not series:
                continue
            openmetrics.append(_openmetrics_header(family))
            classic.append(_classic_header(family))
            piece: list[str] = []
            for labels, value in series:
                key = (family.name, labels)
                prefixes = used[key] = self._kept.get(key) or _prefixes(family, labels)
                if isinstance(value, Distribution):
                    _append_distribution(piece, prefixes, value)
                else:
                    piece.append(prefixes[0] + _number(value))
                if len(piece) >= LINES_PER_PIECE:
                    _flush(piece, openmetrics, classic)
                    self._pause()
            _flush(piece, openmetrics, classic)
        self._kept = used
        openmetrics.append(b"# EOF\n")
        return Page(b"".join(openmetrics), b"".join(classic))


def _flush(piece: list[str], *outputs: list[bytes]) -> None:
    if piece:
        text = ("\n".join(piece) + "\n").encode("utf-8", "replace")
        for output in outputs:
            output.append(text)
        piece.clear()


def _append_distribution(piece: list[str], prefixes: tuple[str, ...], value: Distribution) -> None:
    count = 0
    for prefix, count in zip(prefixes, accumulate(value.counts), strict=False):
        piece.append(f"{prefix}{count}")
    piece.append(f"{prefixes[-2]}{count}")
    piece.append(prefixes[-1] + _number(value.sum))


def _prefixes(family: Family, labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(labels) != len(family.labels):
        raise ValueError(f"{family.name} has labels {family.labels}, got {len(labels)} values")
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(family.labels, labels, strict=True))
    braced = f"{{{inner}}} " if inner else " "
    if family.kind != "histogram":
        return (family.series_name + braced,)
    comma = inner + "," if inner else ""
    bounds = [*(repr(float(bound)) for bound in family.bounds), "+Inf"]
    return (
        *(f'{family.name}_bucket{{{comma}le="{bound}"}} ' for bound in bounds),
        f"{family.name}_count{braced}",
        f"{family.name}_sum{braced}",
    )


def _openmetrics_header(family: Family) -> bytes:
    unit = f"# UNIT {family.name} {family.unit}\n" if family.unit else ""
    return (
        f"# HELP {family.name} {_escape(family.help)}\n# TYPE {family.name} {family.kind}\n{unit}"
    ).encode()


def _classic_header(family: Family) -> bytes:
    kind = "gauge" if family.kind == "info" else family.kind
    help_text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {family.series_name} {help_text}\n# TYPE {family.series_name} {kind}\n".encode()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """Integers exactly, floats by their shortest form; infinities and NaN in the formats' spelling.

    >>> [_number(value) for value in (12_345_678_901, 0.1, float("inf"), float("nan"))]
    ['12345678901', '0.1', '+Inf', 'NaN']
    """
    if isinstance(value, int):
        return str(int(value))
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)


def accepts_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header prefers OpenMetrics 1.0 (as Prometheus 2 and 3 do) to the classic format.

    >>> accepts_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3")
    True
    >>> accepts_openmetrics("application/openmetrics-text;version=1.0.0;q=0,*/*"), accepts_openmetrics("*/*")
    (False, False)
    """
    quality = {"openmetrics": 0.0, "plain": 0.0}
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            weight = float(values.get("q", "1"))
        except ValueError:
            weight = 0.0
        if kind == "application/openmetrics-text" and values.get("version", "1.0.0") in ("1.0.0", "0.0.1"):
            quality["openmetrics"] = max(quality["openmetrics"], weight)
        elif kind in ("text/plain", "text/*"):
            quality["plain"] = max(quality["plain"], weight)
    return quality["openmetrics"] > 0 and quality["openmetrics"] >= quality["plain"]
