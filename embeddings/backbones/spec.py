"""What names a backbone, and what a builder returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from embeddings.images import PREPROCESSING_VERSION

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNCHANGED = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""(mean, std) of a network that takes RGB in 0..1."""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name, with the weights that it must have."""

    name: str
    """As in the setting: ``efficientnet_lite0``, ``timm:resnet50``, ``exported:street.pt2``."""
    weights: Path
    weights_sha256: str
    input_size: int
    """Side of the square input, pixels."""

    @property
    def identity(self) -> str:
        """What makes embeddings comparable, and what a baseline freezes: not the device, not where the file lies.

        >>> BackboneSpec("exported:/models/street.pt2", Path("/models/street.pt2"), "ab" * 32, 224).identity
        'exported/abababababababab/224/1'
        """
        name = "exported" if self.name.startswith("exported:") else self.name
        return f"{name}/{self.weights_sha256[:16]}/{self.input_size}/{PREPROCESSING_VERSION}"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network in evaluation mode, and how to feed it."""

    network: nn.Module
    """(N, 3, S, S) float32, normalised, to (N, D), or to a map (N, D, h, w) that is then averaged over h and w."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in 0..1 ..."""
    std: tuple[float, float, float]
    """... which is then divided by this."""
    float32_convolutions: int = 0
    """So many first convolutions stay in float32 when the CPU computes in bfloat16 (see ``fusion``)."""
    fixed_batch: int | None = None
    """The only batch size that the network takes; None when it takes any."""


class Builder(Protocol):
    """What each module of this folder offers."""

    TAKES_MODEL: str
    """What stands after the colon of the name, in words; empty where there is no colon."""

    def weights_path(self, model: str, weights: Path | None) -> Path:
        """Where the weights are. Raises BackboneError where they must be given and are not."""

    def build(self, model: str, spec: BackboneSpec) -> Backbone:
        """The network with its weights. Raises BackboneError."""
