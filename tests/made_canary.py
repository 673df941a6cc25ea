"""Records of two versions of model ``street`` on the same inputs, with labels, whose IoU is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monitor.windows import SECOND_US
from tests.embedded import HOUR_US, NOW_US
from tests.made_labels import after, label, seen, square

START_US = NOW_US - 24 * HOUR_US
WIDTH = 20


def at(number: int, step_s: int = 60) -> int:
    """Event time of input ``number``."""
    return START_US + number * step_s * SECOND_US


def offsets(count: int, mean: float, seed: int, spread: float = 2.0) -> list[int]:
    """By how many of 20 pixels each mask is off, at random."""
    rng = np.random.default_rng(seed)
    drawn = np.clip(np.round(rng.normal(mean, spread, count)), 0, WIDTH)
    return [int(one) for one in drawn]


def prediction(number: int, version: str, off: int, name: str = "car", **changes: Any) -> dict[str, Any]:
    changes.setdefault("sequence", None)
    return seen(number, at(number), (name, 0.9, square(off, WIDTH)), version=version, **changes)


def both(stable: Sequence[int], canary: Sequence[int], name: str = "car", **changes: Any) -> list[dict[str, Any]]:
    """What versions 1 and 2 found in the same inputs."""
    records = []
    for number, (old, new) in enumerate(zip(stable, canary, strict=True)):
        records += [prediction(number, "1", old, **changes), prediction(number, "2", new, name, **changes)]
    return records


def labels(numbers: Sequence[int], name: str = "car", **changes: Any) -> list[dict[str, Any]]:
    return [label(number, after(at(number)), (name, square(0, WIDTH)), **changes) for number in numbers]


def pooled(off: Sequence[int]) -> float:
    """IoU of squares of equal height that are so many pixels off."""
    return sum(WIDTH - one for one in off) / sum(WIDTH + one for one in off)
