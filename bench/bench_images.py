"""What keeping sample images costs ingest: records a second with and without, in turns, in one process.

JPEG 640 x 480 with ten instances through EfficientNet-Lite0 at 224 into SQLite. ``all`` keeps every image, which a
worker does until it has seen its first ``samples.max_per_day`` of a day; ``few`` keeps 5 % of them, as later on.

    python bench/bench_images.py [--records 300] [--rounds 3]

Prints a table, and writes bench-results/images.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.rig import write_result
from bench.workload import CLASSES, MODEL, VERSION, Fleet, photographs
from embeddings.images import decode_within
from monitor.baseline_book import Embedders
from monitor.classes import Classes
from monitor.images.keeping import encode
from monitor.images.redaction import obscured, region_of
from monitor.ingest import Ingest
from monitor.offline import make_baseline
from monitor.records import Limits, Prediction, decode_chunk
from monitor.settings import Settings
from monitor.sources.memory import MemorySource
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.store import Store
from monitor.windows import SECOND_US

START_US = 1_795_395_600 * SECOND_US
BASELINE_RECORDS = 100
MODES: dict[str, dict[str, Any]] = {
    "none": {"samples": {"keep_images_days": 0}},
    "few": {"samples": {"share": 0.05, "max_per_day": 0}},
    "all": {"samples": {"max_per_day": 0}},
    "all, one class blurred": {"samples": {"max_per_day": 0}, "redact": {"blur_classes": ["person"]}},
    "all, webp": {"samples": {"max_per_day": 0, "format": "webp"}},
}
PARTITION = Partition("bench", "bench", "images", 0)


def settings_of(folder: Path, mode: str) -> Settings:
    embedding = {"threads": 1, "dtype": "float32"}
    return msgspec.convert({"data_dir": str(folder), "embedding": embedding, **MODES[mode]}, Settings)


def rate(mode: str, values: list[bytes], folder: Path, baseline: Any, embedders: Embedders) -> float:
    """Records a second from the first poll to the last commit."""
    settings = settings_of(folder, mode)
    with Store.open(settings, write=True) as store:
        version, meta, payload = baseline
        store.activate(store.add_baseline(MODEL, version, format_version=3, meta=meta, payload=payload))
        ingest = Ingest(store, settings, embedders)
        source = MemorySource(ingest.start_offset, ingest.settle)
        for value in values:
            source.append(PARTITION, value)
        began = time.perf_counter()
        counts = ingest.run(source, threading.Event())
        took = time.perf_counter() - began
    if counts.outcomes["ok"] != len(values):
        raise RuntimeError(f"{mode}: {counts.outcomes} {counts.reasons}")
    return len(values) / took


def seconds_of(call: Callable[[], object], times: int = 30) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def steps(photo: bytes, prediction: Prediction) -> dict[str, float]:
    """Milliseconds of each step for one image of 640 x 480."""
    pixels, width, height = decode_within(photo, 1024)
    classes = Classes(CLASSES, tuple(range(len(CLASSES))))
    shown = pixels.shape[0], pixels.shape[1]
    region = region_of(prediction, classes, {"person"}, (height, width), shown, 10**7)
    calls: dict[str, Callable[[], object]] = {
        "decode": lambda: decode_within(photo, 1024),
        "find what to blur": lambda: region_of(prediction, classes, {"person"}, (height, width), shown, 10**7),
        "blur": lambda: obscured(pixels, region, "blur", 0.02),
        "jpeg": lambda: encode(pixels, "jpg", 85),
        "webp": lambda: encode(pixels, "webp", 85),
    }
    return {name: round(1000 * seconds_of(call), 3) for name, call in calls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    photos = photographs(100, 0)
    fleet = Fleet(0, photos)
    values = [message.value for message in fleet.messages(arguments.records, START_US, first=10_000, encoding="json")]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        embedders = Embedders(settings_of(root, "none"))
        file = root / "baseline.jsonl"
        lines = [one.value for one in fleet.messages(BASELINE_RECORDS, START_US - 3600 * SECOND_US, encoding="json")]
        file.write_bytes(b"\n".join(lines) + b"\n")
        with Store.open(settings_of(root / "baseline", "none"), write=True) as store:
            _, built, _ = make_baseline(
                settings_of(root, "none"), store, [file], model=MODEL, version=VERSION, embedders=embedders
            )
        baseline = VERSION, built.summary(), built.to_bytes()
        rates: dict[str, list[float]] = {mode: [] for mode in MODES}
        sizes: dict[str, float] = {}
        for turn in range(arguments.rounds + 1):  # the first round warms up
            for mode in MODES:
                folder = root / f"{turn}-{len(rates[mode])}-{mode}"
                found = rate(mode, values, folder, baseline, embedders)
                kept = [path.stat().st_size for path in (folder / "images").rglob("*.*") if path.is_file()]
                sizes[mode] = sum(kept) / len(kept) / 1000 if kept else 0.0
                if turn:
                    rates[mode].append(found)
    raw = RawRecord(PARTITION, 0, values[0], None, [], None)
    (prediction,) = decode_chunk([raw], Limits())
    assert isinstance(prediction, Prediction)
    ratios = {
        mode: round(statistics.median(a / b for a, b in zip(each, rates["none"], strict=True)), 3)
        for mode, each in rates.items()
    }
    result = {
        "cores": os.cpu_count(),
        "records": arguments.records,
        "records_per_second": {mode: [round(one, 1) for one in each] for mode, each in rates.items()},
        "ratio_to_none": ratios,
        "kilobytes_per_image": {mode: round(size, 1) for mode, size in sizes.items()},
        "milliseconds": steps(photos[0], prediction),
    }
    write_result("images", result)
    print(f"{'images kept':<26}{'records/s':>12}{'ratio':>8}{'kB each':>9}")
    for mode, each in rates.items():
        ratio = ratios[mode]
        print(f"{mode:<26}{statistics.median(each):>12.1f}{ratio:>8.3f}{sizes[mode]:>9.1f}")
    print("ms for one image of 640 x 480:", result["milliseconds"])


if __name__ == "__main__":
    main()
