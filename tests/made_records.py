"""Prediction records for tests, made from a seed: embeddings that records bring, a few instances, slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from monitor.windows import SECOND_US, to_text

CLASSES = ("bus", "car", "person")
DIMENSIONS = 16
MASK = {"size": [4, 4], "counts": [3, 4, 9]}


def prediction(
    number: int,
    event_time_us: int,
    *,
    version: str = "1",
    shift: float = 0.0,
    rng: np.random.Generator | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Record ``number``; the same number gives the same content, unless a generator is passed in."""
    rng = rng or np.random.default_rng(number)
    record: dict[str, Any] = {
        "type": "segwatch.prediction.v1",
        "input_id": f"input-{number:06d}",
        "event_time": to_text(event_time_us),
        "model": {"name": "street", "version": version},
        "slices": {"camera": str(number % 3)},
        "sequence": f"drive-{number // 5}",
        "latency_seconds": round(float(rng.exponential(0.1)), 6),
        "cost_usd": 0.0002,
        "embedding": [round(float(value), 6) for value in rng.standard_normal(DIMENSIONS) + shift],
        "instances": [
            {"class": CLASSES[int(rng.integers(3))], "score": round(float(rng.uniform(0.3, 1.0)), 6), "mask": MASK}
            for _ in range(int(rng.integers(0, 4)))
        ],
    }
    if number % 7 == 0:
        del record["sequence"]
    return {**record, **changes}


def predictions(count: int, start_us: int, hours: float, *, first: int = 0, **more: Any) -> Iterator[dict[str, Any]]:
    """``count`` records, evenly spaced over ``hours``."""
    step_us = int(hours * 3600 * SECOND_US) // count
    for i in range(count):
        yield prediction(first + i, start_us + i * step_us, **more)


def lines(records: Iterator[dict[str, Any]]) -> bytes:
    """As JSON Lines."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)
