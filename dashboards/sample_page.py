"""``/samples/MODEL/VERSION/INPUT``: one record, with its pictures, and all that became of it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from dashboards.addresses import name_in
from dashboards.judged_records import records_of
from dashboards.page_data import PageData
from dashboards.pictures import chosen_label
from dashboards.render import missing, page
from dashboards.window_page import DIFFERENCE, legend
from monitor.kept_masks import kept
from monitor.trace import trace
from monitor.windows import parse_time

SIDE = 480


def sample_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/samples/{model}/{version}/{input_id}")
    def sample_page(request: Request, model: str, version: str, input_id: str, annotator: str = "") -> Response:
        name, of, wanted = name_in(model), name_in(version), name_in(input_id)
        told = trace(data.store, data.images, data.settings.current, wanted)
        record = next((one for one in told["records"] if (one["model"], one["version"]) == (name, of)), None)
        if record is None:
            if told["purged"]:
                return missing(request, "This input was purged: nothing of it is stored.")
            return missing(request, f"There is no record of {wanted} of model {name} version {of}.")
        views = data.store.views
        one = views.sample(name, of, wanted)
        row = views.judged_one(wanted, name, of)
        judged = records_of([row])[:1] if row else []
        labels = [each for each in told["labels"] if each["model"] in (None, name) and each["version"] in (None, of)]
        label = chosen_label(views.labels(wanted, name, of), annotator)
        return page(
            request,
            "sample.html",
            model=name,
            of=of,
            input_id=wanted,
            record=record,
            others=[each for each in told["records"] if each is not record],
            labels=labels,
            items=[each for each in told["relabel"] if each["model"] == name],
            iou=judged[0].iou if judged else None,
            annotator=label.annotator if label else "",
            views=_views(record["image"] is not None, one is not None and one.masks is not None, label is not None),
            instances=_instances(one.masks) if one else [],
            side=SIDE,
            legend=legend(data.classes(name, of)),
            difference=DIFFERENCE,
            length_of=_length_of,
        )

    return router


def _views(image: bool, masks: bool, label: bool) -> list[tuple[str, str]]:
    """The pictures that there are, each with what it shows."""
    found = [("input", "Input")] if image else []
    if masks:
        found += [("prediction", "Predicted masks"), ("confidence", "Confidence: dark is unsure, yellow is sure")]
    if label:
        found.append(("label", "Label"))
    if masks and label:
        found.append(("difference", "Difference"))
    return found


def _instances(masks: bytes | None) -> list[tuple[str, float]]:
    """Class and score of what was found, the surest first."""
    if not masks:
        return []
    try:
        return sorted(((one.class_name, one.score) for one in kept(masks).instances or ()), key=lambda pair: -pair[1])[
            :100
        ]
    except ValueError:
        return []


def _length_of(window: dict[str, str]) -> int:
    return (parse_time(window["end"]) - parse_time(window["start"])) // 1_000_000
