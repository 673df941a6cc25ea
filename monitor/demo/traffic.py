"""What four cameras send in: contract records of scenes that a model has segmented, with exact labels to match.

The model is passed in as a callable, so nothing here knows torch. All is determined by the plan: the same
plan gives the same records, whichever part of it is asked for again (``labels`` draws the scenes anew and
finds the same ones).

Baseline and traffic are two plans of the same ``split`` with different seeds and times. Made from different
splits they would differ in digits and places from the first minute on, and that is drift, too.
"""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import PLAIN, SCENE_CLASSES, Image, Recipe, Scene, SceneSource, Split
from monitor.masks import encode_rle

SITES = {"1": "north", "2": "north", "3": "south", "4": "south"}
"""Camera to site."""
CAMERAS = tuple(SITES)
BATCH = 64
JPEG_QUALITY = 90
LATENCY_SECONDS, LATENCY_SPREAD = 0.038, 0.25  # median and log-normal sigma of a small network behind HTTP
USD_PER_HOUR = 0.526  # a cloud machine with one small GPU: an image costs its share of the hour


class PredictedInstance(Protocol):
    """What the model found; ``embeddings.segmenter.Instance`` is one."""

    @property
    def class_index(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def mask(self) -> NDArray[np.bool_]: ...


Segment = Callable[[NDArray[np.uint8]], Sequence[Sequence[PredictedInstance]]]
"""(N, H, W, 3) uint8 RGB to each image's instances; ``Segmenter.predict`` is one."""


@dataclass(frozen=True, kw_only=True)
class TrafficPlan:
    """When, how much, and what goes wrong.

    A camera films one minute at a time, and that minute is a ``sequence``: its frames depend on each other.
    Cameras take turns, so each camera's share of the records is the same at any hour.
    """

    start: datetime
    """Aware; whole minutes are counted from here."""
    hours: float
    records_per_hour: int
    shift_at: datetime | None = None
    """The first sequence that starts at or after this moment is the first shifted one; None: no shift."""
    corruption: str = "blur"
    """A key of ``CORRUPTIONS``."""
    strength: int = 2
    """1 to 3."""
    shifted_cameras: tuple[str, ...] = CAMERAS
    """The cameras that the shift befalls."""
    seed: int = 0
    split: Split = "traffic"
    model: str = "digits"
    version: str = "1"
    frames: int = 4
    """Frames a sequence; more where the rate could not be reached otherwise."""

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or (self.shift_at is not None and self.shift_at.tzinfo is None):
            raise ValueError("start and shift_at must be aware times")
        if self.minutes < 1 or self.records_per_hour < 1 or self.frames < 1:
            raise ValueError("hours must hold a minute at least, records_per_hour and frames must be 1 at least")
        if self.corruption not in CORRUPTIONS:
            raise ValueError(f"corruption: {self.corruption!r} is none of {', '.join(CORRUPTIONS)}")
        if strangers := set(self.shifted_cameras) - set(CAMERAS):
            raise ValueError(f"shifted_cameras: there is no camera {', '.join(sorted(strangers))}")
        CORRUPTIONS[self.corruption](self.strength)  # says so now if there is no such strength

    @property
    def minutes(self) -> int:
        """Whole minutes of traffic."""
        return int(self.hours * 60 + 1e-9)

    @property
    def records(self) -> int:
        """How many records the plan gives."""
        return max(1, round(self.records_per_hour * self.minutes / 60))


@dataclass(frozen=True)
class _Take:
    """One camera's minute."""

    number: int
    camera: str
    start: datetime
    frames: int
    recipe: Recipe

    @property
    def sequence(self) -> str:
        return f"cam{self.camera}-{self.start.astimezone(UTC):%Y-%m-%dT%H:%M}"

    def input_id(self, frame: int) -> str:
        return f"{self.sequence}-{frame:03d}"

    def event_time(self, frame: int) -> datetime:
        """Frames are evenly spaced over the minute; cameras do not tick at the same instant."""
        return self.start + timedelta(seconds=60 * (frame + 0.2 * int(self.camera) - 0.1) / self.frames)


def _takes(plan: TrafficPlan) -> list[_Take]:
    """The schedule, in order of time.

    One camera has at most one take in a minute (take k is camera k mod 4's and starts in minute
    floor(k minutes / takes), so that takes <= 4 minutes keeps a camera's takes a minute apart).
    """
    frames = max(plan.frames, math.ceil(plan.records / (len(CAMERAS) * plan.minutes)))
    count = math.ceil(plan.records / frames)
    shifted = CORRUPTIONS[plan.corruption](plan.strength)
    takes = []
    for k in range(count):
        camera = CAMERAS[k % len(CAMERAS)]
        start = plan.start + timedelta(minutes=k * plan.minutes // count)
        late = plan.shift_at is not None and start >= plan.shift_at and camera in plan.shifted_cameras
        share = (k + 1) * plan.records // count - k * plan.records // count
        takes.append(_Take(k, camera, start, share, shifted if late else PLAIN))
    return takes


def _film(plan: TrafficPlan, source: SceneSource, take: _Take) -> list[Scene]:
    """The take's frames. A camera looks at places of its own: every fourth pair of tiles."""
    camera = CAMERAS.index(take.camera)
    tiles = [i for i in range(source.tiles) if (i // 2) % len(CAMERAS) == camera]
    return source.sequence(np.random.default_rng([plan.seed, take.number]), take.frames, take.recipe, tiles)


def traffic(segment: Segment, plan: TrafficPlan, workers: int = 1) -> Iterator[dict[str, Any]]:
    """The plan's prediction records (``segwatch.prediction.v1``), in order of event time.

    ``workers`` threads work on one batch each, and change nothing about the records; ``segment`` must bear
    being called from several threads. With more than one, give the network one thread (two workers of two
    threads each are slower on two cores than one of one).
    """
    source = SceneSource(plan.split)
    waiting: deque[Future[list[dict[str, Any]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="demo-traffic") as pool:
        for takes in _batches(plan):
            waiting.append(pool.submit(_batch_records, segment, plan, source, takes))
            if len(waiting) > workers:  # one batch is ready ahead for each worker, not the whole day
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _batches(plan: TrafficPlan) -> Iterator[list[_Take]]:
    """Takes of some 64 frames; whole minutes, since takes overlap within one and the records come in order."""
    batch: list[_Take] = []
    for take in _takes(plan):
        if sum(t.frames for t in batch) >= BATCH and take.start != batch[-1].start:
            yield batch
            batch = []
        batch.append(take)
    yield batch


def _batch_records(
    segment: Segment, plan: TrafficPlan, source: SceneSource, takes: Sequence[_Take]
) -> list[dict[str, Any]]:
    images = [scene.image for take in takes for scene in _film(plan, source, take)]
    found = iter(zip(images, segment(np.stack(images)), strict=True))
    records = []
    for take in takes:
        rng = np.random.default_rng([plan.seed, take.number, 1])
        latencies = LATENCY_SECONDS * np.exp(LATENCY_SPREAD * rng.standard_normal(take.frames))
        for frame, latency in enumerate(latencies.tolist()):
            image, instances = next(found)
            records.append((take.event_time(frame), _prediction(plan, take, frame, image, instances, latency)))
    return [record for _, record in sorted(records, key=lambda pair: (pair[0], pair[1]["input_id"]))]


def labels(
    plan: TrafficPlan, *, share: float = 1.0, delay: timedelta = timedelta(hours=1), annotator: str = "exact"
) -> Iterator[dict[str, Any]]:
    """Exact labels (``segwatch.label.v1``) of a uniformly drawn ``share`` of the plan's records, as spot checks.

    Each comes ``delay`` after its record and says with which probability it was drawn.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: {share} is not in (0, 1]")
    source = SceneSource(plan.split)
    for take in _takes(plan):
        drawn = np.random.default_rng([plan.seed, take.number, 2]).random(take.frames) < share
        if not drawn.any():
            continue
        scenes = _film(plan, source, take)
        for frame in np.flatnonzero(drawn).tolist():
            yield {
                "type": "segwatch.label.v1",
                "input_id": take.input_id(frame),
                "annotator": annotator,
                "annotation_version": 1,
                "label_time": _rfc3339(take.event_time(frame) + delay),
                "purpose": "spot_check",
                "selection_probability": share,
                "instances": [
                    {"class": SCENE_CLASSES[class_index], "mask": encode_rle(mask)}
                    for class_index, mask in scenes[frame].instances
                ],
            }


def true_scenes(plan: TrafficPlan, inputs: Collection[str]) -> Iterator[tuple[str, Scene]]:
    """The scenes of some of the plan's inputs, by their ids: what was really to be seen."""
    source = SceneSource(plan.split)
    for take in _takes(plan):
        names = [take.input_id(frame) for frame in range(take.frames)]
        if any(name in inputs for name in names):
            yield from ((n, scene) for n, scene in zip(names, _film(plan, source, take), strict=True) if n in inputs)


def _prediction(
    plan: TrafficPlan,
    take: _Take,
    frame: int,
    image: Image,
    instances: Sequence[PredictedInstance],
    latency_seconds: float,
) -> dict[str, Any]:
    jpeg = simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")
    return {
        "type": "segwatch.prediction.v1",
        "input_id": take.input_id(frame),
        "event_time": _rfc3339(take.event_time(frame)),
        "model": {"name": plan.model, "version": plan.version},
        "slices": {"camera": take.camera, "site": SITES[take.camera]},
        "sequence": take.sequence,
        "status": "ok",
        "latency_seconds": round(latency_seconds, 4),
        "cost_usd": round(latency_seconds * USD_PER_HOUR / 3600, 9),
        "image": {"media_type": "image/jpeg", "data": base64.b64encode(jpeg).decode("ascii")},
        "instances": [
            {"class": SCENE_CLASSES[i.class_index], "score": round(i.score, 4), "mask": encode_rle(i.mask)}
            for i in instances
        ],
    }


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write JSON Lines; returns how many. Records are taken one by one, so a long iterator fits in memory."""
    encoder, count = msgspec.json.Encoder(), 0
    with path.open("wb") as file:
        for record in records:
            file.write(encoder.encode(record) + b"\n")
            count += 1
    return count
