"""The evaluator: folds what the workers appended, scores windows as the watermark passes them, and decides on actions.

One process leads, by the store's lock; the others stand by. A tick that is cut off anywhere is simply done again:
folding and scoring are transactions, and scores and actions have identities of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlencode

import msgspec

from alerts.actions import Action, drift_alert
from detectors.baseline import BaselineStatistic
from monitor.canary_watch import CanaryWatch
from monitor.deciding import Retraining
from monitor.drift import (
    Baselines,
    ScoredWindow,
    alpha_per_window,
    score_panes,
    with_evidence,
)
from monitor.early import EarlyDetection
from monitor.errors import BadRecord, NotLeader, StoreError
from monitor.images import ImageStoreError, open_images
from monitor.images.expiry import expire_images
from monitor.joining import Joining
from monitor.pane_state import PaneState
from monitor.quality_now import QualityNow
from monitor.relabel_fill import RelabelFill, Requested
from monitor.settings import Settings, WebSettings
from monitor.sources.files import CLUSTER as FILES
from monitor.sources.protocol import RawRecord
from monitor.spot_checks import SpotChecks
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import DueWindow, OutboxMessage, ScoreRow
from monitor.telemetry import span
from monitor.windows import DAY_US, END_OF_TIME_US, SECOND_US, PartitionClock, Window, to_text, watermark

log = logging.getLogger(__name__)

TICK_S = 2.0
EXPIRE_EVERY_S = 3600.0
FOLD_ROWS = 2000
"""Delta rows folded in one transaction: some tens of megabytes at most."""


class _HasSeasonsError(Exception):
    """A baseline that the sequential test cannot use."""


class Evaluator:
    """Folds and scores; ``run`` until told to stop, or ``finish`` for a source that has ended."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        on_score: Callable[[ScoredWindow], None] | None = None,
        on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._wall_us = wall_us
        self._baselines = Baselines(store)
        self._pane_us = settings.windows.pane_seconds * SECOND_US
        stands_us = settings.windows.lengths_seconds[0] * SECOND_US
        self._early = EarlyDetection(store, settings.drift, self._pane_us, stands_us)
        self._joining = Joining(store, settings, self._baselines, wall_us, on_bad=on_bad)
        self._spot_checks = SpotChecks(store, settings, self._baselines, wall_us)
        self._quality = QualityNow(store, settings, self._baselines, wall_us)
        page = partial(_link, settings.web)
        self._relabel = RelabelFill(store, settings, self._baselines, wall_us, self._publish, page)
        self._canaries = CanaryWatch(store, settings, self._baselines, wall_us, self._publish)
        self._retraining = Retraining(store, settings, wall_us, self._publish, page)
        self._fed_until_us: int | None = None
        self._seasonal: set[str] = set()
        self._leader: Leader | None = None
        self._expired_at = float("-inf")
        self._images = open_images(settings)
        self._on_score = on_score

    @property
    def leading(self) -> bool:
        return self._leader is not None

    def run(self, stop: threading.Event) -> None:
        """Tick until ``stop`` is set; a database that is away is waited for."""
        try:
            while not stop.is_set():
                try:
                    self.tick()
                except NotLeader:
                    log.warning("lost the evaluator's lock; standing by")
                    self._leader = None
                except StoreError as error:
                    if not error.retriable:
                        raise
                    log.warning("store: %s", error)
                    self.close()
                stop.wait(TICK_S)
        finally:
            self.close()

    def close(self) -> None:
        if self._leader is not None:
            self._leader.release()
            self._leader = None

    def tick(self) -> int:
        """Fold, then score every window that is closed and due. Returns how many were scored (0 when standing by)."""
        if not self._lead():
            return 0
        clocks = [
            PartitionClock(progress.max_event_time_us, progress.caught_up_at_us)
            for progress in self._store.partition_progress()
            if progress.partition.topic != self._settings.kafka.labels_topic  # a label holds no window up
        ]
        mark = watermark(clocks)
        scored = self._evaluate(
            None if mark is None else mark - round(self._settings.windows.close_delay_seconds * SECOND_US)
        )
        if time.monotonic() - self._expired_at > EXPIRE_EVERY_S:
            self._expired_at = time.monotonic()
            before_us = self._wall_us() - round(self._settings.store.retention_days * DAY_US)
            assert self._leader is not None
            expired = self._leader.expire(before_us)
            self._leader.forget_masks(self._wall_us() - round(self._settings.quality.keep_masks_days * DAY_US))
            self._leader.forget_audit(self._wall_us() - round(self._settings.store.audit_days * DAY_US))
            self._expire_images()
            if expired.panes or expired.samples:
                log.info(
                    "retention: deleted what is older than %s: %d panes, %d verdicts, %d identities of records;"
                    " replayed again, those would count again",
                    to_text(before_us),
                    expired.panes,
                    expired.scores,
                    expired.samples,
                )
        return scored

    def _expire_images(self) -> None:
        try:
            gone = expire_images(self._images, self._settings.samples, self._wall_us())
        except ImageStoreError as error:
            log.warning("images are not expired: %s", error)
            return
        if gone:
            log.info("retention: deleted %d images", gone)

    @property
    def judged(self) -> tuple[int, int, int]:
        """Since this evaluator was made: records judged by their labels, labels that came too late for it, and
        corrections that did."""
        return self._joining.judged, self._joining.unjoinable, self._joining.uncorrectable

    @property
    def refused(self) -> Counter[str]:
        """Since this evaluator was made: labels that fitted no record of their input, by reason."""
        return self._joining.refused

    def settle(self) -> int:
        """After files were read: close all windows, or, in a store that Kafka fills, those its watermark has passed."""
        return self.tick() if filled_by_kafka(self._store) else self.finish()

    def finish(self) -> int:
        """Fold everything and close all windows: the end of a replay."""
        if self._lead():
            return self._evaluate(END_OF_TIME_US)
        log.warning("another process leads: it scores the windows as its watermark passes them")
        return 0

    def _lead(self) -> bool:
        if self._leader is None:
            self._leader = self._store.try_lead()
            if self._leader is not None:
                log.info("leading: this process evaluates")
        return self._leader is not None

    def _evaluate(self, watermark_us: int | None) -> int:
        leader = self._leader
        assert leader is not None
        lengths_us = [length * SECOND_US for length in self._settings.windows.lengths_seconds]
        with span("fold"):
            while leader.fold(merge_states, lengths_us, FOLD_ROWS):
                pass
        with span("judge labels"):
            self._joining.step(leader, everything=watermark_us == END_OF_TIME_US)
        if watermark_us is None:
            return 0
        with span("early detection"):
            while self._feed(leader, watermark_us) and watermark_us == END_OF_TIME_US:
                pass
        scored = 0
        while due := leader.due(watermark_us):
            for window in due:
                with span("score", attributes={"model": window.model, "version": window.version}):
                    self._score(leader, window)
            scored += len(due)
        with span("choose spot checks"):
            self._spot_checks.step(leader, watermark_us)
        with span("estimate quality"):
            self._quality.step(leader, watermark_us, self._joining.changed)
        with span("fill the relabel queue"):
            self._relabel.step(leader, watermark_us, self._joining.changed)
        with span("judge canaries"):
            self._canaries.step(leader, watermark_us, self._joining.changed)
        with span("decide on retraining"):
            self._retraining.step(leader, watermark_us, self._joining.changed)
        self._joining.changed.clear()
        return scored

    def _feed(self, leader: Leader, watermark_us: int) -> bool:
        """Feed sequential tests the next of the panes that are closed; whether there may be more.

        A portion at a time, so that a history that is there already holds no window up.
        """
        until_us = watermark_us - watermark_us % self._pane_us
        if until_us == self._fed_until_us and watermark_us != END_OF_TIME_US:
            return False
        more = False
        active = self._store.active_baselines()
        for (model, version), entry in active.items():
            identity = entry.meta.id
            if identity in self._seasonal:
                continue
            load = partial(self._unseasonal, identity)
            try:
                more |= self._early.feed(leader, model, version, identity, load, until_us)
            except _HasSeasonsError:
                log.info("no early detection with baseline %s: it has seasons", identity[:12])
                self._seasonal.add(identity)
        self._early.keep({entry.meta.id for entry in active.values()})
        self._fed_until_us = None if more else until_us
        return more

    def _unseasonal(self, baseline_id: str) -> BaselineStatistic:
        """What the sequential test ranks against. It knows one baseline for all hours, and would take night for drift.

        Raises _HasSeasonsError where the baseline tells hours or weekdays apart.
        """
        statistic = self._baselines.of(baseline_id).statistic
        if statistic.seasons is not None and statistic.seasons.rhythm.calendar is not None:
            raise _HasSeasonsError
        return statistic

    def _score(self, leader: Leader, due: DueWindow) -> None:
        window = Window(due.start_us, due.end_us)
        panes = self._store.read_panes(
            due.model,
            due.version,
            slice=due.slice,
            since_us=due.start_us,
            until_us=due.end_us,
            baseline_id=due.baseline_id,
        )
        baseline = self._baselines.of(due.baseline_id) if due.baseline_id else None
        slices = len(baseline.slices) if baseline else 0
        alpha = alpha_per_window(due.length_us, self._settings.drift, self._settings.windows, due.slice, slices)
        scored = score_panes(panes, window, baseline, alpha)
        if scored is None:  # retention took the panes
            scored = ScoredWindow(due.model, due.version, due.slice, window, due.baseline_id, 0, 0, None)
        scored = with_evidence(scored, panes, self._store, baseline, self._settings.drift, self._settings.windows)
        row = ScoreRow(
            records=scored.records,
            alarm=scored.score.alarm if scored.score else None,
            payload=msgspec.json.encode(scored.to_json()),
            scored_at_us=self._wall_us(),
        )
        messages = self._actions(scored)
        asked = self._relabel.of_window(scored) if messages else Requested()
        revision = leader.record_score(due, row, messages, asked.rows, asked.message)
        if revision is not None and self._on_score is not None:
            self._on_score(scored)

    def _actions(self, scored: ScoredWindow) -> Sequence[OutboxMessage]:
        if scored.score is None or not scored.score.alarm or (scored.slice and self._whole_alarms(scored)):
            return ()
        page = _link(self._settings.web, scored.model, scored.version, to_text(scored.window.start_us))
        action = drift_alert(scored.to_json(), page)
        return () if action is None else (self._publish(action),)

    def _publish(self, action: Action) -> OutboxMessage:
        return to_message(action, self._settings.kafka.actions_topic, self._wall_us())

    def _whole_alarms(self, scored: ScoredWindow) -> bool:
        """Whether all records of the window alarm: its slices are then evidence, not alarms of their own.

        Due windows come with all records first, so that verdict is there when the slices are judged.
        """
        start_us, length_us = scored.window.start_us, scored.window.length_us
        stored = self._store.scores(
            scored.model,
            version=scored.version,
            slice="",
            since_us=start_us,
            until_us=start_us + 1,
            length_us=length_us,
        )
        return any(one.alarm and one.baseline_id == scored.baseline_id for one in stored)


def _link(web: WebSettings, model: str, version: str, start: str) -> str:
    """The page that shows the evidence."""
    return f"{web.address}/?{urlencode({'model': model, 'version': version, 'window': start})}"


def filled_by_kafka(store: Store) -> bool:
    """Whether a service reads Kafka into this store."""
    return any(one.partition.cluster != FILES for one in store.partition_progress())


def merge_states(states: Sequence[bytes]) -> bytes:
    """The states of several deltas as one: adding, in any order."""
    return PaneState.merged(states).to_bytes()


def to_message(action: Action, topic: str, now_us: int) -> OutboxMessage:
    """An action as a CloudEvent in binary mode."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": action.id,
        "ce_type": action.type,
        "ce_source": "/segwatch",
        "ce_subject": action.subject,
        "ce_time": to_text(now_us),
        "content-type": "application/json",
    }
    return OutboxMessage(
        id=action.id,
        topic=topic,
        key=action.subject.encode(),
        value=msgspec.json.encode({"type": action.type, "id": action.id, "time": to_text(now_us), **action.data}),
        headers=tuple((name, value.encode()) for name, value in headers.items()),
    )
