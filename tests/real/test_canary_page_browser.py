"""The page of a canary that lost, in real Chromium: the verdict, the differences, and pairs of pictures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from monitor.evaluate import Evaluator
from monitor.http_server import serve
from monitor.windows import SECOND_US
from tests.embedded import NOW_US, encode, feed, image_record
from tests.made_labels import after, label, square
from tests.page_store import EVENT_US, MODEL, Site, site
from tests.real.axe_core import axe_source
from tests.real.component import unavailable
from tests.real.test_pages_browser import DESK, FAULTS, PHONE

playwright = pytest.importorskip("playwright.sync_api")

PAIRS = 80
PATH = f"/canary?model={MODEL}&stable=1&canary=3"


def fill(filled: Site) -> None:
    """Inputs that versions 1 and 3 saw, with images, all labelled; version 3 has lost its way."""
    records: list[dict[str, Any]] = []
    for number in range(PAIRS):
        own = {"input_id": f"pair-{number:06d}"}
        for version, off in (("1", number % 2), ("3", 2 + number % 5)):
            masks = [{"class": "dog", "score": 0.9, "mask": square(10 + off)}]
            model = {"name": MODEL, "version": version}
            records.append(image_record(number, EVENT_US + number * SECOND_US, instances=masks, model=model, **own))
        records.append(label(number, after(EVENT_US) + number, ("dog", square(10)), **own))
    feed(filled.store, filled.settings, [encode(one) for one in records], topic_id="pairs")
    evaluator = Evaluator(filled.store, filled.settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with site(tmp_path_factory.mktemp("canary")) as filled:
        fill(filled)
        server = serve(filled.app, "127.0.0.1", 0)
        yield server.address
        server.stop()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        unavailable("chromium", "it is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        one = browser.new_context(base_url=address, viewport=DESK).new_page()
        complaints: list[str] = []
        one.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        one.on("pageerror", lambda error: complaints.append(str(error)))
        yield one
        browser.close()
    assert complaints == []


def test_a_canary_that_lost_is_shown_with_its_worst_pairs_on_any_screen(page: Any) -> None:
    page.goto(PATH, wait_until="networkidle")
    verdict = page.get_by_role("region", name="In short").inner_text()
    assert verdict.startswith("Roll back") and f"{PAIRS} labelled inputs" in verdict
    rows = page.get_by_role("region", name="Differences").get_by_role("row").all_inner_texts()
    assert any(row.startswith("dog\t") for row in rows)
    pictures = page.get_by_role("region", name="Where the canary lost most").locator("img")
    assert pictures.count() == 2 * 20
    pictures.last.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    widths = page.evaluate("[...document.querySelectorAll('.gallery img')].map(one => one.naturalWidth)")
    assert min(widths) > 0
    for width in (DESK, PHONE):
        for scheme in ("light", "dark"):
            page.set_viewport_size(width)
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width["width"]
            page.evaluate(axe_source())
            assert page.evaluate(FAULTS) == []
    page.get_by_role("region", name="Where the canary lost most").locator("a").first.click()
    assert page.get_by_role("heading", name="Pictures").is_visible()
