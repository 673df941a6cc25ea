"""The series of ``/metrics`` that tell how watched canaries stand, for controllers that ask Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from monitor.exposition import Distribution, Family
from monitor.store.canary import StoredCanary

CANARY: Final = ("model", "version", "stable")

SCORE: Final = Family(
    "segwatch_canary_score",
    "gauge",
    "Verdict on a watched canary against the stable version: 1 promote, 0 continue, -1 roll back.",
    CANARY,
)
PAIRS: Final = Family("segwatch_canary_pairs", "gauge", "Inputs with labels of both versions' records.", CANARY)
DIFFERENCE: Final = Family(
    "segwatch_canary_iou_difference_ratio",
    "gauge",
    "Pooled IoU of the canary less that of the stable version, with its 95 % interval; class is empty for the mean.",
    (*CANARY, "class", "bound"),
    "ratio",
)
COMPARED: Final = Family(
    "segwatch_canary_compared_timestamp_seconds", "gauge", "When the canary was judged last.", CANARY, "seconds"
)
REQUESTED: Final = Family(
    "segwatch_canary_rollback_requested_timestamp_seconds",
    "gauge",
    "When the canary's rollback was requested; no series where it was not.",
    CANARY,
    "seconds",
)
FAMILIES: Final = (SCORE, PAIRS, DIFFERENCE, COMPARED, REQUESTED)
METRICS: Final = ("iou", "mean_iou")

Line = tuple[Family, tuple[str, ...], float | Distribution]


class _Entry(msgspec.Struct, frozen=True):
    metric: str
    name: str | None = msgspec.field(name="class", default=None)
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None


class _Comparison(msgspec.Struct, frozen=True):
    """The part of a stored comparison that becomes metrics; its other fields are skipped."""

    score: int
    pairs: int
    classes: tuple[_Entry, ...] = ()


_DECODER = msgspec.json.Decoder(_Comparison)


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """A watched canary, as it was judged last."""

    stored: StoredCanary
    shown: _Comparison


def readings(stored: Iterable[StoredCanary]) -> list[CanaryReading]:
    """What is exported of stored comparisons."""
    return [CanaryReading(one, _DECODER.decode(one.payload)) for one in stored]


def canary_lines(reading: CanaryReading) -> Iterator[Line]:
    """Of one canary."""
    stored, shown = reading.stored, reading.shown
    labels = (stored.model, stored.canary, stored.stable)
    yield SCORE, labels, shown.score
    yield PAIRS, labels, shown.pairs
    yield COMPARED, labels, stored.compared_at_us / 1e6
    if stored.requested_at_us is not None:
        yield REQUESTED, labels, stored.requested_at_us / 1e6
    for one in shown.classes:
        if one.metric not in METRICS or one.difference is None or one.lower is None or one.upper is None:
            continue
        for bound, value in (("point", one.difference), ("lower", one.lower), ("upper", one.upper)):
            yield DIFFERENCE, (*labels, one.name or "", bound), value
