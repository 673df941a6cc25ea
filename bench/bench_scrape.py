"""How long does a scrape of 10,000 series hold up an ingest loop in the same process?

A thread stands for the ingest loop: small pieces of Python work, and between them calls that give the interpreter's
lock away (hashing 64 kB), as decoding, NumPy and the network do. It records how long each round took. The longest round
that meets a scrape is compared between: no scrape (50 ms of sleep), segwatch's page built anew for each scrape, and
prometheus_client's ``generate_latest`` over the same series. On a shared machine other processes hold the loop up as
well: the time for which either thread was ready to run but had no core (Linux's schedstat) is taken off each round.

    python bench/bench_scrape.py [--series 10000] [--seconds 10]

Prints a table, and writes bench-results/scrape.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from monitor.exposition import Distribution, Family, Series
from monitor.metrics import BaselineFact, DriftReading, SignalReading, Totals, families
from monitor.scrape import MetricsPage
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


class _CoreWait:
    """For how long a thread has been ready to run without getting a core."""

    def __init__(self, native_id: int) -> None:
        self._file = os.open(f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY)

    def ms(self) -> float:
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e6

    def __enter__(self) -> _CoreWait:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Delays:
    """Durations of the loop's rounds in ms. ``per_scrape``: the longest round that met each scrape."""

    rounds: list[float]
    per_scrape: list[float]


def measure(scrape: Callable[[], object], seconds: float, every_s: float) -> Delays:
    """Run the ingest loop, and ``scrape`` again and again in another thread, for ``seconds``."""
    stop = threading.Event()
    ends: list[float] = []
    lengths: list[float] = []

    own_id = threading.get_native_id()

    def loop() -> None:
        block = bytes(64 * 1024)
        with _CoreWait(threading.get_native_id()) as loop_wait, _CoreWait(own_id) as scrape_wait:
            waited_ms, begun = loop_wait.ms() + scrape_wait.ms(), time.perf_counter()
            while not stop.is_set():
                sum(range(200))
                hashlib.sha256(block).digest()
                # Reading it gives the lock away, too, so a round reaches from one reading to the next.
                waited_before_ms, waited_ms = waited_ms, loop_wait.ms() + scrape_wait.ms()
                ended = time.perf_counter()
                ends.append(ended)
                lengths.append(max(0.0, (ended - begun) * 1e3 - (waited_ms - waited_before_ms)))
                begun = ended

    worker = threading.Thread(target=loop)
    worker.start()
    scrapes: list[tuple[float, float]] = []
    stop_at = time.monotonic() + seconds
    while time.monotonic() < stop_at:
        begun = time.perf_counter()
        scrape()
        scrapes.append((begun, time.perf_counter()))
        time.sleep(every_s)
    stop.set()
    worker.join()
    per_scrape = [
        max(lengths[bisect_left(ends, begun) : bisect_left(ends, ended) + 1], default=0.0) for begun, ended in scrapes
    ]
    return Delays(sorted(lengths), sorted(per_scrape))


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
    registry.register(PeerCollector(page))  # type: ignore[arg-type]
    ours = MetricsPage(lambda: totals, max_series=lambda: 10**9, refresh_s=lambda: 0.0)
    scrapes: dict[str, Callable[[], object]] = {
        "no scrape": lambda: time.sleep(0.05),
        "segwatch": lambda: ours.get("openmetrics", compressed=True),
        "prometheus_client": lambda: prometheus_client.generate_latest(registry),
    }
    result: dict[str, object] = {
        "series": sum(family.lines * len(series) for family, series in page),
        "bytes": len(ours.get("openmetrics")),
        "target_ms": TARGET_MS,
    }
    print(f"{result['series']} series, {result['bytes']} bytes; delays of the ingest loop's rounds in ms")
    print(f"{'':20}{'median':>9}{'longest of a scrape: median':>30}{'90 %':>9}{'worst':>9}{'CPU ms a scrape':>18}")
    for name, scrape in scrapes.items():
        scrape()
        delays = measure(scrape, arguments.seconds, every_s=0.1)
        per_scrape = delays.per_scrape
        figures = {
            "median_ms": delays.rounds[len(delays.rounds) // 2],
            "longest_median_ms": per_scrape[len(per_scrape) // 2],
            "longest_p90_ms": per_scrape[int(len(per_scrape) * 0.9)],
            "longest_worst_ms": per_scrape[-1],
            "cpu_ms_per_scrape": cpu_ms(scrape),
        }
        result[name] = figures
        print(
            f"{name:20}{figures['median_ms']:9.3f}{figures['longest_median_ms']:30.3f}{figures['longest_p90_ms']:9.3f}"
            f"{figures['longest_worst_ms']:9.3f}{figures['cpu_ms_per_scrape']:18.1f}"
        )
    out = Path("bench-results") / "scrape.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
