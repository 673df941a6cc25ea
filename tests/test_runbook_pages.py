"""Runbooks where alerts point: at /runbooks/NAME.md of segwatch's own pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from alerts.rules import Links
from alerts.rules_defaults import catalogue
from dashboards.runbook_pages import render, runbook_pages


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(runbook_pages())
    return TestClient(app, base_url="http://127.0.0.1")


def test_every_alert_links_to_a_page_that_is_served(client: TestClient) -> None:
    links = Links("http://127.0.0.1/runbooks", "http://127.0.0.1")
    rules = [entry.rule for entries in catalogue(links).values() for entry in entries]
    assert len(rules) > 30
    for rule in rules:
        page = client.get(rule.annotations["runbook_url"])
        assert page.status_code == 200, rule.alert
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert f"<h1>{rule.alert}</h1>" in page.text
        assert page.text.count('<pre><code class="language-console">') == 3


def test_the_index_links_to_pages_that_exist(client: TestClient, checkout: Path) -> None:
    page = client.get("/runbooks", follow_redirects=True)
    names = [file.name for file in (checkout / "docs" / "runbooks").glob("Segwatch*.md")]
    assert names
    for name in names:
        assert f'<a href="{name}">' in page.text
        assert client.get(f"/runbooks/{name.removesuffix('.md')}").status_code == 200


@pytest.mark.parametrize("name", ["Nothing.md", "..%2f..%2fpyproject.toml", "%2e%2e", "README.md.md", "a%00b"])
def test_nothing_else_can_be_asked_for(client: TestClient, name: str) -> None:
    assert client.get(f"/runbooks/{name}").status_code == 404


def test_html_scripts_and_images_in_a_page_stay_text() -> None:
    page = render("# T\n\n<script>alert(1)</script> ![x](https://e.example/x.png) [a](javascript:alert(1)) <b>b</b>\n")
    assert "<script" not in page and "<img" not in page and "<b>" not in page
    assert 'href="javascript' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
