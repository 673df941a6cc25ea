"""The page behind ``/metrics``: built when it is asked for and too old, in pieces that let other threads run.

CPython runs one thread at a time, and by default hands over every 5 ms. An ingest loop that waits for the network many
times a second must take the interpreter's lock back as often, so a scrape that computes for 70 ms could hold up each of
its steps by 5 ms. Four things keep that short: the page is kept for ``web.refresh_seconds``, however many scrape it;
building it sleeps after each piece of some 0.1 ms; while it is built, the lock is handed over every
``SWITCH_INTERVAL_S``, which covers the database driver's part too; and the garbage collector waits until it is built,
since ten thousand rows and names would set off a full collection, which walks through all objects of the process
(torch's too: 50 to 100 ms) without letting go. bench/bench_scrape.py measures it.
"""

from __future__ import annotations

import gc
import gzip
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from monitor.exposition import Page, Writer
from monitor.metrics import Totals, families

SWITCH_INTERVAL_S: Final = 0.0002
PAUSE_S: Final = 0.00005
"""Long enough that a waiting thread gets the lock, which ``sleep(0)`` does not promise."""

Format = Literal["openmetrics", "classic"]


class MetricsPage:
    """Serves pages built from ``read()``. May be called from several threads; one builds, the others wait for it.

    The limits are asked for each time, since they can change while the service runs.
    """

    def __init__(
        self,
        read: Callable[[], Totals],
        max_series: Callable[[], int],
        refresh_s: Callable[[], float],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._max_series = max_series
        self._refresh_s = refresh_s
        self._monotonic = monotonic
        self._writer = Writer(pause)
        self._lock = threading.Lock()
        self._page: Page | None = None
        self._built_at = 0.0
        self._compressed: dict[Format, bytes] = {}

    def get(self, fmt: Format, *, compressed: bool = False) -> bytes:
        """The page, at most ``refresh_s`` old. What ``read`` raises is passed on: stale totals never look alive."""
        with self._lock:
            if self._page is None or self._monotonic() - self._built_at >= self._refresh_s():
                self._page = None
                built_at = self._monotonic()
                with _undisturbing():
                    self._page = self._writer.render(families(self._read(), self._max_series(), pause))
                self._built_at = built_at
                self._compressed.clear()
            plain = self._page.openmetrics if fmt == "openmetrics" else self._page.classic
            if not compressed:
                return plain
            if fmt not in self._compressed:
                self._compressed[fmt] = gzip.compress(plain, compresslevel=1, mtime=0)
            return self._compressed[fmt]


def pause() -> None:
    """Let other threads run, between two pieces of work."""
    time.sleep(PAUSE_S)


@contextmanager
def _undisturbing() -> Iterator[None]:
    usual, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(usual, SWITCH_INTERVAL_S))
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        sys.setswitchinterval(usual)
