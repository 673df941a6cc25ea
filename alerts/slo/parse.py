"""From a decoded YAML tree to SLOs. One table of fields serves the parser and the JSON Schema for editors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from alerts.slo.kinds import CONFIDENCE_BOUNDS, IOU_BOUNDS, LATENCY_BOUNDS, SELECTOR, WINDOW, parts
from alerts.slo.presets import PRESETS
from alerts.slo.promql import duration, parse_duration
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
    Source,
    SpecError,
    Tier,
)
from alerts.slo.windows import HOUR, MINUTE, TIERS, fit

Path = tuple[str | int, ...]

FINEST_BUDGET: Final = 1e-6
"""Share of bad events. Budgets finer than one in a million are lost in rounding, and no SLO of a model has one."""


@dataclass(frozen=True, slots=True)
class Field:
    """``read`` turns the decoded value into the spec's, raising ValueError; ``schema`` is its JSON Schema."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    help: str


def _number(low: float, high: float | None, *, exclusive: bool = True) -> tuple[Callable[[Any], float], dict[str, Any]]:
    top = "" if high is None else f" and below {high:g}" if exclusive else f" and at most {high:g}"

    def read(value: Any) -> float:
        inside = isinstance(value, (int, float)) and not isinstance(value, bool) and low < value
        inside = inside and math.isfinite(value)
        if not inside or (high is not None and (value >= high if exclusive else value > high)):
            raise ValueError(f"expected a number above {low:g}{top}, got {value!r}")
        return float(value)

    schema: dict[str, Any] = {"type": "number", "exclusiveMinimum": low}
    if high is not None:
        schema["exclusiveMaximum" if exclusive else "maximum"] = high
    return read, schema


def _objective() -> tuple[Callable[[Any], float], dict[str, Any]]:
    read, schema = _number(0, 1)

    def bounded(value: Any) -> float:
        objective = read(value)
        if not FINEST_BUDGET <= objective <= 1 - FINEST_BUDGET:
            allowed = f"between {FINEST_BUDGET:g} and {1 - FINEST_BUDGET:g}"
            raise ValueError(f"expected an objective {allowed}, got {value!r}")
        return objective

    return bounded, schema


def _text(pattern: str, what: str) -> tuple[Callable[[Any], str], dict[str, Any]]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            raise ValueError(f"expected {what}, got {value!r}")
        return value

    return read, {"type": "string", "pattern": f"^(?:{pattern})$"}


def _choice(*words: str) -> tuple[Callable[[Any], str], dict[str, Any]]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"expected one of {', '.join(words)}, got {value!r}")
        return str(value)

    return read, {"enum": list(words)}


def _seconds(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError(f"expected a duration such as 5m, 1h or 30d, got {value!r}")
    found = parse_duration(value)
    if found < MINUTE:
        raise ValueError(f"expected at least 1m, got {value!r}")
    return found


DURATION: Final = (_seconds, {"type": "string", "pattern": "^(?:[0-9]+[wdhms])+$"})


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"expected a name or a list of names, got {value!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"a name stands there twice: {value!r}")
    return tuple(names)


NAMES: Final = (
    _names,
    {
        "oneOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string", "minLength": 1}},
        ]
    },
)


def _bound(bounds: Iterable[float], unit: str) -> tuple[Callable[[Any], float], dict[str, Any]]:
    allowed = list(bounds)

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in allowed:
            shown = ", ".join(f"{bound:g}" for bound in allowed)
            raise ValueError(f"expected a bound of the histogram's buckets ({shown}{unit}), got {value!r}")
        return float(value)

    return read, {"enum": allowed}


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {value!r}")
    return value


SWITCH: Final = (_switch, {"type": "boolean"})


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number from 1 on, got {value!r}")
    return int(value)


def _query(value: Any) -> str:
    """A selector, several joined with `` + ``, or an expression that has ``$window`` as its range."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected PromQL, got {value!r}")
    text = value.strip()
    if WINDOW in text:
        if not re.search(r"\[\$window[\]:]", text):
            raise ValueError(f"expected {WINDOW} in brackets, as in increase(requests_total[{WINDOW}])")
    elif "+".join(parts(text)).count("+") < text.count("+") or not all(map(SELECTOR.fullmatch, parts(text))):
        raise ValueError(
            f"expected a counter's selector such as requests_total{{code='500'}}, or an expression over [{WINDOW}]"
        )
    return text


QUERY: Final = (_query, {"type": "string", "minLength": 1})
NAME: Final = _text(
    r"(?!.*\.[0-9]+[a-z]$)[a-zA-Z][a-zA-Z0-9_.-]{0,99}",  # NAME.8h.rules_test.yml is a file of NAME's tests
    "a name of letters, digits, -, _ and ., at most 100 characters, that does not end as in .8h",
)
ANY_NAME: Final = _text(r"[^\0]{1,256}", "a name of 1 to 256 characters")
POSITIVE: Final = _number(0, None)


def _windows(value: Any) -> tuple[Tier, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list of windows, got {value!r}")
    return tuple(_tier(entry, index) for index, entry in enumerate(value))


def _tier(entry: Any, index: int) -> Tier:
    if not isinstance(entry, dict):
        raise SpecError((index,), f"expected notify, long, short and factor, got {entry!r}")
    found: dict[str, Any] = {"critical_budget": None}
    for key, value in entry.items():
        if key not in WINDOW_FIELDS:
            raise SpecError((index, str(key)), f"unknown field; there are {', '.join(WINDOW_FIELDS)}")
        found[key] = _read(WINDOW_FIELDS[key], value, (index, key))
    missing = [key for key in WINDOW_FIELDS if key not in found]
    if missing:
        raise SpecError((index,), f"{missing[0]} is missing")
    if found["short"] > found["long"]:
        raise SpecError((index, "short"), "the short window is longer than the long one")
    return Tier(found["notify"], found["long"], found["short"], found["factor"], found["critical_budget"])


WINDOW_FIELDS: Final = {
    "notify": Field(*_choice("page", "ticket"), "whom to tell"),
    "long": Field(*DURATION, "the long window"),
    "short": Field(*DURATION, "the short window, which lets the alert resolve soon"),
    "factor": Field(*POSITIVE, "burn rate above which it alarms"),
    "critical_budget": Field(
        *_number(0, 1), "alarm at half the factor once less than this share of the budget is left"
    ),
}

COMMON: Final = {
    "name": Field(*NAME, "unique; the label slo of all its series"),
    "kind": Field(lambda value: value, {}, "which events count"),
    "description": Field(*_text(r".{0,2000}", "at most 2000 characters"), "what it is for"),
    "category": Field(*_choice("quality", "ops"), "who is told: the ML on-call or operations"),
    "model": Field(*ANY_NAME, "the model's name; left out: each model for itself"),
    "version": Field(*ANY_NAME, "one version; left out: all versions together"),
    "period": Field(*DURATION, "of the error budget; 30d"),
    "windows": Field(_windows, {}, "burn-rate windows in place of the workbook's"),
    "events_per_hour": Field(*POSITIVE, "expected; makes windows long enough to judge"),
    "guard": Field(*SWITCH, "Wilson's lower bound and floors of events before anybody is told; true"),
    "min_events": Field(_whole, {"type": "integer", "minimum": 1}, "events in the long window before it counts; 6"),
    "design_effect": Field(*_number(0.999, 1000), "variance of clustered events over independent ones"),
    "hold": Field(*SWITCH, "a firing alert stays while there are no data; true"),
    "unreachable": Field(*_choice("rescale", "refuse"), "what to do with a threshold that can never be exceeded"),
    "blind_after": Field(*DURATION, "without events for so long, a blindness alert is raised; 1d"),
}

OBJECTIVE: Final = Field(*_objective(), "share of good events, such as 0.99")
CLASSES: Final = Field(*NAMES, "class names; left out: each class")

KINDS: Final[dict[str, tuple[str, dict[str, Field], Callable[[dict[str, Any]], Source]]]] = {
    # kind: default category, fields of its own (all needed but for OPTIONAL), how they become a source
    "availability": ("ops", {"objective": OBJECTIVE}, lambda _: Availability()),
    "latency": (
        "ops",
        {"objective": OBJECTIVE, "seconds": Field(*_bound(LATENCY_BOUNDS, " s"), "the bound")},
        lambda own: Latency(own["seconds"]),
    ),
    "class_iou": (
        "quality",
        {"objective": OBJECTIVE, "classes": CLASSES, "iou": Field(*_bound(IOU_BOUNDS, ""), "above it is good")},
        lambda own: ClassIou(own["iou"]),
    ),
    "class_recall": ("quality", {"objective": OBJECTIVE, "classes": CLASSES}, lambda _: ClassRecall()),
    "annotator_agreement": ("quality", {"objective": OBJECTIVE, "classes": CLASSES}, lambda _: AnnotatorAgreement()),
    "false_positives_per_image": (
        "quality",
        {"classes": CLASSES, "limit": Field(*POSITIVE, "invented instances of a class for each image")},
        lambda own: FalsePositives(own["limit"]),
    ),
    "confidence": (
        "quality",
        {
            "objective": OBJECTIVE,
            "classes": CLASSES,
            "score": Field(*_bound(CONFIDENCE_BOUNDS, ""), "above it is good"),
        },
        lambda own: Confidence(own["score"]),
    ),
    "freshness": (
        "ops",
        {
            "objective": OBJECTIVE,
            "of": Field(*_choice("events", "labels", "drift_windows", "baseline"), "what must be fresh"),
            "max_age": Field(*DURATION, "older is bad"),
            "classes": CLASSES,
        },
        lambda own: Freshness(own["of"], own["max_age"]),
    ),
    "drift_free_time": (
        "quality",
        {"objective": OBJECTIVE, "signals": Field(*NAMES, "signals; left out: any signal")},
        lambda own: DriftFreeTime(own.get("signals", ())),
    ),
    "cost_per_inference": (
        "ops",
        {"limit_usd": Field(*POSITIVE, "US dollars an inference, on average")},
        lambda own: CostPerInference(own["limit_usd"]),
    ),
    "ratio": (
        "ops",
        {
            "objective": OBJECTIVE,
            "preset": Field(*_choice(*PRESETS), "a model server's counters"),
            "service": Field(*ANY_NAME, "the model, inference service or deployment that the preset is for"),
            "total": Field(*QUERY, "all events"),
            "good": Field(*QUERY, "good events"),
            "bad": Field(*QUERY, "bad events"),
        },
        lambda own: _ratio(own),
    ),
}

OPTIONAL: Final = frozenset({"classes", "signals", "preset", "service", "total", "good", "bad"})


def _ratio(own: dict[str, Any]) -> Ratio:
    if "preset" in own:
        clash = next((key for key in ("total", "good", "bad") if key in own), None)
        if clash:
            raise SpecError((clash,), "a preset brings its own queries")
        if "service" not in own and own["preset"] != "torchserve":
            raise SpecError(("service",), f"is missing: which {own['preset']} service is it?")
        return PRESETS[own["preset"]](own.get("service", ""))
    if "total" not in own or ("good" in own) == ("bad" in own):
        raise SpecError((), "a ratio needs a preset, or total and one of good and bad")
    return Ratio(own["total"], own.get("good", ""), own.get("bad", ""))


def _read(field: Field, value: Any, path: Path) -> Any:
    try:
        return field.read(value)
    except SpecError as error:
        raise SpecError((*path, *error.path), error.message) from None
    except ValueError as error:
        raise SpecError(path, str(error)) from None


def parse(tree: Any) -> list[Slo]:
    """The SLOs of one decoded document: a mapping with ``slos``, or one SLO. Raises SpecError."""
    if not isinstance(tree, dict):
        raise SpecError((), f"expected an SLO or a mapping with slos, got {type(tree).__name__}")
    if "slos" not in tree:
        return [_slo(tree, ())]
    for key in tree:
        if key != "slos":
            raise SpecError((str(key),), "unknown field beside slos")
    if not isinstance(tree["slos"], list) or not tree["slos"]:
        raise SpecError(("slos",), "expected a list of SLOs")
    return [_slo(entry, ("slos", index)) for index, entry in enumerate(tree["slos"])]


def check_names(slos: Iterable[Slo]) -> None:
    """Raises SpecError where two SLOs have one name."""
    seen: set[str] = set()
    for slo in slos:
        if slo.name in seen:
            raise SpecError((*slo.path, "name"), f"another SLO has the name {slo.name!r}, too")
        seen.add(slo.name)


def check_classes(slos: Iterable[Slo], known: Mapping[str, Iterable[str]]) -> None:
    """Raises SpecError where an SLO names a class that its model's baseline lacks. ``known``: classes by model."""
    for slo in slos:
        classes = set(known.get(slo.model, ()))
        missing = [name for name in slo.classes if classes and name not in classes]
        if missing:
            raise SpecError(
                (*slo.path, "classes"),
                f"SLO {slo.name!r}: model {slo.model!r} has no class {missing[0]!r}; it has "
                f"{', '.join(sorted(classes))}",
            )


def check_retention(slos: Iterable[Slo], retention_s: int) -> None:
    """Raises SpecError where an SLO looks back further than Prometheus keeps."""
    for slo in slos:
        longest = max(slo.period_s, slo.blind_after_s, *(burn.long_s for burn in fit(slo)))
        if longest > retention_s:
            field = "period" if slo.period_s == longest else "windows"
            raise SpecError(
                (*slo.path, field),
                f"SLO {slo.name!r}: a window of {duration(longest)} is longer than Prometheus's retention"
                f" ({duration(retention_s)}; --retention says how long it is)",
            )


def _slo(entry: Any, path: Path) -> Slo:
    if not isinstance(entry, dict):
        raise SpecError(path, f"expected an SLO, got {entry!r}")
    for needed in ("name", "kind"):
        if needed not in entry:
            raise SpecError(path, f"{needed} is missing")
    kind = entry["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise SpecError((*path, "kind"), f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    category, own_fields, make = KINDS[kind]
    read: dict[str, Any] = {}
    for key, value in entry.items():
        field = own_fields.get(key) or COMMON.get(key)
        if field is None:
            raise SpecError((*path, str(key)), f"unknown field of kind {kind}")
        read[key] = _read(field, value, (*path, key))
    for key in own_fields:
        if key not in read and key not in OPTIONAL:
            raise SpecError(path, f"{key} is missing (kind {kind})")
    try:
        source = make(read)
    except SpecError as error:
        raise SpecError((*path, *error.path), error.message) from None
    if read.get("classes") and isinstance(source, Freshness) and source.of != "labels":
        raise SpecError((*path, "classes"), "only labels are of classes")
    slo = Slo(
        name=read["name"],
        kind=kind,
        source=source,
        objective=read.get("objective"),
        category=read.get("category", category),
        model=read.get("model", ""),
        version=read.get("version", ""),
        classes=read.get("classes", ()),
        period_s=read.get("period", 30 * 24 * HOUR),
        tiers=read.get("windows", TIERS),
        events_per_hour=read.get("events_per_hour"),
        guard=read.get("guard", True),
        min_events=read.get("min_events", 6),
        design_effect=read.get("design_effect"),
        hold=read.get("hold", True),
        unreachable=read.get("unreachable", "rescale"),
        blind_after_s=read.get("blind_after", 24 * HOUR),
        description=read.get("description", ""),
        path=path,
    )
    fit(slo)  # what could never fire is said here, with its place
    for burn in fit(slo):
        if burn.long_s > slo.period_s:
            raise SpecError((*path, "period"), f"shorter than the window of {burn.long}")
    return slo
