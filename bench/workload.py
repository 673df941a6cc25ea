"""Records for the benchmarks, made from a seed: a fleet of cameras, masks in RLE, photographs or embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from bench.rig import Message
from monitor.masks import encode_rle
from monitor.windows import SECOND_US, to_text

MODEL, VERSION = "street", "3"
CLASSES = ("bicycle", "bus", "car", "motorcycle", "person", "rider", "traffic light", "traffic sign", "train", "truck")
HEIGHT, WIDTH = 480, 640
CAMERAS, SITES = 50, ("berlin", "lyon", "turin")
INSTANCES = 10
STEP_US = SECOND_US // 10


def ellipses(count: int, seed: int) -> list[dict[str, Any]]:
    """Masks of 480 x 640 in compressed RLE: ellipses 40 to 160 pixels wide and high, so some 40 to 160 runs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = []
    for _ in range(count):
        cy, cx, ry, rx = rng.uniform(80, HEIGHT - 80), rng.uniform(80, WIDTH - 80), *rng.uniform(20, 80, 2)
        masks.append(encode_rle(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1))
    return masks


def photographs(count: int, seed: int) -> list[bytes]:
    """JPEG files of 640 x 480, 30 to 80 kB: crops of scikit-learn's two photographs, dimmed, with a camera's noise."""
    rng = np.random.default_rng(seed)
    pictures = [cv2.resize(image, None, fx=1.6, fy=1.6) for image in load_sample_images().images]
    files = []
    for _ in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        top = int(rng.integers(picture.shape[0] - HEIGHT))
        left = int(rng.integers(picture.shape[1] - WIDTH))
        crop = picture[top : top + HEIGHT, left : left + WIDTH].astype(np.float32)
        crop = crop * rng.uniform(0.6, 1.2) + rng.normal(0, 4, crop.shape)
        pixels = np.ascontiguousarray(np.clip(crop, 0, 255).astype(np.uint8))
        files.append(simplejpeg.encode_jpeg(pixels, quality=int(rng.integers(75, 85)), colorsubsampling="420"))
    return files


class Fleet:
    """Record after record of 50 cameras at three sites, ten a second, each with ten instances.

    ``images``: JPEG files to take in turn; without them each record brings an embedding of ``dimensions`` numbers.
    """

    def __init__(self, seed: int = 0, images: list[bytes] | None = None, dimensions: int = 512) -> None:
        self._rng = np.random.default_rng(seed)
        self._images = images
        self._dimensions = dimensions
        self._masks = ellipses(200, seed)

    def record(self, number: int, event_us: int) -> dict[str, Any]:
        """Record ``number``, as a dictionary for MessagePack."""
        rng, camera = self._rng, number % CAMERAS
        record: dict[str, Any] = {
            "type": "segwatch.prediction.v1",
            "input_id": f"cam{camera}-{number:09d}",
            "event_time": to_text(event_us),
            "model": {"name": MODEL, "version": VERSION},
            "slices": {"camera": str(camera), "site": SITES[camera % len(SITES)]},
            "sequence": f"cam{camera}-{event_us // (3600 * SECOND_US)}",
            "sampling_probability": 0.05,
            "status": "ok",
            "latency_seconds": round(float(rng.exponential(0.08)), 6),
            "cost_usd": 0.00021,
            "instances": [
                {"class": CLASSES[kind], "score": score, "mask": self._masks[mask]}
                for kind, score, mask in zip(
                    rng.integers(len(CLASSES), size=INSTANCES).tolist(),
                    rng.uniform(0.3, 1.0, INSTANCES).round(4).tolist(),
                    rng.integers(len(self._masks), size=INSTANCES).tolist(),
                    strict=True,
                )
            ],
        }
        if self._images is None:
            record["embedding"] = self.embedding().tolist()
        else:
            record["image"] = {"media_type": "image/jpeg", "data": self._images[number % len(self._images)]}
        return record

    def embedding(self) -> NDArray[np.float64]:
        return self._rng.standard_normal(self._dimensions)

    def messages(
        self,
        count: int,
        start_us: int,
        first: int = 0,
        step_us: int = STEP_US,
        encoding: Literal["json", "msgpack"] = "msgpack",
    ) -> Iterator[Message]:
        """``count`` messages with CloudEvents headers; each reaches the broker when it happens."""
        encode = msgspec.msgpack.encode if encoding == "msgpack" else msgspec.json.encode
        for number in range(first, first + count):
            event_us = start_us + (number - first) * step_us
            record = self.record(number, event_us)
            headers = (
                ("ce_specversion", b"1.0"),
                ("ce_id", record["input_id"].encode()),
                ("ce_type", record["type"].encode()),
                ("ce_source", b"/street"),
                ("ce_time", record["event_time"].encode()),
                ("content-type", f"application/{encoding}".encode()),
            )
            yield Message(record["sequence"].encode(), encode(record), headers, event_us)
