"""Decoding of records: typed against json.loads + b64decode, and what a record with embedding and masks costs in all.

    python bench/bench_records.py [--seconds 2]

Typed decoding is what msgspec does; decoded and checked is what the service does (headers, bounds, masks), against a
side that checks nothing. Prints one JSON object. All ratios are taken side by side in one run, by the CPU time of one
thread (the best of many short rounds, in turn), so that a busy neighbour does not decide.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from monitor.errors import BadRecord
from monitor.masks import encode_rle
from monitor.records import Limits, Record, decode_chunk
from monitor.sources.protocol import Partition, RawRecord

CHUNK = 256
PARTITION = Partition("bench", "bench", "segwatch.predictions", 0)
HEADERS = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"cam7-000123"),
    ("ce_source", b"/bench"),
    ("ce_type", b"segwatch.prediction.v1"),
    ("ce_time", b"2026-11-23T02:45:33.120Z"),
)


def blob(seed: int, height: int = 360, width: int = 480) -> dict[str, Any]:
    """An ellipse as compressed RLE: 40 to 60 columns high and wide, so some 100 runs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.uniform(60, height - 60), rng.uniform(60, width - 60)
    ry, rx = rng.uniform(40, 60), rng.uniform(20, 30)
    return encode_rle(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)


def head(index: int) -> dict[str, Any]:
    return {
        "type": "segwatch.prediction.v1",
        "input_id": f"cam7-{index:06d}",
        "event_time": "2026-11-23T02:45:33.120Z",
        "model": {"name": "street", "version": "3"},
        "slices": {"camera": "7", "site": "berlin"},
        "sequence": "cam7-2026-11-23T02",
        "sampling_probability": 0.05,
        "status": "ok",
        "latency_seconds": 0.083,
    }


def with_image(index: int, image_bytes: int = 15_000, instances: int = 3) -> dict[str, Any]:
    """15 kB of image are 20 kB in base64."""
    data = np.random.default_rng(index).bytes(image_bytes)
    return head(index) | {
        "image": {"media_type": "image/jpeg", "data": data},
        "instances": [{"class": "car", "score": 0.93, "mask": blob(k)} for k in range(instances)],
    }


def with_embedding(index: int, dimensions: int = 512, instances: int = 10) -> dict[str, Any]:
    return head(index) | {
        "embedding": np.random.default_rng(index).normal(size=dimensions).tolist(),
        "instances": [{"class": "car", "score": 0.93, "mask": blob(k)} for k in range(instances)],
    }


def raws(values: list[bytes], content_type: bytes) -> list[RawRecord]:
    headers = (*HEADERS, ("content-type", content_type))
    return [RawRecord(PARTITION, i, value, None, headers, 1_795_401_933_000_000) for i, value in enumerate(values)]


def cpu_us(work: dict[str, Callable[[], object]], records: int, seconds: float) -> dict[str, float]:
    """Least CPU time a record of each, in microseconds; one round of each in turn until the time is over."""
    best = dict.fromkeys(work, float("inf"))
    for function in work.values():
        function()  # compile, warm up
    end = time.monotonic() + seconds * len(work)
    while time.monotonic() < end:
        for name, function in work.items():
            start = time.thread_time()
            function()
            best[name] = min(best[name], time.thread_time() - start)
    return {name: taken / records * 1e6 for name, taken in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each measurement")
    seconds = parser.parse_args().seconds
    limits = Limits()

    images = [with_image(i) for i in range(CHUNK)]
    embeddings = [with_embedding(i) for i in range(CHUNK)]
    image_json = [msgspec.json.encode(record) for record in images]
    chunks = {
        "image_json": raws(image_json, b"application/json"),
        "image_msgpack": raws([msgspec.msgpack.encode(record) for record in images], b"application/msgpack"),
        "embedding_json": raws([msgspec.json.encode(record) for record in embeddings], b"application/json"),
        "embedding_msgpack": raws([msgspec.msgpack.encode(record) for record in embeddings], b"application/msgpack"),
    }
    for name, chunk in chunks.items():
        bad = [record for record in decode_chunk(chunk, limits) if isinstance(record, BadRecord)]
        if bad:
            raise SystemExit(f"{name}: {bad[0]}")

    def plain() -> None:
        for value in image_json:
            record = json.loads(value)
            record["image"]["data"] = base64.b64decode(record["image"]["data"])

    def chunked(name: str) -> Callable[[], object]:
        return lambda: decode_chunk(chunks[name], limits)

    def typed(name: str, decoder: Any) -> Callable[[], object]:
        def decode_all() -> None:
            for raw in chunks[name]:
                decoder.decode(raw.value)

        return decode_all

    work: dict[str, Callable[[], object]] = {
        "json_loads_b64decode": plain,
        "typed_json": typed("image_json", msgspec.json.Decoder(Record)),
        "typed_msgpack": typed("image_msgpack", msgspec.msgpack.Decoder(Record)),
        **{name: chunked(name) for name in chunks},
    }
    taken = cpu_us(work, CHUNK, seconds)

    def ratio(name: str) -> float:
        return round(taken["json_loads_b64decode"] / taken[name], 2)

    print(
        json.dumps(
            {
                "benchmark": "records",
                "cpu_us_per_record": {name: round(value, 2) for name, value in taken.items()},
                "bytes_per_record": {name: len(chunk[0].value or b"") for name, chunk in chunks.items()},
                "ratios_typed_decoding": {
                    "json": {"value": ratio("typed_json"), "target": 3.5},
                    "msgpack": {"value": ratio("typed_msgpack"), "target": 15},
                },
                "ratios_decoded_and_checked": {"json": ratio("image_json"), "msgpack": ratio("image_msgpack")},
                "embedding_msgpack_us": {"value": round(taken["embedding_msgpack"], 2), "target": 25},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
