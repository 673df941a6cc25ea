"""A label held against the prediction that it belongs to: both brought into one form, then judged by `detectors`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from detectors.quality.confusion import ClassTable, IndexMap
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_instances import InstanceMasks, judge_instances
from detectors.quality.judge_semantic import SemanticJudgement, judge_semantic
from detectors.quality.panoptic import PanopticJudgement, judge_panoptic
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.judgements import JudgedLabel
from monitor.kept_masks import KeptMasks
from monitor.labels.outlines import first_fault
from monitor.masks import Mask, Rle
from monitor.panoptic_segments import segments_of
from monitor.records import Instance, Label, LabelInstance, decode_semantic, semantic_summary
from monitor.records.png import read_header
from monitor.records.reasons import shorten

FAR = 2
"""Polygons are cut off this many image sides outside the image: drawing one takes time by its length."""

MAP = "semantic.classes_png"

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What one label says of one prediction; None for what not both of them have."""

    instances: InstanceJudgement | None
    semantic: SemanticJudgement | None
    panoptic: PanopticJudgement | None = None
    """Of records that have lists and maps on both sides."""

    def put_into(self, label: JudgedLabel) -> JudgedLabel:
        """The label with what was found, as it is stored."""
        return msgspec.structs.replace(
            label,
            instances=None if self.instances is None else self.instances.to_bytes(),
            semantic=None if self.semantic is None else self.semantic.to_bytes(),
            panoptic=None if self.panoptic is None else self.panoptic.to_bytes(),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """Both sides' masks, at the image's size."""

    size: Size
    predicted: InstanceMasks
    labelled: InstanceMasks


@dataclass(frozen=True, slots=True, eq=False)
class _Maps:
    """Both sides' maps, decoded."""

    predicted: IndexMap
    confidence: NDArray[np.uint8] | None
    labelled: IndexMap


def judge(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> Verdict:
    """Judge a prediction by a label. Lists of instances are compared with lists, maps with maps.

    Raises BadRecord: ``unknown_class``, ``label_mismatch`` (another size, nothing that both have, or masks that would
    take too long to compare), ``bad_semantic`` and ``semantic_too_large`` as decoding gives them.
    """
    try:
        return _judge(kept, label, classes, max_pixels)
    except (ValueError, MemoryError) as error:
        raise BadRecord("label_mismatch", f"cannot be held against the prediction: {error}") from None


def judge_label(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> Verdict:
    """The same for a label that people made. Raises BadRecord also for a map of another shape than the image: what a
    network gives out may be a square of whatever it saw, but who drew on another image has labelled another image."""
    _check_shape(kept, label)
    return judge(kept, label, classes, max_pixels)


def check_fit(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> None:
    """Whether `judge_label` would take the label, without judging. Raises BadRecord as that does, but for masks that
    would take too long to compare.

    Of the prediction's map the size alone is read, since it was checked when it came; the label's is decoded for its
    values, at 1080p for a quarter of what judging costs.
    """
    _check_shape(kept, label)
    lists, maps = _both(kept, label)
    try:
        if lists:
            _check_lists(kept, label, classes, max_pixels)
        if maps:
            _check_label_map(kept, label, classes, max_pixels)
    except (ValueError, MemoryError) as error:
        raise BadRecord("label_mismatch", f"cannot be held against the prediction: {error}") from None


def _check_label_map(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> None:
    assert label.semantic is not None
    values, _ = semantic_summary(decode_semantic(label.semantic, max_pixels)[0], None)
    _check_map_sizes(kept, label, max_pixels)
    strange = values.keys() - {*classes.indices, *classes.ignore}
    if strange:
        told = f"the label has the value {min(strange)}, which is no class of the model and not ignored"
        raise BadRecord("unknown_class", f"{MAP}: {told}")


def _check_shape(kept: KeptMasks, label: Label) -> None:
    """A map has the image's shape, or the size of the prediction's map; where the image's is not known, it is not
    smaller than the prediction's and of another shape."""
    if kept.semantic is None or label.semantic is None:
        return
    predicted, (height, width) = _header_sizes(kept, label)
    if (height, width) == predicted:
        return
    size = _map_size(kept)
    whole = size or predicted
    # Sides are rounded when an image is made smaller: each may be off by nearly a pixel.
    alike = abs(height * whole[1] - width * whole[0]) < whole[0] + whole[1]
    larger = size is None and height >= whole[0] and width >= whole[1]
    if not alike and not larger:
        what = "the image" if size else "the prediction's map"
        raise BadRecord(
            "label_mismatch", f"{MAP} is {height} x {width}, {what} {whole[0]} x {whole[1]}: not the same shape"
        )


def _judge(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> Verdict:
    lists, maps = _sides(kept, label, classes, max_pixels)
    instances = None if lists is None else _judge_lists(lists, kept, label, classes)
    semantic = None if maps is None else _judge_maps(maps, kept, classes)
    panoptic = None if lists is None or maps is None else _judge_both(lists, maps, classes)
    return Verdict(instances, semantic, panoptic)


def _sides(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> tuple[_Lists | None, _Maps | None]:
    """What both have, checked."""
    both_lists, both_maps = _both(kept, label)
    lists = _lists(kept, label, classes, max_pixels) if both_lists else None
    maps = _maps(kept, label, max_pixels) if both_maps else None
    return lists, maps


def _both(kept: KeptMasks, label: Label) -> tuple[bool, bool]:
    """Whether both have lists, and whether both have maps."""
    lists = kept.instances is not None and label.instances is not None
    maps = kept.semantic is not None and label.semantic is not None
    if not lists and not maps:
        raise BadRecord("label_mismatch", f"the label has {_what(label)}, the prediction {_what(kept)}")
    return lists, maps


def _what(record: KeptMasks | Label) -> str:
    has = [word for word, part in (("instances", record.instances), ("a map", record.semantic)) if part is not None]
    return " and ".join(has) or "neither instances nor a map"


def _lists(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> _Lists:
    predicted, labelled = kept.instances or [], label.instances or []
    position = classes.position
    size = _check_lists(kept, label, classes, max_pixels)
    return _Lists(
        size,
        InstanceMasks(
            np.array([position.get(one.class_name, len(position)) for one in predicted], np.int64),
            [_as_rle(one.mask, size) for one in predicted],
            np.array([one.score for one in predicted], np.float64),
        ),
        InstanceMasks(
            np.array([position[one.class_name] for one in labelled], np.int64),
            [_as_rle(one.mask, size) for one in labelled],
            crowd=np.array([one.crowd for one in labelled], np.bool_),
        ),
    )


def _check_lists(kept: KeptMasks, label: Label, classes: Classes, max_pixels: int) -> Size:
    """The image's size at which both lists can be compared."""
    predicted, labelled = kept.instances or [], label.instances or []
    position = classes.position
    for i, one in enumerate(labelled):
        if one.class_name not in position:
            raise BadRecord(
                "unknown_class", f"instances[{i}].class {shorten(one.class_name)} is no class of the model's baseline"
            )
    _check_sizes(kept, label)
    size = image_size(kept, label)
    _check_pixels(size, max_pixels)
    _check_outlines("instances", labelled, size, max_pixels)
    _check_outlines("the prediction's instances", predicted, size, max_pixels)
    return size


def _judge_lists(lists: _Lists, kept: KeptMasks, label: Label, classes: Classes) -> InstanceJudgement:
    names, count = [one.class_name for one in kept.instances or ()], len(classes.names)
    chosen = list(range(len(names)))
    if label.judged_classes is not None:
        looked_for = {*label.judged_classes, *(one.class_name for one in label.instances or ())}
        chosen = [i for i in chosen if names[i] in looked_for]
    predicted = _some(lists.predicted, chosen)
    judgement = judge_instances(predicted, lists.labelled, count)
    if not label.not_exhaustive:
        return judgement
    # What the label may only have left out is neither right nor wrong: judged again as if it had not been said.
    assert predicted.scores is not None
    ranks = np.argsort(-predicted.scores, kind="stable")
    invented = {chosen[ranks[i]] for i in np.flatnonzero(judgement.is_false).tolist()}
    kept_in = [i for i in chosen if i not in invented or names[i] not in label.not_exhaustive]
    return judge_instances(_some(lists.predicted, kept_in), lists.labelled, count)


def _judge_both(lists: _Lists, maps: _Maps, classes: Classes) -> PanopticJudgement:
    """Every pixel by its segment; lists and maps have been judged by themselves already, so they fit."""
    table, count = ClassTable.of(classes.indices, classes.ignore), len(classes.names)
    found, told = lists.predicted, lists.labelled
    position = classes.position
    things = frozenset(
        {*found.kinds.tolist(), *told.kinds.tolist(), *(position[name] for name in classes.things or ())}
    )
    return judge_panoptic(
        segments_of(table.predicted[maps.predicted], found, things, count, lists.size),
        segments_of(table.labelled[maps.labelled], told, things, count, lists.size),
        count,
    )


def _some(masks: InstanceMasks, chosen: Sequence[int]) -> InstanceMasks:
    """Those of the predictions, in their order."""
    at = np.array(chosen, np.int64)
    assert masks.scores is not None
    return InstanceMasks(masks.kinds[at], [masks.rles[i] for i in chosen], masks.scores[at])


def _check_pixels(size: Size, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise BadRecord("label_mismatch", f"an image of {size[0]} x {size[1]}, above the limit of {max_pixels} pixels")


def _check_outlines(
    what: str, instances: Sequence[Instance] | Sequence[LabelInstance], size: Size, max_pixels: int
) -> None:
    """Before anything is painted: pycocotools keeps 40 bytes for each pixel of an outline."""
    found = first_fault([one.mask for one in instances], *size, max_pixels) if instances else None
    if found is not None:
        raise BadRecord("label_mismatch", f"{what}[{found[0]}].mask: {found[1]}")


def _check_sizes(kept: KeptMasks, label: Label) -> None:
    """All RLE masks of a record have one size, so the first tells; what polygons alone are drawn on the label says."""
    size = _rle_size(kept.instances) or _map_size(kept)
    own = _rle_size(label.instances)
    for what, told in (("instances[].mask", own), ("image_size", None if own else label.image_size)):
        if size is not None and told is not None and tuple(told) != size:
            raise BadRecord(
                "label_mismatch", f"{what} is {told[0]} x {told[1]}, the prediction's image {size[0]} x {size[1]}"
            )


def image_size(kept: KeptMasks, label: Label) -> Size:
    """Height and width: of the prediction's RLE masks, the image, the maps or the label; else as far as polygons go."""
    for instances in (kept.instances, label.instances):
        own = _rle_size(instances)
        if own is not None:
            return own
        if kept.height and kept.width:
            return kept.height, kept.width
    if label.image_size is not None:
        return label.image_size
    for semantic in (label.semantic, kept.semantic):
        if semantic is not None:
            header = read_header(semantic.classes_png, MAP)
            return header.height, header.width
    ends = [
        (max(polygon[1::2]), max(polygon[0::2]))
        for instances in (kept.instances, label.instances)
        for one in instances or ()
        if not isinstance(one.mask, Rle)
        for polygon in one.mask
    ]
    height, width = (max([1, *(int(np.ceil(end[side])) for end in ends)]) for side in (0, 1))
    return height, width


def _rle_size(instances: Sequence[Instance] | Sequence[LabelInstance] | None) -> Size | None:
    return next((one.mask.size for one in instances or () if isinstance(one.mask, Rle)), None)


def _as_rle(mask: Mask, size: Size) -> dict[str, Any]:
    """Compressed RLE in pycocotools' form."""
    if isinstance(mask, Rle):
        if isinstance(mask.counts, str):
            return {"size": list(mask.size), "counts": mask.counts.encode()}
        plain: dict[str, Any] = {"size": list(mask.size), "counts": list(mask.counts)}
        encoded: dict[str, Any] = pycocotools.mask.frPyObjects(plain, *mask.size)
        return encoded
    far = FAR * max(size)  # of labels, which were refused if farther, this changes nothing
    near = [np.clip(polygon, -far, far).tolist() for polygon in mask]
    merged: dict[str, Any] = pycocotools.mask.merge(pycocotools.mask.frPyObjects(near, *size))
    return merged


def _maps(kept: KeptMasks, label: Label, max_pixels: int) -> _Maps:
    assert kept.semantic is not None
    assert label.semantic is not None
    predicted, confidence = decode_semantic(kept.semantic, max_pixels)
    labelled = decode_semantic(label.semantic, max_pixels)[0]
    _check_map_sizes(kept, label, max_pixels)
    return _Maps(predicted, confidence, labelled)


def _check_map_sizes(kept: KeptMasks, label: Label, max_pixels: int) -> None:
    """The label's map is not larger than the image, nor what both are compared at above the limit."""
    predicted, (height, width) = _header_sizes(kept, label)
    size = _map_size(kept)
    _check_pixels(size or (max(predicted[0], height), max(predicted[1], width)), max_pixels)
    if size is not None and (height > size[0] or width > size[1]):
        raise BadRecord("label_mismatch", f"{MAP} is {height} x {width}, the image {size[0]} x {size[1]}")


def _header_sizes(kept: KeptMasks, label: Label) -> tuple[Size, Size]:
    """Of the prediction's map and the label's, as their headers say."""
    assert kept.semantic is not None
    assert label.semantic is not None
    predicted, labelled = (read_header(one.classes_png, MAP) for one in (kept.semantic, label.semantic))
    return (predicted.height, predicted.width), (labelled.height, labelled.width)


def _map_size(kept: KeptMasks) -> Size | None:
    """The image's, where it is known."""
    return (kept.height, kept.width) if kept.height and kept.width else None


def _judge_maps(maps: _Maps, kept: KeptMasks, classes: Classes) -> SemanticJudgement:
    table = ClassTable.of(classes.indices, classes.ignore)
    try:
        return judge_semantic(maps.predicted, maps.labelled, table, maps.confidence, _map_size(kept))
    except ValueError as error:
        raise BadRecord("unknown_class", f"{MAP}: {error}") from None
