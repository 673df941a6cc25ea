"""What runs batches: the CPU and CUDA. Both take fixed shapes only, so that an embedding never depends on its batch.

Two floating-point sums of the same numbers differ when they are made in another order, and libraries choose the
order by the shape of the whole batch, and by the number of threads that share it. So every call has exactly
``batch_size`` images, a short one is filled up with black, and on the CPU a call runs on one thread: several
threads run several batches, which also scales better than sharing one, and does not collapse beside a busy
neighbour. At a fixed shape, oneDNN and cuDNN treat all images of a batch alike; the tests show it for each
device and dtype.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from embeddings.allocator import keep_freed_memory, share_heaps
from embeddings.backbones import Backbone, BackboneError
from embeddings.batch_time import BatchTime
from embeddings.fusion import fuse

log = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16"]
_TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Engine(Protocol):
    """Runs one network on one device."""

    dtype: Dtype
    time: BatchTime

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, S, S, 3) RGB to (N, D), N >= 1."""

    def close(self) -> None:
        """Give back threads and memory."""


def usable_cores() -> int:
    """Cores that this process may use; fewer than the machine has in a container with a CPU set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuEngine:
    """Batches on a pool of threads, one thread a batch, through the fused network."""

    def __init__(self, backbone: Backbone, input_size: int, batch_size: int, dtype: Dtype, threads: int) -> None:
        share_heaps(usable_cores())
        keep_freed_memory()
        self.dtype: Dtype = dtype
        self.time = BatchTime()
        self._batch_size = batch_size
        self._scale, self._shift = _normalisation(backbone, input_size)
        # Some contrast, the same at every start: the fused network is compared with the plain one on it.
        example = torch.linspace(-2, 2, 3 * input_size**2).sin().reshape(1, 3, input_size, input_size)
        example = example.expand(batch_size, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        self._network = _prepare_network(backbone, example, _TORCH[dtype])
        # set_num_threads concerns the thread that calls it and those that first use torch after it; a thread that
        # used torch before, as the main one, keeps its number.
        self._pool = ThreadPoolExecutor(threads or usable_cores(), "embed", lambda: torch.set_num_threads(1))

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, S, S, 3) RGB to (N, D), N >= 1."""
        starts = range(0, len(images), self._batch_size)
        return np.concatenate(list(self._pool.map(lambda at: self._batch(images[at : at + self._batch_size]), starts)))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _batch(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self.time.of(1), torch.inference_mode():
            x = torch.from_numpy(_filled(images, self._batch_size))
            # As rows of S * 3 numbers: a broadcast over a last dimension of 3 would run number by number.
            rows = x.reshape(x.shape[0], x.shape[1], -1).to(torch.float32)
            rows.mul_(self._scale).add_(self._shift)
            # Bytes lie as (N, H, W, 3), which is what channels_last means: the permutation is a view.
            y = self._network(rows.reshape(x.shape).permute(0, 3, 1, 2))
            return _pooled(y)[: len(images)].numpy()


class CudaEngine:
    """Batches on one GPU: channels last, deterministic algorithms, copies overlapped with the network."""

    def __init__(self, backbone: Backbone, input_size: int, batch_size: int, dtype: Dtype) -> None:
        self.dtype: Dtype = dtype
        self.time = BatchTime()
        self._batch_size = batch_size
        self._lock = threading.Lock()
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False  # it would pick algorithms by their time, other ones each start
        device = torch.device("cuda")
        self._network = backbone.network.to(device, _TORCH[dtype]).to(memory_format=torch.channels_last)
        scale, shift = _normalisation(backbone, input_size)
        self._scale, self._shift = scale.to(device), shift.to(device)
        # Two buffers: while the GPU reads one, the next batch is written into the other.
        shape = (batch_size, input_size, input_size, 3)
        self._buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, S, S, 3) RGB to (N, D), N >= 1."""
        batches = -(-len(images) // self._batch_size)
        # One time for all of them: they overlap, and only the last line waits for the GPU.
        with self._lock, self.time.of(batches), torch.inference_mode():
            results = []
            for turn, at in enumerate(range(0, len(images), self._batch_size)):
                part = images[at : at + self._batch_size]
                buffer, copied = self._buffers[turn % 2], self._copied[turn % 2]
                copied.synchronize()  # at once for an event that was never recorded
                buffer[: len(part)] = torch.from_numpy(np.ascontiguousarray(part))
                buffer[len(part) :] = 0
                x = buffer.to("cuda", non_blocking=True)
                copied.record()
                rows = x.reshape(x.shape[0], x.shape[1], -1).to(torch.float32)
                rows.mul_(self._scale).add_(self._shift)
                dtype = _TORCH[self.dtype]
                y = self._network(rows.reshape(x.shape).permute(0, 3, 1, 2).to(dtype))
                results.append(_pooled(y)[: len(part)])
            return np.asarray(torch.cat(results).cpu().numpy())

    def close(self) -> None:
        """Free the GPU's memory."""
        self._network = nn.Identity()
        torch.cuda.empty_cache()


def _normalisation(backbone: Backbone, input_size: int) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as x * scale + shift, both repeated along a row of pixels: (3 S,) float32."""
    mean, std = np.asarray(backbone.mean), np.asarray(backbone.std)
    scale, shift = 1 / (255 * std), -mean / std
    return (torch.from_numpy(np.tile(v, input_size).astype(np.float32)) for v in (scale, shift))  # type: ignore[return-value]


def _prepare_network(backbone: Backbone, example: Tensor, dtype: torch.dtype) -> nn.Module:
    network = backbone.network.to(memory_format=torch.channels_last)
    try:
        fused = fuse(network, example, dtype, backbone.float32_convolutions)
        with torch.inference_mode():
            closeness = cosine_similarity(_pooled(fused(example)), _pooled(network(example))).min()
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        return _unfused(network, dtype, _first_line(error))
    # A fusion that changed what the network computes would be far off; rounding is not.
    if not closeness >= (0.9999 if dtype == torch.float32 else 0.9):
        return _unfused(network, dtype, f"the fused network's answer has a cosine of {closeness:.5f} to its own")
    return fused


def _unfused(network: nn.Module, dtype: torch.dtype, reason: str) -> nn.Module:
    if dtype != torch.float32:
        raise BackboneError(f"the backbone cannot run in bfloat16 on the CPU: {reason}")
    log.warning("backbone runs unfused, at half the speed or less: %s", reason)
    return network


def _filled(images: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    if len(images) == batch_size:
        return np.ascontiguousarray(images)
    whole = np.zeros((batch_size, *images.shape[1:]), dtype=np.uint8)
    whole[: len(images)] = images
    return whole


def _pooled(y: object) -> Tensor:
    """(N, D) float32 of (N, D) or (N, D, h, w). Averages in float32, whatever the network computed in."""
    if isinstance(y, (tuple, list)) and len(y) == 1:
        y = y[0]
    if not isinstance(y, Tensor) or y.ndim not in (2, 4):
        found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise BackboneError(f"the backbone returns {found}, expected (N, D) or (N, D, h, w)")
    y = y.to(torch.float32)
    return y.mean(dim=(2, 3)) if y.ndim == 4 else y


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
