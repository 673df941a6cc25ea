"""What the web server shows, read from the store: the real ``WebState``."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from monitor.audit import record
from monitor.budgets import NOT_ASKED, Budgets
from monitor.errors import StoreError
from monitor.live_settings import LiveSettings, Reloaded
from monitor.present import printable
from monitor.scrape import Format, MetricsPage, pause
from monitor.service_series import ProcessFacts
from monitor.snapshot import snapshot
from monitor.status import status
from monitor.store.store import Store
from monitor.web import Readiness
from monitor.web_access import check_access
from monitor.web_identity import Identity
from monitor.windows import SECOND_US, parse_time, to_text

log = logging.getLogger(__name__)


class StoreState:
    """Read models of one store. ``roles``: for each role of this process, whether it runs."""

    def __init__(
        self,
        store: Store,
        settings: LiveSettings,
        roles: Callable[[], Mapping[str, bool]] = dict,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store = store
        self._settings = settings
        self._host = settings.current.web.host
        self._roles = roles
        self._wall_us = wall_us
        self._identity = Identity(lambda: settings.current.web)
        self._budgets = Budgets(lambda: settings.current.prometheus.url)
        self._refused: Counter[int] = Counter()
        self._counting = threading.Lock()
        first_length_us = settings.current.windows.lengths_seconds[0] * SECOND_US
        self._page = MetricsPage(
            lambda: snapshot(
                store,
                first_length_us,
                wall_us(),
                settings.current.web.max_slices,
                pause,
                topics=(settings.current.kafka.actions_topic, settings.current.kafka.dead_letter_topic),
                process=self._process(),
            ),
            max_series=lambda: settings.current.web.max_series,
            refresh_s=lambda: settings.current.web.refresh_seconds,
        )

    def token(self) -> str:
        return self._settings.current.web.token

    @property
    def identity(self) -> Identity:
        return self._identity

    def audit(self, who: str, what: str, subject: str, detail: Mapping[str, object]) -> None:
        if self._store.writable:  # the role web alone only reads; there the log below has to do
            try:
                record(self._store, who, what, subject, detail)
                return
            except StoreError as error:
                log.warning("audit log: %s", error)
        log.info("%s by %s: %s %s", what, printable(who), printable(subject), json.dumps(dict(detail)))

    def refused(self, code: int) -> None:
        with self._counting:
            self._refused[code] += 1

    def _process(self) -> ProcessFacts:
        with self._counting:
            refused = dict(self._refused)
        return ProcessFacts(not self._settings.failed, self._settings.loaded_us, refused)

    def readiness(self) -> Sequence[Readiness]:
        try:
            self._store.outbox_pending()
            store = Readiness("store", True, "answers")
        except StoreError as error:
            store = Readiness("store", False, str(error))
        roles = [Readiness(name, ok, "runs" if ok else "does not run") for name, ok in self._roles().items()]
        return [store, *roles]

    def reload(self, who: str) -> Reloaded:
        # The address stays until a restart, so a token that goes must be one that this address can do without.
        done = self._settings.reload(lambda new: check_access(msgspec.structs.replace(new.web, host=self._host)))
        detail = {"changed": list(done.changed), "restart_needed": list(done.restart_needed)}
        self.audit(who, "settings.reload", "", detail)  # should it fail, the new settings are in force all the same
        return done

    def metrics(self, fmt: Format, compressed: bool) -> bytes:
        return self._page.get(fmt, compressed=compressed)

    def status(self, *, budgets: bool = False) -> Mapping[str, Any]:
        return status(self._store, self._wall_us(), self._budgets.read() if budgets else NOT_ASKED)

    def windows(
        self, model: str, version: str | None, slice_key: str, since: str | None, until: str | None, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        scores = self._store.scores(
            model,
            version,
            slice=slice_key,
            since_us=parse_time(since) if since else None,
            until_us=parse_time(until) if until else None,
        )
        return [{**json.loads(score.payload), "revision": score.revision} for score in scores[-limit:]]

    def newest_windows(self, limit: int) -> Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]:
        found = self._store.views.newest_windows(limit)
        return {of: [json.loads(one.payload) for one in windows] for of, windows in found.items()}

    def baselines(self) -> Sequence[Mapping[str, Any]]:
        active = {entry.meta.id for entry in self._store.active_baselines().values()}
        return [
            {
                **meta.meta,
                "id": meta.id,
                "model": meta.model,
                "version": meta.version,
                "created": to_text(meta.created_us),
                "active": meta.id in active,
            }
            for meta in self._store.baselines()
        ]
