"""Does memory stay flat from 10,000 to 1,000,000 records?

One process does what ``segwatch run --role all`` does with records that bring their embedding: it takes them in, and
evaluates beside it, so that panes are folded and windows scored while event time runs over days. New sequences and now
and then an unheard-of version come along, as a broken or hostile producer would send them. The resident memory is read
every 10,000 records, from a source that makes its records as they are asked for. SQLite, so that nothing else is
needed; the database's file grows, as it should.

    python bench/bench_memory.py [--records 1000000]

Prints a table, and writes bench-results/memory.json.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.rig import write_result
from bench.workload import MODEL, STEP_US, VERSION, Fleet
from monitor.app import collect_seldom
from monitor.baseline_book import Embedders
from monitor.evaluate import Evaluator
from monitor.ingest import Ingest
from monitor.offline import make_baseline
from monitor.settings import Settings
from monitor.sources.protocol import Partition, Polled, Progress, RawRecord
from monitor.store.store import Store
from monitor.windows import SECOND_US, to_text

TARGET = 0.05
FIRST, EVERY = 10_000, 10_000
CAMERAS, DIMENSIONS, TEMPLATES = 6, 64, 300
ODD_EVERY = 500
"""One record in so many names a version of its own."""
PARTITION = Partition("bench", "bench", "segwatch.predictions", 0)


def templates(seed: int) -> list[dict[str, object]]:
    """Records that are sent again and again under other ids and times; few cameras, so that slices stay few."""
    fleet = Fleet(seed, dimensions=DIMENSIONS)
    made = []
    for number in range(TEMPLATES):
        record = fleet.record(number % CAMERAS, 0)
        record["instances"] = record["instances"][: number % 4]
        made.append(record)
    return made


class Generator:
    """A source of ``records`` records that makes them when they are polled. Implements ``Source``."""

    def __init__(self, records: int, start_us: int, step_us: int) -> None:
        self._records = records
        self._start_us = start_us
        self._step_us = step_us
        self._templates = templates(seed=0)
        self._paused = False
        self.position = 0
        self.resident: list[tuple[int, int]] = []

    def record(self, number: int) -> bytes:
        event_us = self._start_us + number * self._step_us
        template = self._templates[number % TEMPLATES]
        camera = number % TEMPLATES % CAMERAS
        changes = {
            "input_id": f"cam{camera}-{number:09d}",
            "event_time": to_text(event_us),
            "sequence": f"cam{camera}-{event_us // (600 * SECOND_US)}",
        }
        if number % ODD_EVERY == 0:
            changes |= {"model": {"name": MODEL, "version": f"odd-{number}"}}  # type: ignore[dict-item]
        return msgspec.msgpack.encode(template | changes)

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        if self._paused:
            time.sleep(timeout_s)
            return Polled(())
        numbers = range(self.position, min(self._records, self.position + max_records))
        self.position = numbers.stop
        if self.position // EVERY > len(self.resident):
            self.resident.append((self.position, resident_bytes()))
        return Polled(list(self._made(numbers)))

    def _made(self, numbers: range) -> Iterator[RawRecord]:
        for number in numbers:
            event_us = self._start_us + number * self._step_us
            yield RawRecord(PARTITION, number, self.record(number), None, (), event_us + SECOND_US)

    def assigned(self) -> Sequence[Partition]:
        return [PARTITION]

    def progress(self) -> Sequence[Progress]:
        return [Progress(PARTITION, self.position, self._records, None)]

    def rewind(self, partition: Partition) -> None:
        raise AssertionError(f"{partition} was lost, and nobody else reads it")

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    @property
    def exhausted(self) -> bool:
        return self.position >= self._records

    def close(self) -> None:
        """There is nothing to close."""


def resident_bytes() -> int:
    """Physical memory of this process, without pages of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no RssAnon")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    options = parser.parse_args()
    start_us = time.time_ns() // 1000 - options.records * SECOND_US - 86_400 * SECOND_US
    step_us = 10 * STEP_US
    with tempfile.TemporaryDirectory(prefix="segwatch-bench-") as folder:
        settings = Settings(data_dir=folder)
        file = Path(folder) / "baseline.jsonl"
        fleet = Fleet(seed=1, dimensions=DIMENSIONS)
        records = (fleet.record(number, start_us + number * STEP_US) for number in range(2000))
        file.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        with Store.open(settings, write=True) as store:
            make_baseline(settings, store, [file], model=MODEL, version=VERSION, activate=True)
            source = Generator(options.records, start_us, step_us)
            ingest = Ingest(store, settings, Embedders(settings))
            ingest.start_offset(PARTITION)
            stop = threading.Event()
            evaluator = threading.Thread(target=Evaluator(store, settings).run, args=(stop,))
            collect_seldom()
            begun = time.perf_counter()
            evaluator.start()
            try:
                counts = ingest.run(source, threading.Event())
            finally:
                stop.set()
                evaluator.join()
            seconds = time.perf_counter() - begun
    if counts.outcomes["ok"] != options.records:
        raise SystemExit(f"expected {options.records} records to be counted, got {dict(counts.outcomes)}")
    early = dict(source.resident)[min(at for at, _ in source.resident if at >= FIRST)]
    growth = source.resident[-1][1] / early - 1
    peak = max(each for _, each in source.resident) / early - 1
    print(f"{'records':>10} {'MiB':>8}")
    for at, each in source.resident:
        if at in (source.resident[0][0], source.resident[-1][0]) or at % (options.records // 10) < EVERY:
            print(f"{at:>10,} {each / 2**20:>8.1f}")
    print(
        f"growth {growth:+.1%}, at most {peak:+.1%} (target {TARGET:.0%}); {options.records / seconds:,.0f} records/s"
    )
    write_result(
        "memory",
        {
            "records": options.records,
            "growth": growth,
            "largest_growth": peak,
            "target": TARGET,
            "records_per_second": options.records / seconds,
            "resident_bytes": source.resident,
        },
    )


if __name__ == "__main__":
    main()
