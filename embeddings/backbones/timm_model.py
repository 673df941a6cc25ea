"""``timm:NAME``: any network of the timm library, with a local weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from embeddings.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneSpec
from embeddings.state_dicts import BackboneError, load_strictly, read_state_dict

TAKES_MODEL = "NAME"


def weights_path(model: str, weights: Path | None) -> Path:
    """Always the given file: nothing is downloaded, and random weights are never used."""
    if weights is None:
        raise BackboneError(f"backbone timm:{model} needs a local weights file: set embedding.weights")
    return weights


def create(model: str, **arguments: Any) -> nn.Module:
    """The network without weights. A name that timm would look up on a hub is refused, as that needs the network."""
    if not model.replace("_", "").replace(".", "").replace("-", "").isalnum():
        raise BackboneError(f"backbone timm:{model}: expected the bare name of a network, such as timm:resnet50")
    try:
        network: nn.Module = timm.create_model(model, pretrained=False, **arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BackboneError(f"backbone timm:{model}: timm cannot make it: {str(error).splitlines()[0]}") from None
    return network


def normalisation(network: nn.Module) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(mean, std) that the network was trained with."""
    config = getattr(network, "pretrained_cfg", {}) or {}
    mean, std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
    if len(mean) != 3 or len(std) != 3:
        raise BackboneError(f"{type(network).__name__} takes {len(mean)} channels, images have 3")
    return tuple(mean), tuple(std)


def build(model: str, spec: BackboneSpec) -> Backbone:
    """The network up to what its classifier would get. The file may or may not hold the classifier's weights."""
    whole = create(model)
    classifier = (getattr(whole, "pretrained_cfg", {}) or {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    size = {"img_size": spec.input_size} if hasattr(getattr(whole, "patch_embed", None), "img_size") else {}
    network = create(model, num_classes=0, **size)
    tensors = read_state_dict(spec.weights)
    wanted = network.state_dict()
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if name in wanted or not any(name.startswith(f"{head}.") for head in heads)
    }
    load_strictly(network, kept, spec.weights)
    network.eval()
    mean, std = normalisation(whole)
    return Backbone(network=network, mean=mean, std=std)
