"""Images to vectors: (N, S, S, 3) uint8 RGB to (N, D) float32, on the device that is there."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.allocator import give_back
from embeddings.backbones import BackboneError, BackboneSpec, build_backbone
from embeddings.batch_time import BatchTime
from embeddings.engines import CpuEngine, CudaEngine, Dtype, Engine

log = logging.getLogger(__name__)

CLOSE_ENOUGH = 0.999
NEVER_FURTHER = 0.99
"""Cosine between embeddings in bfloat16 and in float32 that ``auto`` asks for: on average, and of each trial image."""
TRIALS = 32


class Embedder:
    """A backbone that is ready to run.

    ``device``: ``cuda``, ``cpu``, or ``auto``: CUDA where there is one. When CUDA was chosen and fails (no
    driver, out of memory, a fault), the CPU takes over for good; that is logged, and counted in ``fallbacks``.

    ``dtype``: ``float32``, ``bfloat16``, or ``auto``. On CUDA ``auto`` is bfloat16. On a CPU it is bfloat16 when
    the CPU computes in it natively (AVX512_BF16 or AMX) and 32 trial images get embeddings whose cosine to those
    in float32 is at least 0.999 on average, and never below 0.99; else float32.

    An image's embedding is the same to the last bit whatever batch it is in, and however many threads run, on
    one kind of machine in one dtype. Other kinds of CPU and GPU round differently, in the sixth digit in float32
    and the third in bfloat16, so a baseline should be built in the dtype of production (``dtype`` says which).

    Safe to call from several threads.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        batch_size: int = 8,
        threads: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.spec = spec
        self.identity = spec.identity
        self.batch_size = batch_size
        self.fallbacks = 0
        self._wanted_dtype = dtype
        self._threads = threads
        self._change = threading.Lock()
        self._times: list[tuple[Literal["cpu", "cuda"], BatchTime]] = []
        self._engine = self._start(device)
        # What capturing the network and trying both dtypes took, some 300 MB, is needed by nothing that comes.
        give_back()
        self.dimensions = int(self._run(np.zeros((1, spec.input_size, spec.input_size, 3), np.uint8)).shape[1])
        self._engine.time = BatchTime()  # the first batches are slow, and nobody's
        self._times.append((self.device, self._engine.time))

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where it runs now."""
        return "cuda" if isinstance(self._engine, CudaEngine) else "cpu"

    @property
    def dtype(self) -> Dtype:
        """What the network computes in now; embeddings are float32 always."""
        return self._engine.dtype

    def work(self) -> dict[str, tuple[int, int]]:
        """By device, since the start: batches, and microseconds that they took."""
        found: dict[str, tuple[int, int]] = {}
        for device, time in self._times:
            batches, took_us = found.get(device, (0, 0))
            more, more_us = time.totals
            found[device] = batches + more, took_us + more_us
        return found

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, S, S, 3) RGB to (N, D), for any N >= 0. Raises ValueError for another shape or dtype."""
        size = self.spec.input_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3) or images.dtype != np.uint8:
            raise ValueError(f"images must be (N, {size}, {size}, 3) uint8, got {images.shape} {images.dtype}")
        return self._run(images) if len(images) else np.zeros((0, self.dimensions), dtype=np.float32)

    def warm_up(self) -> None:
        """Run one batch on every thread, so that the first records do not wait for caches to fill."""
        size = self.spec.input_size
        self._run(np.zeros((self.batch_size * max(self._threads, 4), size, size, 3), dtype=np.uint8))

    def close(self) -> None:
        """End the threads, free the device's memory."""
        self._engine.close()

    def _start(self, device: Literal["auto", "cpu", "cuda"]) -> Engine:
        if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
            try:
                return self._start_cuda()
            except (RuntimeError, AssertionError) as error:  # AssertionError: torch built without CUDA
                self._count_fallback(error)
        return self._start_cpu()

    def _start_cuda(self) -> Engine:
        backbone = build_backbone(self.spec)
        self._check_batch(backbone.fixed_batch)
        dtype: Dtype = "bfloat16" if self._wanted_dtype == "auto" else self._wanted_dtype
        return CudaEngine(backbone, self.spec.input_size, self.batch_size, dtype)

    def _start_cpu(self) -> Engine:
        backbone = build_backbone(self.spec)
        self._check_batch(backbone.fixed_batch)
        size = self.spec.input_size

        def engine(dtype: Dtype) -> CpuEngine:
            return CpuEngine(backbone, size, self.batch_size, dtype, self._threads)

        if self._wanted_dtype != "auto":
            return engine(self._wanted_dtype)
        exact = engine("float32")
        if not computes_bfloat16():
            return exact
        try:
            quick = engine("bfloat16")
            cosines = trial_cosines(exact, quick, size)
        except (BackboneError, RuntimeError) as error:
            log.info("backbone %s stays in float32: bfloat16 fails: %s", self.spec.name, error)
            return exact
        is_close = cosines.mean() >= CLOSE_ENOUGH and cosines.min() >= NEVER_FURTHER
        keep, drop = (quick, exact) if is_close else (exact, quick)
        drop.close()
        log.info(
            "backbone %s runs in %s: cosine of bfloat16 to float32 is %.5f on average, %.5f at least",
            self.spec.name, keep.dtype, cosines.mean(), cosines.min(),
        )  # fmt: skip
        return keep

    def _check_batch(self, fixed: int | None) -> None:
        if fixed is not None and fixed != self.batch_size:
            raise BackboneError(
                f"backbone {self.spec.name} takes batches of exactly {fixed}: set embedding.batch_size to it"
            )

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        engine = self._engine
        try:
            return engine.run(images)
        except RuntimeError as error:  # CUDA's faults and out of memory; the CPU's own are not caught
            if not isinstance(engine, CudaEngine):
                raise
            with self._change:
                if self._engine is engine:  # the first of several threads that fail together
                    self._count_fallback(error)
                    self._engine = self._start_cpu()
                    self._times.append((self.device, self._engine.time))
            return self._engine.run(images)

    def _count_fallback(self, error: BaseException) -> None:
        self.fallbacks += 1
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("backbone %s falls back from CUDA to the CPU: %s", self.spec.name, reason)


def computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 natively. Without, it is emulated, and slower than float32."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags


def trial_images(count: int, size: int) -> NDArray[np.uint8]:
    """(count, size, size, 3) images with the spectrum of photographs: noise whose amplitude halves with each octave."""
    rng = np.random.default_rng(20261123)
    images = np.zeros((count, size, size, 3))
    for image in images:
        image += rng.uniform(64, 192, 3)
        side, amplitude = 2, rng.uniform(16, 64)
        while side < size:
            noise = rng.normal(0.0, 1.0, (side, side, 3)) * amplitude
            image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
            side, amplitude = side * 2, amplitude / 2
    return np.clip(images, 0, 255).astype(np.uint8)


def trial_cosines(exact: Engine, quick: Engine, size: int) -> NDArray[np.float64]:
    """(32,) cosines between two engines' embeddings of the same trial images; NaN where one is not finite."""
    images = trial_images(TRIALS, size)
    a, b = exact.run(images).astype(np.float64), quick.run(images).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: NDArray[np.float64] = (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return cosines
