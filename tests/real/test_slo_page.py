"""Budgets on the page of SLOs, from a real Prometheus that has the series which the rules record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient

from alerts.rules_dashboards import BURN, GOOD, LEFT, OBJECTIVE
from dashboards.page_data import PageData
from dashboards.slo_page import slo_router
from monitor.budgets import INFO
from monitor.images import open_images
from monitor.live_settings import LiveSettings
from monitor.settings import PrometheusSettings
from monitor.web import create_app
from monitor.web_state import StoreState
from tests.embedded import open_store, settings_of
from tests.real.prometheus_server import PrometheusServer
from tests.real.service import eventually

OF = {"slo": "iou-car", "model": "street", "class": "car", "job": "segwatch", "instance": "segwatch", "period": "30d"}
SERIES = [
    (OBJECTIVE, OF, 0.95),
    (GOOD, OF, 0.965),
    (LEFT, OF, 0.3),
    (BURN, {**OF, "window": "5m", "span": "short"}, 2.5),
    (BURN, {**OF, "window": "3d", "span": "long"}, 0.7),
    (LEFT, {**OF, "class": "<b>bus</b>"}, -0.2),
    (INFO, {"slo": "latency", "model": "street"}, 1),
]


@pytest.fixture(scope="module")
def prometheus() -> Iterator[PrometheusServer]:
    rules = [{"record": name, "expr": f"vector({value})", "labels": labels} for name, labels, value in SERIES]
    files = {"made.rules.yml": json.dumps({"groups": [{"name": "made", "interval": "1s", "rules": rules}]})}
    with PrometheusServer.start("rule_files: [made.rules.yml]\n", files) as server:
        eventually("the series", lambda: len(server.query(f'{{__name__=~"{INFO}|segwatch:.*"}}')) == 7 or None, 30)
        yield server


def page(folder: Path, url: str) -> str:
    settings = msgspec.structs.replace(settings_of(folder), prometheus=PrometheusSettings(url=url))
    with open_store(settings, ()) as store:
        live = LiveSettings(settings, lambda: settings)
        data = PageData.of(store, live, open_images(settings))
        app = create_app(StoreState(store, live), "127.0.0.1", [slo_router(data)])
        return TestClient(app, base_url="http://localhost").get("/slo").text


def test_it_says_what_is_left_of_each_budget_and_how_fast_it_is_spent(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    text = page(tmp_path, prometheus.url)
    rows = [row for row in text.split("<tr>") if "</td>" in row]
    assert len(rows) == 3
    spent, car, unknown = rows
    assert "-20 %" in spent and "used up" in spent and "&lt;b&gt;bus&lt;/b&gt;" in spent
    assert all(one in car for one in ("95 %", "96.5 %", "30 %", "2.5 in 5m", "0.7 in 3d", "30d"))
    assert "latency" in unknown and "unknown: no events in the period" in unknown


def test_without_a_prometheus_they_are_unknown_and_it_says_why(tmp_path: Path) -> None:
    assert "Unknown: prometheus.url is not set." in page(tmp_path, "")
    assert "Unknown: Prometheus does not answer:" in page(tmp_path, "http://127.0.0.1:1")


def test_a_prometheus_without_the_rules_is_told_apart(tmp_path: Path) -> None:
    with PrometheusServer.start("scrape_configs: []\n") as empty:
        assert "has none of the recorded series" in page(tmp_path, empty.url)
