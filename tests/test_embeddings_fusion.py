"""Fused networks compute what the plain ones do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d, cosine_similarity

from embeddings.fusion import FusedConvolution, diffuse_to_bfloat16, fuse


def settled(network: nn.Module) -> nn.Module:
    """Normalisations with statistics that differ by channel, as a trained network has them."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18 (addition before the activation)": lambda: torchvision.models.resnet18(weights=None),
    "resnext (groups)": lambda: timm.create_model("seresnext26t_32x4d", pretrained=False),
    "mobilenet_v3 (hardswish, gates)": lambda: torchvision.models.mobilenet_v3_small(weights=None),
    "efficientnet-lite (padding of its own)": lambda: timm.create_model("tf_efficientnet_lite0", pretrained=False),
    "efficientnet (silu)": lambda: timm.create_model("efficientnet_b0", pretrained=False),
    "lraspp encoder (dilation)": lambda: (
        torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).backbone
    ),
    "convnext (layer norm)": lambda: timm.create_model("convnext_atto", pretrained=False),
    "vit (attention)": lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64),
}


def answer(network: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = network(x)
    return list(y.values())[-1] if isinstance(y, dict) else y


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_fused_network_answers_as_the_plain_one(name: str) -> None:
    network = settled(NETWORKS[name]())
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    expected = answer(network, x)
    assert torch.allclose(answer(fuse(network, x, torch.float32), x), expected, rtol=1e-4, atol=1e-4)
    rounded = answer(fuse(network, x, torch.bfloat16), x).float()
    assert cosine_similarity(rounded.flatten(1), expected.flatten(1)).min() > 0.99


def test_every_convolution_of_resnet_takes_in_its_normalisation_activation_and_addition() -> None:
    network = settled(torchvision.models.resnet18(weights=None))
    fused = fuse(network, torch.randn(2, 3, 64, 64), torch.float32)
    left = {str(node.target) for node in fused.graph.nodes if node.op == "call_function"}
    assert sum(isinstance(m, FusedConvolution) for m in fused.modules()) == 20
    assert not [target for target in left if any(word in target for word in ("conv", "norm", "relu", "add"))]


class Awkward(nn.Module):
    """Everything that must not be fused, or only so far."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.c = nn.Conv2d(8, 8, (1, 3), padding="same")
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.plain = nn.BatchNorm2d(8, affine=False)
        self.norm = nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.full((1, 8, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)  # read three times: neither normalisation nor activation may be folded in
        y = torch.relu(a) + self.norm(a)
        y += self.b(y)  # written in place, and read again below
        z = y * 2
        y = torch.relu(self.plain(self.b(z)) + self.scale)  # an addition that broadcasts
        y = self.c(y) + self.c(y)  # twice the same node may be added
        y = torch.nn.functional.hardtanh(self.b(y), -0.25, 0.5)
        return torch.sub(self.up(y)[..., ::2, ::2], a, alpha=2) + conv2d(x, self.a.weight, stride=1, padding=1)


def test_what_must_not_be_folded_stays_as_it_is() -> None:
    network = settled(Awkward())
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(answer(fuse(network, x, torch.float32), x), answer(network, x), atol=1e-5)


class Bordered(nn.Module):
    """A border around the input of a convolution, as TensorFlow's networks have it."""

    def __init__(self, border: tuple[int, ...], mode: str, value: float, groups: int, stride: int) -> None:
        super().__init__()
        self.border, self.mode, self.value = border, mode, value
        self.convolution = nn.Conv2d(6, 12, (3, 5), stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        value = self.value if self.mode == "constant" else None
        y: Tensor = self.convolution(nn.functional.pad(x, self.border, self.mode, value))
        return torch.relu(y)


BORDERS: dict[str, tuple[tuple[int, ...], str, float]] = {
    "more at the right and below": ((1, 2, 0, 1), "constant", 0.0),
    "more at the left and above": ((3, 0, 2, 1), "constant", 0.0),
    "alike on all sides": ((2, 2, 1, 1), "constant", 0.0),
    "a crop": ((-1, 2, 1, -2), "constant", 0.0),
    "mirrored": ((1, 2, 1, 0), "reflect", 0.0),
    "of ones": ((1, 2, 1, 0), "constant", 1.0),
    "sideways only": ((1, 2), "constant", 0.0),
}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_borders_of_every_kind_keep_their_meaning(border: str, groups: int, stride: int) -> None:
    network = Bordered(*BORDERS[border], groups, stride).eval()
    x = torch.randn(2, 6, 17, 18)
    fused = fuse(network, x, torch.float32)
    assert torch.allclose(answer(fused, x), answer(network, x), atol=1e-6)
    has_border = any("pad" in str(node.target) for node in fused.graph.nodes)
    folds = groups == 6 and border in (
        "more at the right and below",
        "more at the left and above",
        "alike on all sides",
    )
    assert has_border is not folds


def test_the_first_convolutions_can_stay_in_float32() -> None:
    network = settled(torchvision.models.resnet18(weights=None))
    fused = fuse(network, torch.randn(2, 3, 64, 64), torch.bfloat16, float32_convolutions=4)
    kinds = [m.dtype for name, m in sorted(fused.named_modules()) if isinstance(m, FusedConvolution)]
    assert kinds.count(torch.float32) == 4 and kinds.count(torch.bfloat16) == 16


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 1, 3, 3), (2, 3, 5, 5), (3, 2, 1, 7)]))
def test_diffused_rounding_keeps_each_filter_s_sum_and_every_tap_near(seed: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    rounded = diffuse_to_bfloat16(weight).double()
    smallest = weight.abs().amin(dim=(2, 3)).double()
    drift = (rounded.sum((2, 3)) - weight.double().sum((2, 3))).abs()
    step = torch.maximum(smallest, weight.abs().amax(dim=(2, 3)).double() * 2.0**-8)
    assert (drift <= step * 2.0**-8).all()
    assert ((rounded - weight).abs().amax(dim=(2, 3)) <= weight.abs().amax(dim=(2, 3)) * 2.0**-7).all()


def test_weights_of_one_tap_are_rounded_to_the_nearest() -> None:
    weight = torch.randn(8, 8, 1, 1)
    assert torch.equal(diffuse_to_bfloat16(weight), weight.to(torch.bfloat16))
