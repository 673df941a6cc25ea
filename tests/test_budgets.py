"""Budgets from Prometheus' answers, and what is said where there are none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from alerts.rules_dashboards import BURN, GOOD, LEFT, OBJECTIVE
from monitor.budgets import INFO, KEPT_S, NO_RULES, QUERY, UNSET, Budgets, Found, Place, budgets_of
from monitor.present import status_text
from monitor.status import status
from tests.embedded import open_store, settings_of

CAR = {"slo": "iou-car", "model": "street", "class": "car", "instance": "segwatch", "period": "30d"}
SERIES: list[tuple[dict[str, str], float]] = [
    ({**CAR, "__name__": OBJECTIVE}, 0.95),
    ({**CAR, "__name__": GOOD}, 0.9),
    ({**CAR, "__name__": LEFT}, -1.0),
    ({**CAR, "__name__": BURN, "window": "5m", "span": "short"}, 3.5),
    ({**CAR, "__name__": BURN, "window": "3d", "span": "long"}, 2.0),
    ({**CAR, "__name__": BURN, "window": "1h"}, 9.0),
    ({"__name__": INFO, "slo": "iou-car", "model": "street"}, 1.0),
    ({"__name__": INFO, "slo": "latency", "model": "street"}, 1.0),
    ({"__name__": LEFT, "slo": "errors", "model": "street", "instance": "segwatch", "period": "7d"}, 0.4),
    ({"__name__": GOOD, "slo": "errors", "model": "street", "instance": "segwatch", "period": "7d"}, float("nan")),
]


class Answering:
    """A server that answers ``body`` to queries, and remembers them."""

    def __init__(self) -> None:
        self.body = b""
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, series: list[tuple[dict[str, str], float]]) -> None:
        result = [{"metric": labels, "value": [1.5, str(value)]} for labels, value in series]
        self.body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


@pytest.fixture
def prometheus() -> Iterator[Answering]:
    one = Answering()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_series_of_one_slo_and_class_are_one_budget_and_the_least_left_comes_first() -> None:
    car, errors, latency = budgets_of(SERIES)
    assert car.place == Place("iou-car", "street", "", "car", "segwatch")
    assert (car.period, car.objective, car.good, car.left) == ("30d", 0.95, 0.9, -1.0)
    assert car.burns == {"short": ("5m", 3.5), "long": ("3d", 2.0)}
    assert car.spent_up
    assert (errors.place.slo, errors.left, errors.good, errors.objective) == ("errors", 0.4, None, None)
    assert (latency.place.slo, latency.left, latency.spent_up) == ("latency", None, False)


def test_it_is_asked_once_for_all_who_look(prometheus: Answering) -> None:
    prometheus.answer(SERIES)
    now = [0.0]
    budgets = Budgets(lambda: prometheus.url, lambda: now[0])
    assert [one.place.slo for one in budgets.read().budgets] == ["iou-car", "errors", "latency"]
    prometheus.answer([])
    assert budgets.read().why == ""
    assert [parse_qs(urlsplit(path).query)["query"] for path in prometheus.asked] == [[QUERY]]
    now[0] = KEPT_S
    assert budgets.read() == ([], NO_RULES)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "Prometheus does not answer: JSON is malformed"),
        (b'{"status":"error","error":"query timed out"}', "Prometheus refuses: query timed out"),
        (b'{"status":"success","data":{"result":[{"metric":{},"value":[1]}]}}', "Prometheus does not answer:"),
        (b'{"status":"success","data":{"result":[{"metric":{},"value":[1,"x"]}]}}', "Prometheus does not answer:"),
    ],
)
def test_what_is_no_answer_is_the_reason_why_nothing_is_known(prometheus: Answering, body: bytes, why: str) -> None:
    prometheus.body = body
    found = Budgets(lambda: prometheus.url).read()
    assert found.budgets == []
    assert found.why.startswith(why)


def test_without_an_address_or_without_a_server_nothing_is_known() -> None:
    assert Budgets(lambda: "").read() == ([], UNSET)
    assert Budgets(lambda: "http://127.0.0.1:1").read().why.startswith("Prometheus does not answer:")
    assert Budgets(lambda: "nonsense").read().why.startswith("Prometheus does not answer:")


def test_status_shows_each_models_budgets_and_why_others_are_unknown(tmp_path: Path) -> None:
    nobodys = ({"__name__": LEFT, "slo": "triton", "instance": "segwatch", "period": "30d"}, 0.25)
    with open_store(settings_of(tmp_path)) as store:
        [model] = status(store, 0, Found(budgets_of(SERIES), ""))["models"]
        shown = status(store, 0, Found(budgets_of([*SERIES, nobodys]), ""))
        unknown = status(store, 0, Found([], UNSET))
    car, errors, latency = model["budgets"]
    assert car == {
        "slo": "iou-car", "class": "car", "period": "30d", "objective": 0.95, "good": 0.9, "left": -1.0,
        "burn_rates": {"5m": 3.5, "3d": 2.0},
    }  # fmt: skip
    assert (errors["slo"], errors["class"], errors["good"], latency["left"]) == ("errors", None, None, None)
    assert [one["slo"] for one in shown["budgets"]] == ["triton"]
    text = status_text(shown)
    assert "  budget of SLO iou-car, car, 30d: -100.0% left, 3.5x over 5m, 2x over 3d" in text
    assert "\nbudget of SLO triton, all, 30d: 25.0% left" in text and "unknown" not in text.splitlines()[-1]
    assert (shown["budgets_unknown"], unknown["budgets_unknown"], unknown["models"][0]["budgets"]) == (None, UNSET, [])
    assert f"error budgets: unknown, {UNSET}" in status_text(unknown)
