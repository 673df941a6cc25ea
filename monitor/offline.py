"""Work on files that begins and ends: building a baseline, replaying records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from embeddings.backbones import BackboneSpec, backbone_spec
from monitor.audit import os_user
from monitor.baseline import FORMAT_VERSION, Baseline
from monitor.baseline_book import Embedders
from monitor.baseline_build import BuildCounts, build_baseline
from monitor.classes import Classes
from monitor.drift import ScoredWindow
from monitor.errors import BadRecord, InputError, SettingsError
from monitor.evaluate import Evaluator
from monitor.handing_over import handing_over
from monitor.ingest import Ingest, IngestCounts
from monitor.records import Label, Limits, decode_chunk
from monitor.settings import Settings
from monitor.sources.files import FileSource
from monitor.sources.protocol import RawRecord
from monitor.store.store import Store
from monitor.workers import Workers


def spec_of(settings: Settings) -> BackboneSpec:
    """The backbone that the settings name. Raises SettingsError where it cannot be had."""
    embedding = settings.embedding
    try:
        return backbone_spec(
            embedding.backbone, Path(embedding.weights) if embedding.weights else None, embedding.input_size
        )
    except (ValueError, OSError) as error:
        raise SettingsError(f"embedding.backbone: {error}") from None


def replay(
    settings: Settings,
    files: Sequence[Path],
    *,
    labels: Sequence[Path] = (),
    slice_key: str = "",
    on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    on_progress: Callable[[float | None, IngestCounts], None] | None = None,
    on_score: Callable[[ScoredWindow], None] | None = None,
    store: Store | None = None,
    embedders: Embedders | None = None,
) -> tuple[IngestCounts, int]:
    """Files through the same pipeline, then all windows closed. Returns the counts and the number of windows scored.

    ``labels``: files of label records, read after the others; either kind may hold both.

    In a store that a service fills from Kafka, only those that its watermark has passed: others go on.
    """
    own = store is None
    opened = Store.open(settings, write=True) if store is None else store
    try:
        if not opened.active_baselines():
            raise InputError("the store has no active baseline: segwatch baseline build --activate makes one")
        with handing_over(opened, settings):
            ingest = Ingest(opened, settings, embedders or Embedders(settings), on_bad=on_bad, slice_key=slice_key)
            source = FileSource([*files, *labels], settings.kafka.max_message_bytes)
            try:
                if on_progress is None:
                    ingest.run(source, threading.Event())
                else:
                    _run_with_progress(ingest, source, on_progress)
            finally:
                source.close()
            with closing(Evaluator(opened, settings, on_score=on_score, on_bad=on_bad)) as evaluator:
                scored = evaluator.settle()
                ingest.counts.add_refused(evaluator.refused)
        return ingest.counts, scored
    finally:
        if own:
            opened.close()


def _run_with_progress(
    ingest: Ingest, source: FileSource, on_progress: Callable[[float | None, IngestCounts], None]
) -> None:
    workers = Workers()
    workers.start("replay", lambda: ingest.run(source, workers.stop))
    try:
        while not workers.wait(1.0):
            on_progress(source.fraction, ingest.counts)
    except BaseException:
        workers.stop.set()
        raise
    finally:
        workers.join()


def make_baseline(
    settings: Settings,
    store: Store,
    files: Sequence[Path],
    *,
    model: str,
    version: str,
    slice_key: str = "",
    classes: Classes | None = None,
    labels: Sequence[Path] = (),
    activate: bool = False,
    embedders: Embedders | None = None,
    on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
) -> tuple[str, Baseline, BuildCounts]:
    """Build a baseline from files, store it, and activate it where asked."""
    embedders = embedders or Embedders(settings)
    baseline, counts = build_baseline(
        FileSource(files, settings.kafka.max_message_bytes),
        settings,
        lambda: spec_of(settings),
        embedders.of,
        model=model,
        version=version,
        slice_key=slice_key,
        classes=classes,
        labels=read_label_files(labels, settings, on_bad),
        on_bad=on_bad,
        now_us=time.time_ns() // 1000,
    )
    baseline_id = store.add_baseline(
        model, version, format_version=FORMAT_VERSION, meta=baseline.summary(), payload=baseline.to_bytes()
    )
    if activate:
        store.activate(baseline_id, who=os_user())
    return baseline_id, baseline, counts


def read_label_files(
    files: Sequence[Path], settings: Settings, on_bad: Callable[[RawRecord, BadRecord], None] | None = None
) -> dict[str, list[tuple[RawRecord, Label]]]:
    """Labels of files by input, of each annotator the newest version; in memory until a baseline is built of them.

    What is no good label goes to ``on_bad``. Raises InputError that names a file that cannot be read.
    """
    newest: dict[tuple[str, str], tuple[RawRecord, Label]] = {}
    limits = Limits.from_settings(settings)
    with closing(FileSource(files, limits.max_value_bytes)) as source:
        while not source.exhausted:
            raws = source.poll(0.0, 256).records
            for raw, found in zip(raws, decode_chunk(raws, limits), strict=True):
                if isinstance(found, Label):
                    known = newest.get((found.input_id, found.annotator))
                    if known is None or known[1].annotation_version < found.annotation_version:
                        newest[found.input_id, found.annotator] = (raw, found)
                elif on_bad is not None:
                    other = BadRecord("unknown_type", "a prediction among labels")
                    on_bad(raw, found if isinstance(found, BadRecord) else other)
    by_input: dict[str, list[tuple[RawRecord, Label]]] = {}
    for (input_id, _), pair in sorted(newest.items(), key=lambda item: item[0]):
        by_input.setdefault(input_id, []).append(pair)
    return by_input
