"""Latency, cost and failures of two versions, from the totals of all their records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from detectors.canary.histogram import Compared, Histogram, compare_means, compare_quantile, compare_shares
from monitor.tallies import COST_NANO_USD, LATENCY_BUCKET, LATENCY_BUCKETS, LATENCY_SUM_US, RECORDS, TallyKey

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def operations(tallies: Mapping[TallyKey, int], model: str, versions: tuple[str, str]) -> dict[str, Any]:
    """``latency`` in seconds, ``cost`` in US dollars a record, ``failures`` as a share of records."""
    stable, canary = (_latency(tallies, model, version) for version in versions)
    outcomes = [_outcomes(tallies, model, version) for version in versions]
    cost = [_cost(tallies, model, version, count) for version, (_, count) in zip(versions, outcomes, strict=True)]
    known = cost[0] is not None and cost[1] is not None
    return {
        "latency": {
            "records": {"stable": stable.size, "canary": canary.size},
            "mean": asdict(compare_means(stable, canary)),
            **{name: asdict(compare_quantile(stable, canary, share)) for name, share in QUANTILES.items()},
        },
        "cost": asdict(Compared(cost[0], cost[1], cost[1] - cost[0] if known else None, None, None)),  # type: ignore[operator]
        "failures": asdict(compare_shares(outcomes[0], outcomes[1])),
    }


def _latency(tallies: Mapping[TallyKey, int], model: str, version: str) -> Histogram:
    buckets = range(len(LATENCY_BUCKETS) + 1)
    counts = [tallies.get(TallyKey(LATENCY_BUCKET, model, version, "", index), 0) for index in buckets]
    total = tallies.get(TallyKey(LATENCY_SUM_US, model, version, "", 0), 0)
    return Histogram(np.array(counts, np.int64), LATENCY_BUCKETS, total / 1e6)


def _outcomes(tallies: Mapping[TallyKey, int], model: str, version: str) -> tuple[int, int]:
    """Failed records, and those counted at all."""
    good, failed = (tallies.get(TallyKey(RECORDS, model, version, outcome, 0), 0) for outcome in ("ok", "failed"))
    return failed, good + failed


def _cost(tallies: Mapping[TallyKey, int], model: str, version: str, records: int) -> float | None:
    """None where no record said what it cost: a sum of 0 says just that."""
    total = tallies.get(TallyKey(COST_NANO_USD, model, version, "", 0), 0)
    return total / 1e9 / records if total and records else None
