"""The series of ``/metrics`` that come from labels: spot checks as counters, quality as gauges with their bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from monitor import tallies
from monitor.exposition import Distribution, Family

VERSION: Final = ("model", "version")
CLASS: Final = (*VERSION, "class")

LABELS = Family("segwatch_labels", "counter", "Labels read, by what became of them.", ("outcome",))
LABEL_JOINS = Family(
    "segwatch_label_joins",
    "counter",
    "Labels held against predictions: joined, bad, or too late to be joined or to correct what was.",
    (*VERSION, "outcome"),
)
LABEL_DELAY = Family(
    "segwatch_label_delay_seconds",
    "histogram",
    "From a record's event to its label, of labels that were joined.",
    VERSION,
    "seconds",
    tallies.DELAY_BUCKETS,
)
PAIRS = Family(
    "segwatch_annotator_pairs",
    "counter",
    "Instances that two annotators looked for: both have them (agree) at an IoU of 0.5, or one of them (disagree).",
    (*CLASS, "verdict"),
)
IMAGES = Family("segwatch_spotcheck_images", "counter", "Records spot-checked, of the uniform stream.", VERSION)
INSTANCES = Family(
    "segwatch_spotcheck_instances",
    "counter",
    "Instances of spot-checked records: found (tp), invented (fp) or missed (fn) at an IoU of 0.5.",
    (*CLASS, "verdict"),
)
IOU_HISTOGRAM = Family(
    "segwatch_spotcheck_iou_ratio",
    "histogram",
    "IoU of each labelled instance, 0 where it was missed; of a semantic map one for each image and class.",
    CLASS,
    "ratio",
    tallies.IOU_BUCKETS,
)
CORRECTIONS = Family(
    "segwatch_spotcheck_corrections",
    "counter",
    "Verdicts on instances that a later annotation changed.",
    (*CLASS, "from", "to"),
)
LAST_LABEL = Family(
    "segwatch_last_label_timestamp_seconds", "gauge", "Label time of the newest label with the class.", CLASS, "seconds"
)
IOU = Family(
    "segwatch_iou_ratio",
    "gauge",
    "Pooled IoU of the last quality.window_days with its 95 % interval; no series where there is no honest number.",
    (*CLASS, "estimator", "bound"),
    "ratio",
)

SERVICE: Final = (LABELS,)
QUALITY: Final = (LABEL_JOINS, LABEL_DELAY, PAIRS, IMAGES, INSTANCES, IOU_HISTOGRAM, CORRECTIONS, LAST_LABEL, IOU)


@dataclass(frozen=True, slots=True)
class IouReading:
    """A class's pooled IoU by one estimator."""

    class_name: str
    estimator: str
    point: float
    lower: float
    upper: float


Numbers = Mapping[tuple[str, str], Mapping[int, int]]
"""(series, label) -> bucket -> total, of one model version."""
Line = tuple[Family, tuple[str, ...], float | Distribution]


def service_lines(unknown: Numbers) -> Iterator[Line]:
    """Of no model version; all outcomes exist at 0."""
    for outcome in tallies.LABEL_OUTCOMES:
        yield LABELS, (outcome,), unknown.get((tallies.LABELS, outcome), {}).get(0, 0)


def version_lines(
    version: tuple[str, str], numbers: Numbers, expected: Iterable[str], readings: Sequence[IouReading]
) -> Iterator[Line]:
    """Of one model version; counters of all ``expected`` classes exist at 0."""
    for outcome in ("joined", "bad", "unjoinable", "uncorrectable"):
        yield LABEL_JOINS, (*version, outcome), numbers.get((tallies.LABEL_JOINS, outcome), {}).get(0, 0)
    delays = numbers.get((tallies.LABEL_DELAY_BUCKET, ""), {})
    delay_us = numbers.get((tallies.LABEL_DELAY_SUM_US, ""), {}).get(0, 0)
    counted_delays = [delays.get(index, 0) for index in range(len(tallies.DELAY_BUCKETS) + 1)]
    yield LABEL_DELAY, version, Distribution(counted_delays, delay_us / 1e6)
    paired = {name for series, name in numbers if series == tallies.ANNOTATOR_PAIRS}
    for name in sorted({*expected, *paired}):
        pairs = numbers.get((tallies.ANNOTATOR_PAIRS, name), {})
        for bucket, verdict in enumerate(tallies.AGREEMENTS):
            yield PAIRS, (*version, name, verdict), pairs.get(bucket, 0)
    yield IMAGES, version, numbers.get((tallies.SPOTCHECK_IMAGES, ""), {}).get(0, 0)
    counted = {name for series, name in numbers if series == tallies.SPOTCHECK_INSTANCES}
    for name in sorted({*expected, *counted}):
        verdicts = numbers.get((tallies.SPOTCHECK_INSTANCES, name), {})
        for bucket, verdict in enumerate(tallies.VERDICTS):
            yield INSTANCES, (*version, name, verdict), verdicts.get(bucket, 0)
        buckets = numbers.get((tallies.SPOTCHECK_IOU_BUCKET, name), {})
        total = numbers.get((tallies.SPOTCHECK_IOU_SUM_NANO, name), {}).get(0, 0)
        counts = [buckets.get(index, 0) for index in range(len(tallies.IOU_BUCKETS) + 1)]
        yield IOU_HISTOGRAM, (*version, name), Distribution(counts, total / 1e9)
        for bucket, count in sorted(numbers.get((tallies.SPOTCHECK_CORRECTION, name), {}).items()):
            yield CORRECTIONS, (*version, name, *tallies.CORRECTIONS[bucket]), count
    for (series, name), values in sorted(numbers.items()):
        if series == tallies.LAST_LABEL_US:
            yield LAST_LABEL, (*version, name), values.get(0, 0) / 1e6
    for reading in readings:
        for bound in ("point", "lower", "upper"):
            yield IOU, (*version, reading.class_name, reading.estimator, bound), getattr(reading, bound)
