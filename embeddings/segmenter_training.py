"""Training of the small segmentation network: its loss, what one camera differs by from the next, and more steps."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import nll_loss

from embeddings.segmenter import SegmentationNetwork, Segmenter

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""(N, H, W, 3) RGB and (N, H, W) channel numbers, 0 the background."""
BACKGROUND_WEIGHT = 0.3
MOST_GRADIENT = 2.0


def augment(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, a little blur, a little noise: what one camera differs by from the next, not what is broken."""
    gains = rng.uniform(0.85, 1.15) * rng.uniform(0.93, 1.07, 3)
    changed: NDArray[np.float32] = image * gains.astype(np.float32) + np.float32(rng.uniform(-12, 12))
    if rng.random() < 0.3:
        changed = np.asarray(cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.4, 0.9)), dtype=np.float32)
    if rng.random() < 0.5:
        changed = changed + np.float32(rng.uniform(0, 7)) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(changed, 0, 255), dtype=np.uint8)


def loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy, with the background (93 % of the pixels) weighted down, plus soft Dice over the batch."""
    channels = logits.shape[1]
    weights = torch.ones(channels)
    weights[0] = BACKGROUND_WEIGHT
    # Out of channels-last first: a softmax over 11 neighbouring floats takes ten times as long as one over 11 planes.
    log_p = logits.contiguous().log_softmax(dim=1)
    probabilities = log_p.exp()
    own = probabilities.gather(1, truth[:, None]).flatten()
    overlap = torch.zeros(channels).index_add(0, truth.flatten(), own)
    exact = torch.bincount(truth.flatten(), minlength=channels)
    dice = (2 * overlap + 1) / (probabilities.sum(dim=(0, 2, 3)) + exact + 1)
    return nll_loss(log_p, truth, weights) + (1 - dice).mean()


def tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) in 0..1, channels last, and (N, H, W) channel numbers."""
    images, truth = batch
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(truth)


def step(network: SegmentationNetwork, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """One step down the gradient; the loss before it."""
    images, truth = tensors(batch)
    value = loss(network(images), truth)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(value)
    torch.nn.utils.clip_grad_norm_(network.parameters(), MOST_GRADIENT)
    optimizer.step()
    return float(value.detach())


def train_further(
    segmenter: Segmenter,
    next_batch: Callable[[], Batch],
    *,
    steps: int,
    peak_rate: float,
    seed: int,
    threads: int = 0,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Segmenter:
    """The network after ``steps`` more, under AdamW and a one-cycle rate (Smith and Topin, 2017); changed in place.

    ``on_step`` hears the number of the step, from 1, and the loss before it. ``threads``: torch's; 0 leaves them.
    """
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    network = segmenter.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.2)
    for number in range(1, steps + 1):
        on_step(number, step(network, optimizer, next_batch()))
        schedule.step()
    return Segmenter(network, segmenter.class_names, threads)
