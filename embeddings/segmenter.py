"""The small segmentation network that ships with the project: the demo's model, and a backbone to embed with.

A small U-Net (Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation,
2015; this one has 0.56 million parameters): four halvings down, three doublings up, and logits at half the
image's resolution, enlarged bilinearly. ``tools/train_segmenter.py`` trains it on the
demo's scenes; ``weights/MODEL_CARD.md`` says how well it does.

Batch normalisation exists in training only. What is stored and run has it folded into the convolutions, so
that no layer ever looks across the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

WEIGHTS = Path(__file__).parent / "weights" / "segmenter.safetensors"
FORMAT = "segwatch-segmenter-1"
FEATURES = 112
BATCH = 32  # the widest layer's activations (32 x 24 x 64 x 64 floats, 13 MB) stay near the cache
MIN_AREA_PX = 24  # the thinnest digit of the demo covers some 60 px; less than 24 are specks of a wrong class


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch normalisation (in training), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    def fuse(self) -> None:
        """Fold the normalisation into the convolution: w' = w gamma / sigma, b' = (b - mu) gamma / sigma + beta."""
        convolution, normalisation = self[0], self[1]
        if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
            self[0] = fuse_conv_bn_eval(convolution, normalisation)
            self[1] = nn.Identity()


class UpBlock(nn.Module):
    """Squeeze to few channels while the map is small, enlarge, put the skip beside it, mix."""

    def __init__(self, inputs: int, squeezed: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.mix = ConvBlock(squeezed + skip, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, inputs, h, w) and (N, skip, H, W) to (N, outputs, H, W)."""
        enlarged = interpolate(self.squeeze(x), size=skip.shape[-2:], mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(torch.cat([enlarged, skip], dim=1))
        return mixed


class SegmentationNetwork(nn.Module):
    """RGB (N, 3, H, W) in 0..1 to logits (N, classes, H, W); channel 0 is the background."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.level1 = nn.Sequential(ConvBlock(3, 16, 2), ConvBlock(16, 16))
        self.level2 = nn.Sequential(ConvBlock(16, 48, 2), ConvBlock(48, 48))
        self.level3 = nn.Sequential(ConvBlock(48, 80, 2), ConvBlock(80, 80))
        self.level4 = nn.Sequential(ConvBlock(80, FEATURES, 2), ConvBlock(FEATURES, FEATURES))
        self.bottleneck = ConvBlock(FEATURES, FEATURES)
        self.up3 = UpBlock(FEATURES, 64, 80, 64)
        self.up2 = UpBlock(64, 32, 48, 48)
        self.up1 = UpBlock(48, 16, 16, 24)
        self.head = nn.Conv2d(24, classes, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The maps at 1/2, 1/4, 1/8 and 1/16 of the resolution; the last is the bottleneck."""
        one: Tensor = self.level1(x - 0.5)
        two: Tensor = self.level2(one)
        three: Tensor = self.level3(two)
        four: Tensor = self.bottleneck(self.level4(three))
        return one, two, three, four

    def forward(self, x: Tensor) -> Tensor:
        one, two, three, four = self.encode(x)
        y = self.up1(self.up2(self.up3(four, three), two), one)
        return interpolate(self.head(y), size=x.shape[-2:], mode="bilinear", align_corners=False)

    def fuse(self) -> Self:
        """Fold every normalisation away, in place; for evaluation only."""
        self.eval()
        for module in list(self.modules()):
            if isinstance(module, ConvBlock):
                module.fuse()
        return self


@dataclass(frozen=True, eq=False)
class Instance:
    """A connected region where one class wins."""

    class_index: int
    """0 is the first class after the background."""
    score: float
    """Mean of the class's probability over the region, 0..1."""
    mask: NDArray[np.bool_]
    """(H, W)"""


class Segmenter:
    """The trained network on the CPU, in evaluation mode.

    ``threads``: torch's, for each thread that calls ``segment``; 0 leaves them as they are. Callers that
    segment from several threads at once take 1, or the threads of one get in the way of the other's.
    """

    def __init__(self, network: SegmentationNetwork, class_names: Sequence[str], threads: int = 0) -> None:
        self._threads = threads
        self.network = network.to(memory_format=torch.channels_last).eval()
        self.class_names = tuple(class_names)
        """Without the background."""

    @property
    def dimensions(self) -> int:
        """D of ``features``."""
        return FEATURES

    @torch.inference_mode()
    def features(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) float32 in 0..1 to (N, 112): the bottleneck's mean over the image."""
        return self.network.encode(x.contiguous(memory_format=torch.channels_last))[-1].mean(dim=(2, 3))

    @torch.inference_mode()
    def segment(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB to probabilities (N, 1 + classes, H, W); channel 0 is the background.

        Runs in batches of 32. A pixel's probabilities add up to 1.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images must be (N, H, W, 3) uint8, not {images.shape} {images.dtype}")
        if self._threads:
            torch.set_num_threads(self._threads)
        n, height, width, _ = images.shape
        out = np.empty((n, 1 + len(self.class_names), height, width), dtype=np.float32)
        for start in range(0, n, BATCH):
            # Channels last is how the bytes lie already: permuting is a view, not a copy.
            x = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).permute(0, 3, 1, 2)
            logits = self.network(x.to(torch.float32) / 255.0)
            # Out of channels-last first: a softmax over 11 neighbours takes ten times as long as one over 11 planes.
            out[start : start + BATCH] = torch.softmax(logits.contiguous(), dim=1).numpy()
        return out

    def predict(self, images: NDArray[np.uint8]) -> list[list[Instance]]:
        """(N, H, W, 3) uint8 RGB to the instances of each image."""
        return [instances(p) for p in self.segment(images)]


def instances(probabilities: NDArray[np.float32], min_area_px: int = MIN_AREA_PX) -> list[Instance]:
    """Connected regions (8 neighbours) of the winning class, largest first within a class.

    ``probabilities`` is (1 + C, H, W), channel 0 the background. Two objects of one class that touch become
    one instance: that is the price of making instances from a semantic network.

    >>> import numpy as np
    >>> p = np.zeros((3, 8, 8), dtype=np.float32)
    >>> p[0] = 0.2
    >>> p[2, 1:7, 1:7] = 0.8
    >>> [(i.class_index, round(i.score, 2), int(i.mask.sum())) for i in instances(p)]
    [(1, 0.8, 36)]
    """
    winner = probabilities.argmax(axis=0).astype(np.uint8)
    found = []
    for channel in np.flatnonzero(np.bincount(winner.ravel(), minlength=1) >= min_area_px):
        if channel == 0:
            continue
        _, regions, stats, _ = cv2.connectedComponentsWithStats((winner == channel).astype(np.uint8), connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        for region in 1 + np.argsort(-areas, kind="stable"):
            left, top, width, height, area = stats[region].tolist()
            if area < min_area_px:
                break
            box = slice(top, top + height), slice(left, left + width)  # a region is small beside its image
            inside = regions[box] == region
            mask = np.zeros(winner.shape, dtype=np.bool_)
            mask[box] = inside
            score = float(probabilities[channel][box][inside].mean(dtype=np.float64))
            found.append(Instance(int(channel) - 1, min(score, 1.0), mask))
    return found


def save_segmenter(network: SegmentationNetwork, class_names: Sequence[str], path: Path) -> None:
    """Store fused weights; class names travel in the file's header."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, metadata={"format": FORMAT, "classes": ",".join(class_names)})


def load_segmenter(path: Path | None = None, threads: int = 0) -> Segmenter:
    """The shipped network, or another one that ``tools/train_segmenter.py`` wrote.

    Raises ValueError, naming the file, when it is no safetensors file or holds another network.
    """
    path = path or WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: format {metadata.get('format')!r} is not {FORMAT!r}")
    class_names = metadata["classes"].split(",")
    network = SegmentationNetwork(1 + len(class_names)).fuse()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: weights of another network: {error}") from None
    return Segmenter(network, class_names, threads)
