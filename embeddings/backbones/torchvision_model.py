"""``torchvision:NAME``: a classification or segmentation network of torchvision, with a local weights file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from embeddings.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneSpec
from embeddings.state_dicts import BackboneError, load_strictly, read_state_dict

TAKES_MODEL = "NAME"
HEADS = ("fc", "classifier", "head", "heads")
"""Attributes under which torchvision's networks keep their classifier."""


class SegmentationEncoder(nn.Module):
    """The encoder of a segmentation network: its last feature map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, D, h, w)."""
        features: Tensor = list(self.backbone(x).values())[-1] if self.last else self.backbone(x)["out"]
        return features

    @property
    def last(self) -> bool:
        """Whether the encoder names its maps otherwise than "out" and "aux" (LR-ASPP: "low" and "high")."""
        return "out" not in getattr(self.backbone, "return_layers", {"layer": "out"}).values()


def weights_path(model: str, weights: Path | None) -> Path:
    """Always the given file: nothing is downloaded, and random weights are never used."""
    if weights is None:
        raise BackboneError(f"backbone torchvision:{model} needs a local weights file: set embedding.weights")
    return weights


def create(model: str, **arguments: Any) -> nn.Module:
    """The network without weights; its encoder too, which torchvision would download by default."""
    try:
        builder = torchvision.models.get_model_builder(model)
    except ValueError:
        raise BackboneError(f"backbone torchvision:{model}: torchvision has no network of this name") from None
    if "weights_backbone" in inspect.signature(builder).parameters:
        arguments["weights_backbone"] = None
    if "init_weights" in inspect.signature(builder).parameters:
        arguments["init_weights"] = False  # slow, and every weight is replaced
    network: nn.Module = builder(weights=None, **arguments)
    return network


def build(model: str, spec: BackboneSpec) -> Backbone:
    """The network up to what its head would get. The file may or may not hold the head's weights."""
    network = create(model)
    tensors = read_state_dict(spec.weights)
    if isinstance(getattr(network, "backbone", None), nn.Module):
        network = SegmentationEncoder(network.get_submodule("backbone"))
        dropped: tuple[str, ...] = ("classifier", "aux_classifier")
    else:
        dropped = tuple(head for head in HEADS if isinstance(getattr(network, head, None), nn.Module))
        if not dropped:
            raise BackboneError(f"backbone torchvision:{model}: where its features end is not known; export it instead")
        for head in dropped:
            setattr(network, head, nn.Identity())
    kept = {name: t for name, t in tensors.items() if not name.startswith(tuple(f"{head}." for head in dropped))}
    load_strictly(network, kept, spec.weights)
    network.eval()
    return Backbone(network=network, mean=IMAGENET_MEAN, std=IMAGENET_STD)
