"""Sloth's ``prometheus/v1`` (github.com/slok/sloth, pkg/prometheus/api/v1): its SLOs to ours, and ours to them.

Read are SLIs of events: ``error_query`` and ``total_query`` over ``{{.window}}``, with an objective in per cent. What
Sloth takes from its command line stays there: the period (30 days) and the windows of alerts.
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
from alerts.slo.promql import duration
from alerts.slo.spec import DAY_S, Slo, SpecError, Tier
from alerts.slo.windows import TIERS

VERSION: Final = "prometheus/v1"
LABELS: Final = "segwatch's alerts have labels and annotations of their own"


def is_sloth(tree: Any) -> bool:
    """Whether a document says that it is of Sloth: its own form, or the one for Kubernetes."""
    if not isinstance(tree, dict):
        return False
    return str(tree.get("version", "")).startswith("prometheus/") or str(tree.get("apiVersion", "")).startswith(
        "sloth."
    )


def read(tree: Mapping[str, Any], number: int) -> Imported:
    """The SLOs of a document. Raises SpecError with ``number``, the document's, as first step of its path."""
    if tree.get("version") != VERSION:
        key = "version" if "version" in tree else "apiVersion"
        raise SpecError((number, key), f"expected version: {VERSION}, got {tree.get(key)!r}")
    found = Imported()
    service = text(needed(tree, "service", (number,)), (number, "service"))
    slos = needed(tree, "slos", (number,))
    if not isinstance(slos, list) or not slos:
        raise SpecError((number, "slos"), f"expected a list of SLOs, got {slos!r}")
    found.lose(tree, (number,), {"version", "service", "slos"}, "it changes Sloth's rules only")
    for index, entry in enumerate(slos):
        path: Path = (number, "slos", index)
        found.slos.append(replace(_slo(service, mapping(entry, path), path, found), path=path))
    return found


def _slo(service: str, entry: Mapping[str, Any], path: Path, found: Imported) -> Slo:
    name = text(needed(entry, "name", path), (*path, "name"))
    objective = share(needed(entry, "objective", path), (*path, "objective"), percent=True)
    said: dict[str, Any] = {"name": name, "objective": objective}
    if entry.get("description"):
        said["description"] = text(entry["description"], (*path, "description"))
    known = {"name", "objective", "description", "sli", "alerting"}
    found.lose(entry, path, known, "it changes Sloth's rules only")
    alerting = mapping(entry.get("alerting", {}), (*path, "alerting"))
    tiers = _tiers(alerting, (*path, "alerting"))
    sli = mapping(needed(entry, "sli", path), (*path, "sli"))
    error, total = _events(sli, (*path, "sli"))
    annotations = mapping(alerting.get("annotations", {}), (*path, "alerting", "annotations"))
    paths = {key: (*path, key) for key in ("name", "objective", "description")}
    if ANNOTATION in annotations:
        slo = restore(annotations[ANNOTATION], said, (*path, "alerting", "annotations", ANNOTATION), paths)
        if _queries(slo) == (error, total):
            if tiers != TIERS:
                kept = tuple(tier for tier in slo.tiers if tier.notify in {one.notify for one in tiers})
                slo = replace(slo, tiers=kept or slo.tiers)
            return slo
        found.notes.append(Note((*path, "sli"), f"not kept: kind {slo.kind}, for its queries have been changed since"))
    ours = name_of(service, name)
    read = {**said, "name": ours, "kind": "ratio", "model": service}
    read |= _ratio(error, total, (*path, "sli", "events"))
    try:
        (slo,) = parse(read)
    except SpecError as failure:
        at = paths.get(str(failure.path[0]) if failure.path else "", (*path, "sli", "events"))
        raise SpecError(at, failure.message) from None
    _lose(alerting, path, found)
    if ours != f"{service}-{name}":
        found.notes.append(Note((*path, "name"), f"the name becomes {ours}"))
    return replace(slo, tiers=tiers)


def _lose(alerting: Mapping[str, Any], path: Path, found: Imported) -> None:
    at = (*path, "alerting")
    found.lose(alerting, at, {"page_alert", "ticket_alert"}, LABELS)
    for key in ("page_alert", "ticket_alert"):
        found.lose(mapping(alerting.get(key) or {}, (*at, key)), (*at, key), {"disable"}, LABELS)


def _tiers(alerting: Mapping[str, Any], path: Path) -> tuple[Tier, ...]:
    disabled = set()
    for notify in ("page", "ticket"):
        key = f"{notify}_alert"
        alert = mapping(alerting.get(key) or {}, (*path, key))
        if alert.get("disable") is True:
            disabled.add(notify)
    tiers = tuple(tier for tier in TIERS if tier.notify not in disabled)
    if not tiers:
        raise SpecError(path, "page and ticket are both disabled: an SLO that tells nobody is not known here")
    return tiers


def _events(sli: Mapping[str, Any], path: Path) -> tuple[str, str]:
    for key, why in (
        ("plugin", "its queries are within Sloth: write them as events"),
        ("raw", "a ratio that is already calculated says no numbers of events"),
    ):
        if key in sli:
            raise SpecError((*path, key), why)
    for key in sli:
        if key != "events":
            raise SpecError((*path, key), "unknown kind of SLI; only events can be counted")
    events = mapping(needed(sli, "events", path), (*path, "events"))
    path = (*path, "events")
    error, total = (text(needed(events, key, path), (*path, key)) for key in ("error_query", "total_query"))
    return error, total


def _ratio(error: str, total: str, path: Path) -> dict[str, str]:
    """``total`` with ``bad``, or with ``good`` where errors are written as what is left of all events."""
    at = (*path, "total_query")
    try:
        found = {"total": queries.of_window(total)}
        at = (*path, "error_query")
        if queries.per_second(error) != queries.per_second(total):
            raise ValueError("one query gives events, the other events a second")
        rest = queries.split(queries.tidy(error), "-")
        if len(rest) == 2 and _same(rest[0], found["total"]):
            return {**found, "good": queries.of_window(rest[1])}
        return {**found, "bad": queries.of_window(error)}
    except ValueError as failure:
        raise SpecError(at, str(failure)) from None


def _same(query: str, total: str) -> bool:
    try:
        return queries.of_window(query) == total
    except ValueError:
        return False


def _queries(slo: Slo) -> tuple[str, str]:
    found = queries.windowed(slo)
    return found.bad or f"({found.total}) - ({found.good})", found.total


def write(slos: Sequence[Slo]) -> tuple[list[dict[str, Any]], list[str]]:
    """A document for each model, and what Sloth has no words for.

    Raises SpecError for an SLO that is no share of good events.
    """
    check_slugs(slos)
    documents: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for slo in slos:
        service = slug(slo.model or "segwatch")
        empty = {"version": VERSION, "service": service, "slos": []}
        documents.setdefault(service, empty)["slos"].append(_entry(slo))
        if slo.period_s != 30 * DAY_S:
            period = duration(slo.period_s)
            notes.append(f"SLO {slo.name}: period: Sloth takes it from --default-slo-period={period}")
        if slo.tiers != TIERS:
            notes.append(f"SLO {slo.name}: windows: Sloth takes them from --slo-period-windows-path")
    return list(documents.values()), notes


def _entry(slo: Slo) -> dict[str, Any]:
    error, total = _queries(slo)
    if "{{" in (error + total).replace(queries.THEIRS, ""):
        raise SpecError(slo.path, f"SLO {slo.name!r}: two braces in a query would begin a template of Sloth")
    assert slo.objective is not None
    told = {tier.notify for tier in slo.tiers}
    return {
        "name": slug(slo.name),
        "objective": percent(slo.objective),
        **({"description": slo.description} if slo.description else {}),
        "sli": {"events": {"error_query": error, "total_query": total}},
        "alerting": {
            "name": "".join(word.capitalize() for word in slug(slo.name).split("-")) + "Burn",
            "labels": {"category": slo.category, "kind": slo.kind},
            "annotations": {ANNOTATION: annotate(slo)},
            "page_alert": {"labels": {"severity": "critical", "notify": "page"}}
            if "page" in told
            else {"disable": True},
            "ticket_alert": (
                {"labels": {"severity": "warning", "notify": "ticket"}} if "ticket" in told else {"disable": True}
            ),
        },
    }
