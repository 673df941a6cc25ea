"""The series of ``/metrics`` that tell how long the relabel queue is, and how old."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from monitor.exposition import Distribution, Family
from monitor.store.relabel_backlog import Backlog

SAMPLES: Final = Family(
    "segwatch_relabel_queue_samples", "gauge", "Samples of the relabel queue that wait for a label.", ("model", "state")
)
OLDEST: Final = Family(
    "segwatch_relabel_oldest_age_seconds",
    "gauge",
    "For how long the oldest sample of the relabel queue has waited; no series while none waits.",
    ("model",),
    "seconds",
)
FAMILIES: Final = (SAMPLES, OLDEST)


def lines(model: str, queue: Backlog, now_us: int) -> Iterator[tuple[Family, tuple[str, ...], float | Distribution]]:
    """The series of a model, as of ``now_us``; both states exist at 0."""
    yield SAMPLES, (model, "open"), queue.open
    yield SAMPLES, (model, "claimed"), queue.claimed
    if queue.oldest_us is not None:
        yield OLDEST, (model,), max(0, now_us - queue.oldest_us) / 1e6
