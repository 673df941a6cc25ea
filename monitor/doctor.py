"""``segwatch doctor``: one line for each thing that must work before the service does."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from embeddings.embedder import Embedder
from monitor.baseline import Baseline
from monitor.baseline_book import Embedders
from monitor.errors import SegwatchError
from monitor.offline import spec_of
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.topics import check_kafka
from monitor.web_access import check_access


@dataclass(frozen=True, slots=True)
class Check:
    """``text`` says what was found, or what to do about it."""

    name: str
    ok: bool
    text: str


def examine(load: Callable[[], Settings]) -> Iterator[Check]:
    """All checks, in the order in which a service would fail. Without settings nothing else can be checked."""
    try:
        settings = load()
    except SegwatchError as error:
        yield Check("settings", False, str(error))
        return
    yield Check("settings", True, "read and complete")
    yield from _kafka(settings)
    yield from _store(settings)
    yield _device(settings)
    yield _web(settings)
    yield _prometheus(settings)


def _kafka(settings: Settings) -> Iterator[Check]:
    if not settings.kafka.bootstrap_servers:
        yield Check("kafka", True, "not set (embedded): records come from files")
        return
    for name, ok, text in check_kafka(settings.kafka):
        yield Check(f"kafka {name}", ok, text)


def _store(settings: Settings) -> Iterator[Check]:
    try:
        store = Store.open(settings, write=False)
    except SegwatchError as error:
        yield Check("database", False, str(error))
        return
    try:
        active = store.active_baselines()
        baselines = [Baseline.from_bytes(store.baseline(entry.meta.id).payload) for entry in active.values()]
        yield Check("database", True, store.description)
    except SegwatchError as error:
        yield Check("database", False, str(error))
        return
    finally:
        store.close()
    names = ", ".join(f"{model} version {version}" for model, version in sorted(active))
    yield Check(
        "baseline",
        bool(active),
        f"active for {names}" if active else "none is active: segwatch baseline build --activate",
    )
    for baseline in baselines:
        if baseline.backbone is not None:
            name = f"backbone of {baseline.model} version {baseline.version}"
            yield _backbone(settings, name, partial(Embedders.of_baseline, ref=baseline.backbone))


def _device(settings: Settings) -> Check:
    return _backbone(settings, "device", lambda embedders: embedders.of(spec_of(settings)))


def _backbone(settings: Settings, name: str, make: Callable[[Embedders], Embedder]) -> Check:
    try:
        embedder = make(Embedders(settings))
    except (SegwatchError, ValueError, OSError) as error:
        return Check(name, False, str(error))
    if embedder.fallbacks:
        return Check(name, False, f"{settings.embedding.device} was asked for, but the CPU had to be taken")
    return Check(name, True, f"{embedder.identity} on {embedder.device} in {embedder.dtype}")


def _web(settings: Settings) -> Check:
    web = settings.web
    try:
        check_access(web)
    except SegwatchError as error:
        return Check("web", False, str(error))
    return Check("web", True, f"{web.host}:{web.port}, {'with' if web.token else 'without'} sign-in")


def _prometheus(settings: Settings) -> Check:
    url = settings.prometheus.url
    if not url:
        return Check("prometheus", True, "prometheus.url is not set: not checked")
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/-/ready", timeout=5) as answer:
            return Check("prometheus", True, f"{url} answers {answer.status}")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        return Check("prometheus", False, f"{url}: {error}")
