"""The days of the full loop: how many hours, what is asked of segwatch, and when the light goes down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from monitor.demo.traffic import TrafficPlan

MODEL, OLD, NEW = "digits", "1", "2"
START = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """What happens, hour by hour; hours are counted from ``start``."""

    start: datetime = START
    corruption: str = "darkness"
    strength: int = 2
    seed: int = 1
    records_per_hour: int = 120
    frames: int = 4
    """Of a sequence: they are much alike, so that the more there are, the less each label tells."""
    baseline_hours: int = 12
    calm_hours: int = 4
    most_shifted_hours: int = 8
    """Without a request to retrain until then the demo has failed."""
    most_canary_hours: int = 8
    """Without a verdict until then, too."""
    after_hours: int = 3
    training_steps: int = 120

    def at(self, hour: int) -> datetime:
        """When an hour begins."""
        return self.start + timedelta(hours=hour)

    def baseline(self) -> TrafficPlan:
        """Of the day before, in which all was well."""
        return self._traffic(self.at(-24), self.baseline_hours, -1, None)

    def hour(self, number: int) -> TrafficPlan:
        """One hour's traffic; the shift stays once it is there."""
        start = self.at(number)
        return self._traffic(start, 1, number, start if number >= self.calm_hours else None)

    def _traffic(self, start: datetime, hours: int, number: int, shift_at: datetime | None) -> TrafficPlan:
        return TrafficPlan(
            start=start,
            hours=hours,
            records_per_hour=self.records_per_hour,
            shift_at=shift_at,
            corruption=self.corruption,
            strength=self.strength,
            seed=1000 * self.seed + number + 1,
            model=MODEL,
            frames=self.frames,
        )


def settings_of(plan: LoopPlan, folder: str) -> dict[str, Any]:
    """segwatch's settings for the loop; all that is not here is as it comes."""
    return {
        "data_dir": folder,
        "windows": {"lengths_seconds": [3600]},
        "embedding": {"backbone": "segmenter", "input_size": 128},
        "log": {"level": "error"},
        # The demo's days are fixed: none of them is ever too old to be looked at, or to be labelled today.
        "store": {"retention_days": 36_500},
        "quality": {
            "keep_masks_days": 36_500,
            "join_days": 36_500,
            "spot_checks_per_day": plan.records_per_hour * 24 / 5,
        },
        "samples": {"keep_images_days": 36_500, "max_per_day": 0},
        "relabel": {"budget_per_day": 2 * plan.records_per_hour, "drift_share": 0.4, "quality_share": 0.2},
        "canary": {"automatic": True},
        # Of the calm hours, too: so many labels that a good part of them is of the shift.
        "actions": {"retrain_min_labels": 250},
    }
