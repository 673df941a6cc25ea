"""What the masks of a chunk of predictions look like: the measures of `detectors.signals.mask_geometry`.

RLE masks are measured exactly. Of polygons, area and boundary are the outlines' own (parts that overlap or lie outside
the image count), and components, holes and overlap those of the pixels whose centres they hold. The image's size is
that of the record's RLE masks, or what the caller knows; without it ``share`` and ``border`` are not known.

Components, holes and overlap cost as much as all the rest; they are taken on a part of the records, chosen by a hash
of the input, so that every worker and every baseline choose the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.mask_shapes import RunShapes, measure_runs
from detectors.polygon_runs import measure_outlines, polygon_runs
from detectors.signals.mask_geometry import SHAPES
from monitor.instances import Instances
from monitor.masks import Rle, bytes_of, measure_polygons, offsets_of, read_counts
from monitor.records import Prediction

DEAR_FRACTION = 0.25
"""Of records whose components, holes and overlap are looked for."""
BLOCK = 64
"""Records measured at a time: where polygons are made to hurt, 64 MiB of runs."""


def shapes_of(
    predictions: Sequence[Prediction],
    dear_fraction: float = DEAR_FRACTION,
    image_sizes: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(M, len(SHAPES)) measures of the instances of N records, in order, and (N,) overlap within each record.

    ``predictions``: decoded, with status ok, so that their masks are valid and the RLE ones of a record have one size.
    ``dear_fraction``: in 0..1; records keep their place in the order, so a larger one adds records to those chosen.
    ``image_sizes``: (N, 2) height and width of the images, zeros where not known; asked where a record has no RLE mask.
    """
    sizes = np.zeros((len(predictions), 2), np.int64) if image_sizes is None else image_sizes
    shapes, overlaps = [np.empty((0, len(SHAPES)))], [np.empty(0)]
    for start in range(0, len(predictions), BLOCK):
        rows, overlap = _block(predictions[start : start + BLOCK], dear_fraction, sizes[start : start + BLOCK])
        shapes.append(rows)
        overlaps.append(overlap)
    return np.concatenate(shapes), np.concatenate(overlaps)


def no_shapes(instances: Instances) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same where nobody asks: nothing is known of any instance."""
    return np.full((len(instances.kinds), len(SHAPES)), np.nan), np.full(len(instances.listed), np.nan)


def is_dear(input_id: str, fraction: float) -> bool:
    """Whether the record of this input is among those that are looked at closely.

    >>> sum(is_dear(f"image-{number}", 0.25) for number in range(4000))
    968
    """
    hashed = hashlib.blake2b(input_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"mask shapes").digest()
    return int.from_bytes(hashed) < fraction * 2.0**64


def _block(
    predictions: Sequence[Prediction], dear_fraction: float, image_sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    listed = [prediction.instances or [] for prediction in predictions]
    masks = [instance.mask for instances in listed for instance in instances]
    offsets = offsets_of([len(instances) for instances in listed])
    if not masks:
        return np.empty((0, len(SHAPES))), np.full(len(listed), np.nan)
    owner = np.repeat(np.arange(len(listed)), np.diff(offsets))
    polygons = [i for i, mask in enumerate(masks) if type(mask) is not Rle]
    size = _image_sizes(masks, owner, image_sizes)
    dear = np.array([is_dear(prediction.input_id, dear_fraction) for prediction in predictions])
    numbers: dict[str, int] = {}
    kinds = np.array(
        [numbers.setdefault(each.class_name, len(numbers)) for instances in listed for each in instances], np.int64
    )
    counts, first, last = _rle_counts(masks)
    if not polygons:
        found = measure_runs(counts, first, last, size[:, 0], offsets, kinds, dear)
        return _columns(found.area, found.box, size[owner], found.boundary, found), found.overlap
    drawn = _Polygons([masks[i] for i in polygons], owner[polygons], size, dear)
    first[polygons], last[polygons] = drawn.offsets[:-1] + len(counts), drawn.offsets[1:] + len(counts)
    counts = np.concatenate([counts, drawn.counts])
    found = measure_runs(counts, first, last, drawn.canvas[:, 3], offsets, kinds, dear & drawn.done)
    area, box, boundary = (each.astype(np.float64) for each in (found.area, found.box, found.boundary))
    area[polygons], box[polygons], boundary[polygons] = drawn.area, drawn.box, drawn.boundary
    return _columns(area, box, size[owner], boundary, found), found.overlap


def _image_sizes(masks: Sequence[Any], owner: NDArray[np.int64], otherwise: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 2) height and width of the RLE masks of each record, which are of one size; ``otherwise`` without any."""
    sizes = chain.from_iterable([mask.size if type(mask) is Rle else (0, 0) for mask in masks])
    by_mask = np.fromiter(sizes, np.int64, 2 * len(masks)).reshape(-1, 2)
    known = by_mask[:, 0] > 0
    size = otherwise.copy()
    size[owner[known]] = by_mask[known]
    return size


def _columns(
    area: NDArray[Any], box: NDArray[Any], size: NDArray[np.int64], boundary: NDArray[Any], found: RunShapes
) -> NDArray[np.float64]:
    """(M, len(SHAPES)). ``size``: (M, 2) of each mask's image; zeros where it is not known."""
    x, y, width, height = box.T
    pixels = size[:, 0].astype(np.float64) * size[:, 1]
    touches = (x <= 0) | (y <= 0) | (x + width >= size[:, 1]) | (y + height >= size[:, 0])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns = {
            "area": area,
            "share": np.where(pixels > 0, area / pixels, np.nan),
            "aspect": width / height,
            "boundary": boundary,
            "compactness": 4 * np.pi * area / boundary.astype(np.float64) ** 2,
            "border": np.where((pixels > 0) & (area > 0), touches, np.nan),
            "components": found.components,
            "holes": found.holes,
        }
    return np.stack([columns[name] for name in SHAPES], axis=1)


def _rle_counts(masks: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Counts of all RLE masks and (M,) where each mask's begin and end; both 0 for polygons."""
    texts = [mask.counts if type(mask) is Rle and type(mask.counts) is str else "" for mask in masks]
    counts, offsets, _ = read_counts(bytes_of("".join(texts)), offsets_of([len(text) for text in texts]))
    first, last = offsets[:-1].copy(), offsets[1:].copy()
    listed = [i for i, mask in enumerate(masks) if type(mask) is Rle and type(mask.counts) is list]
    if listed:
        lists = [masks[i].counts for i in listed]
        places = offsets_of([len(each) for each in lists]) + len(counts)
        first[listed], last[listed] = places[:-1], places[1:]
        counts = np.concatenate([counts, np.array(list(chain.from_iterable(lists)), np.int64)])
    return counts, first, last


class _Polygons:
    """The polygon masks of a block, as runs on the canvases of their records.

    A canvas is the image where its size is known, else the box around the record's polygons.
    """

    def __init__(
        self,
        masks: Sequence[Any],
        owner: NDArray[np.int64],
        size: NDArray[np.int64],
        dear: NDArray[np.bool_],
    ) -> None:
        parts = list(chain.from_iterable(masks))
        places = offsets_of([len(part) for part in parts])
        by_mask = offsets_of([len(mask) for mask in masks])
        coordinates = np.fromiter(chain.from_iterable(parts), np.float64, int(places[-1]))
        self.boundary = measure_outlines(coordinates, places, by_mask)
        fault, self.area, self.box = np.empty(len(masks), np.uint8), np.zeros(len(masks)), np.zeros((len(masks), 4))
        measure_polygons(coordinates, places, by_mask, np.arange(len(masks)), fault, self.area, self.box)
        self.canvas = _canvases(owner, size, self.box)
        by_record = np.searchsorted(owner, np.arange(len(size) + 1))
        # Nothing is cut on a canvas without a column.
        width = np.where(dear, self.canvas[:, 2], 0)
        canvas = np.column_stack([self.canvas[:, :2], width, self.canvas[:, 3]])
        self.counts, self.offsets, self.done = polygon_runs(coordinates, places, by_mask, canvas, by_record)


def _canvases(owner: NDArray[np.int64], size: NDArray[np.int64], box: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N, 4) x, y, width and height. ``box``: (M, 4) of the polygon masks, whose records are ``owner``, ascending."""
    canvas = np.zeros((len(size), 4), np.int64)
    canvas[:, 2:] = size[:, ::-1]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    low = np.floor(np.minimum.reduceat(box[:, :2], starts))
    high = np.ceil(np.maximum.reduceat(box[:, :2] + box[:, 2:], starts))
    boxed = size[owner[starts], 0] == 0
    canvas[owner[starts[boxed]]] = np.column_stack([low, high - low])[boxed]
    return canvas
