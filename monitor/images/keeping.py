"""Chooses, redacts and writes the images that ingest keeps: before the record's transaction is committed.

A crash in between leaves an image without a record, which expiry removes; there is never a record that names an image
that is missing, because no record names one: whether there is an image is asked of the place where it would be.

What is chosen depends on the records alone. Of each day and model version a worker writes an image if its draw is among
the smallest ``max_per_day`` that this worker has seen; the leader then removes all but the smallest of all workers. So
whoever reads what, in whatever order, the same images stay, and a worker writes few more than these: of N records
k (1 + ln(N / k)).
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from embeddings.images import ImageError, ImageLimits, decode_within
from monitor.classes import Classes
from monitor.draws import draw
from monitor.errors import BadRecord
from monitor.images.names import ImageName, name_of
from monitor.images.protocol import ImageStore, ImageStoreError
from monitor.images.redaction import obscured, region_of
from monitor.records import Prediction
from monitor.settings import Settings

log = logging.getLogger(__name__)

PAUSE_S = 30.0
"""Nothing is written for this long after a failure: a place that hangs must not hold records up one by one."""
MOST_DAYS = 200
"""Days of model versions whose draws are remembered."""


class ImageKeeper:
    """Safe for several threads. ``is_purged``: whether an input of a model has been purged."""

    def __init__(
        self,
        images: ImageStore,
        settings: Settings,
        is_purged: Callable[[str, str], bool] = lambda _model, _input: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._images = images
        self._samples = settings.samples
        self._redact = settings.redact
        self._limits = ImageLimits(settings.images.max_pixels, settings.images.max_bytes)
        self._is_purged = is_purged
        self._clock = clock
        self._lock = threading.Lock()
        self._smallest: OrderedDict[str, list[int]] = OrderedDict()
        """By folder: the draws, negated, of the images that this worker has chosen there; a heap."""
        self._paused_until = float("-inf")
        self._told: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()
        """Images by outcome: ``kept``, ``there`` (before), ``failed``, ``unredactable``."""

    def keep(self, prediction: Prediction, load: Callable[[], bytes], classes: Classes) -> None:
        """Keep the image of a good record, if it is chosen; ``load`` gives it. Never raises: it costs no record."""
        model, version, input_id = prediction.model.name, prediction.model.version, prediction.input_id
        if draw("images", model, version, input_id) >= self._samples.share:
            return
        name = name_of(model, version, input_id, prediction.event_time_us, self._samples.format)
        if not self._choose(name) or self._is_purged(model, input_id):
            return
        outcome = self._keep(name, prediction, load, classes)
        with self._lock:
            self.counts[outcome] += 1

    def forget(self, model: str, version: str, input_id: str, event_time_us: int) -> None:
        """Remove the image of a record that turned out to be purged."""
        name = name_of(model, version, input_id, event_time_us, self._samples.format)
        try:
            self._images.delete([name])
        except ImageStoreError as error:
            log.error("an image of a purged input may have been kept, purge it again: %s", error)

    def _choose(self, name: ImageName) -> bool:
        most = self._samples.max_per_day
        if not most:
            return True
        chance = -int(name.draw, 16)
        with self._lock:
            heap = self._smallest.setdefault(name.folder, [])
            self._smallest.move_to_end(name.folder)
            if len(self._smallest) > MOST_DAYS:
                self._smallest.popitem(last=False)
            if len(heap) < most:
                heapq.heappush(heap, chance)
                return True
            return heapq.heappushpop(heap, chance) != chance

    def _keep(self, name: ImageName, prediction: Prediction, load: Callable[[], bytes], classes: Classes) -> str:
        if self._clock() < self._paused_until:
            return "failed"
        try:
            if self._images.has(name):
                return "there"
            pixels, width, height = decode_within(load(), self._samples.max_side, self._limits)
            if self._redact.blur_classes:
                names = set(self._redact.blur_classes)
                if not names & set(classes.names):
                    self._tell_once(prediction.model.name, prediction.model.version)
                    return "unredactable"
                shown = pixels.shape[0], pixels.shape[1]
                region = region_of(prediction, classes, names, (height, width), shown, self._limits.max_pixels)
                pixels = obscured(pixels, region, self._redact.method, self._redact.margin)
            return "kept" if self._images.put(name, encode(pixels, name.suffix, self._samples.quality)) else "there"
        except (ImageError, BadRecord):
            return "unredactable"
        except ImageStoreError as error:
            log.warning("images are not kept for %g s: %s", PAUSE_S, error)
            self._paused_until = self._clock() + PAUSE_S
            return "failed"
        except Exception:
            log.exception("an image was not kept")
            return "failed"

    def _tell_once(self, model: str, version: str) -> None:
        if (model, version) not in self._told:
            self._told.add((model, version))
            log.warning("%s version %s has none of redact.blur_classes: no image of it is kept", model, version)


def encode(pixels: NDArray[np.uint8], suffix: str, quality: int) -> bytes:
    """(h, w, 3) RGB as JPEG or WebP; nothing of the original's metadata is in it."""
    if suffix == "jpg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420"))
    done, data = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise ValueError("OpenCV cannot write WebP")
    return data.tobytes()
