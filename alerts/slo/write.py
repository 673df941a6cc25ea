"""From an SLO back to what its file says: ``parse(to_dict(slo))`` is the SLO again."""

from __future__ import annotations

from typing import Any

from alerts.slo.parse import KINDS
from alerts.slo.promql import duration
from alerts.slo.spec import (
    DAY_S,
    ClassIou,
    Confidence,
    CostPerInference,
    DriftFreeTime,
    FalsePositives,
    Freshness,
    Latency,
    Ratio,
    Slo,
    Tier,
)
from alerts.slo.windows import TIERS


def to_dict(slo: Slo) -> dict[str, Any]:
    """The SLO as a file has it; fields that have their usual value are left out.

    >>> from alerts.slo.spec import Availability
    >>> to_dict(Slo("a", "availability", Availability(), 0.99, "ops", tiers=TIERS))
    {'name': 'a', 'kind': 'availability', 'objective': 0.99}
    """
    usual = KINDS[slo.kind][0]
    fields = {
        "name": slo.name,
        "kind": slo.kind,
        "description": slo.description,
        "category": slo.category if slo.category != usual else "",
        "model": slo.model,
        "version": slo.version,
        "classes": list(slo.classes),
        **_source(slo),
        "objective": slo.objective,
        "period": duration(slo.period_s) if slo.period_s != 30 * DAY_S else "",
        "events_per_hour": slo.events_per_hour,
        "guard": None if slo.guard else False,
        "min_events": slo.min_events if slo.min_events != 6 else None,
        "design_effect": slo.design_effect,
        "hold": None if slo.hold else False,
        "unreachable": slo.unreachable if slo.unreachable != "rescale" else "",
        "blind_after": duration(slo.blind_after_s) if slo.blind_after_s != DAY_S else "",
        "windows": [_window(tier) for tier in slo.tiers] if slo.tiers != TIERS else [],
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def _source(slo: Slo) -> dict[str, Any]:
    source = slo.source
    if isinstance(source, Latency):
        return {"seconds": source.seconds}
    if isinstance(source, ClassIou):
        return {"iou": source.iou}
    if isinstance(source, FalsePositives):
        return {"limit": source.limit}
    if isinstance(source, Confidence):
        return {"score": source.score}
    if isinstance(source, Freshness):
        return {"of": source.of, "max_age": duration(source.max_age_s)}
    if isinstance(source, DriftFreeTime):
        return {"signals": list(source.signals)}
    if isinstance(source, CostPerInference):
        return {"limit_usd": source.limit_usd}
    if isinstance(source, Ratio):
        return {"total": source.total, "good": source.good, "bad": source.bad}
    return {}


def _window(tier: Tier) -> dict[str, Any]:
    fields = {
        "notify": tier.notify,
        "long": duration(tier.long_s),
        "short": duration(tier.short_s),
        "factor": tier.factor,
    }
    return fields if tier.critical_budget is None else {**fields, "critical_budget": tier.critical_budget}
