"""``/samples/MODEL/VERSION/INPUT/overlay.png``: a sample's masks on its image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from dashboards.addresses import name_in
from dashboards.page_data import PageData
from dashboards.painting import Painted, Size, View, decoded, draw, paint, picture_size, size_of, to_png
from monitor.errors import BadRecord
from monitor.kept_masks import KeptMasks, kept
from monitor.label_rows import raw_of
from monitor.records import Label, decode
from monitor.store.values import LabelRow
from monitor.store.views import Sample

FORM: Final = b"1"
"""Counts changes of how pictures are painted, so that no browser keeps the old ones."""
CACHING: Final = "private, no-cache"
"""Kept by the browser, and asked for again each time: by its tag, which costs no painting."""
NOTHING: Final = KeptMasks(0, 0, None, None)
NO_SIZE: Final = (128, 128)


def picture_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/samples/{model}/{version}/{input_id}/overlay.png")
    def overlay(
        request: Request,
        model: str,
        version: str,
        input_id: str,
        view: View = "prediction",
        side: Annotated[int, Query(ge=16, le=2048)] = 512,
        annotator: Annotated[str, Query(max_length=256)] = "",
    ) -> Response:
        one = data.store.views.sample(name_in(model), name_in(version), name_in(input_id))
        if one is None:
            return Response("There is no such sample.", 404, media_type="text/plain")
        labels = data.store.views.labels(one.input_id, one.model, one.version) if _wants_label(view) else []
        row = chosen_label(labels, annotator)
        image = data.image(one)
        tag = _tag(view, side, one, row, image)
        headers = {"etag": tag, "cache-control": CACHING}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(_png(data, view, side, one, row, image), media_type="image/png", headers=headers)

    return router


def chosen_label(rows: Sequence[LabelRow], annotator: str = "") -> LabelRow | None:
    """This annotator's, or the newest of those that could be judged; None where there is none."""
    if annotator:
        return next((row for row in rows if row.annotator == annotator), None)
    return max(rows, key=lambda row: (row.state == "judged", row.label_time_us), default=None)


def _wants_label(view: View) -> bool:
    return view in ("label", "difference")


def _tag(view: View, side: int, one: Sample, row: LabelRow | None, image: bytes | None) -> str:
    told = (row.annotator, row.annotation_version) if row else ()
    parts = [FORM, f"{view} {side} {told}".encode("utf-8", "surrogatepass"), one.masks or b"", image or b""]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return f'"{digest.hexdigest()[:32]}"'


def _png(data: PageData, view: View, side: int, one: Sample, row: LabelRow | None, image: bytes | None) -> bytes:
    max_pixels = data.limits.max_pixels
    try:
        masks = kept(one.masks) if one.masks else NOTHING
    except ValueError:
        masks = NOTHING
    label = _label(data, row)
    base = None if image is None else decoded(image)
    size = _size(masks, label) or (NO_SIZE if base is None else (base.shape[0], base.shape[1]))
    shown = picture_size(size, side)
    classes = data.classes(one.model, one.version)

    def painted(source: KeptMasks | Label) -> Painted | None:
        try:
            return paint(source.instances, source.semantic, classes, size, shown, max_pixels)
        except (BadRecord, ValueError):
            return None  # the sample's page says what is wrong with a label

    found = painted(masks) if view != "label" else None
    told = painted(label) if label is not None else None
    return to_png(draw(view, base, found, told, shown))


def _size(masks: KeptMasks, label: Label | None) -> Size | None:
    known = (masks.height, masks.width) if masks.height and masks.width else None
    try:
        size = size_of(masks.instances, masks.semantic, known)
        if size is None and label is not None:
            size = size_of(label.instances, label.semantic, label.image_size)
    except BadRecord:
        return known
    return size


def _label(data: PageData, row: LabelRow | None) -> Label | None:
    if row is None:
        return None
    try:
        record = decode(raw_of(row), data.limits)
    except BadRecord:
        return None
    return record if isinstance(record, Label) else None
