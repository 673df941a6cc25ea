"""Fuzzes the decoder of records: mutated messages in, records or BadRecord out, within bounded time and memory.

    python -m tests.fuzz_records [--mutations 200000] [--seed 1]

Valid records of both types and both encodings are damaged in ways that real faults and hostile senders damage them:
flipped bits, cuts, copied and swapped pieces, values of other types at any place of the tree, numbers and texts at and
beyond every bound. Whatever comes out as a record must keep the promises of its types, and go through everything that
is done with it next (masks, semantic maps). The first broken promise ends the run with the message in hexadecimal.
Tests run a short round.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from monitor.errors import BadRecord
from monitor.masks import Rle, decode_rle, encode_rle
from monitor.records import REASONS, Label, Limits, Prediction, decode, decode_semantic, semantic_summary
from monitor.sources.protocol import Partition, RawRecord
from tests.made_png import interlaced_png, png

LIMITS = Limits(max_value_bytes=1 << 20, max_pixels=1 << 20)
CLOCK_US = 1_795_401_933_000_000
PARTITION = Partition("fuzz", "fuzz", "segwatch.predictions", 0)
MAX_SECONDS = 5.0
MAX_MEMORY_RATIO = 64
"""Peak memory over the value's length, for values of 64 kB and more."""

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 10**18, 0.0, -0.0, 0.5, 1.0, 1.5, -1.0,
    1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf, "", " ", "\0", "a\0b", "a=b", "\u2028", "\U0001f600",
    "x" * 257, "x" * 256, "y" * 5000, "NaN", "ok", "error", "[[", "2026-11-23T02:45:33Z", "2026-11-23T02:45:33",
    "9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+23:59", "file:///etc/passwd", "AAAA", "A", "oooo", "1",
    [], [[]], [[[]]], {}, {"": ""}, [1, 2, 3], [0.5] * 7, {"size": [4, 4], "counts": "`0"},
    {"size": [10**6, 10**6], "counts": [10**12]}, {"size": [0, 0], "counts": []}, {"name": "m", "version": "1"},
    b"", b"\x89PNG\r\n\x1a\n", b"\xff" * 40,
)  # fmt: skip


def seeds() -> list[dict[str, Any]]:
    """Valid records that use every field, with bytes where JSON has base64."""
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 5, (20, 30)).astype(np.uint8)
    masks = [encode_rle(rng.random((20, 30)) < p) for p in (0, 0.1, 0.9)]
    polygons = [[1.0, 1.0, 9.0, 1.5, 5.0, 8.0], [0.0, 0.0, 3.0, 0.0, 0.0, 3.0]]
    uncompressed = {"size": [20, 30], "counts": [100, 200, 300]}
    head = {
        "type": "segwatch.prediction.v1", "input_id": "cam7-000123", "event_time": "2026-11-23T02:45:33.120Z",
        "model": {"name": "street", "version": "3"}, "slices": {"camera": "7", "site": "berlin"}, "sequence": "cam7",
        "sampling_probability": 0.05, "status": "ok", "latency_seconds": 0.083, "cost_usd": 0.00021,
    }  # fmt: skip
    return [
        head
        | {
            "image": {"media_type": "image/jpeg", "data": rng.bytes(200)},
            "instances": [{"class": "car", "score": 0.9, "mask": mask} for mask in [*masks, polygons, uncompressed]],
            "semantic": {"classes_png": png(indices, 5), "confidence_png": png(indices * 40)},
        },
        head | {"embedding": rng.normal(size=16).tolist(), "instances": [], "user_field": {"nested": [1, {"x": None}]}},
        head | {"image": {"uri": "https://images.example/cam7/1.jpg"}, "semantic": {"classes_png": png(indices)}},
        head | {"status": "timeout"},
        {
            "type": "segwatch.label.v1", "input_id": "cam7-000123", "annotator": "ann", "annotation_version": 2,
            "label_time": "2026-11-23T02:50:00Z", "model": {"name": "street", "version": "3"}, "purpose": "audit",
            "instances": [{"class": "car", "mask": mask} for mask in masks], "selection_probability": 0.1,
        },
        {
            "type": "segwatch.label.v1", "input_id": "cam7-000123", "annotator": "ann", "annotation_version": 2,
            "label_time": "2026-11-23T02:50:00Z", "semantic": {"classes_png": png(indices.astype(np.uint16) * 999)},
        },
        head | {"embedding": [1.0], "semantic": {"classes_png": interlaced_png(indices, palette=True)}},
    ]  # fmt: skip


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _places(child, (*path, key))
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from _places(child, (*path, i))


def damage_tree(record: dict[str, Any], rng: random.Random) -> Any:
    """Another value, a copy, a missing or a renamed piece at up to three places."""
    tree: Any = copy.deepcopy(record)
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(_places(tree)))
        if not path:
            if rng.random() < 0.02:
                return rng.choice(HOSTILE)
            continue
        parent = tree
        for step in path[:-1]:
            parent = parent[step]
        kind = rng.random()
        if kind < 0.7:
            parent[path[-1]] = copy.deepcopy(rng.choice(HOSTILE))
        elif kind < 0.8:
            del parent[path[-1]]
        elif kind < 0.9 and isinstance(parent, list):
            parent.extend(copy.deepcopy(parent[path[-1]]) for _ in range(rng.randint(1, 20)))
        elif isinstance(parent, dict):
            renamed = rng.choice(["", "x" * 300, "a=b", "\0", "type", "mask", str(path[-1]).upper()])
            parent[renamed] = parent.pop(path[-1])
        if isinstance(parent, dict) and rng.random() < 0.02:
            parent.update({f"k{i}": "v" for i in range(17)})
    return tree


def encode(tree: Any, packed: bool, rng: random.Random) -> bytes:
    """In MessagePack or JSON, the latter at times with NaN and lone surrogates, as careless writers do."""
    if packed:
        return msgspec.msgpack.encode(tree)
    value = msgspec.json.encode(tree)
    if rng.random() < 0.05:
        value = value.replace(
            b"null", rng.choice([b"NaN", b"Infinity", b"1e999", b"9" * 400, b'"\\ud800"', b'"\\ud800\\udc00"'])
        )
    return value


def damage_bytes(value: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat or overwrite some bytes."""
    data = bytearray(value)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        if not data:
            break
        at, kind = rng.randrange(len(data)), rng.randrange(6)
        stop = min(len(data), at + rng.randint(1, 8))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(b'\x00\xff\x80\xc0\xc1\xdc\xdd\xdf\xdb\xc6\xc7\xc9{}[]",:\\-0')
        elif kind == 2:
            del data[at:stop]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 5))
        elif kind == 4:
            data[at:at] = data[at:stop] * rng.randint(1, 5)
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def extremes() -> Iterator[bytes]:
    """Whole messages that are made to hurt; each at most a few megabytes."""
    start = b'{"type":"segwatch.prediction.v1","input_id":"a","event_time":"2026-11-23T02:45:33Z",'
    start += b'"model":{"name":"m","version":"1"},'
    mask = b'"embedding":[1],"instances":[{"class":"c","score":1,"mask":'
    wide = png(np.zeros((4, 4), np.uint8))
    wide = wide[:16] + (100_000).to_bytes(4, "big") * 2 + wide[24:]
    yield from (
        b"",
        b"{",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x91" * 100_000,
    )
    yield start + b'"zz":' + b"[" * 100_000
    yield start + b'"zz":' + b"[" * 400 + b"]" * 400 + b',"status":"oom"}'
    yield start + b'"embedding":' + b"[" * 100_000
    yield start + b'"embedding":[' + b"1," * 400_000 + b'1],"instances":[]}'
    yield start + b'"sequence":"' + b"x" * 10_000_000 + b'"}'
    yield start + b'"sequence":"' + b"x" * 900_000 + b'"}'
    yield start + b'"latency_seconds":' + b"9" * 500_000 + b"}"
    yield start + b'"slices":{' + b",".join(b'"%d":""' % i for i in range(60_000)) + b"}}"
    yield start + mask + b"[" + b"[]," * 300_000 + b"[]]}]}"
    yield start + mask + b'{"size":[1000000,1000000],"counts":[1000000000000]}}]}'
    yield start + mask + b'{"size":[1000,1000],"counts":"' + b"o" * 500_000 + b'"}}]}'
    yield start + mask + b'{"size":[1000,1000],"counts":[' + b"0," * 400_000 + b"1000000]}}]}"
    yield start + b'"embedding":[1],"instances":[' + b'{"class":"c","score":NaN,"mask":[]}]}'
    yield start + b'"input_id":"\\ud800","status":"oom"}'
    tree = msgspec.json.decode(start + b'"embedding":[1.0]}')
    yield msgspec.msgpack.encode(tree | {"semantic": {"classes_png": wide}})
    yield msgspec.msgpack.encode(tree | {"instances": [{"class": "c", "score": math.nan, "mask": []}]})
    yield msgspec.msgpack.encode(tree)[:-9] + b"\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000
    yield b"\x81\xa4type" + b"\x90" * 900_000


def check_one(value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> str:
    """Decode one message; returns the reason, or ``ok``. Anything but BadRecord, and any broken promise, is raised."""
    raw = RawRecord(PARTITION, 0, value, None, headers, CLOCK_US)
    try:
        record = decode(raw, LIMITS)
        keep_promises(record)
    except BadRecord as bad:
        if bad.reason not in REASONS:
            raise AssertionError(f"unknown reason {bad.reason}") from bad
        if len(bad.detail) > 600 or not bad.detail.isascii() or not bad.detail.isprintable():
            raise AssertionError(f"a detail that nobody wants in a log: {bad.detail!r}") from bad
        return bad.reason
    return "ok"


def promise(kept: bool, what: str) -> None:
    if not kept:
        raise AssertionError(f"broken promise: {what}")


def keep_promises(record: Prediction | Label) -> None:
    """What every later stage takes for granted."""
    texts = [record.input_id]
    if isinstance(record, Prediction):
        texts += [record.model.name, record.model.version, record.sequence or "-", *record.slices]
        promise(len(record.slices) <= 16 and all("=" not in key for key in record.slices), "slices")
        promise(0 < record.sampling_probability <= 1, "sampling_probability")
        for amount in (record.latency_seconds, record.cost_usd):
            promise(amount is None or 0 <= amount < math.inf, "amounts")
        promise(946_684_800_000_000 <= record.event_time_us <= CLOCK_US + LIMITS.future_tolerance_us, "event_time")
        if record.status == "ok":
            promise(record.image is not None or record.embedding is not None, "image or embedding")
            promise(all(0 <= instance.score <= 1 for instance in record.instances or ()), "scores")
        if record.embedding is not None:
            promise(record.embedding.ndim == 1 and record.embedding.dtype.kind == "f", "embedding")
    else:
        texts += [record.annotator]
        promise(0 <= record.annotation_version < 2**63, "annotation_version")
        promise(record.selection_probability is None or 0 < record.selection_probability <= 1, "selection_probability")
    for text in texts:
        promise(0 < len(text) <= 256 and "\0" not in text and bool(text.encode()), "texts")
    if isinstance(record, Prediction) and record.status != "ok":
        return
    report = record.masks
    promise(not report.fault.any() and len(report) == len(record.instances or ()), "masks")
    for i, instance in enumerate(record.instances or ()):
        if isinstance(instance.mask, Rle):
            painted = decode_rle(instance.mask.size, instance.mask.counts, LIMITS.max_pixels)
            promise(painted.sum() == report.area[i], "areas")
    if record.semantic is not None:
        shares, confidence = semantic_summary(*decode_semantic(record.semantic, LIMITS.max_pixels))
        promise(abs(sum(shares.values()) - 1) < 1e-9 and (confidence is None or 0 <= confidence <= 1), "semantic")


HEADERS: tuple[tuple[tuple[str, bytes], ...], ...] = (
    (),
    (("content-type", b"application/json"), ("ce_type", b"segwatch.prediction.v1")),
    (("content-type", b"application/msgpack; x=1"),),
    (("content-type", b"application/cloudevents+json; charset=utf-8"),),
    (("content-type", b"\xff\xfe"), ("ce_type", b"\xff")),
)


def mutations(count: int, seed: int) -> Iterator[tuple[bytes, Sequence[tuple[str, bytes]]]]:
    """``count`` messages, the same ones for the same seed."""
    rng = random.Random(seed)
    records = seeds()
    for _ in range(count):
        tree: Any = rng.choice(records)
        packed = rng.random() < 0.5
        how = rng.random()
        if how < 0.6:
            tree = damage_tree(tree, rng)
        if not packed and rng.random() < 0.1:
            tree = {"specversion": "1.0", "id": "1", "source": "/", "type": "segwatch.prediction.v1", "data": tree}
        value = encode(tree, packed, rng)
        if how >= 0.5:
            value = damage_bytes(value, rng)
        yield value, rng.choice(HEADERS) if rng.random() < 0.2 else ()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutations", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tally: Counter[str] = Counter()
    slowest, hungriest = 0.0, 0.0
    for record in seeds():  # compile everything before the clock runs
        check_one(msgspec.msgpack.encode(record))
        check_one(msgspec.json.encode(record))
    tracemalloc.start()
    everything = [(value, ()) for value in extremes()]
    for value, headers in (*everything, *mutations(arguments.mutations, arguments.seed)):
        large = len(value) >= 1 << 16
        if large:
            tracemalloc.reset_peak()
        before, started = tracemalloc.get_traced_memory()[0], time.perf_counter()
        try:
            tally[check_one(value, headers)] += 1
        except BaseException:
            print(f"value ({len(value)} bytes): {value[:5000].hex()}\nheaders: {headers}", file=sys.stderr)
            raise
        taken_s = time.perf_counter() - started
        slowest = max(slowest, taken_s)
        if large:
            hungriest = max(hungriest, (tracemalloc.get_traced_memory()[1] - before) / len(value))
        if taken_s > MAX_SECONDS or hungriest > MAX_MEMORY_RATIO:
            print(f"too slow or too hungry: {taken_s:.1f} s, {hungriest:.0f} x its length", file=sys.stderr)
            return 1
    print(f"{sum(tally.values())} messages; slowest {slowest:.3f} s, most memory {hungriest:.1f} x the value's length")
    for reason, count in tally.most_common():
        print(f"{count:9} {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
