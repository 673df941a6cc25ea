"""Read model of ``segwatch status``: per model, how things stand."""

from __future__ import annotations

import json
from typing import Any

from monitor.actions_view import open_actions
from monitor.budgets import NOT_ASKED, Budget, Found
from monitor.store.store import Store
from monitor.store.values import EarlyReading
from monitor.tallies import RECORDS
from monitor.windows import to_text


def status(store: Store, now_us: int, kept: Found = NOT_ASKED) -> dict[str, Any]:
    """Models with their records, lag, last windows and open actions, ready for JSON. Documented in docs/commands.md.

    ``kept``: the error budgets as Prometheus keeps them.
    """
    partitions: list[dict[str, Any]] = [
        {
            "topic": progress.partition.topic,
            "partition": progress.partition.number,
            "offset": progress.next_offset,
            "lag_records": max(0, progress.end_offset - progress.next_offset),
            "caught_up": progress.caught_up_at_us is not None,
            "seen_seconds_ago": round(max(0, now_us - progress.updated_at_us) / 1e6, 1),
        }
        for progress in store.partition_progress()
    ]
    outcomes: dict[tuple[str, str], dict[str, int]] = {}
    for key, count in store.read_tallies().items():
        if key.series == RECORDS:
            outcomes.setdefault((key.model, key.version), {})[key.label] = count
    active = store.active_baselines()
    windows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for score in store.latest_scores():
        windows.setdefault((score.model, score.version), []).append(json.loads(score.payload))
    quality = {(one.model, one.version): json.loads(one.payload)["classes"] for one in store.quality()}
    asked = open_actions(store, now_us)
    tests = {(one.model, one.version, one.baseline_id): one for one in store.early_readings()}
    models = []
    for model, version in sorted((set(outcomes) | set(active) | set(windows)) - {("", "")}):
        entry = active.get((model, version))
        test = tests.get((model, version, entry.meta.id)) if entry else None
        models.append(
            {
                "model": model,
                "version": version,
                "baseline": entry.meta.id if entry else None,
                "baseline_created": to_text(entry.meta.created_us) if entry else None,
                "records": outcomes.get((model, version), {}),
                "windows": sorted(windows.get((model, version), []), key=lambda w: (w["slice"] or "", w["start"])),
                "early": _early(test) if test else None,
                "quality": quality.get((model, version), []),
                "budgets": [_budget(one) for one in kept.budgets if _is_of(one, model, version)],
                "open_actions": asked.get((model, version), []),
            }
        )
    return {
        "models": models,
        "unattributed": outcomes.get(("", ""), {}),
        "budgets": [_budget(one) for one in kept.budgets if not one.place.model],
        "budgets_unknown": kept.why or None,
        "partitions": partitions,
        "lag_records": sum(partition["lag_records"] for partition in partitions),
        "outbox_pending": store.outbox_pending(),
        "relabel": [
            {
                "model": model,
                "open": queue.open,
                "claimed": queue.claimed,
                "oldest": None if queue.oldest_us is None else to_text(queue.oldest_us),
            }
            for model, queue in sorted(store.relabel_backlog(now_us).items())
        ],
        "annotation_jobs": _jobs(store, now_us),
    }


def _is_of(budget: Budget, model: str, version: str) -> bool:
    return budget.place.model == model and budget.place.version in ("", version)


def _budget(one: Budget) -> dict[str, Any]:
    return {
        "slo": one.place.slo,
        "class": one.place.class_name or None,
        "period": one.period,
        "objective": one.objective,
        "good": one.good,
        "left": one.left,
        "burn_rates": dict(one.burns.values()),
    }


def _jobs(store: Store, now_us: int) -> dict[str, Any]:
    counts = store.annotation_jobs.counts()
    waiting, oldest_us = counts.get("waiting", (0, now_us))
    return {
        "waiting": waiting,
        "waiting_seconds": round(max(0, now_us - oldest_us) / 1e6, 1) if waiting else None,
        "refused": counts.get("refused", (0, 0))[0],
    }


def _early(test: EarlyReading) -> dict[str, Any]:
    return {
        "until": to_text(test.fed_until_us),
        "records": test.records,
        "evidence": test.evidence,
        "run_length": test.run_length,
        "alarm": test.alarm,
        "last_alarm": json.loads(test.last_alarm) if test.last_alarm else None,
    }
