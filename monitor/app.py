"""Puts the service together, by hand; decides nothing. An exception to the layers, as cli.py is."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from monitor.delivering import deliver, note_running, register
from monitor.errors import SettingsError
from monitor.evaluate import Evaluator
from monitor.live_settings import LiveSettings
from monitor.receivers.files import load_receivers
from monitor.relay import relay
from monitor.settings import Settings
from monitor.sinks.files import FileSink
from monitor.sinks.kafka import KafkaSink
from monitor.sinks.protocol import Sink
from monitor.store.store import Store
from monitor.telemetry import setup_logging, setup_tracing
from monitor.web_access import check_access
from monitor.workers import Workers

log = logging.getLogger(__name__)

COLLECT_EVERY = 100_000
"""Container objects that are made, and not freed, before the youngest are searched for garbage in circles."""

Role = Literal["all", "ingest", "evaluate", "web"]


def file_sink(settings: Settings) -> FileSink:
    """Actions and dead letters as files under ``data_dir``."""
    return FileSink(Path(settings.data_dir), settings.kafka)


def make_sink(settings: Settings) -> Sink:
    """Where actions and dead letters go: Kafka where it is set, files under ``data_dir`` otherwise."""
    return KafkaSink(settings.kafka) if settings.kafka.bootstrap_servers else file_sink(settings)


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
    if role in ("web", "all"):
        check_access(settings.web)
    workers = Workers()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: workers.stop.set())
    # Claims of the relabel queue come over the web. SQLite has one writing process, and that may be another one.
    several_write = settings.store.url.startswith("postgres")
    store = Store.open(settings, write=role != "web" or several_write)
    collect_seldom()
    try:
        with setup_tracing(settings.log):
            _run_roles(store, settings, role, workers, load)
        log.info("stopped cleanly", extra={"role": role})
    finally:
        store.close()


def collect_seldom() -> None:
    """Look for garbage in circles less often; called once start-up is over."""
    # What start-up made lives as long as the process: looking through it again and again stops all threads for nothing.
    gc.collect()
    gc.freeze()
    # And what a chunk is made of dies by its reference counts. At Python's own threshold of 700 objects it would be
    # looked through 70 times on the way, for up to half of the time that a record takes.
    gc.set_threshold(COLLECT_EVERY, 20, 50)


def _run_roles(
    store: Store, settings: Settings, role: Role, workers: Workers, load: Callable[[], Settings] | None
) -> None:
    if role in ("ingest", "all") and settings.kafka.bootstrap_servers:
        workers.start("ingest", lambda: _ingest_kafka(store, settings, workers.stop))
    if role in ("evaluate", "all"):
        workers.start("evaluate", lambda: Evaluator(store, settings).run(workers.stop))
    receivers = load_receivers(settings.actions.receivers_file)
    if role != "web":
        register(store, receivers)
        if settings.actions.receivers_file:  # where only some processes are given one, the others know nothing of it
            workers.start("receivers", lambda: note_running(store, receivers, workers.stop))
        most_age_us = settings.actions.deliver_within_us
        for one in receivers:
            work = partial(deliver, store, one, settings.kafka.actions_topic, workers.stop, most_age_us)
            workers.start(f"deliver-{one.name}", work)
        workers.start("relay", lambda: relay(store, lambda: make_sink(settings), workers.stop))
    if role in ("web", "all"):
        live = LiveSettings(settings, load or (lambda: settings), [lambda new: setup_logging(new.log)])
        workers.start("web", lambda: _serve(store, live, workers.stop, workers.running))
    log.info("running", extra={"role": role})
    while not workers.stop.wait(0.5):
        pass
    workers.join()


def _ingest_kafka(store: Store, settings: Settings, stop: threading.Event) -> None:
    # Imported here: of all roles this one alone needs torch, which takes seconds to load.
    from monitor.baseline_book import Embedders
    from monitor.ingest import Ingest
    from monitor.sources.kafka import KafkaSource

    ingest = Ingest(store, settings, Embedders(settings))
    source = KafkaSource(
        settings.kafka,
        [settings.kafka.predictions_topic, settings.kafka.labels_topic],
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
    from dashboards.detail_pages import detail_pages
    from dashboards.page_data import PageData
    from dashboards.pages import pages
    from dashboards.runbook_pages import runbook_pages
    from dashboards.warm_up import warm_up
    from monitor.annotation_intake import CvatPulls
    from monitor.http_server import serve
    from monitor.images import open_images
    from monitor.web import create_app
    from monitor.web_alerts import alerts_router
    from monitor.web_canary import CanaryState, canary_router
    from monitor.web_labels import labels_router
    from monitor.web_relabel import relabel_router
    from monitor.web_state import StoreState

    web = settings.current.web
    state = StoreState(store, settings, roles)
    canaries = CanaryState(store, settings)
    routers = [
        pages(state),
        detail_pages(PageData.of(store, settings, open_images(settings.current)), canaries),
        runbook_pages(),
        canary_router(canaries),
        relabel_router(store, settings),
        alerts_router(store, settings),
    ]
    pulls = CvatPulls(store, settings)
    routers.append(labels_router(store, settings, pulls))
    threading.Thread(target=pulls.run, args=(stop,), name="cvat", daemon=True).start()
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
    tls = (web.tls_certificate, web.tls_key) if web.tls_certificate else None
    server = serve(create_app(state, web.host, routers), web.host, web.port, tls)
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
