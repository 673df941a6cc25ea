"""Masks painted into small pictures: what was found, what was labelled, where they differ, how sure the model was.

Masks are brought to the picture's size one by one, so that memory follows the picture and not the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dashboards.palette import FOUND_ONLY, LABELLED_ONLY, OTHER_CLASS, RIGHT, class_colour
from monitor.classes import Classes
from monitor.masks import Mask, Rle, decode_rle
from monitor.records import Instance, LabelInstance, Semantic, decode_semantic
from monitor.records.png import read_header

View = Literal["input", "prediction", "label", "difference", "confidence"]
Size = tuple[int, int]
"""Height and width."""
Picture = NDArray[np.uint8]
"""(h, w, 3) RGB."""

MOST_PAINTED: Final = 400
"""Instances; more could not be told apart. The most confident are painted."""
PAPER: Final = 96
"""Grey behind masks whose image is not kept."""
STRENGTH: Final = 0.55
STRIPE: Final = 3
"""Pixels of a stripe or a square."""
SUBPIXEL: Final = 4
"""Bits behind the point in OpenCV's coordinates."""


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """Per pixel of the picture."""

    kinds: NDArray[np.int32]
    """(h, w) position of the class; -1 for none. Unknown classes come after the known ones."""
    things: NDArray[np.int32]
    """(h, w) number of the object, from 1; 0 for none."""
    sure: NDArray[np.float32]
    """(h, w) 0..1; NaN where it is not known."""


def picture_size(size: Size, side: int) -> Size:
    """As large as fits into ``side`` pixels, in the image's proportions; never larger than the image.

    >>> picture_size((1080, 1920), 480), picture_size((64, 64), 480)
    ((270, 480), (64, 64))
    """
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def size_of(
    instances: Sequence[Instance | LabelInstance] | None, semantic: Semantic | None, known: Size | None
) -> Size | None:
    """The image's size as masks tell it: of the RLE, else ``known``, else of the map; None where none does."""
    for one in instances or ():
        if isinstance(one.mask, Rle):
            return one.mask.size
    if known is not None:
        return known
    if semantic is not None:
        header = read_header(semantic.classes_png, "semantic.classes_png")
        return header.height, header.width
    ends = [max(polygon) for one in instances or () if not isinstance(one.mask, Rle) for polygon in one.mask]
    return (max(1, int(max(ends)) + 1),) * 2 if ends else None


def paint(
    instances: Sequence[Instance | LabelInstance] | None,
    semantic: Semantic | None,
    classes: Classes,
    size: Size,
    shown: Size,
    max_pixels: int,
) -> Painted:
    """Masks of an image of ``size`` in a picture of ``shown``. Raises BadRecord for damaged ones."""
    kinds = np.full(shown, -1, np.int32)
    things = np.zeros(shown, np.int32)
    sure = np.full(shown, np.nan, np.float32)
    if semantic is not None:
        _paint_map(semantic, classes, kinds, sure, max_pixels)
    position = dict(classes.position)
    ranked = sorted(instances or (), key=_score, reverse=True)[:MOST_PAINTED]
    for number, one in enumerate(reversed(ranked), 1):
        inside = _fitted(one.mask, size, shown, max_pixels)
        kinds[inside] = position.setdefault(one.class_name, len(position))
        things[inside] = number
        if isinstance(one, Instance):
            sure[inside] = one.score
    return Painted(kinds, things, sure)


def _score(one: Instance | LabelInstance) -> float:
    return one.score if isinstance(one, Instance) else 1.0


def draw(view: View, image: Picture | None, found: Painted | None, told: Painted | None, shown: Size) -> Picture:
    """The picture. ``found``: the prediction; ``told``: the label; None where there is none."""
    base = _base(image, shown)
    if view == "input":
        return base
    if view == "confidence":
        return base if found is None else _confidence(base, found)
    if view == "difference" and found is not None and told is not None:
        return _difference(base, found, told)
    chosen = told if view == "label" else found
    return base if chosen is None else _masks(base, chosen)


def to_png(picture: Picture) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done
    return data.tobytes()


def decoded(data: bytes) -> Picture | None:
    """A kept image; None where it is damaged."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _base(image: Picture | None, shown: Size) -> Picture:
    if image is None:
        return np.full((*shown, 3), PAPER, np.uint8)
    resized = cv2.resize(image, (shown[1], shown[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _fitted(mask: Mask, size: Size, shown: Size, max_pixels: int) -> NDArray[np.bool_]:
    if isinstance(mask, Rle):
        whole = decode_rle(mask.size, mask.counts, max_pixels).astype(np.uint8)
        return np.asarray(cv2.resize(whole * 255, (shown[1], shown[0]), interpolation=cv2.INTER_AREA)) >= 128
    canvas = np.zeros(shown, np.uint8)
    scale = np.array([shown[1] / size[1], shown[0] / size[0]])
    far = 4 * max(shown)
    for polygon in mask:
        points = np.clip(np.array(polygon).reshape(-1, 2) * scale, -far, far)
        cv2.fillPoly(canvas, [np.round(points * (1 << SUBPIXEL)).astype(np.int32)], 1, shift=SUBPIXEL)
    return canvas.astype(np.bool_)


def _paint_map(
    semantic: Semantic, classes: Classes, kinds: NDArray[np.int32], sure: NDArray[np.float32], max_pixels: int
) -> None:
    height, width = kinds.shape
    indices, confidence = decode_semantic(semantic, max_pixels)
    small = cv2.resize(indices, (width, height), interpolation=cv2.INTER_NEAREST)
    for value in np.unique(small).tolist():
        if value not in classes.ignore:
            kinds[small == value] = classes.position_of_index.get(value, len(classes.names) + value)
    if confidence is not None:
        sure[:] = cv2.resize(confidence, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _masks(base: Picture, painted: Painted) -> Picture:
    picture = base.astype(np.float32)
    for kind in np.unique(painted.kinds).tolist():
        if kind >= 0:
            inside = painted.kinds == kind
            picture[inside] = (1 - STRENGTH) * picture[inside] + STRENGTH * np.array(class_colour(kind))
    picture[_edges(painted)] = 255
    return picture.astype(np.uint8)


def _edges(painted: Painted) -> NDArray[np.bool_]:
    """Between objects and classes; of objects alone the outer side stays as it is."""
    edges = np.zeros(painted.kinds.shape, np.bool_)
    for values in (painted.kinds, painted.things):
        across, down = values[:, 1:] != values[:, :-1], values[1:] != values[:-1]
        edges[:, 1:] |= across
        edges[:, :-1] |= across
        edges[1:] |= down
        edges[:-1] |= down
    return edges & (painted.kinds >= 0)


def _difference(base: Picture, found: Painted, told: Painted) -> Picture:
    height, width = found.kinds.shape
    # Patterns, for those who cannot tell the colours: stripes this way, stripes that way, squares.
    rows, columns = np.mgrid[0:height, 0:width]
    one, other = (rows + columns) // STRIPE % 2 == 0, (rows - columns) // STRIPE % 2 == 0
    squares = (rows // STRIPE + columns // STRIPE) % 2 == 0
    there, labelled = found.kinds >= 0, told.kinds >= 0
    picture = base.astype(np.float32) * 0.6
    for where, colour, pattern in (
        (there & labelled & (found.kinds == told.kinds), RIGHT, None),
        (there & ~labelled, FOUND_ONLY, one),
        (labelled & ~there, LABELLED_ONLY, other),
        (there & labelled & (found.kinds != told.kinds), OTHER_CLASS, squares),
    ):
        strength = np.full((height, width), STRENGTH) if pattern is None else np.where(pattern, 0.9, 0.45)
        inside = strength[where][:, None]
        picture[where] = (1 - inside) * picture[where] + inside * np.array(colour)
    return picture.astype(np.uint8)


def _confidence(base: Picture, found: Painted) -> Picture:
    """Cividis (Nuñez, Anderton and Renslow, 2018): from dark blue, unsure, to yellow."""
    known = ~np.isnan(found.sure)
    levels = np.where(known, np.nan_to_num(found.sure) * 255, 0).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    picture = base.astype(np.float32) * 0.5
    picture[known] = 0.2 * base[known] + 0.8 * colours[known]
    return picture.astype(np.uint8)
