"""The pages on a real PostgreSQL: what ``tests/test_pages.py`` says of every page and of a window's order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests import test_pages
from tests.page_store import Site, site
from tests.real.postgres import Postgres

TestEveryPage = test_pages.TestEveryPage
TestModelPage = test_pages.TestModelPage
TestWindowPage = test_pages.TestWindowPage


@pytest.fixture(scope="module")
def open_site(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("pages"), url=postgres.fresh_database()) as filled:
        yield filled


@pytest.fixture
def client(open_site: Site) -> TestClient:
    return open_site.client()
