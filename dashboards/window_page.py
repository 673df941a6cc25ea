"""``/models/MODEL/VERSION/windows/START``: what carries a window's verdict, and its images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from dashboards.addresses import MOST_SECONDS, name_in
from dashboards.judged_records import JudgedRecord, in_cell, records_of
from dashboards.page_data import PageData
from dashboards.pages import STATES
from dashboards.palette import FOUND_ONLY, LABELLED_ONLY, OTHER_CLASS, RIGHT, class_colour, css
from dashboards.render import missing, page
from monitor.classes import Classes
from monitor.quality import quality_windows
from monitor.quality_details import confusion
from monitor.quality_now import VersionFacts
from monitor.store.values import StoredScore
from monitor.store.views import Seen
from monitor.windows import SECOND_US, parse_time, to_text

PER_PAGE: Final = 12
THUMB: Final = 192
DIMENSIONS: Final = 8
CLASSES: Final = 40
Order = Literal["worst", "typical", "newest"]
ORDERS: Final = {"typical": "typical of the shift", "worst": "worst first", "newest": "newest first"}


@dataclass(frozen=True, slots=True)
class Shot:
    """A record in the gallery."""

    input_id: str
    event_time: str
    status: str
    confidence: float | None
    iou: float | None
    labelled: bool
    evidence: float | None
    """Nats by which it speaks for the shift."""


def window_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/models/{model}/{version}/windows/{start}")
    def window_page(
        request: Request,
        model: str,
        version: str,
        start: str,
        length: Annotated[int | None, Query(ge=1, le=MOST_SECONDS)] = None,
        slice_key: Annotated[str, Query(alias="slice")] = "",
        order: Order | None = None,
        number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
        cell: Annotated[str | None, Query(pattern=r"^[0-9]{1,4}-[0-9]{1,4}$")] = None,
    ) -> Response:
        name, of, start_us = name_in(model), name_in(version), parse_time(name_in(start))
        views = data.store.views
        length_us = length * SECOND_US if length else next(iter(views.lengths(name, of, slice_key)), 0)
        score = views.window(name, of, slice_key, length_us, start_us)
        if score is None:
            return missing(request, f"There is no such window of model {name} version {of}.")
        verdict = json.loads(score.payload)
        told = _quality(data, score)
        rows = data.store.judged(name, of, since_us=score.start_us, until_us=score.end_us)
        judged = records_of(rows, slice_key)
        typical = {one["input_id"]: one["evidence_nats"] for one in verdict.get("samples") or ()}
        chosen: Order = order or ("typical" if typical and cell is None else "worst")
        if cell is not None:
            row, column = (int(part) for part in cell.split("-"))
            judged, chosen = [one for one in judged if in_cell(one.judged, row, column)], "worst"
        shots, more = _shots(data, score, chosen, number, judged, typical, only_judged=cell is not None)
        classes = data.classes(name, of)
        return page(
            request,
            "window.html",
            model=name,
            of=of,
            slice_key=slice_key,
            start=to_text(score.start_us),
            end=to_text(score.end_us),
            length_s=length_us // SECOND_US,
            verdict=verdict,
            state=STATES.get(verdict["status"], verdict["status"]),
            scores=sorted(verdict["scores"], key=_times, reverse=True),
            dimensions=[_dimension(one) for one in (verdict.get("dimensions") or [])[:DIMENSIONS]],
            slices=verdict.get("slices") or [],
            quality=_classes(told),
            confusion=_confusion(told),
            shots=shots,
            order=chosen,
            orders={key: text for key, text in ORDERS.items() if key != "typical" or typical},
            number=number,
            more=more,
            cell=cell,
            thumb=THUMB,
            legend=legend(classes),
            difference=DIFFERENCE,
            labelled=len(judged),
        )

    return router


DIFFERENCE: Final = (
    (css(RIGHT), "found and labelled alike"),
    (css(FOUND_ONLY), "found, not labelled (stripes up)"),
    (css(LABELLED_ONLY), "labelled, not found (stripes down)"),
    (css(OTHER_CLASS), "of another class (squares)"),
)


def legend(classes: Classes) -> list[tuple[str, str]]:
    """Colour and class, the first of them."""
    return [(css(class_colour(position)), name) for position, name in enumerate(classes.names[:CLASSES])]


def _times(one: Mapping[str, Any]) -> float:
    """Divergence in times of its threshold; what has no threshold comes last."""
    return one["js"] / one["threshold"] if one["js"] is not None and one["threshold"] else -1.0


def _dimension(one: Mapping[str, Any]) -> dict[str, Any]:
    """With its bins as pairs of bars, in shares of the highest."""
    bins = one["bins"]
    most = max([1e-9, *(each[side] for each in bins for side in ("window", "baseline"))])
    return {
        **one,
        "bars": [
            {"x": i * 10, **{side: round(40 * each[side] / most, 1) for side in ("window", "baseline")}}
            for i, each in enumerate(bins)
        ],
        "width": 10 * len(bins),
    }


def _quality(data: PageData, score: StoredScore) -> dict[str, Any] | None:
    found = quality_windows(
        data.store,
        model=score.model,
        facts=VersionFacts(data.store, data.baselines, score.model),
        version=score.version,
        slice_key=score.slice,
        since_us=score.start_us,
        until_us=score.start_us + data.pane_us,  # the start of no other window lies before this
        length_us=score.length_us,
        pane_us=data.pane_us,
        metrics=("iou",),
    )
    one = next((one for one in found if one.window.start_us == score.start_us), None)
    return None if one is None else {"classes": one.to_json()["classes"], "confusion": confusion(one.evidence)}


def _classes(told: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """IoU by class from spot checks, the worst first; what is not known comes last."""
    if told is None:
        return []
    entries = [
        one for one in told["classes"] if one["metric"] in ("iou", "mean_iou") and one["estimator"] == "spotcheck"
    ]
    return sorted(entries, key=lambda one: (one["class"] is not None, 2.0 if one["point"] is None else one["point"]))


def _confusion(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    table = told["confusion"] if told is not None else None
    if not table:
        return None
    rows = []
    for i, (name, counts) in enumerate(zip(table["labelled"], table["counts"], strict=True)):
        total = sum(counts)
        if total:
            cells = [
                {"count": count, "share": count / total, "at": f"{i}-{j}", "own": name == table["predicted"][j]}
                for j, count in enumerate(counts)
            ]
            rows.append({"name": name, "cells": cells})
    used = [j for j in range(len(table["predicted"])) if any(row["cells"][j]["count"] for row in rows)]
    for row in rows:
        row["cells"] = [row["cells"][j] for j in used]
    return {"unit": table["unit"], "predicted": [table["predicted"][j] for j in used], "rows": rows}


def _shots(
    data: PageData,
    score: StoredScore,
    order: Order,
    number: int,
    judged: Sequence[JudgedRecord],
    typical: Mapping[str, float],
    *,
    only_judged: bool,
) -> tuple[list[Shot], bool]:
    """One page of the gallery, and whether there is another."""
    views, key = data.store.views, (score.model, score.version)
    offset, wanted = (number - 1) * PER_PAGE, PER_PAGE + 1
    known = {one.input_id: one for one in judged}
    if order == "typical":
        chosen = list(typical)[offset : offset + wanted]
        seen = views.seen(*key, chosen)
        lines = [seen[one] for one in chosen if one in seen]
    elif order == "newest":
        lines = views.newest(*key, score.start_us, score.end_us, score.slice, offset, wanted)
    else:
        chosen = [one.input_id for one in judged][offset : offset + wanted]
        seen = views.seen(*key, chosen)
        lines = [seen[one] for one in chosen if one in seen]
        if len(chosen) < wanted and not only_judged:
            rest = max(0, offset - len(judged))
            span = score.start_us, score.end_us
            lines += views.unjudged(*key, *span, score.slice, rest, wanted - len(chosen))
    return [_shot(one, known.get(one.input_id), typical) for one in lines[:PER_PAGE]], len(lines) > PER_PAGE


def _shot(one: Seen, judged: JudgedRecord | None, typical: Mapping[str, float]) -> Shot:
    return Shot(
        one.input_id,
        to_text(one.event_time_us),
        one.status,
        one.confidence,
        judged.iou if judged else None,
        judged is not None,
        typical.get(one.input_id),
    )
