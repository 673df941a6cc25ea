"""How long batches take: whether a device has become slow can be told from nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns


class BatchTime:
    """Batches and their time, as integers that only grow. Safe to use from several threads.

    Every batch has the same shape, however many images are in it, so that seconds a batch compare where seconds an
    image would rise whenever there is little to do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches = 0
        self._ns = 0

    @contextmanager
    def of(self, batches: int) -> Iterator[None]:
        """Time the block as that of so many batches; one that fails is not counted."""
        began = perf_counter_ns()
        yield
        took = perf_counter_ns() - began
        with self._lock:
            self._batches += batches
            self._ns += took

    @property
    def totals(self) -> tuple[int, int]:
        """Batches, and microseconds that they took."""
        with self._lock:
            return self._batches, self._ns // 1000
