"""OpenSLO v1 (github.com/OpenSLO/OpenSLO, README): its SLO and SLI documents to ours, and ours to them.

Read are SLOs of budgeting method Occurrences with a ratio metric from Prometheus, over a rolling time window.
``counter: true`` says that the queries are counters; other queries must be over ``{{.window}}``, which tools that
render rules for Prometheus put the window into, or over one range, in whose place the window comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from alerts.slo import queries
from alerts.slo.foreign import (
    ANNOTATION,
    Imported,
    Note,
    Path,
    annotate,
    check_slugs,
    mapping,
    name_of,
    needed,
    percent,
    restore,
    share,
    slug,
    text,
)
from alerts.slo.parse import parse
from alerts.slo.promql import duration, parse_duration
from alerts.slo.queries import Queries
from alerts.slo.spec import Slo, SpecError

VERSION: Final = "openslo/v1"
KINDS: Final = ("DataSource", "SLO", "SLI", "AlertPolicy", "AlertCondition", "AlertNotificationTarget", "Service")
MAX_DESCRIPTION: Final = 1050
COUNTERS: Final = ("_total", "_count", "_sum", "_bucket")


def is_openslo(tree: Any) -> bool:
    """Whether a document says that it is of OpenSLO, of whichever version."""
    return isinstance(tree, dict) and str(tree.get("apiVersion", "")).startswith("openslo")


def read(trees: Mapping[int, Any]) -> Imported:
    """The SLOs of documents, by the documents' numbers. Raises SpecError with the number as first step of its path."""
    found = Imported()
    indicators: dict[str, Path] = {}
    for number, tree in trees.items():
        kind = _kind(tree, number)
        if kind == "SLI":
            name = text(needed(mapping(tree.get("metadata"), (number, "metadata")), "name", (number,)), (number,))
            if name in indicators:
                raise SpecError((number, "metadata", "name"), f"another SLI has the name {name!r}, too")
            indicators[name] = (number,)
        elif kind not in ("SLO", "Service"):
            found.notes.append(Note((number, "kind"), f"not kept: {kind}; segwatch has alerts of its own"))
    for number, tree in trees.items():
        if tree["kind"] == "SLO":
            _Reader(trees, number, indicators, found).read()
    return found


def _kind(tree: Any, number: int) -> str:
    if tree.get("apiVersion") != VERSION:
        raise SpecError((number, "apiVersion"), f"expected {VERSION}, got {tree.get('apiVersion')!r}")
    kind = needed(tree, "kind", (number,))
    if kind not in KINDS:
        raise SpecError((number, "kind"), f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    return str(kind)


class _Reader:
    """One document of kind SLO."""

    def __init__(self, trees: Mapping[int, Any], number: int, indicators: Mapping[str, Path], found: Imported) -> None:
        self.trees = trees
        self.at: Path = (number,)
        self.indicators = indicators
        self.found = found
        self.metadata = mapping(needed(trees[number], "metadata", self.at), (number, "metadata"))
        self.spec = mapping(needed(trees[number], "spec", self.at), (number, "spec"))

    def read(self) -> None:
        self._check_method()
        name = text(needed(self.metadata, "name", (*self.at, "metadata")), (*self.at, "metadata", "name"))
        objectives = needed(self.spec, "objectives", (*self.at, "spec"))
        if not isinstance(objectives, list) or not objectives:
            raise SpecError((*self.at, "spec", "objectives"), f"expected a list of objectives, got {objectives!r}")
        for index, entry in enumerate(objectives):
            path = (*self.at, "spec", "objectives", index)
            more = "" if len(objectives) == 1 else str(mapping(entry, path).get("displayName") or index + 1)
            self.found.slos.append(self._slo(name, more, mapping(entry, path), path))
        self._lose()

    def _check_method(self) -> None:
        method = needed(self.spec, "budgetingMethod", (*self.at, "spec"))
        if method != "Occurrences":
            raise SpecError(
                (*self.at, "spec", "budgetingMethod"),
                f"expected Occurrences, got {method!r}: segwatch counts events, not slices of time",
            )

    def _lose(self) -> None:
        spec, metadata = (*self.at, "spec"), (*self.at, "metadata")
        known = {"name", "annotations"}
        self.found.lose(self.metadata, metadata, known, "segwatch's SLO files have no field for it")
        annotations = self.metadata.get("annotations")
        if isinstance(annotations, dict):
            why = "segwatch's SLO files have no field for it"
            self.found.lose(annotations, (*metadata, "annotations"), {ANNOTATION}, why)
        known = {"description", "service", "indicator", "indicatorRef", "timeWindow", "budgetingMethod", "objectives"}
        self.found.lose(self.spec, spec, known, "segwatch's own windows decide who is told")

    def _slo(self, name: str, more: str, objective: Mapping[str, Any], path: Path) -> Slo:
        said: dict[str, Any] = {"name": name_of(name, more), "objective": self._target(objective, path)}
        known = {"displayName", "target", "targetPercent"}
        self.found.lose(objective, path, known, "it is for threshold metrics and slices of time")
        paths: dict[str, Path] = {
            "name": (*self.at, "metadata", "name"),
            "objective": (*path, "target" if "target" in objective else "targetPercent"),
            "description": (*self.at, "spec", "description"),
            "period": (*self.at, "spec", "timeWindow"),
        }
        if "description" in self.spec:
            said["description"] = text(self.spec["description"], paths["description"])
        said["period"] = self._period()
        ratio, at = self._ratio()
        annotation = self._annotation()
        if annotation is not None:
            kept_at = (*self.at, "metadata", "annotations", ANNOTATION)
            slo = restore(annotation, said, kept_at, paths)
            if _texts(queries.plain(slo)) == _raw(ratio):
                return replace(slo, path=self.at)
            self.found.notes.append(Note(at, f"not kept: kind {slo.kind}, for its queries have been changed since"))
        said["kind"] = "ratio"
        if isinstance(self.spec.get("service"), str) and self.spec["service"]:
            said["model"] = self.spec["service"]
        said |= self._queries(ratio, at)
        try:
            (slo,) = parse(said)
        except SpecError as error:
            where = paths.get(str(error.path[0]) if error.path else "", at)
            raise SpecError(where, error.message) from None
        if slo.name != name and not more:
            self.found.notes.append(Note(paths["name"], f"the name becomes {slo.name}"))
        return replace(slo, path=self.at)

    def _annotation(self) -> Any:
        annotations = self.metadata.get("annotations", {})
        return mapping(annotations, (*self.at, "metadata", "annotations")).get(ANNOTATION)

    def _target(self, objective: Mapping[str, Any], path: Path) -> float:
        if ("target" in objective) == ("targetPercent" in objective):
            raise SpecError(path, "expected one of target and targetPercent")
        key = "target" if "target" in objective else "targetPercent"
        return share(objective[key], (*path, key), percent=key == "targetPercent")

    def _period(self) -> str:
        path = (*self.at, "spec", "timeWindow")
        if "timeWindow" not in self.spec:
            self.found.notes.append(Note((*self.at, "spec"), "no timeWindow: the period becomes 30d"))
            return "30d"
        windows = self.spec["timeWindow"]
        if not isinstance(windows, list) or len(windows) != 1:
            raise SpecError(path, "expected a list of one time window")
        window = mapping(windows[0], (*path, 0))
        if "calendar" in window or window.get("isRolling") is not True:
            raise SpecError((*path, 0), "expected isRolling: true; budgets of calendar months are not known here")
        length = text(needed(window, "duration", (*path, 0)), (*path, 0, "duration"))
        try:
            return duration(parse_duration(length))
        except ValueError:
            raise SpecError(
                (*path, 0, "duration"), f"expected minutes, hours, days or weeks, such as 30d, got {length!r}"
            ) from None

    def _ratio(self) -> tuple[Mapping[str, Any], Path]:
        """The ratio metric, and where it stands: in the SLO, or in the SLI that it names."""
        if ("indicator" in self.spec) == ("indicatorRef" in self.spec):
            raise SpecError((*self.at, "spec"), "expected one of indicator and indicatorRef")
        if "indicator" in self.spec:
            at: Path = (*self.at, "spec", "indicator")
            indicator = mapping(self.spec["indicator"], at)
        else:
            name = self.spec["indicatorRef"]
            if name not in self.indicators:
                raise SpecError((*self.at, "spec", "indicatorRef"), f"there is no SLI of the name {name!r}")
            at = self.indicators[name]
            indicator = self.trees[int(at[0])]
        spec = mapping(needed(indicator, "spec", at), (*at, "spec"))
        if "ratioMetric" not in spec:
            threshold = "thresholdMetric" in spec
            where = (*at, "spec", "thresholdMetric") if threshold else (*at, "spec")
            raise SpecError(where, "expected a ratioMetric: only events, good and bad, can be counted")
        at = (*at, "spec", "ratioMetric")
        return mapping(spec["ratioMetric"], at), at

    def _queries(self, ratio: Mapping[str, Any], at: Path) -> dict[str, str]:
        if "raw" in ratio:
            raise SpecError((*at, "raw"), "a ratio that is already calculated says no numbers of events")
        if ("good" in ratio) == ("bad" in ratio):
            raise SpecError(at, "expected one of good and bad beside total")
        needed(ratio, "total", at)
        found, scales = {}, {}
        for key in ("total", "good", "bad"):
            if key in ratio:
                query, path = _query(ratio[key], (*at, key))
                try:
                    found[key], scales[key] = self._events(query, ratio.get("counter"), path)
                except ValueError as error:
                    raise SpecError(path, str(error)) from None
        if len(set(scales.values())) > 1:
            raise SpecError(at, "one query gives events, the other events a second")
        return found

    def _events(self, query: str, is_counter: Any, path: Path) -> tuple[str, bool]:
        """A query as a ratio has it, and whether it was of events a second."""
        try:
            plain = queries.counter(query)
        except ValueError:
            plain = ""
        usual = bool(plain) and all(part.partition("{")[0].strip().endswith(COUNTERS) for part in plain.split(" + "))
        if plain and (is_counter is True or (is_counter is None and usual)):
            return plain, False
        if plain:
            raise ValueError("expected counter: true, or an expression over {{.window}}: a gauge counts no events")
        placed, fixed = queries.with_placeholder(query)
        if fixed:
            self.found.notes.append(Note(path, f"[{fixed}] becomes each window of the rules"))
        return queries.of_window(placed), queries.per_second(placed)


def _query(metric: Any, path: Path) -> tuple[str, Path]:
    source = mapping(needed(mapping(metric, path), "metricSource", path), (*path, "metricSource"))
    path = (*path, "metricSource")
    if str(source.get("type", "prometheus")).lower() != "prometheus":
        raise SpecError((*path, "type"), f"expected Prometheus, got {source['type']!r}")
    spec = mapping(needed(source, "spec", path), (*path, "spec"))
    path = (*path, "spec")
    return text(needed(spec, "query", path), (*path, "query")), (*path, "query")


def _texts(found: Queries) -> dict[str, Any]:
    return {key: query for key in ("total", "good", "bad") if (query := getattr(found, key))}


def _raw(ratio: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _query(ratio[key], (key,))[0] for key in ("total", "good", "bad") if key in ratio}


def write(slos: Sequence[Slo]) -> tuple[list[dict[str, Any]], list[str]]:
    """Documents: a Service for each model, then the SLOs; and what OpenSLO has no words for.

    Raises SpecError for an SLO that is no share of good events.
    """
    check_slugs(slos)
    services: dict[str, str] = {}
    documents: list[dict[str, Any]] = []
    notes: list[str] = []
    for slo in slos:
        service = services.setdefault(slug(slo.model or "segwatch"), slo.model or "segwatch")
        documents.append(_document(slo, slug(service), notes))
    return [*(_service(name, shown) for name, shown in services.items()), *documents], notes


def _service(name: str, shown: str) -> dict[str, Any]:
    return {
        "apiVersion": VERSION,
        "kind": "Service",
        "metadata": {"name": name, "displayName": shown},
        "spec": {"description": "Watched by segwatch." if name == "segwatch" else "A model."},
    }


def _document(slo: Slo, service: str, notes: list[str]) -> dict[str, Any]:
    found = queries.plain(slo)
    assert slo.objective is not None
    if len(slo.description) > MAX_DESCRIPTION:
        notes.append(f"SLO {slo.name}: description: cut to {MAX_DESCRIPTION} characters")
    return {
        "apiVersion": VERSION,
        "kind": "SLO",
        "metadata": {"name": slug(slo.name), "annotations": {ANNOTATION: annotate(slo, "period")}},
        "spec": {
            **({"description": slo.description[:MAX_DESCRIPTION]} if slo.description else {}),
            "service": service,
            "indicator": {
                "metadata": {"name": f"{slug(slo.name)[:59]}-sli"},
                "spec": {
                    "ratioMetric": {
                        "counter": found.counters,
                        **{key: _metric(query) for key, query in _texts(found).items()},
                    }
                },
            },
            "timeWindow": [{"duration": duration(slo.period_s), "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": f"{percent(slo.objective):g} %", "target": slo.objective}],
        },
    }


def _metric(query: str) -> dict[str, Any]:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}
