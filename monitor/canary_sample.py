"""Which inputs that two versions have seen are looked at without labels: a few of many, the same whoever asks.

There are as many shared inputs as there was traffic, and samples can be found by their times alone. So where there are
many, the records of some panes are looked at: panes in the order of a hash of their starts, and of what is there the
inputs with the smallest hashes. What that costs does not grow with how long a canary runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from monitor.store.canary import Seen, SharedInput
from monitor.store.store import Store

MOST_COMPARED = 300
"""Inputs whose masks are compared."""
MOST_LOOKED_AT = 5_000
"""Records of the canary among which they are chosen."""
MOST_PASSED = 100_000
"""Records of both versions that are passed on the way, where the canary sees little of the traffic."""
MOST_PANES = 300

Spans = list[tuple[int, int]]


def chosen_inputs(store: Store, seen: Seen, pane_us: int, keep_us: int) -> list[SharedInput]:
    """At most `MOST_COMPARED` of the inputs that both versions have masks of, in order of time.

    ``keep_us``: for how long masks are kept; panes that are older than the canary's last by more have none.
    """
    stable, own = (
        {
            start_us: count
            for _, start_us, count in store.pane_counts(
                seen.model,
                version,
                since_us=None if seen.since_us is None else seen.since_us - pane_us + 1,
                until_us=seen.until_us,
            )
        }
        for version in seen.versions
    )
    oldest_us = max(own, default=0) - keep_us
    own = {start_us: count for start_us, count in own.items() if start_us >= oldest_us}
    found = store.canaries.shared(seen, spans(stable, own, pane_us))
    ranked = sorted(found, key=lambda one: hashlib.sha256(one.input_id.encode()).digest())
    return sorted(ranked[:MOST_COMPARED], key=lambda one: (one.event_time_us, one.input_id))


def spans(stable: Mapping[int, int], own: Mapping[int, int], pane_us: int) -> Spans:
    """Times [since, until) whose records are looked at; given each version's records by pane.

    >>> spans({0: 5, 10: 5}, {0: 5, 10: 2}, 10)
    [(0, 20)]
    >>> len(spans({start: 1000 for start in range(0, 1000, 10)}, {start: 500 for start in range(0, 1000, 10)}, 10))
    10
    """
    passed = {start_us: count + stable.get(start_us, 0) for start_us, count in own.items()}
    if not own:
        return []
    if sum(own.values()) <= MOST_LOOKED_AT and sum(passed.values()) <= MOST_PASSED and len(own) <= MOST_PANES:
        return [(min(own), max(own) + pane_us)]
    chosen: Spans = []
    looked_at = gone_by = 0
    for start_us in sorted(own, key=lambda start_us: hashlib.sha256(str(start_us).encode()).digest()):
        if looked_at >= MOST_LOOKED_AT or gone_by >= MOST_PASSED or len(chosen) >= MOST_PANES:
            break
        chosen.append((start_us, start_us + pane_us))
        looked_at += own[start_us]
        gone_by += passed[start_us]
    return chosen
