"""``/models/MODEL/VERSION``: what has happened to a model version, on one axis of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request, Response

from dashboards import timeline as geometry
from dashboards.action_texts import asked_of, headline
from dashboards.addresses import name_in
from dashboards.page_data import PageData
from dashboards.pages import STATES
from dashboards.pooled_quality import Pooled
from dashboards.render import missing, page
from dashboards.timeline import Event, Point, timeline
from monitor.store.values import StoredScore
from monitor.windows import SECOND_US, parse_time, to_text

WINDOWS: Final = 96
"""On one page: four days of hours."""
MOST_ACTIONS: Final = 500


def model_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/models/{model}/{version}")
    def model_page(
        request: Request,
        model: str,
        version: str,
        length: int | None = None,
        slice_key: Annotated[str, Query(alias="slice")] = "",
        until: str | None = None,
    ) -> Response:
        name, of = name_in(model), name_in(version)
        views = data.store.views
        lengths = views.lengths(name, of, slice_key)
        if not lengths:
            return missing(request, f"There is no scored window of model {name} version {of} yet.")
        length_us = length * SECOND_US if length and length * SECOND_US in lengths else lengths[0]
        until_us = parse_time(until) if until else None
        scores = views.recent(name, of, slice_key, length_us, until_us, WINDOWS)
        if not scores:
            return missing(request, "There is no window before this time.")
        verdicts: list[dict[str, Any]] = [msgspec.json.decode(score.payload) for score in scores]
        pooled = data.pooled.of(data.store, scores)
        points = [_point(*one) for one in zip(scores, verdicts, pooled, strict=True)]
        events = _events(data, name, of, scores, verdicts)
        rows = [_row(point, verdict) for point, verdict in zip(points, verdicts, strict=True)]
        return page(
            request,
            "model.html",
            model=name,
            of=of,
            slice_key=slice_key,
            length_s=length_us // SECOND_US,
            lengths=[one // SECOND_US for one in lengths],
            rows=rows,
            line=timeline(points, events),
            events=events,
            geometry=geometry,
            to_text=to_text,
            states=STATES,
            summary=_summary(rows),
            pending=sum(one.pending for one in pooled),
            again=f"?{request.url.query}",
            versions=sorted(views.first_records(name).items(), key=lambda pair: pair[1]),
            older=rows[0]["start"] if len(rows) == WINDOWS else None,
        )

    return router


def _point(score: StoredScore, verdict: Mapping[str, Any], pooled: Pooled) -> Point:
    times = [one["js"] / one["threshold"] for one in verdict["scores"] if one["js"] is not None and one["threshold"]]
    estimate = pooled.estimate
    known = estimate is not None and estimate.point is not None
    return Point(
        score.start_us,
        score.end_us,
        max(times, default=None),
        bool(score.alarm),
        score.records,
        pooled.labelled,
        estimate.point if estimate and known else None,
        estimate.lower if estimate and known else None,
        estimate.upper if estimate and known else None,
    )


def _row(point: Point, verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "start": to_text(point.start_us),
        "end": to_text(point.end_us),
        "point": point,
        "state": verdict["status"],
        "harm": verdict.get("harm"),
        "carried": [one["signal"] for one in verdict["attribution"][:3]],
        "early": verdict.get("early"),
    }


def _events(
    data: PageData, model: str, version: str, scores: Sequence[StoredScore], verdicts: Sequence[Mapping[str, Any]]
) -> list[Event]:
    first_us, last_us = scores[0].start_us, scores[-1].end_us
    found = [
        Event(at_us, "release", f"version {name}: first record")
        for name, at_us in data.store.views.first_records(model).items()
    ]
    for verdict in verdicts:
        early = verdict.get("early")
        if early:
            found.append(Event(parse_time(early["at"]), "early", "early alarm: the sequential test"))
    for one in data.store.views.actions(data.settings.current.kafka.actions_topic, MOST_ACTIONS):
        asked = asked_of(one.value)
        if (asked.model, asked.version) in ((model, version), (model, None)) and asked.window:
            found.append(Event(parse_time(asked.window[1]), "action", headline(asked)))
    return sorted((one for one in found if first_us <= one.at_us <= last_us), key=lambda one: one.at_us)


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Since when there is drift, how bad it is, and what quality was before and is now."""
    newest = rows[-1]
    since = None
    for row in reversed(rows):
        if not row["point"].alarm:
            break
        since = row
    first = next((row for row in rows if row["point"].alarm), None)
    known = [row["point"] for row in rows if row["point"].quality is not None]
    calm = [point for point in known if first is None or point.start_us < first["point"].start_us]
    return {
        "newest": newest,
        "since": since,
        "first": first,
        "now": known[-1] if known else None,
        "before": calm[-1] if calm and since is not None else None,
    }
