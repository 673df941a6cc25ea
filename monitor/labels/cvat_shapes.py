"""Shapes as CVAT has them, whether they come as XML or over its REST interface, to masks of a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.box_runs import Box, runs_of_box
from monitor.classes import Classes
from monitor.errors import InputError
from monitor.labels.asked import ASKED, Asked
from monitor.labels.outlines import first_fault
from monitor.labels.painted import check_sides, parts_in_form, rle_of_runs
from monitor.labels.records import Request
from monitor.masks import Count
from monitor.records.reasons import shorten

DRAWN = ("mask", "polygon")
"""Shapes that say which pixels are meant. A box, an ellipse or a line does not."""


class Shape(NamedTuple):
    """A shape that is still to be read. ``numbers``: of a mask its counts and the box (left, top, width, height); of a
    polygon x and y in turn. Higher ``z_order`` lies over lower."""

    kind: str
    label: str
    z_order: int
    numbers: str | Sequence[float]
    box: Box | None


class Frame(NamedTuple):
    """An image with its shapes."""

    key: str
    name: str
    height: int
    width: int
    shapes: list[Shape]
    asked: Asked


def frame_parts(frame: Frame, request: Request) -> dict[str, Any]:
    """The parts of an image's record. Raises InputError that names the shape."""
    if frame.height * frame.width > request.limits.max_pixels:
        size = f"{frame.height} x {frame.width} pixels"
        raise InputError(f"{size}, the limit is {request.limits.max_pixels}")
    check_sides(len(frame.shapes), frame.height, frame.width)
    instances = []
    room = request.limits.max_value_bytes  # a run takes a character of the record at least
    for i in sorted(range(len(frame.shapes)), key=lambda i: frame.shapes[i].z_order):
        shape = frame.shapes[i]
        try:
            mask, runs = _mask_of(shape, frame, request.classes, room)
        except ValueError as error:  # also InputError's kin
            raise InputError(f"shape {i} ({shape.kind} of {shorten(shape.label)}): {error}") from None
        room -= runs
        instances.append({"class": shape.label, "mask": mask})
    polygons = [one["mask"] for one in instances if isinstance(one["mask"], list)]
    fault = first_fault(polygons, frame.height, frame.width, request.limits.max_pixels) if polygons else None
    if fault is not None:
        raise InputError(fault[1])
    form = frame.asked.form_for(request)
    return {**parts_in_form(instances, frame.height, frame.width, form, request.classes), **frame.asked.parts()}


def _mask_of(shape: Shape, frame: Frame, classes: Classes | None, room: int) -> tuple[Any, int]:
    """The mask and how many runs it has. Raises ValueError."""
    if shape.label == ASKED:
        raise ValueError(f"{ASKED} is what segwatch asked for, no class")
    if classes is not None and shape.label not in classes.names:
        raise ValueError("which the classes do not have")
    if shape.kind not in DRAWN:
        raise ValueError("is no mask")
    if shape.box is None:
        return _polygon(np.asarray(shape.numbers, np.float64)), 0
    counts = read_integers(shape.numbers)
    starts, ends = runs_of_box(counts, shape.box, frame.height, frame.width, room)
    return rle_of_runs(starts, ends, frame.height, frame.width), len(starts)


def _polygon(coordinates: NDArray[np.float64]) -> list[list[float]]:
    if len(coordinates) < 6 or len(coordinates) % 2 or not np.isfinite(coordinates).all():
        raise ValueError("a polygon needs an even number of finite coordinates and at least three points")
    return [coordinates.tolist()]


def read_integers(numbers: str | Sequence[float]) -> NDArray[np.int64]:
    """Counts from ``0, 3, 1`` or from JSON numbers, which may be written as 3.0. Raises ValueError.

    >>> read_integers("0, 3,1").tolist(), read_integers([0, 3.0]).tolist()
    ([0, 3, 1], [0, 3])
    """
    if not isinstance(numbers, str):
        values = np.asarray(numbers, np.float64)
        if not (np.abs(values) <= 2**31).all() or (values != np.floor(values)).any():
            raise ValueError("a number of the mask is no integer")
        return values.astype(np.int64)
    try:  # several times as fast as int() of each, and as strict
        return np.array(msgspec.json.decode(f"[{numbers}]", type=list[Count]), np.int64)
    except (ValueError, RecursionError):
        raise ValueError("rle: expected integers from 0 on, with commas between them") from None
