"""Work that nobody waits for: in turn, each key once at a time, and nothing that fails ends it."""

from __future__ import annotations

import threading
import time

import pytest

from monitor.background import Background
from monitor.errors import InputError

LONG_S = 20.0


def test_jobs_are_done_in_turn_and_one_of_a_key_at_a_time() -> None:
    background, gate, done = Background("test"), threading.Event(), []
    first = background.start("a", lambda: gate.wait(LONG_S))
    last = background.start("b", lambda: done.append("b"))
    assert first is not None and last is not None
    assert background.start("b", lambda: done.append("never")) is last
    assert not first.is_set() and done == []
    gate.set()
    assert last.wait(LONG_S) and first.is_set()
    assert done == ["b"]
    again = background.start("b", lambda: done.append("again"))
    assert again is not None and again is not last and again.wait(LONG_S)
    assert done == ["b", "again"]


@pytest.mark.parametrize("error", [InputError("classes differ"), ValueError("damaged")])
def test_a_job_that_fails_is_told_in_the_log_and_the_next_is_done(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    caplog.set_level("INFO", "monitor.background")
    background, gate, done = Background("test"), threading.Event(), []
    background.start("hold", lambda: gate.wait(LONG_S))
    failed, good = background.start("a", fail), background.start("b", lambda: done.append("b"))
    gate.set()
    assert failed is not None and good is not None
    assert failed.wait(LONG_S) and good.wait(LONG_S)
    assert done == ["b"] and str(error) in caplog.text


def test_no_more_wait_than_were_agreed_and_the_thread_ends() -> None:
    background, gate = Background("few", most=2), threading.Event()
    held = [background.start(name, lambda: gate.wait(LONG_S)) for name in "ab"]
    assert background.start("c", lambda: None) is None
    gate.set()
    assert all(one is not None and one.wait(LONG_S) for one in held)
    until_s = time.monotonic() + LONG_S
    while any(thread.name == "few" for thread in threading.enumerate()):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_where_no_thread_can_be_had_whoever_asks_next_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    background, done = Background("test"), []
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", none_left)
        assert background.start("a", lambda: done.append("never")) is None
    again = background.start("a", lambda: done.append("a"))
    assert again is not None and again.wait(LONG_S)
    assert done == ["a"]
