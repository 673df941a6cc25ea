"""What a pane's statistic weighs, and whether workers' parts make the same whole in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.statistic import PaneStatistic

DIMENSIONS, BINS, WORKERS, ORDERS = 256, 16, 8, 20
POOLED = (100, 1_000, 10_000, 100_000)
FRAMES = (200, 1_000, 5_000)


@dataclass(frozen=True, slots=True)
class State:
    """Bytes of serialised panes, and whether all orders of merging gave the same bytes."""

    pooled: dict[int, int]
    """By number of records, without sequences."""
    per_sequence: dict[int, float]
    """What each further sequence adds, by its number of frames."""
    identical: bool


def _codes(rng: np.random.Generator, records: int, frames: int) -> NDArray[np.uint8]:
    """Single records fill all bins alike, as the baseline's do; each sequence keeps to some of them."""
    if not frames:
        return rng.integers(0, BINS + 1, (records, DIMENSIONS), dtype=np.uint8)
    parts = []
    for start in range(0, records, frames):
        place, spread = rng.uniform(0, BINS, DIMENSIONS), rng.uniform(1, 4, DIMENSIONS)
        drawn = rng.normal(place, spread, (min(frames, records - start), DIMENSIONS))
        parts.append(np.clip(drawn, 0, BINS - 1).astype(np.uint8))
    return np.concatenate(parts)


def _pane(rng: np.random.Generator, records: int, frames: int) -> PaneStatistic:
    pane = PaneStatistic(DIMENSIONS, BINS)
    names = [f"video-{row // frames}" if frames else "" for row in range(records)]
    pane.add(_codes(rng, records, frames), names)
    return pane


def _per_sequence(rng: np.random.Generator, frames: int) -> float:
    few, many = (len(_pane(rng, number * frames, frames).to_bytes()) for number in (5, 15))
    return (many - few) / 10


def measure(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    parts = [_pane(rng, 1_000, frames) for frames in (0, 0, 7, 7, 200, 200, 333, 1_000)[:WORKERS]]
    merged = {
        PaneStatistic.merged([parts[index] for index in rng.permutation(WORKERS)]).to_bytes() for _ in range(ORDERS)
    }
    return State(
        {records: len(_pane(rng, records, 0).to_bytes()) for records in POOLED},
        {frames: _per_sequence(rng, frames) for frames in FRAMES},
        len(merged) == 1,
    )
