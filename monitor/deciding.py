"""Decides, for each model, whether it is to be trained anew: the leader's work. The rules are `alerts.decisions`'.

What was decided is kept for ``segwatch status``; a request and the note of it are one transaction. Its id comes from
the request before it, so that a leader that is cut off anywhere asks again under the same id, or has not asked at all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

import msgspec

from alerts.actions import Action, retrain_requested
from alerts.decisions import Decision, Facts, Rules, WindowFact, retrain
from monitor.action_evidence import evidence_of, labelled_samples, newest_window, recent_windows
from monitor.settings import Settings
from monitor.store.actions import RetrainRow
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import OutboxMessage, StoredScore
from monitor.windows import DAY_US, END_OF_TIME_US, to_text

log = logging.getLogger(__name__)

EVERY_S = 30.0
SLACK = 24
"""Windows without a verdict that are looked past."""


class Retraining:
    """One thread, the leader's."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        wall_us: Callable[[], int],
        publish: Callable[[Action], OutboxMessage],
        page: Callable[[str, str, str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._wall_us = wall_us
        self._publish = publish
        self._page = page
        self._clock = clock
        self._next_at = float("-inf")
        self._labels: dict[str, tuple[int, int]] = {}
        """By model: since when its labels were counted, and how many they were."""
        actions = settings.actions
        self._rules = Rules(
            actions.retrain_after_windows,
            round(actions.retrain_every_days * DAY_US),
            actions.retrain_after_labels,
            actions.retrain_min_labels,
            actions.cooldown_us,
        )

    def step(self, leader: Leader, watermark_us: int, changed: Collection[tuple[str, str]]) -> int:
        """Decide on every model that has a baseline. ``changed``: versions whose labels have changed.

        Returns how many retrainings it asked for.
        """
        for model, _ in changed:
            self._labels.pop(model, None)
        if self._clock() < self._next_at and watermark_us < END_OF_TIME_US:
            return 0
        stored = self._store.actions.retrainings()
        requested = 0
        for model, (version, activated_us, newest) in sorted(self._in_use().items()):
            requested += self._decide(leader, model, version, activated_us, newest, stored.get(model))
        self._next_at = self._clock() + EVERY_S
        return requested

    def _in_use(self) -> dict[str, tuple[str, int, StoredScore | None]]:
        """Of each model the version to judge: that with the newest window; without any, the one activated last."""
        found: dict[str, tuple[tuple[int, int], tuple[str, int, StoredScore | None]]] = {}
        for (model, version), entry in self._store.active_baselines().items():
            newest = newest_window(self._store, self._settings, model, version)
            rank = (-1 if newest is None else newest.start_us, entry.activated_us)
            if model not in found or rank > found[model][0]:
                found[model] = rank, (version, entry.activated_us, newest)
        return {model: one for model, (_, one) in found.items()}

    def _decide(
        self,
        leader: Leader,
        model: str,
        version: str,
        activated_us: int,
        newest: StoredScore | None,
        stored: RetrainRow | None,
    ) -> int:
        now_us = self._wall_us()
        requested_us = None if stored is None else stored.requested_us
        count = self._rules.after_windows + SLACK
        windows = [] if newest is None else recent_windows(self._store, newest, count)
        facts = Facts(
            now_us, [_fact(one) for one in windows], requested_us, activated_us, self._ready(model, requested_us)
        )
        decision = retrain(self._rules, facts)
        shown = shown_decision(decision, version, facts.labels, self._rules.min_labels)
        if decision.state == "request":
            action = self._request(model, version, decision, facts, newest)
            shown["id"] = action.id
            row = RetrainRow(model, now_us, now_us, msgspec.json.encode(shown))
            self._labels.pop(model, None)
            if not leader.record_retrain(row, self._publish(action), cooldown_us=self._rules.cooldown_us):
                log.info("model %s: somebody else has just requested its retraining", model)
                return 0
            log.warning("model %s: retraining requested: %s", model, "; ".join(one.text for one in decision.reasons))
            return 1
        payload = msgspec.json.encode(shown)
        if stored is None or stored.payload != payload:
            leader.record_retrain(RetrainRow(model, None, now_us, payload))
        return 0

    def _request(
        self, model: str, version: str, decision: Decision, facts: Facts, newest: StoredScore | None
    ) -> Action:
        since_us = facts.in_use_since_us if facts.requested_us is None else facts.requested_us
        evidence: dict[str, Any] = evidence_of(self._store, self._settings, model, version, newest)
        if newest is None:
            evidence["window"] = {"start": to_text(since_us), "end": to_text(facts.now_us)}
        evidence["typical_samples"] = evidence["samples"]
        evidence["samples"] = labelled_samples(self._store, model, -1 if facts.requested_us is None else since_us)
        evidence["labels"] = {
            "since": None if facts.requested_us is None else to_text(since_us),
            "ready": facts.labels,
            "needed": self._rules.min_labels,
            "missing": 0,
        }
        evidence["rules"] = asdict(self._rules)
        page = self._page(model, version, evidence["window"]["start"])
        reasons = [asdict(one) for one in decision.reasons]
        since = f"{'activated' if facts.requested_us is None else 'requested'} {to_text(since_us)}"
        return retrain_requested(model, version, since, reasons, evidence, page)

    def _ready(self, model: str, requested_us: int | None) -> int:
        since_us = -1 if requested_us is None else requested_us
        known = self._labels.get(model)
        if known is None or known[0] != since_us:
            known = since_us, self._store.actions.labels_ready(model, since_us)
            self._labels[model] = known
        return known[1]


def shown_decision(decision: Decision, version: str, ready: int, needed: int) -> dict[str, Any]:
    """A decision as ``segwatch status --json`` shows it."""
    return {
        "version": version,
        "state": "requested" if decision.state == "request" else decision.state,
        "reasons": [asdict(one) for one in decision.reasons],
        "labels_ready": ready,
        "labels_needed": needed,
        "labels_missing": decision.missing,
        "cools_until": None if decision.until_us is None else to_text(decision.until_us),
    }


def _fact(one: StoredScore) -> WindowFact:
    return WindowFact(one.start_us, one.alarm, msgspec.json.decode(one.payload).get("harm") or "unknown")
