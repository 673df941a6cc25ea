"""Pictures of the demo's pages for the docs: ``python tools/page_pictures.py http://127.0.0.1:8600`` with it running.

Written to docs/images, by the system's Chromium.
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
WINDOW = "/models/digits/1/windows/2026-11-01T08~3A00~3A00Z?length=3600&order=worst"
WIDTH, HEIGHT = 1100, 880


def main(address: str) -> None:
    """Four pages; of the sample the worst of the first shifted hour."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(base_url=address, viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(WINDOW)
        sample = page.locator("a.shots").nth(1).get_attribute("href") or "/"
        for name, where in (("overview", "/"), ("model", "/models/digits/1"), ("window", WINDOW), ("sample", sample)):
            page.set_viewport_size({"width": WIDTH, "height": 600 if name == "sample" else HEIGHT})
            page.goto(where, wait_until="networkidle")
            write(FOLDER / f"{name}.png", page.screenshot())
        page.set_viewport_size({"width": 390, "height": 780})
        page.emulate_media(color_scheme="dark")
        page.goto("/models/digits/1", wait_until="networkidle")
        write(FOLDER / "model-phone-dark.png", page.screenshot())
        browser.close()


def write(file: Path, data: bytes) -> None:
    """With 256 colours, chosen so that rare ones are among them: half the size."""
    picture = Image.open(BytesIO(data)).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1])
