"""The pages in real Chromium: accessible, by keyboard, on a phone, in the dark, and without JavaScript."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from monitor.http_server import serve
from tests.page_store import MODEL, VERSION, Site, site, token_of, tokens_file
from tests.real.axe_core import axe_source
from tests.real.component import unavailable

playwright = pytest.importorskip("playwright.sync_api")

FAULTS = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .map(one => `${one.id}: ${one.nodes.map(node => node.html).slice(0, 3).join(" | ")}`)"""
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}


@dataclass
class Served:
    site: Site
    address: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("browser")
    with site(folder, {"tokens_file": str(tokens_file(folder))}) as filled:
        server = serve(filled.app, "127.0.0.1", 0)
        yield Served(filled, server.address)
        server.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        unavailable("chromium", "it is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Any]:
    """Signed in as an admin, with every complaint of the browser a failure."""
    context = chromium.new_context(base_url=served.address, viewport=DESK)
    one, complaints = context.new_page(), []
    one.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    one.on("pageerror", lambda error: complaints.append(str(error)))
    sign_in(one, "ada")
    yield one
    context.close()
    assert complaints == []


def sign_in(one: Any, person: str) -> None:
    one.goto("/relabel")
    one.get_by_label("Token").fill(token_of(person))
    one.get_by_role("button", name="Sign in").click()
    one.wait_for_url("**/relabel")


def test_no_page_has_a_serious_fault_of_accessibility(page: Any, served: Served) -> None:
    found: list[tuple[str, str, list[str]]] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for path in served.site.all_paths:
            page.goto(path)
            page.evaluate(axe_source())
            faults = page.evaluate(FAULTS)
            if faults:
                found.append((scheme, path, faults))
    assert found == []


def test_the_sign_in_page_has_none_either(chromium: Any, served: Served) -> None:
    context = chromium.new_context(base_url=served.address)
    one = context.new_page()
    one.goto("/sign-in")
    one.evaluate(axe_source())
    assert one.evaluate(FAULTS) == []
    one.evaluate("document.body.append(new Image())")  # and a fault would be found
    assert [fault.partition(":")[0] for fault in one.evaluate(FAULTS)] == ["image-alt"]
    context.close()


def test_on_a_phone_no_page_is_wider_than_the_screen(page: Any, served: Served) -> None:
    page.set_viewport_size(PHONE)
    wide = []
    for path in served.site.all_paths:
        page.goto(path)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide.append((path, width))
    assert wide == []


def test_pictures_are_shown(page: Any, served: Served) -> None:
    page.goto(f"{served.site.window}&order=worst", wait_until="networkidle")
    page.locator("img").last.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    widths = page.evaluate("[...document.images].map(one => one.naturalWidth)")
    assert len(widths) > 20
    assert min(widths) > 0


def test_the_embedding_map_leads_to_images_by_mouse_and_by_keyboard(page: Any, served: Served) -> None:
    page.goto(f"{served.site.window}&order=worst")
    page.get_by_role("link", name="Embedding map").click()
    assert page.locator("svg.map .map-window, svg.map .map-typical").count() > 0
    page.locator(".map-cell").first.click(position={"x": 2, "y": 2})
    page.wait_for_url("**cell=**")
    assert page.locator("a.shots").count() > 0
    page.goto(page.url.partition("&cell=")[0])
    page.locator("th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**cell=**")
    assert page.locator("a.shots").count() > 0
    page.locator("svg.map .map-window, svg.map .map-typical").last.click()
    page.wait_for_url("**/samples/**")


def test_by_keyboard_from_the_top_to_the_content(page: Any) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"/models/{MODEL}/{VERSION}"


def test_without_javascript_from_signing_in_to_the_images_and_a_claim(chromium: Any, served: Served) -> None:
    context = chromium.new_context(base_url=served.address, java_script_enabled=False)
    one = context.new_page()
    sign_in(one, "lara")
    one.get_by_role("link", name="Models").first.click()
    one.get_by_role("link", name=f"{MODEL} version {VERSION}").click()
    one.get_by_role("link", name="The newest window, with images").or_(
        one.get_by_role("link", name="See what shifted, with images")
    ).click()
    one.locator("a.shots").first.click()
    assert one.get_by_role("heading", name="Pictures").is_visible()
    one.goto("/relabel")
    one.get_by_role("button", name="Claim").click()
    assert "claimed for lara" in one.get_by_role("status").inner_text()
    assert any(item.claimed_by == "lara" for item in served.site.store.relabel.items())
    context.close()
