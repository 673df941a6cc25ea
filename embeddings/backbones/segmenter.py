"""The small segmentation network that ships with segwatch, as a backbone: its bottleneck, averaged."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from embeddings.backbones.spec import UNCHANGED, Backbone, BackboneSpec
from embeddings.segmenter import WEIGHTS, SegmentationNetwork, load_segmenter
from embeddings.state_dicts import BackboneError

TAKES_MODEL = ""


class Bottleneck(nn.Module):
    """The network's deepest map, at a sixteenth of the resolution."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) in 0..1 to (N, 112, S / 16, S / 16)."""
        return self.network.encode(x)[-1]


def weights_path(model: str, weights: Path | None) -> Path:
    """The shipped file, unless another one is given."""
    return weights or WEIGHTS


def build(model: str, spec: BackboneSpec) -> Backbone:
    """The network takes RGB in 0..1, and centres it itself."""
    try:
        segmenter = load_segmenter(spec.weights)
    except ValueError as error:
        raise BackboneError(f"backbone segmenter: {error}") from None
    mean, std = UNCHANGED
    return Backbone(network=Bottleneck(segmenter.network), mean=mean, std=std)
