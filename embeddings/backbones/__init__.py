"""The backbones: one file each, and the table of all of them."""

from __future__ import annotations

from pathlib import Path

from embeddings.backbones import efficientnet_lite0, exported, segmenter, timm_model, torchvision_model
from embeddings.backbones.spec import Backbone, BackboneSpec, Builder
from embeddings.state_dicts import BackboneError, sha256_of

__all__ = ["BACKBONES", "Backbone", "BackboneError", "BackboneSpec", "backbone_spec", "build_backbone"]

BACKBONES: dict[str, Builder] = {
    "efficientnet_lite0": efficientnet_lite0,
    "exported": exported,
    "segmenter": segmenter,
    "timm": timm_model,
    "torchvision": torchvision_model,
}
"""By the part of a backbone's name before the colon; the part after it is the model or file."""


def backbone_spec(name: str, weights: Path | None = None, input_size: int = 224) -> BackboneSpec:
    """What ``embedding.backbone``, ``embedding.weights`` and ``embedding.input_size`` say, with the weights' hash.

    Quick: nothing is built. Raises BackboneError for an unknown name and for a missing weights file.
    """
    family, _, model = name.partition(":")
    builder = BACKBONES.get(family)
    if builder is None:
        raise BackboneError(f"backbone {name!r} is none of {', '.join(sorted(BACKBONES))}")
    if builder.TAKES_MODEL and not model:
        raise BackboneError(f"backbone {name!r} lacks the part after the colon: {family}:{builder.TAKES_MODEL}")
    if not builder.TAKES_MODEL and model:
        raise BackboneError(f"backbone {name!r}: {family} takes nothing after a colon")
    path = builder.weights_path(model, weights)
    return BackboneSpec(name=name, weights=path, weights_sha256=sha256_of(path), input_size=input_size)


def build_backbone(spec: BackboneSpec) -> Backbone:
    """The network with its weights, in evaluation mode, on the CPU, in float32.

    Raises BackboneError when the weights do not fit, or are no longer those that were hashed.
    """
    family, _, model = spec.name.partition(":")
    found = sha256_of(spec.weights)
    if found != spec.weights_sha256:
        raise BackboneError(f"weights file {spec.weights} changed: SHA-256 {found}, expected {spec.weights_sha256}")
    backbone = BACKBONES[family].build(model, spec)
    for parameter in backbone.network.parameters():
        parameter.requires_grad_(False)
    return backbone
