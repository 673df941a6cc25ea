"""Which events an SLO counts: from its kind to PromQL over the series of docs/metrics.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from alerts.slo.promql import Counting, duration, number, one_of, quote, selector, tile_s
from alerts.slo.spec import (
    AnnotatorAgreement,
    Availability,
    ClassIou,
    ClassRecall,
    Confidence,
    CostPerInference,
    DriftFreeTime,
    FalsePositives,
    Freshness,
    Latency,
    Ratio,
    Slo,
)

LATENCY_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CONFIDENCE_BOUNDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
IOU_BOUNDS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""Bounds of the histograms on ``/metrics``: only there can a share be counted. A test compares them with the page's."""

WINDOW: Final = "$window"
_STRING: Final = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)"""
_MATCHER: Final = rf"[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*{_STRING}"
SELECTOR: Final = re.compile(
    rf"[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{{\s*(?:{_MATCHER}(?:\s*,\s*{_MATCHER})*\s*,?)?\s*\}})?", re.DOTALL
)
_PART: Final = re.compile(rf"(?:{_STRING}|[^\"'`+])+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """A series as it looks in a test, for each minute: (first value, step) while all is well, and while all fails.

    ``counter``: the steps are for one event a minute and grow with the rate.
    """

    series: str
    healthy: tuple[float, float]
    failing: tuple[float, float]
    counter: bool = True
    images: bool = False
    """Counts the images behind the events, not the events."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Selectors of the counters behind the events, added up ``by`` labels. One of ``bad`` and ``good`` is set."""

    total: str
    bad: str = ""
    good: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Events:
    """How an SLO's events are counted.

    ``total`` and ``bad`` give PromQL for a window. ``state`` is the 0/1 series of minutes (timed kinds only).
    ``images`` gives the number of images behind the events, where clusters matter. ``counters``: where two of our own
    counters are all there is to it. ``born``: the counters whose births are recorded, by the label ``counter``.
    """

    total: Callable[[str], str]
    bad: Callable[[str], str]
    examples: tuple[Example, ...]
    state: str = ""
    images: Callable[[str], str] | None = None
    counters: Counters | None = None
    born: tuple[str, ...] = ()


def by(slo: Slo) -> str:
    """Labels that stay when series are added up: versions are taken together."""
    if isinstance(slo.source, Ratio):
        return ""
    return ", ".join(name for name, kept in (("model", not slo.model), ("class", slo.by_class)) if kept)


def static_labels(slo: Slo) -> dict[str, str]:
    """Labels that all recorded series of an SLO carry."""
    labels = {"slo": slo.name, "model": slo.model, "version": slo.version}
    return {name: value for name, value in labels.items() if value}


def identity(slo: Slo) -> tuple[str, ...]:
    """Label names that tell an SLO's recorded series apart."""
    return ("slo", "model", *(("version",) if slo.version else ()), *(("class",) if slo.by_class else ()))


def series(slo: Slo, metric: str, *matchers: str) -> str:
    """A selector for the SLO's model, version and classes."""
    model = f"model={quote(slo.model)}" if slo.model else 'model!=""'
    version = f"version={quote(slo.version)}" if slo.version else ""
    classes = f"class{one_of(slo.classes)}" if slo.by_class and slo.classes else ""
    return selector(metric, model, version, classes, *matchers)


def example_series(slo: Slo, metric: str, **more: str) -> str:
    """One series of a metric as a test writes it."""
    labels = {"model": slo.model or "street", "version": slo.version or "1"}
    if slo.by_class:
        labels["class"] = slo.classes[0] if slo.classes else "car"
    return metric + "{" + ",".join(f"{name}={quote(value)}" for name, value in {**labels, **more}.items()) + "}"


def events(slo: Slo) -> Events:
    """The events of an SLO, by its kind."""
    return EVENTS[type(slo.source)](slo, slo.source)


def born_over_s(slo: Slo) -> int:
    """How long ago a counter's birth may matter."""
    return max(slo.period_s, slo.blind_after_s, *(tier.long_s for tier in slo.tiers))


def _counting(slo: Slo, index: int) -> Counting:
    """The way to count the SLO's counter of that number in ``Events.born``."""
    return Counting(of_birth(slo, index), duration(tile_s(born_over_s(slo))))


def of_birth(slo: Slo, index: int) -> str:
    """Matchers of the recorded births of one counter."""
    return f'slo={quote(slo.name)},counter="{index}"'


def siblings(slo: Slo) -> str:
    """Labels that series have in common which were born together: where one is doubted, all are."""
    if isinstance(slo.source, Ratio):
        return "job, instance"
    # Images have no class, and are counted for all of them.
    own = slo.by_class and not isinstance(slo.source, FalsePositives)
    return "job, instance, model, version" + (", class" if own else "")


def bound_label(bound: float) -> str:
    """A bucket's ``le`` as OpenMetrics and Prometheus 3 write it.

    >>> bound_label(1), bound_label(0.25)
    ('1.0', '0.25')
    """
    return repr(float(bound))


def _of_counters(
    slo: Slo, counters: Counters, examples: tuple[Example, ...], images: Callable[[str], str] | None = None
) -> Events:
    other = counters.bad or counters.good

    def total(w: str) -> str:
        return _counting(slo, 0)(counters.total, w, counters.by)

    def bad(w: str) -> str:
        found = _counting(slo, 1)(other, w, counters.by)
        # Each is extrapolated for itself, so that the difference of equals may be slightly off 0.
        return found if counters.bad else f"clamp_min({total(w)} - {found}, 0)"

    return Events(total, bad, examples, images=images, counters=counters, born=(counters.total, other))


def _availability(slo: Slo, _: Availability) -> Events:
    metric = "segwatch_records_total"
    return _of_counters(
        slo,
        Counters(series(slo, metric, 'outcome=~"ok|failed"'), bad=series(slo, metric, 'outcome="failed"'), by=by(slo)),
        (
            Example(example_series(slo, metric, outcome="ok"), (0, 1), (0, 0)),
            Example(example_series(slo, metric, outcome="failed"), (0, 0), (0, 1)),
        ),
    )


def _below(slo: Slo, metric: str, bound: float) -> tuple[str, str]:
    """Selectors of a histogram: all events, and those at or below ``bound``."""
    return series(slo, f"{metric}_count"), series(slo, f"{metric}_bucket", f"le={quote(bound_label(bound))}")


def _latency(slo: Slo, source: Latency) -> Events:
    metric = "segwatch_inference_latency_seconds"
    total, good = _below(slo, metric, source.seconds)
    bucket = example_series(slo, f"{metric}_bucket", le=bound_label(source.seconds))
    count = example_series(slo, f"{metric}_count")
    examples = (Example(bucket, (0, 1), (0, 0)), Example(count, (0, 1), (0, 1)))
    return _of_counters(slo, Counters(total, good=good, by=by(slo)), examples)


def _class_iou(slo: Slo, source: ClassIou) -> Events:
    metric = "segwatch_spotcheck_iou_ratio"
    total, bad = _below(slo, metric, source.iou)
    bucket = example_series(slo, f"{metric}_bucket", le=bound_label(source.iou))
    count = example_series(slo, f"{metric}_count")
    return _of_counters(
        slo,
        Counters(total, bad=bad, by=by(slo)),
        (Example(bucket, (0, 0), (0, 1)), Example(count, (0, 1), (0, 1)), *_image_examples(slo)),
        _images(slo, "segwatch_spotcheck_images_total"),
    )


def _image_examples(slo: Slo) -> tuple[Example, ...]:
    text = _without_class(example_series(slo, "segwatch_spotcheck_images_total"))
    return (Example(text, (0, 1), (0, 1), images=True),)


def _without_class(text: str) -> str:
    return re.sub(r',class="(?:[^"\\]|\\.)*"', "", text)


def _images(slo: Slo, metric: str, *matchers: str) -> Callable[[str], str]:
    model = f"model={quote(slo.model)}" if slo.model else 'model!=""'
    version = f"version={quote(slo.version)}" if slo.version else ""
    return lambda w: f"sum by (model) (increase({selector(metric, model, version, *matchers)}[{w}]))"


def _class_recall(slo: Slo, _: ClassRecall) -> Events:
    metric = "segwatch_spotcheck_instances_total"
    return _of_counters(
        slo,
        Counters(series(slo, metric, 'verdict=~"tp|fn"'), bad=series(slo, metric, 'verdict="fn"'), by=by(slo)),
        (
            Example(example_series(slo, metric, verdict="tp"), (0, 1), (0, 0)),
            Example(example_series(slo, metric, verdict="fn"), (0, 0), (0, 1)),
            *_image_examples(slo),
        ),
        _images(slo, "segwatch_spotcheck_images_total"),
    )


def _annotator_agreement(slo: Slo, _: AnnotatorAgreement) -> Events:
    metric = "segwatch_annotator_pairs_total"
    return _of_counters(
        slo,
        Counters(
            series(slo, metric, 'verdict=~"agree|disagree"'), bad=series(slo, metric, 'verdict="disagree"'), by=by(slo)
        ),
        (
            Example(example_series(slo, metric, verdict="agree"), (0, 1), (0, 0)),
            Example(example_series(slo, metric, verdict="disagree"), (0, 0), (0, 1)),
        ),
    )


def _false_positives(slo: Slo, source: FalsePositives) -> Events:
    metric = "segwatch_spotcheck_instances_total"
    invented = series(slo, metric, 'verdict="fp"')
    model = "" if slo.model else "model"
    matchers = [f"model={quote(slo.model)}" if slo.model else 'model!=""']
    if slo.version:
        matchers.append(f"version={quote(slo.version)}")
    images = selector("segwatch_spotcheck_images_total", *matchers)
    worst = max(100 * source.limit, 1.0)
    bad, seen = _counting(slo, 0), _counting(slo, 1)
    return Events(
        lambda w: f"{bad(invented, w, by(slo))} * 0 + on ({model}) group_left () {seen(images, w, model)}",
        lambda w: bad(invented, w, by(slo)),
        (
            Example(example_series(slo, metric, verdict="fp"), (0, 0), (0, worst)),
            *(replace(one, images=False) for one in _image_examples(slo)),
        ),
        born=(invented, images),
    )


def _confidence(slo: Slo, source: Confidence) -> Events:
    metric = "segwatch_confidence_ratio"
    total, bad = _below(slo, metric, source.score)
    records = Example(
        _without_class(example_series(slo, "segwatch_records_total", outcome="ok")), (0, 1), (0, 1), images=True
    )
    bucket = example_series(slo, f"{metric}_bucket", le=bound_label(source.score))
    count = example_series(slo, f"{metric}_count")
    return _of_counters(
        slo,
        Counters(total, bad=bad, by=by(slo)),
        (Example(bucket, (0, 0), (0, 1)), Example(count, (0, 1), (0, 1)), records),
        _images(slo, "segwatch_records_total", 'outcome="ok"'),
    )


def _cost(slo: Slo, source: CostPerInference) -> Events:
    records, cost = "segwatch_records_total", "segwatch_cost_usd_total"
    spent, worst = source.limit_usd / 2, 100 * source.limit_usd
    counters = (series(slo, records, 'outcome=~"ok|failed"'), series(slo, cost))
    return Events(
        lambda w: _counting(slo, 0)(counters[0], w, by(slo)),
        lambda w: _counting(slo, 1)(counters[1], w, by(slo)),
        (
            Example(example_series(slo, records, outcome="ok"), (0, 1), (0, 1)),
            Example(example_series(slo, cost), (0, spent), (0, worst)),
        ),
        born=counters,
    )


def _timed(slo: Slo, state: str, example: Example) -> Events:
    recorded = selector(STATE, f"slo={quote(slo.name)}")
    return Events(
        lambda w: f"count_over_time({recorded}[{w}])",
        lambda w: f"sum_over_time({recorded}[{w}])",
        (example,),
        state,
    )


STATE: Final = "segwatch:slo_bad_state:bool"
"""1 in each minute in which a timed SLO is broken, 0 in others, no sample where nobody knows."""

NEWEST: Final = {
    "events": "segwatch_last_event_timestamp_seconds",
    "labels": "segwatch_last_label_timestamp_seconds",
    "drift_windows": "segwatch_last_drift_window_timestamp_seconds",
    "baseline": "segwatch_baseline_created_timestamp_seconds",
}


def _freshness(slo: Slo, source: Freshness) -> Events:
    metric = NEWEST[source.of]
    whole = {"slice": ""} if source.of == "drift_windows" else {}
    newest = series(slo, metric, *('slice=""' for _ in whole))
    state = f"(time() - max by ({by(slo)}) ({newest})) > bool {source.max_age_s}"
    old = -float(source.max_age_s + 3600)  # promtool's clock begins at 0
    return _timed(slo, state, Example(example_series(slo, metric, **whole), (0, 60), (old, 0), counter=False))


def _drift_free(slo: Slo, source: DriftFreeTime) -> Events:
    signals = f"signal{one_of(source.signals)}" if source.signals else ""
    alarm = series(slo, "segwatch_drift_alarm", 'slice=""', signals)
    signal = source.signals[0] if source.signals else "embedding"
    example = example_series(slo, "segwatch_drift_alarm", slice="", signal=signal)
    return _timed(slo, f"max by ({by(slo)}) ({alarm})", Example(example, (0, 0), (1, 0), counter=False))


def _ratio(slo: Slo, source: Ratio) -> Events:
    named_by = source.bad or source.good
    born = tuple(dict.fromkeys(part for text in (source.total, named_by) if WINDOW not in text for part in parts(text)))
    total, named = _own(slo, source.total, born), _own(slo, named_by, born)

    def known(w: str) -> str:
        """A counter that does not exist yet, since nothing of its kind has happened, counts as 0."""
        return f"({named(w)} or {total(w)} * 0)"

    def bad(w: str) -> str:
        return known(w) if source.bad else f"clamp_min({total(w)} - {known(w)}, 0)"

    return Events(total, bad, _ratio_examples(source), born=born)


def _ratio_examples(source: Ratio) -> tuple[Example, ...]:
    joined = parts(source.total)
    other = source.bad or source.good
    rest = next((part for part in joined if part != other), "")
    all_of, named = _sample_of(rest), _sample_of(other)
    if not all_of or not named or all_of == named:
        return ()
    if source.good:
        return (Example(all_of, (0, 1), (0, 1)), Example(named, (0, 1), (0, 0)))
    within = other in joined or rest.partition("{")[0] == other.partition("{")[0]
    return (Example(all_of, (0, 1), (0, 0 if within else 1)), Example(named, (0, 0), (0, 1)))


def parts(text: str) -> list[str]:
    """Selectors that are joined with ``+``, which may stand in a label's value, too.

    >>> parts('errors_total{path="a + b"} + aborted_total')
    ['errors_total{path="a + b"}', 'aborted_total']
    """
    return [part.strip() for part in _PART.findall(text)]


def _own(slo: Slo, text: str, born: tuple[str, ...]) -> Callable[[str], str]:
    """A user's counter or expression as events of a window; several counters may be joined with ``+``."""
    if WINDOW in text:
        return lambda w: f"({text.replace(WINDOW, w)})"

    def counted(part: str, w: str) -> str:
        return _counting(slo, born.index(part))(part, w, "")

    joined = parts(text)
    if len(joined) == 1:
        return lambda w: counted(joined[0], w)
    return lambda w: "sum by () (" + " or ".join(_tagged(counted(part, w), i) for i, part in enumerate(joined)) + ")"


def _tagged(counted: str, index: int) -> str:
    return f'label_replace({counted}, "part", "{index}", "", "")'


def _sample_of(text: str) -> str:
    """A series that a selector matches, where that is plain to see; "" otherwise."""
    if WINDOW in text or not SELECTOR.fullmatch(text):
        return ""
    metric, _, inner = text.partition("{")
    found = re.findall(r'(\w+)\s*(=~|=|!=|!~)\s*"((?:[^"\\]|\\.)*)"', inner)
    labels = {}
    for name, operator, value in found:
        if operator == "=":
            labels[name] = value
        elif operator == "=~" and re.fullmatch(r"[\w|:/.-]+", value):
            labels[name] = value.split("|")[0]
    return metric.strip() + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


EVENTS: Final[dict[type, Callable[[Slo, Any], Events]]] = {
    Availability: _availability,
    Latency: _latency,
    ClassIou: _class_iou,
    ClassRecall: _class_recall,
    AnnotatorAgreement: _annotator_agreement,
    FalsePositives: _false_positives,
    Confidence: _confidence,
    Freshness: _freshness,
    DriftFreeTime: _drift_free,
    CostPerInference: _cost,
    Ratio: _ratio,
}


def design_effect(slo: Slo, total: str, window: str) -> str:
    """PromQL for the design effect 1 + rho (m - 1) of m events an image (Kish, Survey Sampling, 1965, section 8.2).

    ``total``: the recorded number of events. Where the images are not known, 1.
    """
    if slo.design_effect is not None:
        return number(slo.design_effect)
    images = events(slo).images
    if images is None:
        return "1"
    share = f"{total} / on (model) group_left () ({images(window)} > 0)"
    return f"(clamp_min(1 + {number(WITHIN_IMAGE)} * ({share} - 1), 1) or {total} * 0 + 1)"


WITHIN_IMAGE: Final = 0.5
"""Assumed correlation of verdicts within an image: darkness or blur spoils its instances together."""
