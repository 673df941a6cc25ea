"""Which series ``/metrics`` offers, and how they follow from the totals in the store.

``Totals`` is a frozen snapshot; ``families`` turns it into series. Both are pure, so that any replica that reads the
same store exports the same page. The table ``FAMILIES`` is the list of all metrics; docs/metrics.md explains each of
them, and a test compares the two.

Cardinality is bounded three times. Of each model the newest ``VERSIONS_PER_MODEL`` versions are exported. Of each slice
key the first ``web.max_slices`` values are; the store gives no more. And of all series at most ``web.max_series`` are:
when there are more, per-slice series are cut first, then confidence and quality by class, then the models' own, and
never those of the service. How many were left out is said by metrics of their own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, get_args

from detectors.harm import Harm
from monitor import canary_series, quality_series, relabel_series, service_series, tallies
from monitor.canary_series import CanaryReading
from monitor.exposition import Distribution, Family, Series
from monitor.quality_series import IouReading
from monitor.records.reasons import REASONS
from monitor.service_series import ServiceFacts
from monitor.store.relabel_backlog import NOTHING, Backlog
from monitor.store.values import EarlyReading
from monitor.tallies import TallyKey
from monitor.version import __version__

VERSIONS_PER_MODEL: Final = 20
"""A canary, a stable version and some months of releases; older ones are in the store and on the pages."""

VERSION: Final = ("model", "version")
SIGNAL: Final = ("model", "version", "slice", "signal")
HARMS: Final = get_args(Harm)

BUILD = Family("segwatch_build", "info", "Version of segwatch that serves this page.", ("version",))
TOTALS_TIME = Family(
    "segwatch_totals_timestamp_seconds", "gauge", "When this page's totals were read from the store.", (), "seconds"
)
EXPORTED_SERIES = Family("segwatch_exported_series", "gauge", "Series on this page.")
EXPORTED_SERIES_LIMIT = Family("segwatch_exported_series_limit", "gauge", "Most series on this page (web.max_series).")
OMITTED_SERIES = Family("segwatch_omitted_series", "gauge", "Series left out of this page because of its limit.")
OMITTED_VERSIONS = Family(
    "segwatch_omitted_versions", "gauge", "Older versions of a model that this page leaves out.", ("model",)
)
OMITTED_SLICES = Family(
    "segwatch_omitted_slices", "gauge", "Slices of a model that this page leaves out (web.max_slices).", ("model",)
)
LAG_RECORDS = Family(
    "segwatch_consumer_lag_records", "gauge", "Records of a partition that wait to be read.", ("topic", "partition")
)
LAG_SECONDS = Family(
    "segwatch_consumer_lag_seconds",
    "gauge",
    "Age of the moment up to which a partition has been read: its end when that was reached, else its latest event.",
    ("topic", "partition"),
    "seconds",
)
OFFSET = Family(
    "segwatch_consumer_offset", "gauge", "Offset up to which a partition's records are counted.", ("topic", "partition")
)
DEAD_LETTERS = Family(
    "segwatch_dead_letter_records", "counter", "Records that could not be counted, by the reason.", ("reason",)
)
FALLBACKS = Family(
    "segwatch_backbone_fallbacks", "counter", "How often a GPU was wanted for a backbone and the CPU had to be taken."
)
DROPPED = Family(
    "segwatch_dropped_records", "counter", "Records lost before they could be read, by the reason.", ("reason",)
)
RECORDS = Family("segwatch_records", "counter", "Records read, by how they ended.", (*VERSION, "outcome"))
STATUS = Family(
    "segwatch_inference_status",
    "counter",
    "Counted records by what the model's service said of the inference.",
    (*VERSION, "status"),
)
LATENCY = Family(
    "segwatch_inference_latency_seconds",
    "histogram",
    "Latency that the model's service reported.",
    VERSION,
    "seconds",
    tallies.LATENCY_BUCKETS,
)
COST = Family("segwatch_cost_usd", "counter", "Cost that the model's service reported, in US dollars.", VERSION, "usd")
LAST_EVENT = Family(
    "segwatch_last_event_timestamp_seconds", "gauge", "Latest event time of a counted record.", VERSION, "seconds"
)
BASELINE_CREATED = Family(
    "segwatch_baseline_created_timestamp_seconds", "gauge", "When the active baseline was built.", VERSION, "seconds"
)
LAST_WINDOW = Family(
    "segwatch_last_drift_window_timestamp_seconds",
    "gauge",
    "End of the last closed window that was scored.",
    (*VERSION, "slice"),
    "seconds",
)
WINDOW_RECORDS = Family(
    "segwatch_drift_window_records", "gauge", "Records of the last closed window.", (*VERSION, "slice")
)
DIVERGENCE = Family(
    "segwatch_drift_divergence_ratio",
    "gauge",
    "Jensen-Shannon divergence (base 2, 0 to 1) of the last closed window from the baseline, bias removed.",
    (*SIGNAL, "method"),
    "ratio",
)
KL = Family(
    "segwatch_drift_kl_nats",
    "gauge",
    "Kullback-Leibler divergence of the last closed window from the baseline, in nats, bias removed.",
    SIGNAL,
    "nats",
)
P_VALUE = Family(
    "segwatch_drift_p_value", "gauge", "Calibrated p-value of the last closed window against the baseline.", SIGNAL
)
ALARM = Family("segwatch_drift_alarm", "gauge", "1 while the last closed window is alarmed, 0 while not.", SIGNAL)
HARM = Family(
    "segwatch_drift_harm",
    "gauge",
    "1 for what the last closed window says of harm to the model, 0 for the other words.",
    (*VERSION, "harm"),
)
FRECHET = Family(
    "segwatch_drift_frechet_distance",
    "gauge",
    "Frechet distance (squared) of the last closed window's embeddings from the baseline's, chance removed.",
    VERSION,
)
EVIDENCE = Family(
    "segwatch_drift_evidence_records",
    "gauge",
    "Evidence of the sequential test since its last restart.",
    VERSION,
    "records",
)
RUN_LENGTH = Family(
    "segwatch_drift_run_length_records",
    "gauge",
    "Records in which the sequential test may raise one false alarm: it alarms when its evidence gets there.",
    VERSION,
    "records",
)
EARLY_ALARM = Family(
    "segwatch_drift_early_alarm", "gauge", "1 while the sequential test's last alarm stands, 0 while not.", VERSION
)
LAST_EARLY_ALARM = Family(
    "segwatch_last_early_alarm_timestamp_seconds",
    "gauge",
    "Event time of the sequential test's last alarm.",
    VERSION,
    "seconds",
)
CONFIDENCE = Family(
    "segwatch_confidence_ratio",
    "histogram",
    "Scores of predicted instances.",
    (*VERSION, "class"),
    "ratio",
    tallies.CONFIDENCE_BUCKETS,
)

FAMILIES: Final = (
    BUILD,
    TOTALS_TIME,
    EXPORTED_SERIES,
    EXPORTED_SERIES_LIMIT,
    OMITTED_SERIES,
    OMITTED_VERSIONS,
    OMITTED_SLICES,
    LAG_RECORDS,
    LAG_SECONDS,
    OFFSET,
    DEAD_LETTERS,
    DROPPED,
    FALLBACKS,
    RECORDS,
    STATUS,
    LATENCY,
    COST,
    LAST_EVENT,
    BASELINE_CREATED,
    LAST_WINDOW,
    WINDOW_RECORDS,
    DIVERGENCE,
    KL,
    P_VALUE,
    ALARM,
    HARM,
    FRECHET,
    EVIDENCE,
    RUN_LENGTH,
    EARLY_ALARM,
    LAST_EARLY_ALARM,
    CONFIDENCE,
    *service_series.FAMILIES,
    *relabel_series.FAMILIES,
    *quality_series.SERVICE,
    *quality_series.QUALITY,
    *canary_series.FAMILIES,
)


@dataclass(frozen=True, slots=True)
class SignalReading:
    """One signal's score; None where the window had too few records for it: then there is no series."""

    signal: str
    js: float | None
    kl_nats: float | None
    p_value: float | None
    alarm: bool | None


@dataclass(frozen=True, slots=True)
class DriftReading:
    """The last closed window of a model version and slice ("" for all records)."""

    model: str
    version: str
    slice: str
    window_end_us: int
    records: int
    signals: tuple[SignalReading, ...]
    frechet: float | None = None
    """Frechet's distance of all records, where it could be judged."""
    harm: Harm | None = None
    """Of all records; None where there is no verdict."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a partition has been read; ``seconds`` is None while nothing of it was."""

    topic: str
    number: int
    records: int
    seconds: float | None
    offset: int


@dataclass(frozen=True, slots=True)
class BaselineFact:
    """The active baseline of a model version."""

    model: str
    version: str
    created_us: int
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything behind one page, read from the store at ``taken_us``."""

    taken_us: int
    tallies: Mapping[TallyKey, int] = field(default_factory=dict)
    last_event_us: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (model, version)."""
    drift: Sequence[DriftReading] = ()
    lags: Sequence[PartitionLag] = ()
    baselines: Sequence[BaselineFact] = ()
    omitted_slices: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By (model, version): slices with a window that ``drift`` does not have."""
    early: Mapping[tuple[str, str], EarlyReading] = field(default_factory=dict)
    """By (model, version): the sequential test against the active baseline."""
    quality: Mapping[tuple[str, str], Sequence[IouReading]] = field(default_factory=dict)
    """By (model, version): pooled IoU by class and estimator."""
    service: ServiceFacts = field(default_factory=ServiceFacts)
    canaries: Sequence[CanaryReading] = ()
    relabel: Mapping[str, Backlog] = field(default_factory=dict)
    """By model: what waits for a label."""


class _Budget:
    """Takes series in order of importance until the limit is reached."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.taken = 0
        self.omitted = 0
        self.series: dict[str, list[Series]] = defaultdict(list)

    def add(self, family: Family, labels: tuple[str, ...], value: float | Distribution) -> None:
        if family.lines > self._left:
            self._left = 0  # nothing of less importance may slip into the gap
            self.omitted += family.lines
            return
        self._left -= family.lines
        self.taken += family.lines
        self.series[family.name].append(Series(labels, value))


def families(
    totals: Totals, max_series: int, pause: Callable[[], None] = lambda: None
) -> list[tuple[Family, list[Series]]]:
    """All series of a page, family by family in the order of FAMILIES, with at most ``max_series`` lines.

    ``pause`` is called between two pieces of work.
    """
    versions, omitted_versions = _choose_versions(totals)
    by_version = _by_version(totals.tallies, pause)
    # The page's own six lines come on top of nothing: they are part of the limit, too.
    budget = _Budget(max_series - sum(f.lines for f in (BUILD, TOTALS_TIME, *_SELF)))
    _add_service(budget, totals, by_version.get(("", ""), {}), omitted_versions)
    for model, version in versions:
        _add_model(budget, model, version, by_version.get((model, version), {}), totals)
        pause()
    readings = sorted(
        (r for r in totals.drift if (r.model, r.version) in set(versions)), key=lambda r: (r.slice, r.model, r.version)
    )
    for canary in totals.canaries:
        for line in canary_series.canary_lines(canary):
            budget.add(*line)
    for reading in readings:
        if not reading.slice:
            _add_drift(budget, reading)
    classes = {(b.model, b.version): b.classes for b in totals.baselines}
    for model, version in versions:
        numbers, expected = by_version.get((model, version), {}), classes.get((model, version), ())
        _add_confidence(budget, model, version, numbers, expected)
        readings_of = totals.quality.get((model, version), ())
        for line in quality_series.version_lines((model, version), numbers, expected, readings_of):
            budget.add(*line)
        pause()
    for index, reading in enumerate(readings):
        if reading.slice:
            _add_drift(budget, reading)
            if index % 16 == 0:
                pause()
    own = {
        BUILD.name: [Series((__version__,), 1)],
        TOTALS_TIME.name: [Series((), totals.taken_us / 1e6)],
        EXPORTED_SERIES.name: [Series((), budget.taken + len(_SELF) + 2)],
        EXPORTED_SERIES_LIMIT.name: [Series((), max_series)],
        OMITTED_SERIES.name: [Series((), budget.omitted)],
    }
    return [(family, own.get(family.name) or budget.series.get(family.name, [])) for family in FAMILIES]


_SELF: Final = (EXPORTED_SERIES, EXPORTED_SERIES_LIMIT, OMITTED_SERIES)

_Numbers = dict[tuple[str, str], dict[int, int]]
"""(series, label) -> bucket -> total, of one model version."""


def _by_version(totals: Mapping[TallyKey, int], pause: Callable[[], None]) -> dict[tuple[str, str], _Numbers]:
    found: dict[tuple[str, str], _Numbers] = {}
    for index, (key, value) in enumerate(totals.items()):
        numbers = found.setdefault((key.model, key.version), {})
        numbers.setdefault((key.series, key.label), {})[key.bucket] = value
        if index % 256 == 0:
            pause()
    return found


def _choose_versions(totals: Totals) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """The versions to export, sorted, and how many of each model are left out."""
    newest: dict[str, dict[str, int]] = defaultdict(dict)
    for key in totals.tallies:
        if key.model:
            newest[key.model].setdefault(key.version, 0)
    for (model, version), time_us in totals.last_event_us.items():
        newest[model][version] = time_us
    for baseline in totals.baselines:
        known = newest[baseline.model]
        known[baseline.version] = max(known.get(baseline.version, 0), baseline.created_us)
    for reading in totals.drift:
        newest[reading.model].setdefault(reading.version, reading.window_end_us)
    chosen: list[tuple[str, str]] = []
    omitted: dict[str, int] = {}
    for model, times in newest.items():
        ranked = sorted(times, key=lambda version: (times[version], version), reverse=True)
        chosen += [(model, version) for version in ranked[:VERSIONS_PER_MODEL]]
        omitted[model] = len(ranked[VERSIONS_PER_MODEL:])
    return sorted(chosen), omitted


def _add_service(budget: _Budget, totals: Totals, unknown: _Numbers, omitted_versions: Mapping[str, int]) -> None:
    for lag in sorted(totals.lags, key=lambda lag: (lag.topic, lag.number)):
        labels = (lag.topic, str(lag.number))
        budget.add(LAG_RECORDS, labels, lag.records)
        if lag.seconds is not None:
            budget.add(LAG_SECONDS, labels, lag.seconds)
        budget.add(OFFSET, labels, lag.offset)
    for family, series, expected in (
        (DEAD_LETTERS, tallies.DEAD_LETTER, REASONS),
        (DROPPED, tallies.DROPPED, tallies.DROPPED_REASONS),
    ):
        counted = {label: buckets.get(0, 0) for (name, label), buckets in unknown.items() if name == series}
        for reason in sorted({*expected, *counted}):
            budget.add(family, (reason,), counted.get(reason, 0))
    budget.add(FALLBACKS, (), unknown.get((tallies.BACKBONE_FALLBACKS, ""), {}).get(0, 0))
    for outcome in tallies.OUTCOMES:
        budget.add(RECORDS, ("", "", outcome), unknown.get((tallies.RECORDS, outcome), {}).get(0, 0))
    for line in service_series.lines(totals.service, unknown, totals.taken_us):
        budget.add(*line)
    for line in quality_series.service_lines(unknown):
        budget.add(*line)
    omitted_slices: Counter[str] = Counter()
    for (model, _), count in totals.omitted_slices.items():
        omitted_slices[model] += count
    for model, count in sorted(omitted_versions.items()):
        budget.add(OMITTED_VERSIONS, (model,), count)
        budget.add(OMITTED_SLICES, (model,), omitted_slices[model])
        for line in relabel_series.lines(model, totals.relabel.get(model, NOTHING), totals.taken_us):
            budget.add(*line)


def _add_model(budget: _Budget, model: str, version: str, numbers: _Numbers, totals: Totals) -> None:
    labels = (model, version)
    for outcome in tallies.OUTCOMES:
        budget.add(RECORDS, (*labels, outcome), numbers.get((tallies.RECORDS, outcome), {}).get(0, 0))
    for status in tallies.STATUSES:
        budget.add(STATUS, (*labels, status), numbers.get((tallies.INFERENCE_STATUS, status), {}).get(0, 0))
    latency = numbers.get((tallies.LATENCY_BUCKET, ""), {})
    latency_sum_us = numbers.get((tallies.LATENCY_SUM_US, ""), {}).get(0, 0)
    budget.add(LATENCY, labels, _distribution(latency, LATENCY, latency_sum_us / 1e6))
    budget.add(COST, labels, numbers.get((tallies.COST_NANO_USD, ""), {}).get(0, 0) / 1e9)
    last_event_us = totals.last_event_us.get(labels)
    if last_event_us is not None:
        budget.add(LAST_EVENT, labels, last_event_us / 1e6)
    created_us = [b.created_us for b in totals.baselines if (b.model, b.version) == labels]
    if created_us:
        budget.add(BASELINE_CREATED, labels, max(created_us) / 1e6)
    early = totals.early.get(labels)
    if early is not None:
        budget.add(EVIDENCE, labels, early.evidence)
        budget.add(RUN_LENGTH, labels, early.run_length)
        budget.add(EARLY_ALARM, labels, int(early.alarm))
        if early.alarm_at_us is not None:
            budget.add(LAST_EARLY_ALARM, labels, early.alarm_at_us / 1e6)


def _add_drift(budget: _Budget, reading: DriftReading) -> None:
    window = (reading.model, reading.version, reading.slice)
    budget.add(LAST_WINDOW, window, reading.window_end_us / 1e6)
    budget.add(WINDOW_RECORDS, window, reading.records)
    if reading.frechet is not None:
        budget.add(FRECHET, window[:2], reading.frechet)
    if reading.harm is not None:
        for word in HARMS:
            budget.add(HARM, (*window[:2], word), int(word == reading.harm))
    for score in reading.signals:
        labels = (*window, score.signal)
        if score.js is not None:
            budget.add(DIVERGENCE, (*labels, "js"), score.js)
        if score.kl_nats is not None:
            budget.add(KL, labels, score.kl_nats)
        if score.p_value is not None:
            budget.add(P_VALUE, labels, score.p_value)
        if score.alarm is not None:
            budget.add(ALARM, labels, int(score.alarm))


def _add_confidence(budget: _Budget, model: str, version: str, numbers: _Numbers, expected: Iterable[str]) -> None:
    counted = {label for series, label in numbers if series == tallies.CONFIDENCE_BUCKET}
    for name in sorted({*expected, *counted}):
        buckets = numbers.get((tallies.CONFIDENCE_BUCKET, name), {})
        sum_micro = numbers.get((tallies.CONFIDENCE_SUM_MICRO, name), {}).get(0, 0)
        budget.add(CONFIDENCE, (model, version, name), _distribution(buckets, CONFIDENCE, sum_micro / 1e6))


def _distribution(buckets: Mapping[int, int], family: Family, total: float) -> Distribution:
    return Distribution([buckets.get(index, 0) for index in range(len(family.bounds) + 1)], total)
