"""Predictions of model ``street`` with masks of known overlap, and their labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from monitor.masks import encode_rle
from monitor.windows import SECOND_US, to_text
from tests.made_records import prediction

SIDE = 40


def square(left: int, width: int = 10) -> dict[str, Any]:
    """A mask of ``width`` x 10 pixels, ``left`` pixels from the left."""
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[5:15, left : left + width] = True
    return encode_rle(mask)


def seen(
    number: int, event_time_us: int, *instances: tuple[str, float, dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    """A prediction with these (class, score, mask)."""
    return prediction(
        number,
        event_time_us,
        instances=[{"class": name, "score": score, "mask": mask} for name, score, mask in instances],
        **changes,
    )


def label(number: int, label_time_us: int, *instances: tuple[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A label of input ``number`` with these (class, mask)."""
    record = {
        "type": "segwatch.label.v1",
        "input_id": f"input-{number:06d}",
        "annotator": "ann",
        "annotation_version": 1,
        "label_time": to_text(label_time_us),
        "instances": [{"class": name, "mask": mask} for name, mask in instances],
    }
    return {**record, **changes}


def after(event_time_us: int, seconds: float = 600.0) -> int:
    """When a label of a record of this time is made."""
    return event_time_us + round(seconds * SECOND_US)
