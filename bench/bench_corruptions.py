"""What is detected on images, when, and what it is put down to: the demo's corruptions, each at three strengths.

The real pipeline from records to verdicts: JPEG images, masks of a trained network, EfficientNet-Lite0 or the project's
own network as backbone, hourly windows at their default share of one false alarm in 30 days. Traffic of other seeds
without any corruption gives the false alarms. Scenes, network and baseline are those of the demo; nothing was tuned
on these figures.

    python bench/bench_corruptions.py [--backbone efficientnet_lite0] [--hours 4] [--quiet-hours 48] [--only blur,noise]

Prints a table, and writes bench-results/corruptions.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from bench.rig import write_result
from embeddings.segmenter import load_segmenter
from monitor.baseline import FORMAT_VERSION, Baseline
from monitor.baseline_book import Embedders
from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.traffic import Segment, TrafficPlan, traffic, write_jsonl
from monitor.drift import ScoredWindow
from monitor.offline import make_baseline, replay
from monitor.settings import Settings
from monitor.store.store import Store

START = datetime(2026, 11, 1, tzinfo=UTC)
RECORDS_PER_HOUR = 120
BASELINE_HOURS = 24
MODEL, VERSION = "digits", "1"


class Bench:
    """One baseline, and a fresh store for each stretch of traffic."""

    def __init__(self, folder: Path, backbone: str) -> None:
        self._folder = folder
        self._backbone = backbone
        self._stores = 0
        self._segment: Segment = load_segmenter(threads=1).predict
        settings = self._settings()
        self._embedders = Embedders(settings)
        file = self._write(TrafficPlan(start=START - timedelta(days=2), hours=BASELINE_HOURS, **self._plan(seed=1)))
        with Store.open(settings, write=True) as store:
            _, self._baseline, _ = make_baseline(
                settings, store, [file], model=MODEL, version=VERSION, embedders=self._embedders
            )

    def run(self, plan: TrafficPlan) -> list[ScoredWindow]:
        """The verdicts on a stretch of traffic, all records and slices."""
        settings = self._settings()
        found: list[ScoredWindow] = []
        with Store.open(settings, write=True) as store:
            _activate(store, self._baseline)
            file = self._write(plan)
            replay(settings, [file], store=store, embedders=self._embedders, on_score=found.append)
            file.unlink()
        return found

    def traffic(self, hours: int, seed: int, **shift: Any) -> list[ScoredWindow]:
        return self.run(TrafficPlan(start=START, hours=hours, **self._plan(seed=seed), **shift))

    def _plan(self, seed: int) -> dict[str, Any]:
        return {"records_per_hour": RECORDS_PER_HOUR, "seed": seed, "model": MODEL, "version": VERSION}

    def _write(self, plan: TrafficPlan) -> Path:
        file = self._folder / "records.jsonl"
        write_jsonl(file, traffic(self._segment, plan, 2))
        return file

    def _settings(self) -> Settings:
        self._stores += 1
        embedding: dict[str, Any] = {"backbone": self._backbone}
        if self._backbone == "segmenter":
            embedding["input_size"] = 128
        tree = {
            "data_dir": str(self._folder / str(self._stores)),
            "windows": {"lengths_seconds": [3600]},
            "embedding": embedding,
            "log": {"level": "error"},
        }
        return msgspec.convert(tree, Settings)


def _activate(store: Store, baseline: Baseline) -> None:
    identity = store.add_baseline(
        MODEL, VERSION, format_version=FORMAT_VERSION, meta=baseline.summary(), payload=baseline.to_bytes()
    )
    store.activate(identity)


def summary(windows: list[ScoredWindow]) -> dict[str, Any]:
    """Of the windows of all records: how many alarm, when first, what carries it, and whether it is said to hurt."""
    whole = [one for one in windows if not one.slice]
    alarms = [one for one in whole if one.score is not None and one.score.alarm]
    carried: Counter[str] = Counter()
    for one in alarms:
        assert one.score is not None
        carried.update(dict(one.score.attribution))
    return {
        "windows": len(whole),
        "alarms": len(alarms),
        "delay_windows": whole.index(alarms[0]) + 1 if alarms else None,
        "carried_by": {name: share / len(alarms) for name, share in carried.most_common(3)},
        "columns": [f"{c.signal}: {c.dimension}" for c in alarms[0].score.dimensions[:3]]
        if alarms and alarms[0].score
        else [],
        "harm": dict(Counter(one.harm for one in whole)),
        "slice_windows": len(windows) - len(whole),
        "slice_alarms": sum(one.score is not None and one.score.alarm for one in windows if one.slice),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--backbone", default="efficientnet_lite0", choices=["efficientnet_lite0", "segmenter"])
    parser.add_argument("--hours", type=int, default=4, help="hourly windows of each corruption and strength")
    parser.add_argument("--quiet-hours", type=int, default=48, help="hourly windows without any")
    parser.add_argument("--only", default="", help="corruptions, separated by commas")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(CORRUPTIONS)
    result: dict[str, Any] = {"backbone": options.backbone, "records_per_hour": RECORDS_PER_HOUR}
    with tempfile.TemporaryDirectory(prefix="segwatch-bench-") as folder:
        bench = Bench(Path(folder), options.backbone)
        quiet = summary(bench.traffic(options.quiet_hours, seed=2))
        result["untouched"] = quiet
        print(
            f"untouched traffic: {quiet['alarms']} alarms in {quiet['windows']} windows,"
            f" {quiet['slice_alarms']} in {quiet['slice_windows']} windows of slices; harm {quiet['harm']}"
        )
        print(f"{'corruption':<16} {'strength':>8} {'alarms':>7} {'delay':>6}  carried by")
        for at, name in enumerate(chosen):
            for strength in (1, 2, 3):
                windows = bench.traffic(
                    options.hours, seed=100 + 10 * at + strength, shift_at=START, corruption=name, strength=strength
                )
                found = result[f"{name} {strength}"] = summary(windows)
                carried = ", ".join(f"{signal} {share:.0%}" for signal, share in found["carried_by"].items())
                alarms, delay = f"{found['alarms']} / {found['windows']}", found["delay_windows"] or "-"
                print(
                    f"{name:<16} {strength:>8} {alarms:>7} {delay:>6}"
                    f"  {carried}; {', '.join(found['columns'])}; harm {found['harm']}",
                    flush=True,
                )
    write_result("corruptions", result)


if __name__ == "__main__":
    main()
