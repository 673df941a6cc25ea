"""Signal `mask_geometry`: how large the masks are, what shape they have, and whether they bleed into each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features

SHAPES = ("area", "share", "aspect", "boundary", "compactness", "border", "components", "holes")
"""Measures of an instance, the columns of `Features.instance_shapes`; NaN where one was not taken or does not exist.

``area``: pixels. ``share``: area by the image's. ``aspect``: width by height of the box. ``boundary``: sides of pixels
between the mask and anything else, the outside of the image included. ``compactness``: ``4 pi area / boundary^2``, at
most pi / 4 (squares; pi^2 / 16 for discs, since a boundary of sides is 4 / pi as long as a circle). ``border``: 1 where
the box touches the image's border. ``components``: pixels joined at sides and corners. ``holes``: enclosed background.
"""

SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's buckets of area: below 32 x 32 pixels small, from 96 x 96 on large, medium between."""

FIXED = 2.0**20
"""Logarithms and ratios are rounded to this part of 1, so that their sums are exact and go by no order, and a machine
whose logarithm differs in the last bit gives the same bins."""


class MaskGeometry:
    """Per record the means over its instances, and per class the mean logarithm of the area.

    Logarithms have base 2: one more is twice as large. Empty masks have neither logarithm nor aspect; they count as
    small. Components, holes and overlap are taken on a part of the records alone, and have no value in the others.
    ``overlap`` rises when masks bleed into their neighbours, and when one object is found twice.

    Source: COCO detection evaluation, cocodataset.org (buckets).
    """

    name = "mask_geometry"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        means = ("log_area", "small", "large", "log_aspect", "compactness", "log_boundary")
        return (*means, "border", "components", "holes", "overlap", *(f"log_area[{name}]" for name in classes))

    def values(self, features: Features) -> NDArray[np.float64]:
        records, classes = len(features), features.classes
        values = np.full((records, 10 + classes), np.nan)
        if features.mask_overlap is not None:
            values[:, 9] = features.mask_overlap
        if features.instance_shapes is None:
            return values
        measured = dict(zip(SHAPES, features.instance_shapes.T, strict=True))
        owner = np.repeat(np.arange(records), np.diff(features.instance_offsets))
        area, log_area = measured["area"], _log2(measured["share"])
        known = np.isfinite(area)
        columns = (
            log_area,
            np.where(known, area < SMALL, np.nan),
            np.where(known, area >= LARGE, np.nan),
            _log2(measured["aspect"]),
            measured["compactness"],
            _log2(measured["boundary"]),
            measured["border"],
            measured["components"],
            measured["holes"],
        )
        for column, each in enumerate(columns):
            values[:, column] = _means(each, owner, records)
        cells = owner * (classes + 1) + features.instance_class
        by_class = _means(log_area, cells, records * (classes + 1)).reshape(records, classes + 1)
        values[:, 10:] = by_class[:, :classes]
        return values


def _log2(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN for what has no logarithm."""
    logarithms = np.full(len(values), np.nan)
    np.log2(values, out=logarithms, where=np.isfinite(values) & (values > 0))
    return logarithms


def _means(values: NDArray[np.float64], cells: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """(total,) mean of the finite values of each cell; NaN where there is none."""
    finite = np.isfinite(values)
    cells, values = cells[finite], np.rint(values[finite] * FIXED)
    count = np.bincount(cells, minlength=total)
    sums = np.bincount(cells, values, minlength=total)
    means = np.full(total, np.nan)
    np.divide(sums, count * FIXED, out=means, where=count > 0)
    return means
