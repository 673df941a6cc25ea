"""A service in one process for tests: a store with baselines in a folder, memory logs in, statistics out.

Two models have baselines: ``street`` takes embeddings that records bring, ``yard`` images through the small
segmentation network at 64 pixels. Building them takes seconds, so each is built once in a run of tests.
"""

from __future__ import annotations

import base64
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import simplejpeg

from monitor.baseline import FORMAT_VERSION, Baseline
from monitor.baseline_book import Embedders
from monitor.ingest import Ingest, IngestCounts
from monitor.offline import make_baseline
from monitor.pane_state import PaneState
from monitor.settings import Settings
from monitor.sources.memory import MemorySource
from monitor.sources.protocol import Partition, Source
from monitor.store.store import Store
from monitor.store.values import PaneKey
from monitor.tallies import EMBEDDING_BATCHES, EMBEDDING_US, RECORDS, TallyKey
from monitor.windows import SECOND_US, to_text
from tests.made_records import MASK, lines, predictions

HOUR_US = 3600 * SECOND_US
NOW_US = 497_222 * HOUR_US
"""A full hour in September 2026; the clock of these tests."""
HANGS_AFTER_S = 60.0


def partition(number: int = 0, topic_id: str = "topic-id") -> Partition:
    """A partition of the predictions' topic; another topic id is another log that starts at offset 0."""
    return Partition("cluster", topic_id, "segwatch.predictions", number)


def settings_of(folder: Path, **sections: Mapping[str, Any]) -> Settings:
    """Embedded settings in ``folder``; small images, one thread."""
    tree: dict[str, Any] = {
        "data_dir": str(folder),
        "embedding": {"backbone": "segmenter", "input_size": 64, "threads": 1, "dtype": "float32"},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return msgspec.convert(tree, Settings)


def picture(number: int) -> bytes:
    """A JPEG of 96 x 80 pixels with coloured blocks, made from its number."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(blocks.repeat(16, 0).repeat(16, 1)), 90, "RGB")


def image_record(number: int, event_time_us: int, **changes: Any) -> dict[str, Any]:
    """A prediction of model ``yard``, with an image."""
    record = {
        "type": "segwatch.prediction.v1",
        "input_id": f"frame-{number:06d}",
        "event_time": to_text(event_time_us),
        "model": {"name": "yard", "version": "1"},
        "image": {"media_type": "image/jpeg", "data": base64.b64encode(picture(number)).decode()},
        "instances": [{"class": "dog", "score": 0.5 + number % 40 / 100, "mask": MASK}] * (number % 3),
    }
    return {**record, **changes}


@cache
def _payloads() -> dict[str, tuple[str, Mapping[str, object], bytes]]:
    """Baselines by model: (version, meta, payload)."""
    street = lines(predictions(400, NOW_US - 50 * HOUR_US, 20, first=500_000))
    yard = b"".join(
        msgspec.json.encode(image_record(1000 + i, NOW_US - 50 * HOUR_US + i * SECOND_US)) + b"\n" for i in range(64)
    )
    built = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = settings_of(folder)
        with Store.open(settings, write=True) as store:
            for model, data in (("street", street), ("yard", yard)):
                file = folder / f"{model}.jsonl"
                file.write_bytes(data)
                _, baseline, _ = make_baseline(settings, store, [file], model=model, version="1", embedders=embedders())
                built[model] = ("1", baseline.summary(), baseline.to_bytes())
    return built


@cache
def embedders() -> Embedders:
    """One backbone for all tests."""
    return Embedders(settings_of(Path("unused")))


def baseline_of(model: str) -> Baseline:
    """The built baseline."""
    return Baseline.from_bytes(_payloads()[model][2])


def add_baseline(store: Store, model: str, version: str = "1") -> str:
    """Put the built baseline of ``model`` into the store, for any version, and activate it."""
    _, meta, payload = _payloads()[model]
    identity = store.add_baseline(model, version, format_version=FORMAT_VERSION, meta=meta, payload=payload)
    store.activate(identity)
    return identity


def open_store(settings: Settings, models: Sequence[str] = ("street",)) -> Store:
    """A store for writing with active baselines."""
    store = Store.open(settings, write=True)
    for model in models:
        add_baseline(store, model)
    return store


def encode(record: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(record)


def log_of(
    values: Iterable[bytes | None],
    ingest: Ingest,
    *,
    partitions: int = 1,
    topic_id: str = "topic-id",
    timestamp_us: int | None = None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> MemorySource:
    """A finite source with these values, dealt out to the partitions of a topic in turn."""
    source = MemorySource(ingest.start_offset, ingest.settle, wall_us=lambda: NOW_US)
    for index, value in enumerate(values):
        source.append(partition(index % partitions, topic_id), value, headers=headers, timestamp_us=timestamp_us)
    return source


def ingest_of(store: Store, settings: Settings, **more: Any) -> Ingest:
    return Ingest(store, settings, embedders(), wall_us=lambda: NOW_US, **more)


def run(ingest: Ingest, source: Source, stop: threading.Event | None = None) -> IngestCounts:
    """``ingest.run`` to its end, its error raised here; AssertionError where it hangs."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            ingest.run(source, stop or threading.Event())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(HANGS_AFTER_S)
    assert not thread.is_alive(), "ingest hangs"
    if failure:
        raise failure[0]
    return ingest.counts


@contextmanager
def running(ingest: Ingest, source: Source) -> Iterator[None]:
    """``ingest.run`` in the background; stopped at the end of the block, its error raised there."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run, ingest, source, stop)
        try:
            yield
        finally:
            stop.set()
        done.result()


def eventually(what: str, probe: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait until ``probe`` says yes."""
    until_s = time.monotonic() + timeout_s
    while not probe():
        assert time.monotonic() < until_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.01)


def feed(store: Store, settings: Settings, values: Iterable[bytes | None], **log: Any) -> IngestCounts:
    """A new worker reads a log with these values to its end, from where the store says."""
    ingest = ingest_of(store, settings)
    return run(ingest, log_of(values, ingest, **log))


def state_of(store: Store) -> tuple[dict[PaneKey, bytes], dict[TallyKey, int]]:
    """Every pane's merged state and every tally: what must not depend on who counted, or in which order.

    How long the backbone took, and in how many batches, does.
    """
    panes: dict[PaneKey, list[bytes]] = {}
    for extent in store.pane_extent():
        for pane in store.read_panes(extent.model, extent.version, slice=extent.slice, baseline_id=extent.baseline_id):
            panes.setdefault(pane.key, []).append(pane.state)
    merged = {key: PaneState.merged(parts).to_bytes() for key, parts in panes.items()}
    work = (EMBEDDING_BATCHES, EMBEDDING_US)
    return merged, {key: n for key, n in store.read_tallies().items() if n and key.series not in work}


def outcomes_of(store: Store) -> Counter[str]:
    """Records by outcome, over all models."""
    found: Counter[str] = Counter()
    for key, value in store.read_tallies().items():
        if key.series == RECORDS and value:
            found[key.label] += value
    return found


def records_in(store: Store, model: str = "street", version: str = "1", slice_key: str = "") -> int:
    """Records in the panes of a model version."""
    return sum(part.records for part in store.read_panes(model, version, slice=slice_key))
