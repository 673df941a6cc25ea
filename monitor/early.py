"""Early detection: one sequential test for each model version and baseline, fed as panes close.

The state goes into the store in one transaction with the end of the last pane in it, written by the one leading
evaluator. So what a test has seen follows from the panes as they were when they closed, whoever feeds it, and in
however many steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from detectors.baseline import BaselineStatistic
from detectors.sequential import exceeds_blocks
from detectors.units import BaselineUnits
from monitor.early_feed import Feed, waits
from monitor.pane_state import PaneState
from monitor.settings import DriftSettings
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import EarlyState
from monitor.windows import END_OF_TIME_US, to_text

log = logging.getLogger(__name__)

SHARE = 0.2
"""Of the budget of false alarms. A delay grows with the logarithm of the run length, and a window loses little power
with four fifths of its alpha: neither of the two tests feels much of the other."""
ENOUGH_RECORDS = 100
"""An alarm's size is that of the last panes with so many records: of an hour, most may lie before the shift."""
PORTION = 16
"""Panes fed in one transaction."""
BEGINNING_OF_TIME_US = -(2**62)


class EarlyDetection:
    """The tests of all model versions, fed from the store and kept in it. ``stands_us``: how long an alarm stands."""

    def __init__(self, store: Store, drift: DriftSettings, pane_us: int, stands_us: int) -> None:
        self._store = store
        self._budget = drift.false_alarms_per_30_days * SHARE
        self._pane_us = pane_us
        self._stands_us = stands_us
        self._units: dict[str, BaselineUnits | None] = {}

    def keep(self, baseline_ids: set[str]) -> None:
        """Forget what was worked out of other baselines than these."""
        self._units = {key: units for key, units in self._units.items() if key in baseline_ids}

    def feed(
        self,
        leader: Leader,
        model: str,
        version: str,
        baseline_id: str,
        load: Callable[[], BaselineStatistic],
        until_us: int,
    ) -> bool:
        """Feed the next panes that end by ``until_us``, in one transaction; whether there may be more of them.

        ``load`` reads the baseline; it is not asked for that of a version which is silent.
        """
        before = leader.early_state(model, version, baseline_id)
        since_us = BEGINNING_OF_TIME_US if before is None else before.fed_until_us
        ended_us = until_us - self._pane_us + 1
        panes = self._store.closed_panes(
            model, version, baseline_id, since_us=since_us, until_us=ended_us, limit=PORTION
        )
        if before is not None and before.alarm and not panes and self._is_over(before, until_us):
            before = replace(before, alarm=False)
            leader.record_early(before)
        if not panes and not _waits(before):
            return False
        baseline = load()
        units = self._units_of(baseline_id, baseline)
        if units is None:
            return False

        def exceeds(fed_until_us: int) -> bool:
            return self._exceeds(model, version, baseline_id, baseline, fed_until_us)

        feed = _resume(before, lambda: Feed(units, self._pane_us, self._budget, exceeds))
        for pane in panes:
            feed.pane(pane.key.start_us, PaneState.from_bytes(pane.state).statistic)
        more = len(panes) == PORTION
        if not more:
            feed.close(until_us)
        if panes or (before is not None and feed.records > before.records):
            leader.record_early(self._state(feed, model, version, baseline_id, before), feed.alarms)
        return more

    def _is_over(self, state: EarlyState, at_us: int) -> bool:
        """Whether an alarm stands no longer at this moment. The end of a replay is none."""
        assert state.alarm_at_us is not None
        return state.alarm_at_us + self._stands_us <= at_us < END_OF_TIME_US - self._pane_us

    def _units_of(self, baseline_id: str, baseline: BaselineStatistic) -> BaselineUnits | None:
        if baseline_id not in self._units:
            try:
                self._units[baseline_id] = BaselineUnits(baseline)
            except ValueError as error:
                log.warning("no early detection with baseline %s: %s", baseline_id[:12], error)
                self._units[baseline_id] = None
        return self._units[baseline_id]

    def _state(self, feed: Feed, model: str, version: str, baseline_id: str, before: EarlyState | None) -> EarlyState:
        assert feed.fed_until_us is not None
        alarm_at_us = before.alarm_at_us if before is not None else None
        if feed.alarms:
            alarm_at_us = feed.alarms[-1].at_us
            log.info("early drift alarm of %s %s at %s", model, version, to_text(alarm_at_us))
        return EarlyState(
            model=model,
            version=version,
            baseline_id=baseline_id,
            fed_until_us=feed.fed_until_us,
            records=feed.records,
            evidence=feed.evidence,
            run_length=feed.run_length,
            alarm=alarm_at_us is not None and feed.fed_until_us < alarm_at_us + self._stands_us,
            alarm_at_us=alarm_at_us,
            state=feed.to_bytes(),
        )

    def _exceeds(
        self, model: str, version: str, baseline_id: str, baseline: BaselineStatistic, fed_until_us: int
    ) -> bool:
        """Whether the last panes with `ENOUGH_RECORDS` (of an alarm's time at most) show a shift that matters."""
        since_us = fed_until_us - self._stands_us
        panes = self._store.read_panes(
            model, version, since_us=since_us, until_us=fed_until_us, baseline_id=baseline_id
        )
        recent: list[bytes] = []
        records = 0
        for pane in reversed(panes):
            if records >= ENOUGH_RECORDS:
                break
            recent.append(pane.state)
            records += pane.records
        return bool(recent) and exceeds_blocks(baseline, PaneState.merged(recent).statistic.counts())


def _resume(before: EarlyState | None, fresh: Callable[[], Feed]) -> Feed:
    feed = fresh()
    if before is None:
        return feed
    try:
        feed.restore(before.state, before.fed_until_us)
    except ValueError as error:
        # Another release's bets, say. What was fed is not fed again: nobody could tell how often it was looked at.
        log.warning("early detection of %s %s begins anew: %s", before.model, before.version, error)
        feed = fresh()
        feed.fed_until_us = before.fed_until_us
    return feed


def _waits(before: EarlyState | None) -> bool:
    try:
        return before is not None and waits(before.state)
    except ValueError:
        return False  # said when there is something to feed
