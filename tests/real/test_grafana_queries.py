"""Every query of every dashboard gives data on a real Prometheus that scrapes a real segwatch, with the packaged SLOs.

What is asked is what Grafana would ask, with all variables on All. Records, labels and canaries are read by the same
code as in production while Prometheus looks on, so that counters move.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from alerts.rules import Links
from alerts.rules_defaults import default_slos, rule_files
from dashboards.grafana.render import render
from monitor.evaluate import Evaluator
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import EMBEDDING_BATCHES, EMBEDDING_US, TallyKey
from monitor.windows import SECOND_US
from tests.embedded import HOUR_US, NOW_US, encode, feed, image_record, open_store, settings_of
from tests.grafana_lint import targets
from tests.made_labels import after, label, seen, square
from tests.real.component import free_ports, stop
from tests.real.prometheus_server import PrometheusServer
from tests.real.service import eventually, start
from tests.real.test_alerts_end_to_end import hasten

pytestmark = pytest.mark.slow

BOARDS = {name: json.loads(text) for name, text in render().items()}
ROUNDS = 3
HOURLY = 150
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["*.rules.yml"]
scrape_configs:
  - job_name: segwatch
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{instance: segwatch}}}}]
"""
VALUES = {"__rate_interval": "20s", "__range": "6h", "__interval": "1s"}
ALL = {"job": ".+", "instance": ".+", "model": ".*", "version": ".*", "class": ".*", "slice": ".*"}


def filled(expr: str) -> str:
    """As Grafana fills variables in; rates are over more scrapes than its 4, since CI may be busy."""
    for name, value in (VALUES | ALL).items():
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr
    return expr


def hour(number: int, version: str, off: int) -> list[dict[str, Any]]:
    """Records of one hour; in the last round the embedding has moved. Some fail."""
    first = number * HOURLY
    begin_us = NOW_US - (ROUNDS - number) * HOUR_US
    found = []
    for i in range(HOURLY):
        classes = [("car", 0.9 - i % 40 / 100, square(10 + off + i % 3)), ("bus", 0.8, square(25))]
        record = seen(
            first + i,
            begin_us + i * 20 * SECOND_US,
            *classes,
            version=version,
            sequence=None,
            shift=1.5 if number == ROUNDS - 1 else 0.0,
        )
        if i % 10 == 0:
            record |= {"status": ("error", "timeout", "oom")[i // 10 % 3], "instances": []}
        found.append(record)
    return found


def truths(number: int, annotator: str) -> list[dict[str, Any]]:
    numbers = range(number * HOURLY + 1, (number + 1) * HOURLY, 2)
    begin_us = NOW_US - (ROUNDS - number) * HOUR_US
    return [
        label(
            one,
            after(begin_us + one % HOURLY * 20 * SECOND_US),
            ("car", square(10)),
            ("bus", square(24)),
            annotator=annotator,
        )
        for one in numbers
        if one % HOURLY % 10
    ]


class Traffic:
    """Feeds a store in rounds, as its ingest and its evaluator would."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def round(self, number: int) -> None:
        records = hour(number, "1", 2) + (hour(number, "2", 1) if number else [])
        labels = truths(number, "ann") + truths(number, "bob")
        values = [encode(one) for one in (*records, *labels)] + [b"not JSON"]
        feed(self._store, self._settings, values, topic_id=f"log-{number}")
        images = [image_record(number * 10 + i, NOW_US - HOUR_US + i * SECOND_US) for i in range(8)]
        feed(self._store, self._settings, [encode(one) for one in images], topic_id=f"images-{number}")
        with self._store.transaction() as tx:  # what a GPU would have counted
            keys = {EMBEDDING_US: 40_000, EMBEDDING_BATCHES: 2}
            tx.add_tallies({TallyKey(series, "", "", "cuda", 0): value for series, value in keys.items()})
        evaluator = Evaluator(self._store, self._settings, wall_us=lambda: time.time_ns() // 1000)
        evaluator.finish()
        evaluator.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    folder = tmp_path_factory.mktemp("grafana")
    (port,) = free_ports(1)
    settings = settings_of(
        folder,
        windows={"lengths_seconds": [3600], "slice_keys": ["camera"]},
        canary={"watch": ["street:1:2"]},
    )
    environ = {
        "SEGWATCH_DATA_DIR": str(folder),
        "SEGWATCH_WEB_PORT": str(port),
        "SEGWATCH_WEB_REFRESH_SECONDS": "1",
        "SEGWATCH_WINDOWS_LENGTHS_SECONDS": "3600",
    }
    rules = {
        name: hasten(text)
        for file in rule_files(default_slos(), Links("https://runbooks.example", "https://segwatch.example"))
        for name, text in file.render().items()
        if name.endswith(".rules.yml")
    }
    log = folder / "web.log"
    with open_store(settings, ["street", "yard"]) as store:
        traffic = Traffic(store, settings)
        traffic.round(0)
        service = start("web", environ, log)
        try:
            with PrometheusServer.start(CONFIG.format(port=port), rules) as server:
                eventually("a scrape", lambda: server.query("up == 1") or None, 60, log)
                for number in range(1, ROUNDS):
                    time.sleep(2)
                    traffic.round(number)
                labels = 'min(sum by (version) (increase(segwatch_spotcheck_images_total{model="street"}[5m]))) > 10'
                eventually("labels", lambda: server.query(labels) or None, 30, log)
                budgets = "count(segwatch:dashboard_slo_budget_remaining:ratio) > 3"
                eventually("budgets", lambda: server.query(budgets) or None, 30, log)
                firing = 'segwatch:dashboard_alerts:firing{alertname!="SegwatchWatchdog"}'
                eventually("an alert", lambda: server.query(firing) or None, 60, log)
                yield server
        finally:
            stop(service)


def numbers(result: list[dict[str, Any]]) -> list[float]:
    """All finite values of a vector or a matrix."""
    pairs = [pair for one in result for pair in (one.get("values") or [one["value"]])]
    return [float(value) for _, value in pairs if math.isfinite(float(value))]


def asked(server: PrometheusServer, expr: str, instant: bool) -> list[float]:
    if instant:
        return numbers(server.query(filled(expr)))
    now = time.time()
    parameters = {"query": filled(expr), "start": str(now - 300), "end": str(now), "step": "1"}
    return numbers(server.get("/api/v1/query_range", **parameters)["result"])


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_data(name: str, prometheus: PrometheusServer) -> None:
    empty = [
        f"{panel['title']}: {target['expr']}"
        for panel, target in targets(BOARDS[name])
        if not asked(prometheus, target["expr"], target["instant"])
    ]
    assert not empty, "\n".join(empty)


@pytest.mark.parametrize("name", BOARDS)
def test_annotations_mark_the_release_and_the_alerts(name: str, prometheus: PrometheusServer) -> None:
    alerts, releases = (one["target"]["expr"] for one in BOARDS[name]["annotations"]["list"])
    assert asked(prometheus, alerts, instant=False)
    now = time.time()
    found = prometheus.get("/api/v1/query_range", query=filled(releases), start=str(now - 300), end=str(now), step="1")[
        "result"
    ]
    (release,) = found
    assert release["metric"] == {"model": "street", "version": "2"}
    assert len(release["values"]) == 1, "one mark, not a region"


@pytest.mark.parametrize("name", BOARDS)
def test_every_variable_has_values(name: str, prometheus: PrometheusServer) -> None:
    for one in BOARDS[name]["templating"]["list"]:
        if one["type"] == "query":
            selector, _, wanted = one["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            found = prometheus.get(f"/api/v1/label/{wanted}/values", **{"match[]": filled(selector)})
            assert found and "" not in found, one["name"]
