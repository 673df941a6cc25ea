"""The rules on a real Prometheus with a month of bursty data: the budget is exact, and no rule fails."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alerts.rules import Links
from alerts.rules_defaults import default_slos, rule_files
from alerts.slo.parse import parse
from tests.real.component import unavailable

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
STEP_S = 300
DAYS = 30
TARGET = 'job="segwatch",instance="segwatch"'


def bursty(seed: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Good and bad events of each step: idle nights, and failures that come in a few bursts."""
    random = np.random.default_rng(seed)
    steps = DAYS * 86_400 // STEP_S
    busy = np.sin(np.arange(steps) * STEP_S / 86_400 * 2 * np.pi) > 0
    good = random.poisson(8, steps) * busy
    bad = np.zeros(steps, dtype=np.int64)
    for begin in random.integers(0, steps - 20, 6):
        bad[begin : begin + 12] += random.poisson(20, 12)
    return good.astype(np.int64), bad


def openmetrics(end: int, counts: dict[str, np.ndarray[Any, np.dtype[np.int64]]]) -> str:
    lines = ["# TYPE segwatch_records counter"]
    for labels, events in counts.items():
        times = end - STEP_S * np.arange(len(events))[::-1]
        totals = np.cumsum(events)
        pairs = zip(totals.tolist(), times.tolist(), strict=True)
        lines += [f"segwatch_records_total{{{labels}}} {total} {at}" for total, at in pairs]
    return "\n".join([*lines, "# EOF", ""])


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def query(base: str, expr: str) -> dict[str, float]:
    found = get(f"{base}/api/v1/query?" + urllib.parse.urlencode({"query": expr}))["result"]
    return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in found}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[str, float]]:
    """A Prometheus with the rules and the data; its address, and the budget that is left by the data."""
    server, tool = shutil.which("prometheus"), shutil.which("promtool")
    if server is None or tool is None:
        unavailable("prometheus", "not on the PATH (Debian's package prometheus has it)")
    good, bad = bursty(1)
    version = f'{TARGET},model="street",version="1",outcome='
    text = openmetrics(int(time.time()) // 60 * 60, {version + '"ok"': good, version + '"failed"': bad})
    (tmp_path / "data.om").write_text(text, encoding="utf-8")
    backfill = [tool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=744h", "data.om", "data"]
    subprocess.run(backfill, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    slo = {"name": "a", "kind": "availability", "model": "street", "objective": 0.95}
    for file in rule_files([*parse(slo), *default_slos()], LINKS):
        # Prometheus shifts each group by up to its interval: short ones make the test wait less.
        for name, rules in file.render().items():
            if name.endswith(".rules.yml"):
                quick = rules.replace("interval: 1m", "interval: 2s").replace("interval: 5m", "interval: 2s")
                (tmp_path / name).write_text(quick, encoding="utf-8")
    config = {"global": {"evaluation_interval": "2s"}, "rule_files": ["*.rules.yml"]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [server, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=60d"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--query.lookback-delta=10m"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}", 1 - bad.sum() / (good.sum() + bad.sum()) / 0.05
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
def test_the_budget_of_30_bursty_days_is_exact_and_every_rule_is_healthy(prometheus: tuple[str, float]) -> None:
    base, expected = prometheus
    deadline = time.monotonic() + 60
    budget: dict[str, float] = {}
    groups: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        time.sleep(1)
        try:
            groups = get(f"{base}/api/v1/rules")["groups"]
            budget = query(base, 'segwatch:slo_budget_remaining:ratio{slo="a"}')
        except OSError:
            continue
        if budget and all(rule["health"] != "unknown" for group in groups for rule in group["rules"]):
            break
    (found,) = budget.values()
    assert found == pytest.approx(expected, abs=1e-3 * abs(1 - expected))
    unwell = [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]
    assert not unwell, unwell
    recorded = query(base, '{__name__=~"segwatch:.+"}')
    assert len(recorded) > 20
    assert all(np.isfinite(value) for value in recorded.values())
