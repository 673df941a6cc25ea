"""A served store for tests of pages: hostile names, masks, labels, images, a queue, actions; by the real pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from starlette.testclient import TestClient

from dashboards.addresses import window_path
from dashboards.detail_pages import detail_pages
from dashboards.page_data import PageData
from dashboards.pages import pages
from monitor.evaluate import Evaluator
from monitor.images import open_images
from monitor.live_settings import LiveSettings
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from monitor.web import create_app
from monitor.web_canary import CanaryState, canary_router
from monitor.web_relabel import relabel_router
from monitor.web_state import StoreState
from monitor.windows import SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, encode, feed, image_record, open_store, settings_of
from tests.made_labels import after, label, square

MODEL, VERSION = "yard", "1"
EVENT_US = NOW_US - 2 * HOUR_US
HOSTILE = {
    "html": '<script>alert(1)</script>"\'<img src=x onerror=alert(1)>',
    "path": "../../../etc/passwd",
    "dots": "..",
    "direction": "invoice\u202efdp.exe",
    "query": "a?b=c&d#e%2F%00",
}
RECORDS = 12
LENGTH_S = 3600
PEOPLE = {"victor": "viewer", "lara": "labeller", "otto": "operator", "ada": "admin"}


def token_of(name: str) -> str:
    return f"token-of-{name}"


@dataclass
class Site:
    """The application over a filled store."""

    store: Store
    settings: Settings
    app: Any

    def client(self, person: str = "", **more: Any) -> TestClient:
        """A browser of somebody who brings a token; "" for nobody."""
        headers = {"authorization": f"Bearer {token_of(person)}"} if person else {}
        return TestClient(self.app, base_url="http://localhost", headers=headers, follow_redirects=False, **more)

    @property
    def window(self) -> str:
        """Path of the page of the one window."""
        return window_path(MODEL, VERSION, to_text(EVENT_US), LENGTH_S)

    @property
    def all_paths(self) -> list[str]:
        """Every kind of page, once."""
        from dashboards.addresses import map_path, model_path, sample_path

        return [
            "/",
            model_path(MODEL, VERSION),
            self.window,
            f"{self.window}&order=worst",
            map_path(MODEL, VERSION, to_text(EVENT_US), LENGTH_S),
            sample_path(MODEL, VERSION, HOSTILE["html"]),
            sample_path(MODEL, VERSION, "frame-000001"),
            "/relabel",
            "/canary",
            f"/canary?model={MODEL}&stable=1&canary=2",
            "/actions",
            "/actions/naming-it",
            "/slo",
            "/audit",
        ]


def tokens_file(folder: Path) -> Path:
    """One person of each role."""
    file = folder / "tokens.yaml"
    tree = {
        name: {"role": role, "token_sha256": hashlib.sha256(token_of(name).encode()).hexdigest()}
        for name, role in PEOPLE.items()
    }
    file.write_text(yaml.safe_dump(tree))
    return file


@contextmanager
def site(folder: Path, web: dict[str, Any] | None = None, url: str = "") -> Iterator[Site]:
    """Filled and served; ``web``: settings of that section; ``url``: of the database, "" for SQLite."""
    settings = settings_of(
        folder,
        windows={"lengths_seconds": [LENGTH_S]},
        quality={"spot_checks_per_day": 100_000},
        store={"url": url},
    )
    if web:
        settings = msgspec.structs.replace(settings, web=msgspec.convert(web, type(settings.web)))
    with open_store(settings, (MODEL,)) as store:
        fill(store, settings)
        live = LiveSettings(settings, lambda: settings)
        state = StoreState(store, live, wall_us=lambda: NOW_US)
        canaries = CanaryState(store, live, patience_s=60)
        data = PageData.of(store, live, open_images(settings))
        routers = [pages(state), detail_pages(data, canaries), canary_router(canaries), relabel_router(store, live)]
        yield Site(store, settings, create_app(state, "127.0.0.1", routers))


def fill(store: Store, settings: Settings) -> None:
    """One window of records that two versions saw, half of them labelled, with names that nobody should trust."""
    names = [*HOSTILE.values(), *(f"frame-{n:06d}" for n in range(RECORDS))]
    records, labels = [], []
    for version in ("1", "2"):
        for number, name in enumerate(names):
            at_us = EVENT_US + number * SECOND_US
            masks = [{"class": "dog", "score": 0.9, "mask": square(5 + number % 8)}] if number % 4 != 1 else []
            own = {"input_id": name, "model": {"name": MODEL, "version": version}}
            slices = {"camera": HOSTILE["html"]}
            records.append(image_record(number, at_us, instances=masks, slices=slices, **own))
    for number, name in enumerate(names[::2]):
        annotator = HOSTILE["html"] if number == 0 else "maria"
        labels.append(label(1, after(EVENT_US), ("dog", square(10)), input_id=name, annotator=annotator))
    feed(store, settings, [encode(one) for one in records + labels])
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()
    store.relabel.add_by_hand([HOSTILE["path"], "frame-000003"], HOSTILE["html"], model=MODEL, version=VERSION)
    span = {"start": to_text(EVENT_US), "end": to_text(EVENT_US + HOUR_US)}
    bodies: dict[str, Any] = {
        "naming-it": {
            "type": "segwatch.alert.v1",
            "kind": HOSTILE["html"],
            "model": MODEL,
            "version": VERSION,
            "window": span,
            "samples": [{"input_id": HOSTILE["path"]}],
        },
        "nested": {
            "type": "segwatch.retrain_requested.v1",
            "model": {"name": MODEL, "version": VERSION},
            "evidence": {"window": span},
        },
        "damaged": {"type": 7, "model": ["x"], "window": {"start": "never", "end": 3}},
    }
    with store.transaction() as tx:
        topic = settings.kafka.actions_topic
        tx.add_outbox([OutboxMessage(name, topic, b"yard/1", encode(body)) for name, body in bodies.items()])
