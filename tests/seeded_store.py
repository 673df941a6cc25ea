"""A small store with a little of everything, for tests of what is shown of it."""

from __future__ import annotations

import msgspec

from monitor.sources.protocol import Partition
from monitor.store.store import Store
from monitor.store.values import Advance, EarlyAlarm, EarlyState, PaneDelta, PaneKey, ScoreRow
from monitor.tallies import (
    CONFIDENCE_BUCKET,
    CONFIDENCE_SUM_MICRO,
    COST_NANO_USD,
    DEAD_LETTER,
    DROPPED,
    LAST_EVENT_US,
    LATENCY_BUCKET,
    LATENCY_SUM_US,
    RECORDS,
    TallyKey,
)
from monitor.windows import SECOND_US, to_text

HOUR_US = 3600 * SECOND_US
NOW_US = 1_795_395_600 * SECOND_US
"""A full hour."""
HOSTILE = 'cam"7\\\n<script>alert(1)</script>'
"""A slice's value, as a record may bring it."""

PREDICTIONS = Partition("cluster", "id-1", "segwatch.predictions", 0)


def seed(store: Store) -> None:
    """Model street: version 3 with a baseline, two scored hours and a slice; version 4 without a baseline."""
    baseline = store.add_baseline(
        "street",
        "3",
        format_version=1,
        meta={"records": 900, "classes": ["car", "person"], "embedding": "efficientnet_lite0"},
        payload=b"payload",
    )
    store.activate(baseline)
    counts = {
        TallyKey(RECORDS, "street", "3", "ok", 0): 7,
        TallyKey(RECORDS, "street", "3", "duplicate", 0): 2,
        TallyKey(RECORDS, "street", "4", "ok", 0): 1,
        TallyKey(RECORDS, "", "", "dead_letter", 0): 1,
        TallyKey(RECORDS, "", "", "dropped", 0): 5,
        TallyKey(DEAD_LETTER, "", "", "not_json", 0): 1,
        TallyKey(DROPPED, "", "", "retention", 0): 5,
        TallyKey(LATENCY_BUCKET, "street", "3", "", 4): 6,
        TallyKey(LATENCY_BUCKET, "street", "3", "", 11): 1,
        TallyKey(LATENCY_SUM_US, "street", "3", "", 0): 60_500_000,
        TallyKey(COST_NANO_USD, "street", "3", "", 0): 1_470_000,
        TallyKey(CONFIDENCE_BUCKET, "street", "3", "car", 9): 3,
        TallyKey(CONFIDENCE_SUM_MICRO, "street", "3", "car", 0): 2_850_000,
        TallyKey(LAST_EVENT_US, "street", "3", "", 0): NOW_US - 30 * SECOND_US,
    }
    panes = {
        PaneKey("street", "3", slice_key, start_us, baseline): PaneDelta(5, b"state")
        for slice_key in ("", f"camera={HOSTILE}")
        for start_us in (NOW_US - 2 * HOUR_US, NOW_US - HOUR_US)
    }
    with store.transaction() as tx:
        tx.advance(Advance(PREDICTIONS, None, 16, 20, NOW_US - 30 * SECOND_US, None))
        tx.add_tallies(counts)
        tx.add_panes(panes)
    leader = store.try_lead()
    assert leader is not None
    with leader:
        leader.fold(lambda states: states[0], [HOUR_US], 1000)
        for window in leader.due(NOW_US):
            alarm = window.start_us == NOW_US - HOUR_US
            payload = verdict(window.slice or None, window.start_us, baseline, alarm)
            leader.record_score(window, ScoreRow(5, alarm, msgspec.json.encode(payload), NOW_US))
        at_us = NOW_US - 300 * SECOND_US
        test = EarlyState("street", "3", baseline, NOW_US, 7, 12.5, 43_200.0, True, at_us, b"state")
        leader.record_early(test, [EarlyAlarm(at_us, msgspec.json.encode(early_alarm(at_us)))])


def early_alarm(at_us: int) -> dict[str, object]:
    """An alarm of the sequential test, as it is stored."""
    return {
        "at": to_text(at_us),
        "records": 6,
        "evidence": 50_000.0,
        "run_length": 43_200.0,
        "attribution": [{"signal": "embedding", "share": 1.0}],
    }


def verdict(slice_key: str | None, start_us: int, baseline: str, alarm: bool) -> dict[str, object]:
    """A stored verdict, in the form of ``segwatch drift --json``."""
    return {
        "model": "street",
        "version": "3",
        "slice": slice_key,
        "start": to_text(start_us),
        "end": to_text(start_us + HOUR_US),
        "baseline": baseline,
        "records": 5,
        "sequences": 5,
        "alarm": alarm,
        "harm": "unknown",
        "alpha": 0.001,
        "supported_alpha": 0.0005,
        "status": "alarm" if alarm else "ok",
        "scores": [
            {
                "signal": "embedding",
                "js": 0.31 if alarm else 0.02,
                "kl_nats": 0.7 if alarm else 0.05,
                "p_value": 0.0002 if alarm else 0.4,
                "threshold": 0.11,
                "alarm": alarm,
            },
            {
                "signal": "confidence",
                "js": 0.01,
                "kl_nats": 0.02,
                "p_value": None,
                "threshold": None,
                "alarm": False,
            },
        ],
        "attribution": [{"signal": "embedding", "share": 1.0}] if alarm else [],
    }
