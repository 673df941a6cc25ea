"""Threads of one process: the first one that fails stops the others, and its error is raised."""

from __future__ import annotations

import threading
import time

import pytest

from monitor.workers import Workers


def test_the_first_failure_stops_the_others_and_is_raised() -> None:
    workers = Workers()
    ended: list[str] = []

    def patient() -> None:
        assert workers.stop.wait(20)
        ended.append("patient")

    def broken() -> None:
        raise ValueError("first")

    workers.start("patient", patient)
    workers.start("broken", broken)
    with pytest.raises(ValueError, match="first"):
        workers.join()
    assert ended == ["patient"]
    assert workers.running() == {"patient": False, "broken": False}


def test_waiting_ends_with_the_last_thread_or_with_the_time() -> None:
    workers = Workers()
    go = threading.Event()
    workers.start("one", lambda: go.wait(20))
    workers.start("two", lambda: None)
    assert not workers.wait(0.05)
    assert workers.running()["one"]
    go.set()
    began_s = time.monotonic()
    assert workers.wait(20)
    assert time.monotonic() - began_s < 10
    workers.join()


def test_none_at_all_have_ended() -> None:
    workers = Workers()
    assert workers.wait(0.0)
    workers.join()
