"""Masks of one image, brought into the form that its record has: a list of instances, or one map of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from detectors.box_runs import counts_of_runs
from detectors.quality.run_painter import paint_classes
from monitor.classes import Classes
from monitor.errors import InputError
from monitor.labels.index_png import base64_text, index_png
from monitor.masks import write_counts

MAX_PAINTED = 1 << 32
"""Pixels that one image's masks may paint, all of them together, each counted as large as the image: some seconds."""
MAX_SIDES = 1 << 26
"""Masks of one image times its longer side: 10,000 masks of an image of 6,700 pixels a side. Turning the runs of a mask
takes time by the side even where it is full, and so written in a few bytes."""


def check_sides(masks: int, height: int, width: int) -> None:
    """Raise InputError where so many masks of an image of this size would take too long to read."""
    if masks * max(height, width) > MAX_SIDES:
        raise InputError(f"{masks} masks of {height} x {width} pixels are more than are read of one image")


def rle_of_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> dict[str, Any]:
    """Runs down the columns as COCO's compressed RLE.

    >>> rle_of_runs(np.array([1]), np.array([3]), 2, 2)
    {'size': [2, 2], 'counts': '121'}
    """
    text = write_counts(counts_of_runs(starts, ends, height * width)).tobytes().decode("ascii")
    return {"size": [height, width], "counts": text}


def rle_of_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> dict[str, Any]:
    """The union of polygons, painted as judging does: by pycocotools."""
    rle = pycocotools.mask.merge(pycocotools.mask.frPyObjects([list(one) for one in polygons], height, width))
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def parts_in_form(
    instances: Sequence[Mapping[str, Any]], height: int, width: int, form: str, classes: Classes | None
) -> dict[str, Any]:
    """Parts of a label record: ``instances`` as they are, or ``semantic``, in which later masks lie over earlier ones
    and pixels without a mask are void.

    Raises InputError: there are no classes to name the map's values by, or pixels without a mask where none is ignored.
    """
    parts: dict[str, Any] = {"image_size": [height, width]}
    if form != "semantic":
        return {**parts, "instances": list(instances)}
    if classes is None:
        raise InputError("a map needs the model's classes (names and indices)")
    index = dict(zip(classes.names, classes.indices, strict=True))
    void = (
        classes.ignore[0] if classes.ignore else next(value for value in range(65_536) if value not in index.values())
    )
    if len(instances) * height * width > MAX_PAINTED:
        raise InputError(f"{len(instances)} masks of {height} x {width} pixels are more than a map is painted from")
    painted = np.full((height, width), void, np.uint16)
    if instances:
        masks = [
            one["mask"] if isinstance(one["mask"], dict) else rle_of_polygons(one["mask"], height, width)
            for one in instances
        ]
        painted = paint_classes(masks, [index[one["class"]] for one in instances], void).astype(np.uint16)
    if not classes.ignore and bool((painted == void).any()):
        row, column = np.argwhere(painted == void)[0].tolist()
        raise InputError(f"the pixel at row {row}, column {column} has no mask, and the classes ignore no index")
    return {**parts, "semantic": {"classes_png": base64_text(index_png(painted))}}
