"""Work that nobody waits for: one job after another, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from monitor.errors import SegwatchError

log = logging.getLogger(__name__)

MOST_WAITING: Final = 32


class Background:
    """Asked from any thread. The thread lives while there is work, and does not keep the process from ending."""

    def __init__(self, name: str, most: int = MOST_WAITING) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Hashable, Callable[[], object]]] = deque()
        self._done: dict[Hashable, threading.Event] = {}

    def start(self, key: Hashable, job: Callable[[], object]) -> threading.Event | None:
        """Do the job, unless one of this key waits or is being done; what is given is set when that has ended.

        None where too many wait already, or no thread can be had.
        """
        with self._lock:
            if key in self._done:
                return self._done[key]
            if len(self._done) >= self._most:
                return None
            idle = not self._done
            self._done[key] = threading.Event()
            self._jobs.append((key, job))
            if idle and not self._began():
                return None
            return self._done[key]

    def _began(self) -> bool:
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads just now: whoever asks next tries again
            log.warning("%s: %s", self._name, error)
            self._jobs.clear()
            self._done.clear()
            return False
        return True

    def _run(self) -> None:
        more = True
        while more:
            with self._lock:
                key, job = self._jobs.popleft()
            try:
                job()
            except SegwatchError as error:
                log.info("%s: %s", self._name, error)
            except Exception:  # the thread serves others, too
                log.exception("%s", self._name)
            with self._lock:
                self._done.pop(key).set()
                more = bool(self._jobs)
