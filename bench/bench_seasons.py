"""Seasonal and rolling baselines, and how a budget is spent: the figures in docs/drift.md, from simulated traffic.

    python -m bench.bench_seasons learning|months|power|rolling|spending [--runs N]

Columns stand in four signals, as of a small model. A daily rhythm moves brightness, two components and the share of a
class, up by day and down by night. All is seeded.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.calendar import HOUR_US
from detectors.layout import Layout
from detectors.rolling import score_rolling
from detectors.score import score_window
from detectors.statistic import PaneStatistic
from monitor.rolling import MOST_WINDOWS
from monitor.rolling import SHARE as ROLLING_SHARE

LAYOUT = Layout.stacked(
    [
        ("embedding", [f"component_{i}" for i in range(16)]),
        ("input", ["brightness", "contrast", "sharpness", "noise"]),
        ("class_mix", ["car", "person", "bus"]),
        ("confidence", ["mean", "lowest"]),
    ]
)
CAR = LAYOUT.column("class_mix", "car")
BRIGHTNESS = LAYOUT.column("input", "brightness")
FROZEN_ALPHA = 0.8 / 720
"""Of an hourly window: one false alarm in 30 days less early detection's fifth, one length, no slices."""
PANES = 12


@dataclass(frozen=True)
class Traffic:
    """What records are like."""

    rhythm: float = 0.0
    """Amplitude in standard deviations."""
    per_hour: int = 60
    frames: int = 1
    """Records of one sequence; more than one: AR(1) 0.9 within it."""
    weather: float = 0.0
    """Standard deviation of a shift of all records of an hour, AR(1) 0.9 from hour to hour, of no rhythm."""
    night_share: float = 1.0
    """Records of a night's hour for one of a day's."""

    def make(
        self, rng: np.random.Generator, days: float, first_hour: int = 0
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], list[str]]:
        """Values (N, D), times (N,) and sequences of so many days."""
        hours = round(days * 24)
        clock = (first_hour + np.arange(hours)) % 24
        many = rng.poisson(self.per_hour * np.where((clock < 6) | (clock >= 20), self.night_share, 1.0) / self.frames)
        starts = np.repeat(np.arange(hours), many) * HOUR_US + rng.integers(0, HOUR_US, many.sum())
        starts.sort()
        times = (starts[:, None] + np.arange(self.frames) * 1_000_000).reshape(-1) + first_hour * HOUR_US
        width = LAYOUT.width
        values = rng.normal(size=(len(starts), self.frames, width))
        for frame in range(1, self.frames):
            values[:, frame] = 0.9 * values[:, frame - 1] + np.sqrt(1 - 0.81) * values[:, frame]
        values = values.reshape(-1, width)
        if self.weather:
            level = rng.normal(size=hours + 1)
            for hour in range(1, hours + 1):
                level[hour] = 0.9 * level[hour - 1] + np.sqrt(1 - 0.81) * level[hour]
            values[:, BRIGHTNESS] += self.weather * level[times // HOUR_US - first_hour]
        swing = self.rhythm * np.sin(2 * np.pi * (times / HOUR_US - 9) / 24)
        values[:, BRIGHTNESS] += swing
        values[:, 0] += swing / 2
        values[:, 1] -= swing / 4
        values[:, CAR] = values[:, CAR] + swing / 2 > 0.5
        owner = np.repeat(np.arange(len(starts)), self.frames)
        names = [f"s{first_hour}-{one}" if self.frames > 1 else "" for one in owner.tolist()]
        return values, times, names


def baseline_of(traffic: Traffic, rng: np.random.Generator, days: int, seasons: bool = True) -> BaselineStatistic:
    values, times, names = traffic.make(rng, days)
    return BaselineStatistic.fit(LAYOUT, values, names, times_us=times if seasons else None)


def hour_of(
    baseline: BaselineStatistic, traffic: Traffic, rng: np.random.Generator, hour: int, shift: NDArray[np.float64]
) -> list[PaneStatistic]:
    """The panes of one hour."""
    values, times, names = traffic.make(rng, 1 / 24, hour)
    codes = baseline.binning.codes(values + shift)
    number = np.minimum((times - hour * HOUR_US) * PANES // HOUR_US, PANES - 1)
    panes = []
    for pane in range(PANES):
        at = np.flatnonzero(number == pane)
        panes.append(PaneStatistic(LAYOUT.width, baseline.binning.bins))
        panes[-1].add(codes[at], [names[i] for i in at.tolist()])
    return panes


def season_of(baseline: BaselineStatistic, hour: int, records: int) -> BaselineStatistic | None:
    seasons = baseline.seasons
    if seasons is None or seasons.rhythm.calendar is None:
        return baseline
    inside = [0] * (seasons.rhythm.calendar.parts + 1)
    inside[int(seasons.rhythm.calendar.of(np.array([hour * HOUR_US]))[0])] = records
    mixture = seasons.mixture(inside)
    return None if mixture is None else baseline.in_season(mixture)


def learning(runs: int) -> dict[str, Any]:
    """How often a rhythm is learnt from data without any."""
    cases = {
        "single records, 14 days": (Traffic(), 14),
        "single records, 28 days, few by night": (Traffic(night_share=0.2), 28),
        "sequences of 20, AR 0.9, 14 days": (Traffic(frames=20), 14),
        "hours that drift, sd 0.5, 14 days": (Traffic(weather=0.5), 14),
        "hours that drift, sd 0.5, 28 days": (Traffic(weather=0.5), 28),
        "hours that drift, sd 0.5, 7 days": (Traffic(weather=0.5), 7),
    }
    found: dict[str, Any] = {}
    for name, (traffic, days) in cases.items():
        learnt = 0
        for run in range(runs):
            seasons = baseline_of(traffic, np.random.default_rng([run, days]), days).seasons
            learnt += seasons is not None and seasons.rhythm.calendar is not None
        found[name] = {"runs": runs, "learnt": learnt}
        print(name, found[name], flush=True)
    return found


def months(runs: int) -> dict[str, Any]:
    """False alarms in 720 hourly windows with seasons; without them, on the same records of the first month."""
    cases = {
        "rhythm 1 sigma, 14 days": (Traffic(rhythm=1.0), 14),
        "rhythm 1 sigma, 28 days": (Traffic(rhythm=1.0), 28),
        "rhythm 0.5 sigma, 14 days": (Traffic(rhythm=0.5), 14),
        "rhythm 1 sigma, 7 days": (Traffic(rhythm=1.0), 7),
        "no rhythm, 14 days": (Traffic(), 14),
        "rhythm 1 sigma, 28 days, sequences of 6": (Traffic(rhythm=1.0, frames=6, per_hour=120), 28),
    }
    found: dict[str, Any] = {}
    for name, (traffic, days) in cases.items():
        found[name] = of_months(traffic, days, runs)
        print(name, found[name], flush=True)
    return found


def of_months(traffic: Traffic, days: int, runs: int) -> dict[str, Any]:
    """Figures of as many months of one kind of traffic, each with a baseline of its own."""
    alarms, parts, cried = np.zeros((runs, 2)), [], np.zeros(720, dtype=np.bool_)
    for run in range(runs):
        rng = np.random.default_rng([run, days, 7])
        baseline = baseline_of(traffic, rng, days)
        seasons = baseline.seasons
        parts.append(seasons.rhythm.calendar.parts if seasons and seasons.rhythm.calendar else 1)
        for hour in range(720):
            window = PaneStatistic.merged(hour_of(baseline, traffic, rng, hour, np.zeros(LAYOUT.width)))
            own = season_of(baseline, hour, window.records)
            if own is not None:
                alarms[run] += alarmed(own, window)
            if run == 0:
                cried[hour] = alarmed(baseline, window)[0]
    return {
        "months": runs,
        "parts": float(np.mean(parts)),
        "alarms a month": float(alarms[:, 0].mean()),
        "standard error": float(alarms[:, 0].std() / np.sqrt(runs)),
        "share of windows at 1 %": float(alarms[:, 1].mean() / 720),
        "without seasons": int(cried.sum()),
        "days with an alarm without seasons": int(cried.reshape(30, 24).any(1).sum()),
    }


def alarmed(baseline: BaselineStatistic, window: PaneStatistic) -> tuple[bool, bool]:
    """Whether a window alarms at its share of the budget, and at 1 %."""
    score = score_window(baseline, window, 0.01)
    share = FROZEN_ALPHA / len(LAYOUT.signals)
    strict = any(one.alarm and one.p_value is not None and one.p_value <= share for one in score.scores)
    return strict, score.alarm


def power(runs: int) -> dict[str, Any]:
    """Alarms for a shift at 03:00, of a baseline with a rhythm, and of as many records without one."""
    found: dict[str, Any] = {}
    for days in (7, 14, 28):
        for column, size in ((BRIGHTNESS, 0.5), (5, 0.5), (5, 0.75), (5, 1.0)):
            shift = np.zeros(LAYOUT.width)
            shift[column] = size
            alarms = np.zeros((3, runs))
            for kind, traffic in enumerate((Traffic(rhythm=1.0), Traffic(rhythm=1.0), Traffic())):
                rng = np.random.default_rng([days, 3])
                baseline = baseline_of(traffic, rng, days, seasons=kind < 1)
                for run in range(runs):
                    window = PaneStatistic.merged(hour_of(baseline, traffic, rng, 24 * run + 3, shift))
                    own = season_of(baseline, 24 * run + 3, window.records)
                    alarms[kind, run] = own is not None and score_window(own, window, FROZEN_ALPHA).alarm
            name = f"{size} sigma in {'brightness' if column == BRIGHTNESS else 'a column without rhythm'}, {days} days"
            shares = alarms.mean(1).tolist()
            found[name] = dict(zip(("seasons", "rhythm, no seasons", "no rhythm"), shares, strict=True))
            print(name, found[name], flush=True)
    return found


def rolling(runs: int) -> dict[str, Any]:
    """The windows' verdicts against the last seven days, hour by hour, as the evaluator goes about it."""
    quiet, ramp, step, twice = (
        lambda day: 0.0,
        lambda day: 0.02 * day,
        lambda day: 0.75 * (day >= 15),
        lambda day: 0.75 * (day >= 10) + 0.75 * (day >= 20),
    )
    cases: dict[str, tuple[Traffic, Callable[[float], float], int]] = {
        "no drift": (Traffic(), quiet, runs),
        "no drift, sequences of 10, AR 0.9": (Traffic(frames=10, per_hour=120), quiet, runs),
        "0.02 sigma a day in all columns": (Traffic(), ramp, max(1, runs // 4)),
        "0.75 sigma on day 15": (Traffic(), step, max(1, runs // 4)),
        "0.75 sigma on day 10, again on day 20": (Traffic(), twice, max(1, runs // 4)),
    }
    found: dict[str, Any] = {}
    for name, (traffic, drift, times) in cases.items():
        first_days = {"frozen": [], "rolling": []}  # type: dict[str, list[float]]
        by_day = np.zeros((2, 30))
        seconds = 0.0
        for run in range(times):
            rng = np.random.default_rng([run, 11])
            baseline = baseline_of(traffic, rng, 14)
            history: list[tuple[bool, list[PaneStatistic]]] = []
            first: dict[str, float] = {}
            for hour in range(720):
                columns = slice(None) if name.startswith("0.02") else slice(5, 6)
                shift = np.zeros(LAYOUT.width)
                shift[columns] = drift(hour / 24)
                shift[CAR] = 0
                panes = hour_of(baseline, traffic, rng, hour, shift)
                frozen = score_window(baseline, PaneStatistic.merged(panes), FROZEN_ALPHA * (1 - ROLLING_SHARE)).alarm
                earlier = history[max(0, hour - 169) : max(0, hour - 1)]
                alarmed = sum(one for one, _ in earlier) * 2 > len(earlier)
                alike = [parts for one, parts in earlier if one == alarmed]
                pick = np.sort(rng.permutation(len(alike))[:MOST_WINDOWS])
                began = time.perf_counter()
                lately = score_rolling(baseline, panes, [alike[i] for i in pick], FROZEN_ALPHA * ROLLING_SHARE).alarm
                seconds += time.perf_counter() - began
                history.append((frozen, panes))
                for index, (kind, alarm) in enumerate((("frozen", frozen), ("rolling", lately))):
                    by_day[index, hour // 24] += alarm
                    if alarm:
                        first.setdefault(kind, hour / 24)
            for kind, day in first.items():
                first_days[kind].append(day)
        found[name] = {
            "months": times,
            "frozen alarms a month": float(by_day[0].sum() / times),
            "rolling alarms a month": float(by_day[1].sum() / times),
            "frozen by day": (by_day[0] / times).round(1).tolist(),
            "rolling by day": (by_day[1] / times).round(1).tolist(),
            "first day, median": {kind: float(np.median(days)) if days else None for kind, days in first_days.items()},
            "seconds a verdict": round(seconds / times / 720, 3),
        }
        print(name, found[name], flush=True)
    return found


def spending(runs: int) -> dict[str, Any]:
    """Ways to spend one false alarm in 30 days on 720 hourly tests of 8 signals, one of which shifts on a day.

    Evidence of a signal is normal with mean ``effect`` after the shift. Linear: every test has the same share. e-LOND
    (Xu and Ramdas, "Online multiple testing with e-values", 2024) rejects where E >= 1 / alpha_t with
    ``alpha_t = level * gamma_t (1 + rejections before)``, gamma_t ~ 1 / (t log(t + 1)^2): over signals e-values are
    averaged, as they may depend on each other. Each signal's e-value is a likelihood ratio, the best there is where the
    effect is known beforehand ("oracle"), or comes from its p-value, ``E = 1 / (2 sqrt(p))``; "even": gamma_t alike.
    """
    from scipy.stats import norm

    steps = np.arange(1, 721)
    gamma = 1 / (steps * np.log(steps + 1) ** 2)
    gamma /= gamma.sum()
    found: dict[str, Any] = {}
    for effect in (0.0, 3.0, 4.0, 5.0, 6.0):
        for day in (1, 15, 29):
            counts = dict.fromkeys(("linear", "e-LOND, from p", "e-LOND, oracle", "e-LOND, oracle, even"), 0)
            delays: dict[str, list[float]] = {name: [] for name in counts}
            rng = np.random.default_rng([day, round(10 * effect)])
            for _ in range(runs):
                z = rng.normal(size=(720, 8))
                z[24 * day :, 0] += effect
                p = norm.sf(z)
                known = effect or 4.0
                values = {
                    "e-LOND, from p": (0.5 / np.sqrt(p)).mean(1),
                    "e-LOND, oracle": np.exp(known * z - known**2 / 2).mean(1),
                }
                values["e-LOND, oracle, even"] = values["e-LOND, oracle"]
                alarms = {"linear": p.min(1) <= 1 / 720 / 8}
                for name, e in values.items():
                    alarms[name] = np.zeros(720, dtype=np.bool_)
                    share = np.full(720, 1 / 720) if name.endswith("even") else gamma
                    for t in range(720):
                        alarms[name][t] = e[t] >= 1 / (share[t] * (1 + alarms[name][:t].sum()))
                for name, hits in alarms.items():
                    counts[name] += int(hits.sum() if not effect else hits[: 24 * day].sum())
                    after = np.flatnonzero(hits[24 * day :])
                    delays[name].append(float(after[0] + 1) if len(after) else np.inf)
            key = f"shift of {effect:g} on day {day}" if effect else f"no shift ({day})"
            found[key] = {
                name: {
                    "false alarms a month": counts[name] / runs,
                    "found within a day": float(np.mean(np.array(delays[name]) <= 24)) if effect else None,
                    "median delay, hours": float(np.median(delays[name])) if effect else None,
                }
                for name in counts
            }
            print(key, found[key], flush=True)
    return found


PARTS = {"learning": learning, "months": months, "power": power, "rolling": rolling, "spending": spending}
RUNS = {"learning": 200, "months": 20, "power": 200, "rolling": 8, "spending": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--runs", type=int)
    asked = parser.parse_args()
    print(json.dumps(PARTS[asked.part](asked.runs or RUNS[asked.part]), indent=1))


if __name__ == "__main__":
    main()
