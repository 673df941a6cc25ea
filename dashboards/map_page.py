"""``/models/MODEL/VERSION/windows/START/map``: where a window's embeddings lie among the baseline's.

What is stored suffices: the sketch of every record (the leading components of its embedding), and of the baseline a
sample of components. The baseline's records are points without a name, since nothing else of them is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray

from dashboards import embedding_map as geometry
from dashboards.addresses import MOST_SECONDS, name_in
from dashboards.embedding_map import Map, embedding_map
from dashboards.page_data import PageData
from dashboards.render import missing, page
from detectors.active_learning import COMPONENTS, points
from detectors.moments_baseline import SAMPLE_STEPS
from monitor.store.values import StoredScore
from monitor.store.views import Sketched
from monitor.windows import SECOND_US, parse_time, to_text

RECORDS: Final = 400
"""Of the window: each is a link, and the page is to stay below 100 kB."""
DRAWN: Final = 800
"""Of the baseline's sample; shares are those of all of it."""
PER_PAGE: Final = 12
THUMB: Final = 192
CELLS: Final = 24
NO_BASELINE: Final = "Its baseline has no sample of embeddings: it was built by an older release, or without any."
NO_RECORDS: Final = "None of its records has a finite embedding of the baseline's components."
OTHERS: Final = "Its baseline was replaced so late that all of its records lie in the axes of another one, or may."


def map_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/models/{model}/{version}/windows/{start}/map")
    def map_page(
        request: Request,
        model: str,
        version: str,
        start: str,
        length: Annotated[int | None, Query(ge=1, le=MOST_SECONDS)] = None,
        slice_key: Annotated[str, Query(alias="slice")] = "",
        number: Annotated[int, Query(alias="page", ge=1, le=1000)] = 1,
        cell: Annotated[str, Query(pattern=r"^([0-9]{1,2}-[0-9]{1,2})?$")] = "",
    ) -> Response:
        name, of, start_us = name_in(model), name_in(version), parse_time(name_in(start))
        views = data.store.views
        length_us = length * SECOND_US if length else next(iter(views.lengths(name, of, slice_key)), 0)
        score = views.window(name, of, slice_key, length_us, start_us)
        if score is None:
            return missing(request, f"There is no such window of model {name} version {of}.")
        usual = _baseline(data, score)
        named = [one["input_id"] for one in json.loads(score.payload).get("samples") or ()]
        records, other = ([], 0) if usual is None else _records(data, score, usual.shape[1], named)
        drawing: Map | None = None
        if usual is not None and records:
            drawing = embedding_map(usual, points([one.sketch for one in records]), DRAWN)
        wanted = drawing.cell(cell) if drawing is not None and cell else None
        inside = [records[index] for index in wanted.records] if wanted else []
        first = (number - 1) * PER_PAGE
        return page(
            request,
            "map.html",
            model=name,
            of=of,
            slice_key=slice_key,
            start=to_text(score.start_us),
            end=to_text(score.end_us),
            length_s=length_us // SECOND_US,
            drawing=drawing,
            why=NO_BASELINE if usual is None else OTHERS if other else NO_RECORDS,
            records=records,
            counted=score.records,
            other=other,
            baseline=0 if usual is None else len(usual),
            typical=frozenset(named),
            geometry=geometry,
            most_cells=CELLS,
            wanted=wanted,
            cell=cell,
            shots=inside[first : first + PER_PAGE],
            number=number,
            more=len(inside) > first + PER_PAGE,
            thumb=THUMB,
            to_text=to_text,
        )

    return router


def _records(data: PageData, score: StoredScore, components: int, named: Sequence[str]) -> tuple[list[Sketched], int]:
    """Some of the window's records that lie in its baseline's axes, and how many may lie in another's.

    A record's line does not say which baseline it was held against; its pane does.
    """
    views, of = data.store.views, (score.model, score.version)
    panes = views.pane_baselines(*of, score.slice, score.start_us, score.end_us)
    mixed = {start_us for start_us, baseline, _ in panes if baseline not in ("", score.baseline_id)}
    since_us, until_us, counted = score.start_us, score.end_us, score.records
    if mixed:
        own = {start_us for start_us, *_ in panes} - mixed
        if not own:
            return [], sum(count for *_, count in panes)
        since_us, until_us = min(own), max(own) + data.pane_us
        counted = sum(count for start_us, _, count in panes if since_us <= start_us < until_us)
    found = views.sketched(*of, since_us, until_us, score.slice, counted, RECORDS, named)
    fitting = [
        one
        for one in found
        if one.sketch is not None
        and len(one.sketch) == components
        and since_us <= one.event_time_us < until_us
        and one.event_time_us // data.pane_us * data.pane_us not in mixed
    ]
    return fitting, sum(count for start_us, _, count in panes if start_us in mixed)


def _baseline(data: PageData, score: StoredScore) -> NDArray[np.float64] | None:
    """(S, K) components of the baseline's sample, in standard deviations; None where it has none."""
    if not score.baseline_id:
        return None
    moments = data.baselines.of(score.baseline_id).moments
    return None if moments is None else moments.rows[:, :COMPONENTS] / SAMPLE_STEPS
