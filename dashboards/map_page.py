"""``/models/MODEL/VERSION/windows/START/map``: where a window's embeddings lie among the baseline's.

What is stored suffices: the sketch of every record (the leading components of its embedding), and of the baseline a
sample of components. The baseline's records are points without a name, since nothing else of them is kept.
"""

from __future__ import annotations

import json
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
        records: list[Sketched] = []
        if usual is not None:
            found = views.sketched(name, of, score.start_us, score.end_us, slice_key, score.records, RECORDS, named)
            records = [one for one in found if one.sketch is not None and len(one.sketch) == usual.shape[1]]
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
            why=NO_BASELINE if usual is None else NO_RECORDS,
            records=records,
            counted=score.records,
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


def _baseline(data: PageData, score: StoredScore) -> NDArray[np.float64] | None:
    """(S, K) components of the baseline's sample, in standard deviations; None where it has none."""
    if not score.baseline_id:
        return None
    moments = data.baselines.of(score.baseline_id).moments
    return None if moments is None else moments.rows[:, :COMPONENTS] / SAMPLE_STEPS
