"""How often somebody may do something: so many at once, and so many a minute."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MOST_KNOWN: Final = 10_000
"""Of callers that are remembered; whoever has not been seen for longest is forgotten."""


class RateLimit:
    """A bucket for each caller: it holds a minute's worth, and fills up evenly.

    >>> limit = RateLimit(clock=lambda: 0.0)
    >>> [limit.take("10.0.0.1", 2) for _ in range(3)]
    [True, True, False]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, per_minute: int) -> bool:
        """Use one up; False where none is left."""
        return self._change(caller, per_minute, 1.0)

    def left(self, caller: str, per_minute: int) -> bool:
        """Whether one is left."""
        return self._change(caller, per_minute, 0.0)

    def _change(self, caller: str, per_minute: int, used: float) -> bool:
        now = self._clock()
        with self._lock:
            level, since = self._buckets.pop(caller, (float(per_minute), now))
            level = min(float(per_minute), level + (now - since) * per_minute / 60)
            enough = level >= 1.0
            self._buckets[caller] = (level - used if enough else level, now)
            if len(self._buckets) > MOST_KNOWN:
                self._buckets.popitem(last=False)
        return enough
