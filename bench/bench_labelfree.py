"""How far the label-free estimate is off on the demo's network, and whether it is withdrawn where it is.

The real pipeline from records to estimates: a baseline whose records are all labelled, hourly windows with their
verdicts on drift, and the read model of `segwatch quality`. Each stretch of traffic, untouched or corrupted from its
first record on, is asked about three times: without any label, with a tenth of its records labelled at random, and, for
the truth, with all of them. Masks come as the demo sends them (`instances`), or as maps of the winning class and its
probability (`maps`), which have the background as a class of its own.

The truth is the mean over classes of pooled IoU; labels name the classes that the model knows, and no others. The
estimator was chosen on other seeds (900 and above).

    python bench/bench_labelfree.py [--hours 4] [--strength 2] [--seed 500] [--only blur,noise] [--kinds instances,maps]

Prints a table, and writes bench-results/labelfree.json.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from bench.rig import write_result
from embeddings.segmenter import Segmenter, load_segmenter
from monitor.baseline import FORMAT_VERSION
from monitor.baseline_book import Embedders
from monitor.classes import Classes
from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import CLASS_NAMES
from monitor.demo.traffic import TrafficPlan, labels, traffic, write_jsonl
from monitor.drift import Baselines
from monitor.masks import decode_rle
from monitor.offline import make_baseline, replay
from monitor.quality import quality_windows
from monitor.quality_now import VersionFacts
from monitor.quality_window import QualityWindow
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.windows import SECOND_US

START = datetime(2026, 11, 1, tzinfo=UTC)
RECORDS_PER_HOUR = 120
BASELINE_HOURS = 16
MODEL, VERSION = "digits", "1"
HOUR_US = 3600 * SECOND_US
SHARE = 0.1
"""Of the records, labelled as spot checks."""
CLEAN, CORRUPTED = 0.03, 0.05
"""Largest errors that are accepted of an estimate that is not withdrawn."""
BACKGROUND = "background"
CLASSES = {
    "instances": Classes(CLASS_NAMES, tuple(range(1, 11))),
    "maps": Classes((BACKGROUND, *CLASS_NAMES), tuple(range(11))),
}

Record = dict[str, Any]
Asked = dict[str, tuple[list[QualityWindow], list[QualityWindow]]]
"""By what is labelled: nothing, spot checks, all. The stretch as one window, and its hours."""


class Bench:
    """One baseline of one kind of masks, and a fresh store for each stretch of traffic."""

    def __init__(self, folder: Path, kind: str, segmenter: Segmenter, seed: int) -> None:
        self._folder = folder / kind
        self._folder.mkdir()
        self._kind, self._segmenter, self._seed = kind, segmenter, seed
        self._stores = 0
        settings = self._settings()
        self._embedders = Embedders(settings)
        plan = self._plan(START - timedelta(days=2), BASELINE_HOURS, seed)
        with Store.open(settings, write=True) as store:
            _, self._baseline, counts = make_baseline(
                settings,
                store,
                [self._write("records", self._records(plan))],
                model=MODEL,
                version=VERSION,
                classes=CLASSES[kind],
                labels=[self._write("labels", self._labels(plan))],
                embedders=self._embedders,
            )
        if counts.labelled != plan.records:
            raise SystemExit(f"{counts.labelled} of {plan.records} records of the baseline are labelled: {counts}")

    def stretch(self, hours: int, name: str, strength: int) -> Asked:
        """Traffic that is ``untouched``, or corrupted from its first record on; each has a seed of its own."""
        settings = self._settings()
        if name == "untouched":
            plan = self._plan(START, hours, self._seed + 1)
        else:
            seed = self._seed + 10 + 10 * list(CORRUPTIONS).index(name) + strength
            plan = self._plan(START, hours, seed, shift_at=START, corruption=name, strength=strength)
        asked: Asked = {}
        with Store.open(settings, write=True) as store:
            self._activate(store)
            steps: list[tuple[str, Iterable[Record]]] = [
                ("unlabelled", self._records(plan)),
                ("spot_checked", self._labels(plan, share=SHARE)),
                # A newer version of each annotation replaces the spot checks'.
                ("truth", ({**one, "annotation_version": 2} for one in self._labels(plan))),
            ]
            for step, records in steps:
                replay(settings, [self._write(step, records)], store=store, embedders=self._embedders)
                asked[step] = (self._ask(store, settings, None), self._ask(store, settings, HOUR_US))
        return asked

    def _records(self, plan: TrafficPlan) -> Iterator[Record]:
        records = traffic(self._segmenter.predict, plan)
        return records if self._kind == "instances" else self._as_maps(records)

    def _labels(self, plan: TrafficPlan, share: float = 1.0) -> Iterator[Record]:
        for one in labels(plan, share=share):
            # Whoever annotates has the model's classes to choose from.
            one["instances"] = [each for each in one["instances"] if each["class"] in CLASS_NAMES]
            if self._kind == "maps":
                one["semantic"] = {"classes_png": _png(_painted(one.pop("instances")))}
            yield one

    def _as_maps(self, records: Iterator[Record]) -> Iterator[Record]:
        """What the same network says of the pixels of the same images."""
        for one in records:
            image = simplejpeg.decode_jpeg(base64.b64decode(one["image"]["data"]), colorspace="RGB")
            (probabilities,) = self._segmenter.segment(image[None])
            winner = probabilities.argmax(axis=0).astype(np.uint8)
            confidence = np.rint(255 * probabilities.max(axis=0)).astype(np.uint8)
            del one["instances"]
            one["semantic"] = {"classes_png": _png(winner), "confidence_png": _png(confidence)}
            yield one

    def _ask(self, store: Store, settings: Settings, length_us: int | None) -> list[QualityWindow]:
        return quality_windows(
            store,
            model=MODEL,
            facts=VersionFacts(store, Baselines(store), MODEL),
            length_us=length_us,
            pane_us=settings.windows.pane_seconds * SECOND_US,
            metrics=("iou",),
        )

    def _activate(self, store: Store) -> None:
        baseline = self._baseline
        store.activate(
            store.add_baseline(
                MODEL, VERSION, format_version=FORMAT_VERSION, meta=baseline.summary(), payload=baseline.to_bytes()
            )
        )

    def _plan(self, start: datetime, hours: int, seed: int, **shift: Any) -> TrafficPlan:
        return TrafficPlan(
            start=start,
            hours=hours,
            records_per_hour=RECORDS_PER_HOUR,
            seed=seed,
            model=MODEL,
            version=VERSION,
            **shift,
        )

    def _write(self, name: str, records: Iterable[Record]) -> Path:
        file = self._folder / f"{name}.jsonl"
        write_jsonl(file, records)
        return file

    def _settings(self) -> Settings:
        self._stores += 1
        tree = {
            "data_dir": str(self._folder / str(self._stores)),
            "windows": {"lengths_seconds": [3600]},
            "embedding": {"backbone": "segmenter", "input_size": 128},
            "store": {"retention_days": 36_500},
            "quality": {"keep_masks_days": 36_500},
            "log": {"level": "error"},
        }
        return msgspec.convert(tree, Settings)


def _png(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(cv2.imencode(".png", values)[1].tobytes()).decode("ascii")


def _painted(instances: Sequence[Record]) -> NDArray[np.uint8]:
    """(128, 128) values of a map."""
    painted = np.zeros((128, 128), np.uint8)
    for one in instances:
        painted[decode_rle(one["mask"]["size"], one["mask"]["counts"])] = 1 + CLASS_NAMES.index(one["class"])
    return painted


def outcome(asked: Asked) -> dict[str, Any]:
    """What the estimate was worth on a stretch as one window, and on each of its hours."""
    (whole,), hours = (
        [_judged(*same) for same in zip(*found, strict=True)] for found in zip(*asked.values(), strict=True)
    )
    return {"whole": whole, "hours": hours}


def _judged(unlabelled: QualityWindow, spot_checked: QualityWindow, labelled: QualityWindow) -> dict[str, Any]:
    sums = labelled.evidence.metrics["iou"]
    if len(sums.rows) != labelled.records:
        raise SystemExit(f"{len(sums.rows)} of {labelled.records} records are labelled")
    found, every = sums.numerator.sum(0), sums.denominator.sum(0)
    seen = every > 0
    truth = float((found[seen] / every[seen]).mean())
    # As if nothing had spoken against it: is what is withdrawn what is wrong?
    never_withdrawn = _mean(replace(unlabelled, drift=None), "labelfree")
    if never_withdrawn["point"] is None:
        raise SystemExit(f"no estimate: {never_withdrawn}")
    return {
        "truth": truth,
        "estimate": never_withdrawn["point"],
        "lower": never_withdrawn["lower"],
        "upper": never_withdrawn["upper"],
        "error": never_withdrawn["point"] - truth,
        "drift_harm": unlabelled.drift,
        "without_labels": _said(unlabelled),
        "with_spot_checks": _said(spot_checked),
        "spot_checks": len(spot_checked.evidence.inputs),
        **{name: _missed_by(_mean(spot_checked, name), truth) for name in ("spotcheck", "assisted")},
    }


def _mean(window: QualityWindow, estimator: str) -> Record:
    entries = window.to_json()["classes"]
    found: Record = next(
        (one for one in entries if (one["metric"], one["estimator"]) == ("mean_iou", estimator)),
        {"status": "absent", "point": None, "lower": None, "upper": None},
    )
    return found


def _said(window: QualityWindow) -> Record:
    one = _mean(window, "labelfree")
    return {"status": one["status"], "reason": one.get("reason")}


def _missed_by(one: Record, truth: float) -> Record | None:
    """An estimate from spot checks; None where there are too few."""
    if one["point"] is None:
        return None
    return {"error": one["point"] - truth, "width": one["upper"] - one["lower"]}


HEADER = (
    f"{'':<16} {'truth':>6} {'estimate':>8} {'error':>7}  {'drift':<9} {'no labels':<10} {'spot checks':<12}"
    f" {'spotcheck':>9} {'assisted':>9}  hours: largest error that stands without labels, with spot checks"
)


def line(name: str, found: Record, limit: float) -> str:
    """One stretch; an error above the limit that stands is marked."""
    whole = found["whole"]
    said = []
    for when, width in (("without_labels", 10), ("with_spot_checks", 12)):
        stands = whole[when]["status"] == "ok"
        wrong = stands and abs(whole["error"]) > limit
        said.append(f"{('stands (!)' if wrong else 'stands') if stands else 'withdrawn':<{width}}")
    errors = [f"{whole[each]['error']:>+9.3f}" if whole[each] else f"{'-':>9}" for each in ("spotcheck", "assisted")]
    hours = [_standing(found["hours"], when, limit) for when in ("without_labels", "with_spot_checks")]
    return (
        f"{name:<16} {whole['truth']:>6.3f} {whole['estimate']:>8.3f} {whole['error']:>+7.3f}"
        f"  {whole['drift_harm'] or '-':<9} {' '.join(said)} {' '.join(errors)}  {', '.join(hours)}"
    )


def _standing(hours: Sequence[Record], when: str, limit: float) -> str:
    standing = [abs(one["error"]) for one in hours if one[when]["status"] == "ok"]
    if not standing:
        return f"0 of {len(hours)} stand"
    wrong = sum(one > limit for one in standing)
    return f"{max(standing):.3f} ({len(standing)} of {len(hours)} stand, {wrong} off by more than {limit})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hours", type=int, default=4, help="of each stretch of traffic")
    parser.add_argument("--strength", type=int, default=2, help="of the corruptions, 1 to 3")
    parser.add_argument("--seed", type=int, default=500)
    parser.add_argument("--only", default="", help="corruptions, separated by commas")
    parser.add_argument("--kinds", default=",".join(CLASSES), help="instances, maps, or both")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(CORRUPTIONS)
    result: dict[str, Any] = {"records_per_hour": RECORDS_PER_HOUR, "spot_check_share": SHARE, **vars(options)}
    segmenter = load_segmenter(threads=1)
    with tempfile.TemporaryDirectory(prefix="segwatch-bench-") as folder:
        for kind in options.kinds.split(","):
            print(f"{kind}\n{HEADER}", flush=True)
            bench = Bench(Path(folder), kind, segmenter, options.seed)
            result[kind] = {}
            for name in ("untouched", *chosen):
                found = result[kind][name] = outcome(bench.stretch(options.hours, name, options.strength))
                print(line(name, found, CLEAN if name == "untouched" else CORRUPTED), flush=True)
    write_result("labelfree", result)


if __name__ == "__main__":
    main()
