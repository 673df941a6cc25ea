"""How fast are records counted that bring their embedding, from Kafka into PostgreSQL?

512 numbers and ten instances in RLE, MessagePack, no image; ``segwatch run --role ingest``, against a bare kafka-python
poll loop that looks at nothing but the number of messages. Both read the same topic of the same broker, in turns.

    python bench/bench_given.py [--records 40000] [--rounds 3]

Prints a table, and writes bench-results/given.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import msgspec

from bench.rig import ROOT, Rate, Rig, rate_of, segwatch_rate, write_result
from bench.workload import MODEL, STEP_US, VERSION, Fleet
from monitor.offline import make_baseline
from monitor.settings import KafkaSettings, Settings, StoreSettings
from monitor.store.store import Store
from tests.real.component import spawn, stop

TARGET = 0.5
BASELINE_RECORDS = 2000


def prepared_store(rig: Rig, url: str, topic: str) -> Settings:
    """Settings of a new store that has an active baseline."""
    settings = Settings(
        data_dir=str(rig.folder / "data"),
        store=StoreSettings(url=url),
        kafka=KafkaSettings(bootstrap_servers=rig.kafka.bootstrap, predictions_topic=topic),
    )
    file = rig.folder / "baseline.jsonl"
    if not file.exists():
        fleet, start_us = Fleet(seed=1), time.time_ns() // 1000 - 86_400_000_000
        records = (fleet.record(number, start_us + number * STEP_US) for number in range(BASELINE_RECORDS))
        file.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    with Store.open(settings, write=True) as store:
        make_baseline(settings, store, [file], model=MODEL, version=VERSION, activate=True)
    return settings


def poll_loop(bootstrap: str, topic: str, records: int) -> None:
    """The peer: read ``records`` messages, and say on stdout how far it is."""
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    count = 0
    while count < records:
        for batch in consumer.poll(timeout_ms=500).values():
            count += len(batch)
        sys.stdout.write(f"{count:012d}\n")
        sys.stdout.flush()
    consumer.close()


def poll_loop_rate(rig: Rig, topic: str, records: int, warm_up: int) -> Rate:
    log = rig.folder / f"poll-{time.monotonic_ns()}.log"
    command = [sys.executable, __file__, "--poll-loop", rig.kafka.bootstrap, topic, "--records", str(records)]
    process = spawn(command, log, {**os.environ, "PYTHONPATH": str(ROOT)})

    def seen() -> int:
        lines = log.read_bytes()[-26:].split(b"\n")
        return int(lines[-2]) if len(lines) > 1 else 0

    try:
        return rate_of(process, seen, records, warm_up, log, 300.0)
    finally:
        stop(process)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--poll-loop", nargs=2, metavar=("BOOTSTRAP", "TOPIC"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.poll_loop:
        bootstrap, topic = options.poll_loop
        poll_loop(bootstrap, topic, options.records)
        return
    warm_up = options.records // 5
    with Rig.start() as rig:
        start_us = time.time_ns() // 1000 - options.records * STEP_US
        topic = rig.publish(list(Fleet().messages(options.records, start_us)), "given")
        pairs: list[tuple[Rate, Rate]] = []
        for _ in range(options.rounds):
            bare = poll_loop_rate(rig, topic, options.records, warm_up)
            url = rig.postgres.fresh_database()
            settings = prepared_store(rig, url, topic)
            ours = segwatch_rate(rig, settings, rig.environ(topic, url, {}), options.records, warm_up)
            pairs.append((ours, bare))
    print(f"{'':>6} {'segwatch/s':>11} {'CPU us':>7} {'poll loop/s':>12} {'CPU us':>7} {'ratio':>6}  (target {TARGET})")
    for number, (ours, bare) in enumerate(pairs):
        print(
            f"{number:>6} {ours.per_second:>11,.0f} {1e3 * ours.cpu_ms:>7.0f} {bare.per_second:>12,.0f}"
            f" {1e3 * bare.cpu_ms:>7.0f} {ours.per_second / bare.per_second:>6.2f}"
        )
    ratio = statistics.median(ours.per_second / bare.per_second for ours, bare in pairs)
    cpu_ratio = statistics.median(bare.cpu_ms / ours.cpu_ms for ours, bare in pairs)
    print(f"median ratio {ratio:.2f}; by the processes' CPU time {cpu_ratio:.2f}")
    write_result(
        "given",
        {
            "target_ratio": TARGET,
            "ratio": ratio,
            "cpu_ratio": cpu_ratio,
            "rounds": [{"segwatch": ours.to_json(), "poll_loop": bare.to_json()} for ours, bare in pairs],
        },
    )


if __name__ == "__main__":
    main()
