"""What a record's types cannot say: which fields go together, which texts can be stored, which times are absurd.

Each check raises BadRecord. Nothing here reads a file, a network or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from monitor.errors import BadRecord
from monitor.masks import FAULTS, MAX_PIXELS, Mask, Rle
from monitor.records.png import read_header
from monitor.records.reasons import shorten
from monitor.records.types import Image, Label, Prediction, Semantic
from monitor.records.uris import check_uri
from monitor.settings import Settings

MIN_TIME_US = 946_684_800_000_000
"""2000-01-01T00:00:00Z. Earlier times come from clocks that were never set, and would open panes that nobody looks
at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a record may ask for."""

    max_value_bytes: int = 8 * 1024 * 1024
    """Decoding takes up to some 30 times as much memory, for values that are made to hurt."""
    max_pixels: int = MAX_PIXELS
    max_image_bytes: int = 32 * 1024 * 1024
    future_tolerance_us: int = 300_000_000
    uri_prefixes: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> Limits:
        return cls(
            max_value_bytes=settings.kafka.max_message_bytes,
            max_pixels=settings.images.max_pixels,
            max_image_bytes=settings.images.max_bytes,
            future_tolerance_us=round(settings.windows.future_tolerance_seconds * 1e6),
            uri_prefixes=settings.images.uri_prefixes,
        )


def check_prediction(prediction: Prediction, limits: Limits, latest_us: int | None) -> None:
    """Everything but the embedding and the masks. ``latest_us``: the last allowed event time; None where none is
    known."""
    model = prediction.model
    sequence = prediction.sequence
    if "\0" in prediction.input_id or "\0" in model.name or "\0" in model.version or (sequence and "\0" in sequence):
        _refuse_nul(
            ("input_id", prediction.input_id), ("model.name", model.name),
            ("model.version", model.version), ("sequence", sequence or ""),
        )  # fmt: skip
    if prediction.slices:
        _check_slices(prediction.slices)
    time_us = prediction.event_time_us
    if time_us < MIN_TIME_US or (latest_us is not None and time_us > latest_us):
        _refuse_time("event_time", time_us, latest_us)
    if prediction.status != "ok":
        return  # only the operational fields count
    if prediction.image is not None:
        _check_image(prediction.image, limits)
    elif prediction.embedding is None:
        raise BadRecord("missing_field", "neither image nor embedding")
    if prediction.instances is not None:
        _check_class_names([instance.class_name for instance in prediction.instances])
    elif prediction.semantic is None:
        raise BadRecord("missing_field", "neither instances nor semantic")
    if prediction.semantic is not None:
        _check_semantic(prediction.semantic, limits)


def check_label(label: Label, limits: Limits, latest_us: int | None) -> None:
    """Everything but the masks."""
    pairs = [("input_id", label.input_id), ("annotator", label.annotator)]
    if label.model is not None:
        pairs += [("model.name", label.model.name), ("model.version", label.model.version)]
    _refuse_nul(*pairs)
    time_us = label.label_time_us
    if time_us < MIN_TIME_US or (latest_us is not None and time_us > latest_us):
        _refuse_time("label_time", time_us, latest_us)
    if label.instances is not None:
        _check_class_names([instance.class_name for instance in label.instances])
    elif label.semantic is None:
        raise BadRecord("missing_field", "neither instances nor semantic")
    if label.semantic is not None:
        _check_semantic(label.semantic, limits)


def suspects(fault: NDArray[np.uint8], size: NDArray[np.int64], owners: NDArray[np.int64]) -> set[int]:
    """Owners of masks that are faulty, or whose sizes differ among themselves.

    ``fault`` (M,) and ``size`` (M, 2) of the masks; ``owners``: (M,) to whom each belongs, ascending. Asked once a
    chunk, so that a good record pays next to nothing; ``refuse_masks`` then finds the words for the few.
    """
    rle = np.flatnonzero(size[:, 0])
    owner, size = owners[rle], size[rle]
    differs = (size[1:] != size[:-1]).any(axis=1) & (owner[1:] == owner[:-1])
    return {*owners[fault != 0].tolist(), *owner[1:][differs].tolist()}


def refuse_masks(masks: Sequence[Mask], faults: NDArray[np.uint8]) -> NoReturn:
    """Raise for the first faulty mask of a suspect record, else for the first that differs in size.

    ``faults``: (M,) of its masks.
    """
    for i, mask in enumerate(masks):
        if faults[i]:
            reason, sentence = FAULTS[int(faults[i])]
            raise BadRecord(reason, f"instances[{i}].mask: {sentence}{_mask_in_words(mask)}")
    sizes = [(i, mask.size) for i, mask in enumerate(masks) if isinstance(mask, Rle)]
    i, size = next((i, size) for i, size in sizes if size != sizes[0][1])
    raise BadRecord(
        "bad_mask", f"instances[{i}].mask.size is {list(size)}, an instance before it has {list(sizes[0][1])}"
    )


def check_map_size(size: tuple[int, int], image: tuple[int, int]) -> None:
    """Raise ``bad_semantic`` where a map is larger than its image: it has the image's size or is smaller.

    Both are height and width.
    """
    if size[0] > image[0] or size[1] > image[1]:
        raise BadRecord(
            "bad_semantic",
            f"semantic.classes_png is {size[0]} x {size[1]}, larger than the image's {image[0]} x {image[1]}",
        )


def _mask_in_words(mask: Mask) -> str:
    if not isinstance(mask, Rle):
        return ""
    counts = shorten(mask.counts) if isinstance(mask.counts, str) else f"{len(mask.counts)} numbers"
    total = "" if isinstance(mask.counts, str) else f" that add up to {sum(mask.counts)}"
    return f"; size {list(mask.size)}, counts {counts}{total}"


def _check_slices(slices: dict[str, str]) -> None:
    keys = "".join(slices)
    if "=" in keys or "\0" in keys or "\0" in "".join(slices.values()):
        for key, value in slices.items():
            if "=" in key:
                raise BadRecord("bad_text", f"slices: key {shorten(key)} has '=', which separates key and value")
            _refuse_nul(("a key of slices", key), (f"slices[{shorten(key)}]", value))


def _refuse_nul(*pairs: tuple[str, str]) -> None:
    """PostgreSQL cannot store U+0000 in a text."""
    for field, text in pairs:
        if "\0" in text:
            raise BadRecord("bad_text", f"{field}: {shorten(text)} contains the character U+0000")


def _check_class_names(names: list[str]) -> None:
    if "\0" in "".join(names):
        _refuse_nul(*((f"instances[{i}].class", name) for i, name in enumerate(names)))


def _refuse_time(field: str, time_us: int, latest_us: int | None) -> NoReturn:
    if time_us < MIN_TIME_US or latest_us is None:
        raise BadRecord("bad_time", f"{field} is before the year 2000")
    beyond_s = (time_us - latest_us) / 1e6
    raise BadRecord("future_time", f"{field} is {beyond_s:.0f} s beyond what is allowed ahead of the broker's clock")


def _check_image(image: Image, limits: Limits) -> None:
    if image.data is None:
        if image.uri is None:
            raise BadRecord("missing_field", "image has neither data nor uri")
        check_uri(image.uri, limits.uri_prefixes)
        return
    if image.uri is not None:
        raise BadRecord("wrong_type", "image has both data and uri")
    if not image.data:
        raise BadRecord("image_truncated", "image.data is empty")
    if len(image.data) > limits.max_image_bytes:
        raise BadRecord(
            "image_too_large", f"image.data has {len(image.data)} bytes, the limit is {limits.max_image_bytes}"
        )


def _check_semantic(semantic: Semantic, limits: Limits) -> None:
    """By the headers alone: whether the PNG holds what it claims shows when it is decoded."""
    read_header(semantic.classes_png, "semantic.classes_png").check(limits.max_pixels)
    if semantic.confidence_png is not None:
        header = read_header(semantic.confidence_png, "semantic.confidence_png")
        header.check(limits.max_pixels)
        header.check_confidence()
