"""Puts the service together, by hand; decides nothing. An exception to the layers, as cli.py is."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from embeddings.backbones import BackboneSpec, backbone_spec
from monitor.baseline import FORMAT_VERSION, Baseline
from monitor.baseline_book import Embedders
from monitor.baseline_build import BuildCounts, build_baseline
from monitor.classes import Classes
from monitor.drift import ScoredWindow
from monitor.errors import BadRecord, InputError, SettingsError
from monitor.evaluate import Evaluator
from monitor.ingest import Ingest, IngestCounts
from monitor.live_settings import LiveSettings
from monitor.relay import relay, relay_once
from monitor.settings import Settings
from monitor.sinks.files import FileSink
from monitor.sinks.kafka import KafkaSink
from monitor.sinks.protocol import Sink
from monitor.sources.files import FileSource
from monitor.sources.kafka import KafkaSource
from monitor.sources.protocol import RawRecord
from monitor.store.store import Store
from monitor.telemetry import setup_logging

log = logging.getLogger(__name__)

Role = Literal["all", "ingest", "evaluate", "web"]


def wall_us() -> int:
    """Wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


def open_store(settings: Settings, *, write: bool) -> Store:
    """The store that the settings name."""
    return Store.open(settings, write=write)


def file_sink(settings: Settings) -> FileSink:
    """Actions and dead letters as files under ``data_dir``."""
    return FileSink(Path(settings.data_dir), settings.kafka)


def make_sink(settings: Settings) -> Sink:
    """Where actions and dead letters go: Kafka where it is set, files under ``data_dir`` otherwise."""
    return KafkaSink(settings.kafka) if settings.kafka.bootstrap_servers else file_sink(settings)


def spec_of(settings: Settings) -> BackboneSpec:
    """The backbone that the settings name. Raises SettingsError where it cannot be had."""
    embedding = settings.embedding
    try:
        return backbone_spec(
            embedding.backbone, Path(embedding.weights) if embedding.weights else None, embedding.input_size
        )
    except (ValueError, OSError) as error:
        raise SettingsError(f"embedding.backbone: {error}") from None


class Workers:
    """Threads of one process that stop together: the first that fails stops the others, and its error is raised."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def start(self, name: str, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            log.error("%s failed: %s", threading.current_thread().name, error)
            self._failure = self._failure or error
            self.stop.set()

    def running(self) -> dict[str, bool]:
        """Which of the threads live, by name."""
        return {thread.name: thread.is_alive() for thread in self._threads}

    def join(self) -> None:
        """Wait for the end of all; raises the first failure."""
        for thread in self._threads:
            # A join without a timeout would keep the main thread from handling signals on some platforms.
            while thread.is_alive():
                thread.join(0.5)
        if self._failure is not None:
            raise self._failure


def run(settings: Settings, role: Role, load: Callable[[], Settings] | None = None) -> None:
    """The service, until SIGTERM or SIGINT; what was read is committed before it returns.

    ``load`` reads the settings again, for ``/-/reload``.
    """
    if role in ("ingest", "all") and not settings.kafka.bootstrap_servers:
        if role == "ingest":
            raise SettingsError(
                "kafka.bootstrap_servers is not set: there is nothing to ingest (files: segwatch replay)"
            )
        log.warning("kafka.bootstrap_servers is not set: nothing is ingested (files: segwatch replay)")
    workers = Workers()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: workers.stop.set())
    store = open_store(settings, write=role != "web")
    try:
        if role in ("ingest", "all") and settings.kafka.bootstrap_servers:
            workers.start("ingest", lambda: _ingest_kafka(store, settings, workers.stop))
        evaluator = Evaluator(store, settings) if role in ("evaluate", "all") else None
        if evaluator is not None:
            workers.start("evaluate", lambda: evaluator.run(workers.stop))
        if role != "web":
            workers.start("relay", lambda: relay(store, lambda: make_sink(settings), workers.stop))
        if role in ("web", "all"):
            live = LiveSettings(settings, load or (lambda: settings), [lambda new: setup_logging(new.log)])
            workers.start("web", lambda: _serve(store, live, workers.stop, workers.running))
        log.info("running", extra={"role": role})
        while not workers.stop.wait(0.5):
            pass
        workers.join()
        log.info("stopped cleanly", extra={"role": role})
    finally:
        store.close()


def _ingest_kafka(store: Store, settings: Settings, stop: threading.Event) -> None:
    ingest = Ingest(store, settings, Embedders(settings))
    source = KafkaSource(
        settings.kafka,
        [settings.kafka.predictions_topic],
        start_offset=ingest.start_offset,
        on_revoke=ingest.settle,
    )
    try:
        ingest.run(source, stop)
    finally:
        source.close()


def _serve(
    store: Store, settings: LiveSettings, stop: threading.Event, roles: Callable[[], Mapping[str, bool]]
) -> None:
    # Imported here, so that a worker without pages does not load the web framework.
    from dashboards.pages import pages
    from monitor.http_server import serve
    from monitor.web import check_access, create_app
    from monitor.web_state import StoreState

    web = settings.current.web
    check_access(web)
    state = StoreState(store, settings, roles)
    server = serve(create_app(state, web.host, [pages(state)]), web.host, web.port)
    log.info("serving", extra={"address": server.address})
    try:
        while server.running and not stop.wait(0.5):
            pass
    finally:
        server.stop()


def serve_pages(settings: Settings, say: Callable[[str], None]) -> None:
    """The pages over a finished store, until Ctrl-C."""
    say(f"Serving http://{settings.web.host}:{settings.web.port}/ (Ctrl-C ends)")
    run(settings, "web")


def replay(
    settings: Settings,
    files: Sequence[Path],
    *,
    slice_key: str = "",
    on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    on_progress: Callable[[float | None, IngestCounts], None] | None = None,
    on_score: Callable[[ScoredWindow], None] | None = None,
    store: Store | None = None,
    embedders: Embedders | None = None,
) -> tuple[IngestCounts, int]:
    """Files through the same pipeline, then all windows closed. Returns the counts and the number of windows scored."""
    own = store is None
    opened = open_store(settings, write=True) if store is None else store
    try:
        if not opened.active_baselines():
            raise InputError("the store has no active baseline: segwatch baseline build --activate makes one")
        ingest = Ingest(opened, settings, embedders or Embedders(settings), on_bad=on_bad, slice_key=slice_key)
        source = FileSource(files, settings.kafka.max_message_bytes)
        try:
            if on_progress is None:
                ingest.run(source, threading.Event())
            else:
                _run_with_progress(ingest, source, on_progress)
        finally:
            source.close()
        evaluator = Evaluator(opened, settings, on_score=on_score)
        scored = evaluator.finish()
        evaluator.close()
        sink = file_sink(settings)
        while relay_once(opened, sink):
            pass
        sink.close()
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
        while workers.running()["replay"]:
            if not workers.stop.wait(1.0):
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
        on_bad=on_bad,
        now_us=wall_us(),
    )
    baseline_id = store.add_baseline(
        model, version, format_version=FORMAT_VERSION, meta=baseline.summary(), payload=baseline.to_bytes()
    )
    if activate:
        store.activate(baseline_id)
    return baseline_id, baseline, counts
