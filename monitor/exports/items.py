"""An image as annotation tools are given it: its masks, one a class where there is a map, and why it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from detectors.quality.confusion import enlarge
from monitor.classes import Classes
from monitor.errors import InputError
from monitor.kept_masks import KeptMasks
from monitor.labels.coco import compressed
from monitor.labels.painted import rle_of_polygons
from monitor.labels.panoptic import SegmentRuns
from monitor.masks import Mask, Rle
from monitor.records import Instance, Label, LabelInstance, Semantic, decode_semantic
from monitor.records.png import read_header
from monitor.records.reasons import shorten

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class MaskOf:
    """A mask with its class."""

    class_name: str
    rle: dict[str, Any]
    """COCO's compressed RLE."""
    polygons: list[list[float]] | None = None
    """As it came, where it came as polygons: painted by pycocotools it is ``rle``."""
    score: float | None = None
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """An image and what is to be said, or was said, about it."""

    input_id: str
    size: Size
    """Height and width."""
    masks: Sequence[MaskOf]
    form: str
    """``instances`` or ``semantic``: what a label of it has to be."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What comes back with the label (``purpose``, ``selection_probability``), and for people why it was chosen."""
    image: str = ""
    """Address of the image; "" for its file name alone."""
    suffix: str = "png"
    label: Label | None = None
    """The label that the masks are of; None where they are the model's."""

    @property
    def file_name(self) -> str:
        """The image's, made from the input's id: a path in it would lead elsewhere.

        >>> Item("cam7/000123", (1, 1), [], "instances").file_name
        'cam7%2F000123.png'
        """
        return f"{quote(self.input_id, safe=' ')}.{self.suffix}"

    @property
    def noted(self) -> dict[str, Any]:
        """All that is written beside the image."""
        return {"input_id": self.input_id, "form": self.form, **self.asked}


def masks_of_prediction(record: KeptMasks, classes: Classes, max_pixels: int) -> tuple[Size, list[MaskOf], str]:
    """The image's size, its masks and the form that its label needs: that of the list where the model gave one.

    Raises InputError: nothing tells the image's size.
    """
    size = (record.height, record.width) if record.height and record.width else None
    if record.instances is not None:
        size = size or size_of_instances(record.instances) or _size_of_map(record.semantic)
        return _known(size), [_mask(one, _known(size), one.score) for one in record.instances], "instances"
    assert record.semantic is not None
    size = size or _size_of_map(record.semantic)
    return _known(size), masks_of_map(record.semantic, _known(size), classes, max_pixels), "semantic"


def masks_of_label(
    label: Label, known: Size | None, classes: Classes, max_pixels: int
) -> tuple[Size, list[MaskOf], str]:
    """The same of a label. ``known``: the image's size, where the store knows it."""
    if label.instances is not None:
        size = size_of_instances(label.instances) or label.image_size or _size_of_map(label.semantic) or known
        return _known(size), [_mask(one, _known(size), None, one.crowd) for one in label.instances], "instances"
    assert label.semantic is not None
    size = label.image_size or known or _size_of_map(label.semantic)
    return _known(size), masks_of_map(label.semantic, _known(size), classes, max_pixels), "semantic"


def masks_of_map(semantic: Semantic, size: Size, classes: Classes, max_pixels: int) -> list[MaskOf]:
    """One mask for each class in a map, in the order of the classes; values that are no class have none."""
    indices, _ = decode_semantic(semantic, max_pixels)
    if indices.shape[0] > size[0] or indices.shape[1] > size[1]:
        raise InputError(f"its map is {indices.shape[0]} x {indices.shape[1]}, the image {size[0]} x {size[1]}")
    runs = SegmentRuns(enlarge(indices, size).astype(np.int32))
    there = set(runs.found.tolist())
    pairs = zip(classes.names, classes.indices, strict=True)
    return [MaskOf(name, runs.mask(index)) for name, index in pairs if index in there]


def size_of_instances(instances: Sequence[Instance] | Sequence[LabelInstance]) -> Size | None:
    """Height and width, where a mask says them."""
    return next((one.mask.size for one in instances if isinstance(one.mask, Rle)), None)


def rle_of(mask: Mask, size: Size) -> dict[str, Any]:
    """Compressed RLE in text form."""
    if not isinstance(mask, Rle):
        return rle_of_polygons(mask, *size)
    counts = mask.counts if isinstance(mask.counts, str) else compressed(np.array(mask.counts, np.int64))
    return {"size": list(mask.size), "counts": counts}


def _mask(one: Instance | LabelInstance, size: Size, score: float | None, crowd: bool = False) -> MaskOf:
    polygons = None if isinstance(one.mask, Rle) else one.mask
    if isinstance(one.mask, Rle) and one.mask.size != size:
        raise InputError(f"a mask of {shorten(one.class_name)} is {list(one.mask.size)}, the image {list(size)}")
    return MaskOf(one.class_name, rle_of(one.mask, size), polygons, score, crowd)


def _size_of_map(semantic: Semantic | None) -> Size | None:
    if semantic is None:
        return None
    header = read_header(semantic.classes_png, "semantic.classes_png")
    return header.height, header.width


def _known(size: Size | None) -> Size:
    if size is None:
        raise InputError("nothing tells how large its image is")
    return size
