"""Threads of one process that stop together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Workers:
    """The first thread that fails stops the others, and its error is raised."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def start(self, name: str, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            if len(self._threads) > 1:  # the others take their time to stop; that of a single one is raised at once
                log.error("%s failed: %s", threading.current_thread().name, error)
            self._failure = self._failure or error
            self.stop.set()

    def running(self) -> dict[str, bool]:
        """Which of the threads live, by name."""
        return {thread.name: thread.is_alive() for thread in self._threads}

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of all, this long at most; whether they have ended."""
        until_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait for the end of all; raises the first failure."""
        # Waiting without a timeout would keep the main thread from handling signals on some platforms.
        while not self.wait(0.5):
            pass
        if self._failure is not None:
            raise self._failure
