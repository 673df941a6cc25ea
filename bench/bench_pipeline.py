"""End to end: JPEG images with masks on Kafka, counted statistics in PostgreSQL.

``segwatch run --role ingest`` against the pipeline of ``naive_pipeline.py``, both on the same messages (JPEG 640 x 480
in base64, ten instances in RLE, JSON), in turns. And against what the cores allow: their number, divided by the CPU
time that an image takes for decoding, backbone, and for masks and statistics, each measured alone on every core.

    python bench/bench_pipeline.py [--records 3000] [--naive-records 300] [--rounds 2] [--only NAME]

Prints a table, and writes bench-results/pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from bench.rig import ROOT, Rate, Rig, peers_python, segwatch_rate, write_result
from bench.workload import CLASSES, MODEL, STEP_US, VERSION, Fleet, photographs
from embeddings.backbones.efficientnet_lite0 import build_classifier
from embeddings.engines import usable_cores
from embeddings.image_statistics import image_statistics
from embeddings.images import ImageLimits, prepare_sized
from monitor.baseline import Baseline
from monitor.baseline_book import Embedders, Route
from monitor.codes import codes_of
from monitor.contributions import Counted, pane_deltas, tally_counted
from monitor.extract import Extractor, Prepared, instances_in
from monitor.kept_masks import keep
from monitor.offline import make_baseline, spec_of
from monitor.records import Limits, Prediction, decode_chunk
from monitor.settings import EmbeddingSettings, KafkaSettings, Settings, StoreSettings
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.store import Store

IMAGES = 300
BASELINE_RECORDS = 200
EFFICIENCY_TARGET = 0.85
WARM_UP = 200
PARTITION = Partition("bench", "bench", "images", 0)


@dataclass(frozen=True)
class Case:
    """A backbone in a dtype. ``target``: how many times the naive pipeline's rate."""

    name: str
    backbone: str
    dtype: Literal["float32", "bfloat16"]
    target: float


CASES = (
    Case("efficientnet_lite0", "efficientnet_lite0", "float32", 5.0),
    Case("efficientnet_lite0_bfloat16", "efficientnet_lite0", "bfloat16", 5.0),
    Case("resnet50", "torchvision:resnet50", "float32", 3.0),
    Case("resnet50_bfloat16", "torchvision:resnet50", "bfloat16", 5.0),
)


class Bench:
    """What all cases share: the rig, the messages, the weights."""

    def __init__(self, rig: Rig, records: int) -> None:
        self.rig = rig
        self.records = records
        self.report_seconds: dict[str, float] = {}
        self.images = photographs(IMAGES, seed=0)
        start_us = time.time_ns() // 1000 - records * STEP_US
        self.messages = list(Fleet(images=self.images).messages(records, start_us, encoding="json"))
        self.topic = rig.publish(self.messages, "images")
        self.resnet = rig.folder / "resnet50.pth"
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet50().state_dict(), self.resnet)
        self.naive_weights = {"resnet50": str(self.resnet), "efficientnet_lite0": str(rig.folder / "lite0.pth")}
        lite0 = build_classifier(spec_of(Settings()))
        torch.save(lite0.state_dict(), self.naive_weights["efficientnet_lite0"])

    def embedding(self, case: Case) -> EmbeddingSettings:
        weights = str(self.resnet) if case.backbone.startswith("torchvision") else ""
        return EmbeddingSettings(backbone=case.backbone, weights=weights, dtype=case.dtype)

    def segwatch(self, case: Case) -> tuple[Rate, Settings, Baseline]:
        """One round on a database of its own, with a baseline of its own."""
        settings = Settings(
            data_dir=str(self.rig.folder / "data"),
            store=StoreSettings(url=self.rig.postgres.fresh_database()),
            kafka=KafkaSettings(bootstrap_servers=self.rig.kafka.bootstrap, predictions_topic=self.topic),
            embedding=self.embedding(case),
        )
        file = self.rig.folder / "baseline-images.jsonl"
        if not file.exists():
            fleet, start_us = Fleet(seed=1, images=self.images), time.time_ns() // 1000 - 86_400_000_000
            records = (fleet.record(number, start_us + number * STEP_US) for number in range(BASELINE_RECORDS))
            file.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        with Store.open(settings, write=True) as store:
            _, baseline, _ = make_baseline(settings, store, [file], model=MODEL, version=VERSION, activate=True)
        changes = {
            "SEGWATCH_EMBEDDING_BACKBONE": case.backbone,
            "SEGWATCH_EMBEDDING_WEIGHTS": settings.embedding.weights,
            "SEGWATCH_EMBEDDING_DTYPE": case.dtype,
        }
        environ = self.rig.environ(self.topic, settings.store.url, changes)
        rate = segwatch_rate(self.rig, settings, environ, self.records, WARM_UP)
        return rate, settings, baseline

    def naive(self, backbone: str, records: int) -> dict[str, Any]:
        """One round; the report, which takes minutes, only in a backbone's first."""
        name = backbone.removeprefix("torchvision:")
        out = self.rig.folder / "naive.json"
        url = self.rig.postgres.fresh_database().replace("+pg8000", "+psycopg")
        task = {
            "bootstrap": self.rig.kafka.bootstrap,
            "topic": self.topic,
            "url": url,
            "backbone": name,
            "weights": self.naive_weights[name],
            "classes": CLASSES,
            "warm_up": 30,
            "records": records,
            "report": backbone not in self.report_seconds,
            "out": str(out),
        }
        command = [str(peers_python()), str(ROOT / "bench" / "naive_pipeline.py"), json.dumps(task)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads(out.read_text())
        self.report_seconds.setdefault(backbone, result["report_seconds"])
        return result

    def cpu_ms(self, settings: Settings, baseline: Baseline, images: int = 256) -> dict[str, float]:
        """CPU time of one image, by what is done with it: each alone, decoding and backbone on every core."""
        raws = [
            RawRecord(PARTITION, offset, message.value, message.key, message.headers, message.timestamp_us)
            for offset, message in enumerate(self.messages[:images])
        ]
        limits, size = Limits.from_settings(settings), settings.embedding.input_size
        records = [record for record in decode_chunk(raws, limits) if isinstance(record, Prediction)]
        files = [record.image.data or b"" for record in records if record.image is not None]
        embedder = Embedders(settings).of(spec_of(settings))
        with ThreadPoolExecutor(usable_cores()) as pool:
            extractor = Extractor(baseline.plan, embedder, pool, ImageLimits(), ())
            route = Route(baseline, "bench", baseline.classes, extractor)

            def look(file: bytes) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
                pixels, width, height = prepare_sized(file, size)
                return pixels, image_statistics(pixels, width, height)

            def decode() -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
                return list(pool.map(look, files))

            looked = decode()
            pixels = np.stack([image for image, _ in looked])
            vectors = embedder.embed(pixels)

            def count() -> None:
                predictions = [record for record in decode_chunk(raws, limits) if isinstance(record, Prediction)]
                prepared = [
                    Prepared(
                        None,
                        vector,
                        [instance.class_name for instance in prediction.instances or ()],
                        [instance.score for instance in prediction.instances or ()],
                        None,
                        None,
                        statistics,
                    )
                    for prediction, vector, (_, statistics) in zip(predictions, vectors, looked, strict=True)
                ]
                instances = instances_in(prepared, route.classes)
                succeeded = np.ones(len(prepared), dtype=np.bool_)
                coded, bins = codes_of(route, prepared, predictions, instances), baseline.statistic.binning.bins
                masks = [keep(prediction, each.size) for prediction, each in zip(predictions, prepared, strict=True)]
                counted = Counted(
                    raws,
                    predictions,
                    succeeded,
                    coded.codes,
                    instances,
                    "bench",
                    bins,
                    route.classes,
                    masks,
                    coded.components,
                )
                counted.samples()
                pane_deltas([counted], 300_000_000, ())
                tally_counted(Counter(), counted)

            works: dict[str, Callable[[], object]] = {
                "decoding": decode,
                "backbone": lambda: embedder.embed(pixels),
                "masks and statistics": count,
            }
            taken = {name: 1e3 * min(_cpu_seconds(work) for _ in range(3)) / images for name, work in works.items()}
        embedder.close()
        return taken


def _cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def run_case(bench: Bench, case: Case, rounds: int, naive_records: int) -> dict[str, Any]:
    """All figures of one case: medians over the rounds, in which both sides take turns."""
    rates, efficiencies, ratios, with_reports, cpu_ratios = [], [], [], [], []
    naive: dict[str, Any] = {}
    alone: dict[str, float] = {}
    for _ in range(rounds):
        naive = bench.naive(case.backbone, naive_records)
        report_seconds = bench.report_seconds[case.backbone]
        rate, settings, baseline = bench.segwatch(case)
        alone = bench.cpu_ms(settings, baseline)
        per_image = naive["seconds"] / naive["records"]
        rates.append(rate)
        ratios.append(rate.per_second * per_image)
        with_reports.append(rate.per_second * (per_image + report_seconds / 1000))
        cpu_ratios.append(naive["cpu_seconds"] / naive["records"] * 1e3 / rate.cpu_ms)
        efficiencies.append(rate.per_second / (usable_cores() / sum(alone.values()) * 1e3))
    return {
        "segwatch_per_second": statistics.median(rate.per_second for rate in rates),
        "segwatch_cpu_ms": statistics.median(rate.cpu_ms for rate in rates),
        "naive_per_second": naive["records"] / naive["seconds"],
        "naive_cpu_ms": 1e3 * naive["cpu_seconds"] / naive["records"],
        "naive_ms_by_stage": naive["ms_per_record"],
        "report_seconds_per_1000": report_seconds,
        "ratio_without_report": statistics.median(ratios),
        "ratio_with_report": statistics.median(with_reports),
        "ratio_of_cpu_time": statistics.median(cpu_ratios),
        "target_ratio": case.target,
        "cpu_ms_alone": alone,
        "efficiency": statistics.median(efficiencies),
        "efficiency_by_cpu_time": sum(alone.values()) / statistics.median(rate.cpu_ms for rate in rates),
        "target_efficiency": EFFICIENCY_TARGET,
    }


def show(case: Case, figures: Mapping[str, Any]) -> None:
    print(
        f"{case.name:<28} {figures['segwatch_per_second']:>8.1f} {figures['naive_per_second']:>7.1f}"
        f" {figures['ratio_without_report']:>9.2f} {figures['ratio_with_report']:>9.2f}"
        f" {figures['ratio_of_cpu_time']:>8.2f} {case.target:>7.1f}"
        f" {figures['efficiency']:>11.2f} {figures['efficiency_by_cpu_time']:>8.2f}"
    )
    stages = {"segwatch, alone": figures["cpu_ms_alone"], "naive": figures["naive_ms_by_stage"]}
    for side, parts in stages.items():
        print(f"    {side:<16} " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in parts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--naive-records", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    options = parser.parse_args()
    peers_python()
    results: dict[str, Any] = {"cores": usable_cores(), "cases": {}}
    with Rig.start() as rig:
        bench = Bench(rig, options.records)
        print(
            f"{'images a second':<28} {'segwatch':>8} {'naive':>7} {'ratio':>9} {'+ report':>9} {'in CPU':>8}"
            f" {'target':>7} {'of the cores':>11} {'in CPU':>8}"
        )
        for case in CASES:
            if options.only is None or case.name in options.only:
                figures = run_case(bench, case, options.rounds, options.naive_records)
                results["cases"][case.name] = figures
                show(case, figures)
    write_result("pipeline", results)


if __name__ == "__main__":
    main()
