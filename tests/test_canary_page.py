"""The canary's page: nobody waits for a comparison, and what is shown meanwhile says when it was made."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dashboards.detail_pages import detail_pages
from dashboards.page_data import PageData
from monitor import web_canary
from monitor.canary import Asked, compare
from monitor.errors import InputError
from monitor.evaluate import Evaluator
from monitor.images import open_images
from monitor.live_settings import LiveSettings
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.web import create_app
from monitor.web_canary import CanaryState
from monitor.web_state import StoreState
from tests.embedded import NOW_US, encode, eventually, feed, open_store, settings_of
from tests.made_canary import both, labels, offsets

GOOD, WORSE = offsets(60, 2.0, 1), offsets(60, 4.0, 2)
ASKED = Asked("street", "1", "2")
PATH = "/canary?model=street&stable=1&canary=2"
LONG_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Gate:
    """`monitor.canary.compare`, which ends when it may."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.calls = 0

    def __call__(self, *given: Any, **more: Any) -> dict[str, Any]:
        self.calls += 1
        assert self.open.wait(LONG_S)
        return compare(*given, **more)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate()
    monkeypatch.setattr(web_canary, "compare", found)
    yield found
    found.open.set()


@pytest.fixture(params=[False, True], ids=["not watched", "watched"])
def watched(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def settings(tmp_path: Path, watched: bool) -> Settings:
    return settings_of(
        tmp_path, windows={"lengths_seconds": [3600]}, canary={"watch": ["street:1:2"]} if watched else {}
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        feed(opened, settings, [encode(one) for one in (*both(GOOD, WORSE), *labels(range(60)))])
        evaluator = Evaluator(opened, settings, wall_us=lambda: NOW_US)
        evaluator.finish()
        evaluator.close()
        yield opened


def state(store: Store, settings: Settings, clock: Clock, patience_s: float = 0.0) -> CanaryState:
    live = LiveSettings(settings, lambda: settings)
    return CanaryState(store, live, clock, wall_us=lambda: NOW_US, patience_s=patience_s)


def client_of(store: Store, settings: Settings, canaries: CanaryState) -> TestClient:
    live = LiveSettings(settings, lambda: settings)
    router = detail_pages(PageData.of(store, live, open_images(settings)), canaries)
    return TestClient(create_app(StoreState(store, live), "127.0.0.1", [router]), base_url="http://localhost")


def complete(client: TestClient) -> str:
    """The page once nothing is under way any more."""
    text = ""

    def settled() -> bool:
        nonlocal text
        text = client.get(PATH).text
        return "under-way" not in text

    eventually("compared", settled, LONG_S)
    return text


def test_the_page_comes_before_the_comparison_and_is_complete_after_it(
    store: Store, settings: Settings, gate: Gate, watched: bool
) -> None:
    client = client_of(store, settings, state(store, settings, Clock()))
    early = client.get(PATH)
    assert early.status_code == 200
    assert "load again" in early.text.lower() and "Where the canary lost most" not in early.text
    # What the leader has judged is shown at once; a page with nothing on it loads again by itself.
    assert ("Roll back" in early.text, "refresh" in early.headers) == (watched, not watched)
    assert ("Compared 2026-" in early.text) == watched
    assert client.get(PATH).status_code == 200 and gate.calls == 1, "one comparison, however many ask"
    gate.open.set()
    text = complete(client)
    assert "Roll back" in text and "Compared 2026-" in text and "Where the canary lost most" in text
    assert re.search(r"60 labelled inputs that both have seen; labels: 60 of the stable version, 60 of", text)
    assert "refresh" not in client.get(PATH).headers


def test_who_has_patience_gets_what_is_quick_at_once(store: Store, settings: Settings) -> None:
    client = client_of(store, settings, state(store, settings, Clock(), LONG_S))
    text = client.get(PATH).text
    assert "Where the canary lost most" in text and "under-way" not in text


def test_an_old_comparison_is_shown_while_a_newer_is_made(store: Store, settings: Settings, gate: Gate) -> None:
    clock = Clock()
    canaries = state(store, settings, clock)
    gate.open.set()
    canaries.compare(ASKED, False)
    clock.now_s = web_canary.KEPT_S - 1
    assert not canaries.latest(ASKED).under_way
    gate.open.clear()
    clock.now_s = web_canary.KEPT_S
    latest = canaries.latest(ASKED)
    assert latest.under_way and latest.shown is not None and latest.compared_at_us == NOW_US
    gate.open.set()
    eventually("compared", lambda: not canaries.latest(ASKED).under_way, LONG_S)
    assert gate.calls == 2


def test_what_takes_long_is_compared_for_a_small_part_of_the_time(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    canaries = state(store, settings, clock)

    def slow(*given: Any, **more: Any) -> dict[str, Any]:
        clock.now_s += 3.0
        return compare(*given, **more)

    monkeypatch.setattr(web_canary, "compare", slow)
    canaries.compare(ASKED, False)
    clock.now_s = 3.0 + 3.0 * web_canary.SHARE - 0.1
    assert not canaries.latest(ASKED).under_way and clock.now_s < 64
    clock.now_s += 0.2
    canaries.latest(ASKED)
    eventually("compared again", lambda: clock.now_s > 65, LONG_S)


def test_gates_never_get_an_old_one(store: Store, settings: Settings, gate: Gate) -> None:
    clock = Clock()
    canaries = state(store, settings, clock)
    gate.open.set()
    canaries.compare(ASKED, False)
    clock.now_s = web_canary.KEPT_S
    canaries.compare(ASKED, False)
    assert gate.calls == 2


def test_versions_that_cannot_be_compared_are_refused_then_and_later(store: Store, settings: Settings) -> None:
    canaries = state(store, settings, Clock(), LONG_S)
    unknown = Asked("street", "1", "9")
    for _ in range(2):
        with pytest.raises(InputError, match="no records"):
            canaries.latest(unknown)
    text = client_of(store, settings, canaries).get(PATH.replace("canary=2", "canary=9")).text
    assert "no records" in text and "under-way" not in text


def test_failed_comparisons_push_out_none_that_succeeded(
    store: Store, settings: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_canary, "MOST_KEPT", 3)
    canaries = state(store, settings, Clock())
    gate.open.set()
    good = [Asked("street", "1", "2", since) for since in (None, 1, 2)]
    for asked in good:
        canaries.compare(asked, False)
    for version in range(5):
        with pytest.raises(InputError, match="no records"):
            canaries.compare(Asked("street", "1", f"invented {version}"), False)
    assert len(canaries._kept) == 6
    gate.calls = 0
    for asked in good:
        canaries.compare(asked, False)
    assert gate.calls == 0
    canaries.compare(Asked("street", "1", "2", 3), False)
    canaries.compare(good[0], False)
    assert gate.calls == 2, "of those that succeeded the oldest went"


def test_what_was_purged_since_is_not_named(store: Store, settings: Settings) -> None:
    canaries = state(store, settings, Clock(), LONG_S)
    client = client_of(store, settings, canaries)
    latest = canaries.latest(ASKED)
    assert latest.shown is not None
    first, second = (one["input_id"] for one in latest.shown["worst"][:2])
    assert first in client.get(PATH).text
    store.purge([first], None, "maria", "asked for it", lambda masks, name: masks)
    text = client.get(PATH).text
    assert first not in text and second in text
