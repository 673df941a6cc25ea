"""The inference service, played: it runs the versions that are in service on what the cameras see, and logs records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embeddings.segmenter import Segmenter, load_segmenter
from monitor.demo.traffic import TrafficPlan, traffic, write_jsonl

WORKERS = 2


class Inference:
    """``versions`` in service, by name; each sees every input."""

    def __init__(self, folder: Path, version: str) -> None:
        self._folder = folder
        self.versions: dict[str, Segmenter] = {version: load_segmenter(threads=1)}

    def bring_in(self, version: str, weights: Path) -> None:
        """Run a new version beside the others, on the same inputs."""
        self.versions[version] = load_segmenter(weights, threads=1)

    def switch_to(self, version: str) -> None:
        """Serve this version alone."""
        self.versions = {version: self.versions[version]}

    def log(self, plan: TrafficPlan, name: str) -> tuple[Path, int]:
        """The records of a stretch of traffic as a file, in order of event time; how many there are."""
        file = self._folder / f"{name}.jsonl"
        return file, write_jsonl(file, merged(self.versions, plan))


def merged(versions: Mapping[str, Segmenter], plan: TrafficPlan) -> Iterator[dict[str, Any]]:
    """The versions' records of the same inputs, side by side."""
    runs = [traffic(one.predict, replace(plan, version=name), WORKERS) for name, one in versions.items()]
    for records in zip(*runs, strict=True):
        yield from records
