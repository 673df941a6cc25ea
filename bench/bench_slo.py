"""SLO rules on a real Prometheus: is the budget exact, who is woken for nothing, and how late are failures told?

Data are backfilled as blocks; Prometheus evaluates the rules over them.

- Budget: 30 days of bursts, idle nights and a new version, against sums that pandas makes of the same events.
- NaN and Inf: every rule over idle days, first events, resets and new versions.
- Pages: a healthy class at 2 labels an hour for 30 days, and a class at 2, 6 and 30 of which 95 % fail from some moment
  on, with segwatch's rules and with the SRE workbook's (1 h and 5 min at 14.4, 6 h and 30 min at 6, point estimates).
- Firing set: slo-guard's rules (PyPI, in an environment of its own) and ours without guards and with its windows, over
  random series, at each minute.

    python bench/bench_slo.py [--runs 100] [--series 200] [--only budget,finite,pages,peer]

Prints tables, and writes bench-results/slo.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from alerts.rules import Links
from alerts.slo import kinds
from alerts.slo.parse import parse
from alerts.slo.promql import BIRTH, BORN_WITH, KEPT
from alerts.slo.render import RATIO, REMAINING, groups
from bench.rig import ROOT, write_result
from bench.slo.prometheus import ask, backfill, over_time, served, tool, write_series
from bench.slo.replay import EPOCH, RECORD, Labels, episodes, pages, rules_of, slo, workbook

DAY = 86_400
STEP_S = 300
PEER = "slo-guard==0.2.0"
TARGET = 'job="segwatch",instance="segwatch"'
HEALTHY, FAILING = 0.025, 0.95
OBJECTIVE = 0.95
RATES = (2, 6, 30)


def bursty(seed: int, steps: int) -> pd.DataFrame:
    """Good and bad events of each step: idle nights, and failures that come in a few bursts."""
    random = np.random.default_rng(seed)
    busy = np.sin(np.arange(steps) * STEP_S / DAY * 2 * np.pi) > 0
    good = random.poisson(8, steps) * busy
    bad = np.zeros(steps, dtype=np.int64)
    for begin in random.integers(1, steps - 20, 6):
        bad[begin : begin + 12] += random.poisson(20, 12)
    return pd.DataFrame({"good": good, "bad": bad})


def budget(_: argparse.Namespace) -> dict[str, Any]:
    """The budget that is left after 30 days, by Prometheus and by pandas; and as a mean of ratios of 5 minutes."""
    days, objective = 30, 0.95
    steps = days * DAY // STEP_S + 1
    times = EPOCH + STEP_S * np.arange(steps)
    (own,) = parse({"name": "a", "kind": "availability", "objective": objective})
    series: dict[str, NDArray[np.float64]] = {f"up{{{TARGET}}}": np.ones(steps)}
    truth = {}
    for seed in range(10):
        events = bursty(seed, steps)
        events.iloc[0] = 0  # what a Prometheus finds at its first scrape is no event
        change = steps // 3 * 2
        for version, part in (("1", slice(0, change)), ("2", slice(change, steps))):
            for outcome, column in (("ok", "good"), ("failed", "bad")):
                values = np.full(steps, np.nan)
                values[part] = events[column].cumsum().to_numpy()[part] - (events[column][: part.start].sum())
                name = f'segwatch_records_total{{{TARGET},model="{seed}",version="{version}",outcome="{outcome}"}}'
                series[name] = values
        total = events.sum()
        truth[str(seed)] = float(1 - total["bad"] / total.sum() / (1 - objective))
    remaining = _inlined(own, REMAINING)
    mean = f"1 - avg_over_time(({_inlined(own, RATIO + '5m')})[30d:5m]) / {1 - objective:.10g}"
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_series(folder / "series.om", times.tolist(), series)
        backfill(folder / "series.om", folder / "data")
        with served(folder) as base:
            found = {query: _by_model(base, query, int(times[-1])) for query in (remaining, mean)}
    off = [abs(found[remaining][model] - value) / abs(1 - value) for model, value in truth.items()]
    means = [abs(found[mean][model] - value) / abs(1 - value) for model, value in truth.items()]
    return {
        "months": len(truth),
        "spent_by_pandas": [1 - value for value in truth.values()],
        "largest_error": max(off),
        "largest_error_of_mean_ratios": max(means),
    }


def _by_model(base: str, query: str, at: int) -> dict[str, float]:
    found = ask(base, "query", query=query, time=at)["result"]
    return {one["metric"]["model"]: float(one["value"][1]) for one in found}


def _inlined(own: Any, metric: str) -> str:
    """A recorded series with the definitions of all that it is made of."""
    by_name = {rule.record: rule.expr for rule in rules_of(own) if rule.record}

    def definition(name: str) -> str:
        return f"({RECORD.sub(lambda found: definition(found[0].partition('{')[0]), by_name[name])})"

    text = definition(metric)
    for name in (BIRTH, BORN_WITH):
        for index in range(len(kinds.events(own).born)):
            counter = f'label_replace(vector(1), "counter", "{index}", "", "")'
            recorded = f"last_over_time({name}{{{kinds.of_birth(own, index)}}}[{KEPT}])"
            text = text.replace(recorded, f"({definition(name)} and on (counter) {counter})")
    return text


def finite(_: argparse.Namespace) -> dict[str, Any]:
    """Samples of all rules that are NaN or infinite, over what counters go through."""
    steps = 4 * DAY // STEP_S
    times = EPOCH + STEP_S * np.arange(steps)
    step = np.arange(steps, dtype=float)
    nan = np.full(steps, np.nan)
    shapes = {
        "idle": np.minimum(step, steps // 3),
        "silent": np.zeros(steps),
        "first event": np.where(step < steps // 2, 0, step - steps // 2),
        "reset": np.where(step < steps // 2, step, step - steps // 2),
        "gone": np.where(step < steps // 2, step, nan),
        "version change": np.where(step < steps // 2, nan, step),
    }
    series: dict[str, NDArray[np.float64]] = {f"up{{{TARGET}}}": np.ones(steps)}
    for name, values in shapes.items():
        own = f'{TARGET},model="{name}",version="1"'
        for outcome, share in (("ok", 0.9), ("failed", 0.1)):
            series[f'segwatch_records_total{{{own},outcome="{outcome}"}}'] = np.floor(share * values)
        labels = f'{own},class="car"'
        series[f"segwatch_spotcheck_iou_ratio_count{{{labels}}}"] = values
        series[f'segwatch_spotcheck_iou_ratio_bucket{{{labels},le="0.5"}}'] = np.floor(values / 2)
        series[f"segwatch_spotcheck_images_total{{{own}}}"] = np.floor(values / 3)
        series[f'segwatch_spotcheck_instances_total{{{labels},verdict="fp"}}'] = np.floor(values / 7)
    windows = [
        {"notify": "page", "long": "1h", "short": "5m", "factor": 14.4},
        {"notify": "ticket", "long": "1d", "short": "2h", "factor": 3},
    ]
    more = {"windows": windows, "period": "3d"}
    slos = parse(
        {
            "slos": [
                {"name": "a", "kind": "availability", "objective": 0.99, **more},
                {"name": "i", "kind": "class_iou", "iou": 0.5, "objective": 0.8, **more},
                {"name": "f", "kind": "false_positives_per_image", "limit": 0.2, **more},
            ]
        }
    )
    samples, bad, rules = 0, 0, 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_series(folder / "series.om", times.tolist(), series)
        backfill(folder / "series.om", folder / "data")
        with served(folder) as base:
            for own in slos:
                for rule in rules_of(own):
                    if not rule.record or "info" in rule.record or "objective" in rule.record:
                        continue
                    rules += 1
                    expr = _inlined(own, rule.record)
                    try:
                        found = over_time(base, expr, times)
                    except ValueError:
                        found = {}
                        bad += 1
                    samples += int(sum((~np.isnan(values)).sum() for values in found.values()))
    return {"rules": rules, "scenarios": list(shapes), "samples": samples, "rules_with_nan_or_inf": bad}


def labels_of(
    rate: float, days: float, runs: int, seed: int, step_s: int = STEP_S, failing_from: float | None = None
) -> Labels:
    """Labels of ``runs`` classes, so many an hour (Poisson); ``HEALTHY`` of them are bad, ``FAILING`` from a day on."""
    random = np.random.default_rng(seed)
    steps = int(days * DAY / step_s)
    events = random.poisson(rate * step_s / 3600, (runs, steps))
    events[:, 0] = 0
    share = np.full(steps, HEALTHY)
    if failing_from is not None:
        share[int(failing_from * DAY / step_s) :] = FAILING
    return Labels(events, random.binomial(events, share), step_s)


def page_figures(options: argparse.Namespace) -> dict[str, Any]:
    """Minutes until a failure pages, and false pages of a healthy class in 30 days."""
    slos = [workbook("workbook", OBJECTIVE), slo("segwatch", OBJECTIVE)]
    rows = []
    for rate in RATES:
        delays: dict[str, list[float]] = {one.name: [] for one in slos}
        for begin, runs in _parts(options.runs, 50):
            given = labels_of(rate, 5, runs, 2000 * rate + begin, step_s=60, failing_from=4)
            for name, state in pages(given, slos).items():
                after = state[:, 4 * DAY // 60 :]
                # What is seen at the first of them came in the minute before it.
                delays[name] += np.where(after.any(axis=1), after.argmax(axis=1) + 1, np.inf).tolist()
        rows.append(
            {
                "labels_per_hour": rate,
                "runs": options.runs,
                "median_delay_minutes": {name: float(np.median(found)) for name, found in delays.items()},
                "never_told": {name: int(np.isinf(found).sum()) for name, found in delays.items()},
            }
        )
        print(rows[-1], flush=True)
    false: dict[str, list[int]] = {one.name: [] for one in slos}
    for begin, runs in _parts(options.runs, 25):
        for name, state in pages(labels_of(RATES[0], 30, runs, 1000 + begin), slos).items():
            false[name] += episodes(state).tolist()
        print({name: (len(found), float(np.mean(found))) for name, found in false.items()}, flush=True)
    return {
        "objective": OBJECTIVE,
        "healthy_bad_share": HEALTHY,
        "failing_bad_share": FAILING,
        "false_pages": {
            "labels_per_hour": RATES[0],
            "days": 30,
            "runs": options.runs,
            "a_run": {name: float(np.mean(found)) for name, found in false.items()},
        },
        "delays": rows,
    }


def _parts(runs: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs at a time: some two million samples, and as many that are recorded."""
    for begin in range(0, runs, size):
        yield begin, min(size, runs - begin)


def peer_python() -> Path:
    """The interpreter of the peer's environment, made where it is not there yet."""
    folder = ROOT / ".cache" / "peers" / "slo-guard"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != PEER:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-I", "-m", "pip", "install", "-q", PEER], check=True)
        stamp.write_text(PEER)
    return python


GENERATE = """
import json, sys
from slo_guard.burnrate import DEFAULT_POLICY
from slo_guard.core import SLO
from slo_guard.rules import build_alert_group
bad, total, target = sys.argv[1], sys.argv[2], float(sys.argv[3])
group = build_alert_group(SLO(name="t", target=target, period_days=30), bad, total)
tiers = [{"long_h": tier.long_window_hours, "short_h": tier.short_window_hours} for tier in DEFAULT_POLICY]
print(json.dumps({"group": group, "tiers": tiers}))
"""


def peer(options: argparse.Namespace) -> dict[str, Any]:
    """At each minute of random series: do slo-guard's pages and ours fire alike, without guards and without ``for``?"""
    metric, rows = "segwatch_records_total", []
    for objective in (0.99, 0.95):
        selectors = [f'{metric}{{model="m",outcome="failed"}}', f'{metric}{{model="m",outcome=~"ok|failed"}}']
        command = [str(peer_python()), "-I", "-c", GENERATE, *selectors, str(objective)]
        theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        group = theirs["group"]["groups"][0]
        kept, windows = [], []
        for rule, tier in zip(group["rules"], theirs["tiers"], strict=True):
            if tier["long_h"] > 6:
                continue  # longer than the series
            limit = float(rule["expr"].split(" > ")[1].split(" ")[0])
            windows.append(
                {
                    "notify": "page",
                    "long": f"{round(tier['long_h'] * 60)}m",
                    "short": f"{round(tier['short_h'] * 60)}m",
                    "factor": limit / (1 - objective),
                }
            )
            kept.append({"alert": "Theirs", "expr": rule["expr"], "labels": {"tier": str(len(kept))}})
        (own,) = parse(
            {"name": "a", "kind": "availability", "model": "m", "objective": objective, "guard": False, "hold": False}
            | {"windows": windows, "blind_after": "6h"}
        )
        rows.append(_compare(own, {"name": "theirs", "interval": "1m", "rules": kept}, objective, options.series // 2))
    return {"peer": PEER, "rows": rows}


MINUTES = 480
QUERY = (
    '(max(ALERTS{alertname="SegwatchServiceBurnFast"}) or vector(0)) - (max(ALERTS{alertname="Theirs"}) or vector(0))'
)


def _compare(own: Any, theirs: Mapping[str, Any], objective: float, count: int) -> dict[str, Any]:
    random = np.random.default_rng(round(1000 * objective))
    differing = fired = 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        ours = [group.to_dict() for group in groups(own, Links("", ""))[:-1]]
        for name, found in (("ours.yml", ours), ("theirs.yml", [theirs])):
            (folder / name).write_text(yaml.safe_dump({"groups": found}), encoding="utf-8")
        order = [group["name"] for group in ours] + ["theirs"]
        for _ in range(count):
            series = _random(random, objective)
            checks = [
                {"expr": QUERY, "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": 0}]}
                for at in range(1, MINUTES)
            ]
            often = f'sum(count_over_time(ALERTS{{alertname="Theirs"}}[{MINUTES}m])) or vector(0)'
            checks.append(
                {"expr": often, "eval_time": f"{MINUTES - 1}m", "exp_samples": [{"labels": "{}", "value": 0}]}
            )
            test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
            tests = {"rule_files": ["ours.yml", "theirs.yml"], "evaluation_interval": "1m", "group_eval_order": order}
            (folder / "tests.yml").write_text(json.dumps({**tests, "tests": [test]}), encoding="utf-8")
            command = [tool("promtool"), "test", "rules", "tests.yml"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
            output = done.stdout + done.stderr
            if "err:" in output:
                raise SystemExit(output[:1000])
            differing += output.count('expr: "(max(ALERTS')
            fired += output.count("count_over_time")
    return {
        "objective": objective,
        "series": count,
        "moments": count * (MINUTES - 1),
        "fired": fired,
        "differing": differing,
    }


def _random(random: np.random.Generator, objective: float) -> list[dict[str, str]]:
    """A series of requests with some outages, at one of three paces."""
    share = np.full(MINUTES, (1 - objective) * random.uniform(0, 1.5))
    for _ in range(random.integers(0, 4)):
        begin = random.integers(30, MINUTES - 20)
        share[begin : begin + random.integers(5, 120)] = random.uniform(0, 1) ** 2
    events = random.poisson(random.choice([1, 5, 50]), MINUTES)
    bad = random.binomial(events, share)
    return [
        {
            "series": f'segwatch_records_total{{model="m",version="1",outcome="{outcome}"}}',
            "values": " ".join(map(str, np.cumsum(values).tolist())),
        }
        for outcome, values in (("ok", events - bad), ("failed", bad))
    ]


PARTS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "budget": budget,
    "finite": finite,
    "peer": peer,
    "pages": page_figures,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in options.only.split(","):
        begun = time.monotonic()
        found[name] = PARTS[name](options)
        print(f"{name} ({time.monotonic() - begun:.0f} s)\n{yaml.safe_dump(found[name], sort_keys=False)}", flush=True)
    write_result("slo" if len(found) == len(PARTS) else "slo-" + "-".join(found), found)


if __name__ == "__main__":
    main()
