"""How long does a scrape of 10,000 series hold up an ingest loop in the same process?

A thread stands for the ingest loop: small pieces of Python work, and between them a call that gives the interpreter's
lock away (hashing 64 kB), as decoding, NumPy and the network do. A round is held up by the scrape for as long as the
scraping thread computed meanwhile, at most for the round's own length without its waiting for a core. A scrape during
which one of the two threads had to wait for a core, since other processes had them, says nothing and is left out.
The longest hold-up of each scrape is compared between segwatch's page built anew (from totals in memory, and from a
SQLite store) and prometheus_client's ``generate_latest`` over the same series.

    python bench/bench_scrape.py [--series 10000] [--seconds 10]

Prints a table, and writes bench-results/scrape.json.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from monitor.app import collect_seldom
from monitor.exposition import Distribution, Family, Series
from monitor.metrics import BaselineFact, DriftReading, SignalReading, Totals, families
from monitor.scrape import MetricsPage, pause
from monitor.settings import Settings
from monitor.snapshot import snapshot
from monitor.store.store import Store
from monitor.tallies import (
    CONFIDENCE_BUCKET,
    CONFIDENCE_BUCKETS,
    LATENCY_BUCKET,
    LATENCY_BUCKETS,
    OUTCOMES,
    RECORDS,
    TallyKey,
)

TARGET_MS = 5.0
DISTURBED_S = 0.001
"""A scrape is left out when the two threads waited this long for a core; on an idle machine they wait for 0.1 ms."""
NOW_US = 1_790_000_000_000_000


def make_totals(series: int) -> Totals:
    """A store of ten models with four versions each, whose page has about ``series`` lines."""
    versions = [(f"model-{m}", str(v)) for m in range(10) for v in range(4)]
    classes = max(1, (series - len(versions) * 40) // (len(versions) * (len(CONFIDENCE_BUCKETS) + 3)))
    names = tuple(f"class-{c}" for c in range(classes))
    counts: dict[TallyKey, int] = {}
    for model, version in versions:
        for outcome in OUTCOMES:
            counts[TallyKey(RECORDS, model, version, outcome, 0)] = 123_456
        for bucket in range(len(LATENCY_BUCKETS)):
            counts[TallyKey(LATENCY_BUCKET, model, version, "", bucket)] = 1_000 + bucket
        for name in names:
            for bucket in range(len(CONFIDENCE_BUCKETS)):
                counts[TallyKey(CONFIDENCE_BUCKET, model, version, name, bucket)] = 1_000 + bucket
    signals = tuple(SignalReading(s, 0.0123, 0.0456, 0.5, False) for s in ("embedding", "confidence", "class_mix"))
    return Totals(
        NOW_US,
        counts,
        dict.fromkeys(versions, NOW_US),
        [DriftReading(model, version, "", NOW_US, 5_000, signals) for model, version in versions],
        (),
        [BaselineFact(model, version, NOW_US, names) for model, version in versions],
    )


def fill(store: Store, totals: Totals) -> None:
    """Put the tallies and baselines into a store, as ingest and the evaluator leave them: folded."""
    for fact in totals.baselines:
        meta = {"classes": list(fact.classes)}
        store.activate(store.add_baseline(fact.model, fact.version, format_version=1, meta=meta, payload=b""))
    with store.transaction() as tx:
        tx.add_tallies(totals.tallies)
    leader = store.try_lead()
    assert leader is not None
    with leader:
        leader.fold(lambda states: states[0], [3_600_000_000], 10_000)


class PeerCollector:
    """The same series, as prometheus_client wants them."""

    def __init__(self, page: list[tuple[Family, list[Series]]]) -> None:
        self._page = page

    def collect(self) -> Iterator[Metric]:
        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "info": GaugeMetricFamily}
        for family, series in self._page:
            if family.kind == "histogram":
                histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
                for labels, value in series:
                    assert isinstance(value, Distribution)
                    total, buckets = 0, []
                    for bound, count in zip((*family.bounds, float("inf")), value.counts, strict=True):
                        total += count
                        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
                    histogram.add_metric(labels, buckets, value.sum)
                yield histogram
                continue
            metric = kinds[family.kind](family.series_name, family.help, labels=family.labels)
            for labels, value in series:
                metric.add_metric(labels, value)
            yield metric


@dataclass(frozen=True)
class Delays:
    """In ms. ``rounds``: durations of the loop's rounds; ``per_scrape``: the longest hold-up that met each scrape."""

    rounds: list[float]
    per_scrape: list[float]
    left_out: int
    """Scrapes that other processes disturbed."""


def core_wait_s(schedstat: io.FileIO) -> float:
    """For how long a thread has been ready to run without getting a core, from Linux's scheduler."""
    return int(os.pread(schedstat.fileno(), 100, 0).split()[1]) / 1e9


def measure(scrape: Callable[[], object], seconds: float, every_s: float) -> Delays:
    """Run the ingest loop, and ``scrape`` again and again in another thread, for ``seconds``."""
    stop = threading.Event()
    ends: list[float] = []
    rounds: list[float] = []
    held_up: list[float] = []
    waits: list[float] = []
    scraper_clock = time.pthread_getcpuclockid(threading.get_ident())

    def loop() -> None:
        block = bytes(64 * 1024)
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as schedstat:
            without_core = core_wait_s(schedstat)
            begun, scraper_begun = time.perf_counter(), time.clock_gettime(scraper_clock)
            while not stop.is_set():
                sum(range(200))
                hashlib.sha256(block).digest()
                waited = without_core
                without_core = core_wait_s(schedstat)  # gives the lock away, too: a part of the round
                ended, scraper_ended = time.perf_counter(), time.clock_gettime(scraper_clock)
                wall = ended - begun - (without_core - waited)
                ends.append(ended)
                rounds.append((ended - begun) * 1e3)
                waits.append(without_core)
                held_up.append(max(0.0, min(wall, scraper_ended - scraper_begun)) * 1e3)
                begun, scraper_begun = ended, scraper_ended

    worker = threading.Thread(target=loop)
    worker.start()
    scrapes: list[tuple[float, float, float]] = []
    stop_at = time.monotonic() + seconds
    with open("/proc/thread-self/schedstat", "rb", buffering=0) as schedstat:
        while time.monotonic() < stop_at:
            without_core = core_wait_s(schedstat)
            begun = time.perf_counter()
            scrape()
            scrapes.append((begun, time.perf_counter(), core_wait_s(schedstat) - without_core))
            time.sleep(every_s)
    stop.set()
    worker.join()
    per_scrape = []
    for begun, ended, own_wait_s in scrapes:
        first, last = bisect_left(ends, begun), min(bisect_left(ends, ended), len(ends) - 1)
        if own_wait_s + waits[last] - waits[max(0, first - 1)] < DISTURBED_S:
            per_scrape.append(max(held_up[first : last + 1], default=0.0))
    if not per_scrape:
        raise SystemExit("other processes disturbed every scrape: try again on a quiet machine")
    return Delays(sorted(rounds), sorted(per_scrape), len(scrapes) - len(per_scrape))


def cpu_ms(scrape: Callable[[], object]) -> float:
    """CPU time of one scrape, the best of five."""
    best = float("inf")
    for _ in range(5):
        begun = time.thread_time()
        scrape()
        best = min(best, (time.thread_time() - begun) * 1e3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()

    totals = make_totals(arguments.series)
    page = families(totals, 10**9)
    registry = prometheus_client.CollectorRegistry()
    registry.register(PeerCollector(page))
    ours = MetricsPage(lambda: totals, max_series=lambda: 10**9, refresh_s=lambda: 0.0)
    folder = tempfile.TemporaryDirectory(prefix="segwatch-bench-")
    store = Store.open(Settings(data_dir=folder.name), write=True)
    fill(store, totals)
    stored = MetricsPage(
        lambda: snapshot(store, 3_600_000_000, NOW_US, 200, pause), max_series=lambda: 10**9, refresh_s=lambda: 0.0
    )
    scrapes: dict[str, Callable[[], object]] = {
        "no scrape": lambda: time.sleep(0.05),
        "segwatch": lambda: ours.get("openmetrics", compressed=True),
        "segwatch + SQLite": lambda: stored.get("openmetrics", compressed=True),
        "prometheus_client": lambda: prometheus_client.generate_latest(registry),
    }
    collect_seldom()
    result: dict[str, object] = {
        "series": sum(family.lines * len(series) for family, series in page),
        "bytes": len(ours.get("openmetrics")),
        "target_ms": TARGET_MS,
    }
    print(f"{result['series']} series, {result['bytes']} bytes; rounds of the ingest loop in ms")
    print(
        f"{'':20}{'round':>9}{'held up by a scrape: median':>30}{'90 %':>9}{'worst':>9}"
        f"{'CPU ms a scrape':>18}{'scrapes':>9}{'left out':>9}"
    )
    for name, scrape in scrapes.items():
        scrape()
        delays = measure(scrape, arguments.seconds, every_s=0.1)
        per_scrape = delays.per_scrape
        figures = {
            "round_median_ms": delays.rounds[len(delays.rounds) // 2],
            "held_up_median_ms": per_scrape[len(per_scrape) // 2],
            "held_up_p90_ms": per_scrape[int(len(per_scrape) * 0.9)],
            "held_up_worst_ms": per_scrape[-1],
            "cpu_ms_per_scrape": cpu_ms(scrape),
            "scrapes": len(per_scrape),
            "left_out": delays.left_out,
        }
        result[name] = figures
        print(
            f"{name:20}{figures['round_median_ms']:9.3f}{figures['held_up_median_ms']:30.3f}{figures['held_up_p90_ms']:9.3f}"
            f"{figures['held_up_worst_ms']:9.3f}{figures['cpu_ms_per_scrape']:18.1f}"
            f"{figures['scrapes']:9}{figures['left_out']:9}"
        )
    store.close()
    folder.cleanup()
    out = Path("bench-results") / "scrape.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
