"""Backbones by name: the right weights in the right places, and nothing random, foreign or unpickled."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from timm.data import ImageNetInfo
from torch import nn

import embeddings.backbones as backbones
from embeddings.backbones import BACKBONES, BackboneError, backbone_spec, build_backbone
from embeddings.backbones.efficientnet_lite0 import build_classifier
from embeddings.images import prepare
from embeddings.segmenter import load_segmenter


def weights_of(network: nn.Module, path: Path) -> Path:
    """Random but sensible weights, in a file: normalisations get statistics, as a trained network has them."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    else:
        torch.save(network.state_dict(), path)
    return path


def jpeg_of(index: int) -> bytes:
    pixels = np.ascontiguousarray(load_sample_images().images[index][..., ::-1])
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def test_every_file_of_the_folder_is_in_the_table() -> None:
    folder = Path(backbones.__file__).parent
    files = {path.stem.removesuffix("_model") for path in folder.glob("*.py")} - {"__init__", "spec"}
    assert files == set(BACKBONES)


@pytest.mark.parametrize(("photograph", "likely"), [(0, {"palace", "bell cote", "monastery", "stupa"}), (1, {"daisy"})])
def test_the_default_backbone_recognises_what_photographs_show(photograph: int, likely: set[str]) -> None:
    spec = backbone_spec("efficientnet_lite0")
    network, backbone = build_classifier(spec), build_backbone(spec)
    pixels = torch.from_numpy(prepare(jpeg_of(photograph), 224)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.inference_mode():
        best = network((pixels - mean) / std)[0].topk(5).indices
    names = [ImageNetInfo().index_to_description(int(index)).split(",")[0] for index in best]
    assert likely & set(names), names


def test_the_default_backbone_scales_bytes_as_tensorflow_does() -> None:
    backbone = build_backbone(backbone_spec("efficientnet_lite0"))
    assert all(abs((b / 255 - backbone.mean[0]) / backbone.std[0] - (b - 127) / 128) < 1e-12 for b in range(256))


def test_the_shipped_segmenter_gives_its_own_features() -> None:
    backbone = build_backbone(backbone_spec("segmenter", input_size=64))
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(backbone.network(x).mean((2, 3)), load_segmenter().features(x), atol=1e-6)


def features_before(network: nn.Module, head: str, x: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    network.get_submodule(head).register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.inference_mode():
        network.eval()(x)
    return seen[0].flatten(1)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_torchvision_network_gives_what_its_classifier_would_get(tmp_path: Path, suffix: str) -> None:
    network = torchvision.models.resnet18(weights=None)
    path = weights_of(network, tmp_path / f"weights{suffix}")
    backbone = build_backbone(backbone_spec("torchvision:resnet18", path, 64))
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbone.network(x), features_before(network, "fc", x))


def test_a_torchvision_segmentation_network_gives_its_encoder_s_map(tmp_path: Path) -> None:
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    path = weights_of(network, tmp_path / "weights.safetensors")
    backbone = build_backbone(backbone_spec("torchvision:lraspp_mobilenet_v3_large", path, 64))
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbone.network(x), network.eval().backbone(x)["high"])


def test_a_timm_network_gives_its_pooled_features_with_its_own_normalisation(tmp_path: Path) -> None:
    network = timm.create_model("mobilenetv3_small_050", pretrained=False).eval()
    path = weights_of(network, tmp_path / "weights.safetensors")
    backbone = build_backbone(backbone_spec("timm:mobilenetv3_small_050", path, 64))
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
        assert torch.equal(backbone.network(x), expected)
    assert backbone.mean == network.pretrained_cfg["mean"] and backbone.std == network.pretrained_cfg["std"]


def test_a_classifier_fine_tuned_to_other_classes_still_fits(tmp_path: Path) -> None:
    path = weights_of(torchvision.models.resnet18(weights=None, num_classes=7), tmp_path / "weights.safetensors")
    build_backbone(backbone_spec("torchvision:resnet18", path, 64))


def test_a_training_checkpoint_is_opened(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None)
    wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "weights.pth")
    build_backbone(backbone_spec("torchvision:resnet18", tmp_path / "weights.pth", 64))


WRONG: dict[str, tuple[str, str]] = {
    "unknown": ("resnet", "backbone 'resnet' is none of efficientnet_lite0, exported, segmenter, timm, torchvision"),
    "nothing after the colon": ("timm:", "lacks the part after the colon: timm:NAME"),
    "something after a colon": ("segmenter:x", "segmenter takes nothing after a colon"),
    "no weights for timm": ("timm:resnet50", "timm:resnet50 needs a local weights file: set embedding.weights"),
    "no weights for torchvision": ("torchvision:resnet50", "needs a local weights file"),
    "no file": ("exported:/nowhere/net.pt2", "/nowhere/net.pt2: No such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_name_is_refused_with_the_reason(case: str) -> None:
    name, message = WRONG[case]
    with pytest.raises(BackboneError, match=message.replace(".", r"\.")):
        backbone_spec(name)


def test_a_missing_weights_file_is_named_and_never_replaced_by_random_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="absent.pth: No such file"):
        backbone_spec("efficientnet_lite0", tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["timm:hf-hub:timm/resnet18", "timm:hf_hub:a/b", "timm:local-dir:/tmp", "timm:../x"])
def test_a_name_that_would_ask_a_hub_is_refused(tmp_path: Path, name: str) -> None:
    path = weights_of(nn.Linear(2, 2), tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match="expected the bare name"):
        build_backbone(backbone_spec(name, path))


MISFITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "one tensor missing": (lambda t: t.pop("layer1.0.conv1.weight"), "1 missing .first: layer1.0.conv1.weight"),
    "one tensor too many": (lambda t: t.update({"extra.weight": torch.zeros(1)}), "1 unknown .first: extra.weight"),
    "another shape": (lambda t: t.update({"conv1.weight": torch.zeros(64, 3, 5, 5)}), r"conv1.weight has shape"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = MISFITS[case]
    tensors = dict(torchvision.models.resnet18(weights=None).state_dict())
    change(tensors)
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(BackboneError, match=message):
        build_backbone(backbone_spec("torchvision:resnet18", tmp_path / "weights.safetensors"))


def test_the_default_backbone_misses_no_tensor(tmp_path: Path) -> None:
    spec = backbone_spec("efficientnet_lite0")
    tensors = torch.load(spec.weights, weights_only=True)
    assert len(tensors) == 296
    for name in ("_fc.bias", "_blocks.7._bn1.running_var"):
        torch.save({n: t for n, t in tensors.items() if n != name}, tmp_path / "weights.pth")
        with pytest.raises(BackboneError, match="1 missing"):
            build_backbone(backbone_spec("efficientnet_lite0", tmp_path / "weights.pth"))


class Trap:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "zipped.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    for name in ("zipped.pth", "bare.pth"):
        with pytest.raises(BackboneError, match=f"{name}: not readable as weights only"):
            build_backbone(backbone_spec("torchvision:resnet18", tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "weights.pth"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(BackboneError, match=f"{name}: not readable as weights only"):
            build_backbone(backbone_spec("torchvision:resnet18", tmp_path / name))


def test_weights_that_changed_after_they_were_hashed_are_refused(tmp_path: Path) -> None:
    path = weights_of(torchvision.models.resnet18(weights=None), tmp_path / "weights.safetensors")
    spec = backbone_spec("torchvision:resnet18", path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BackboneError, match="changed: SHA-256"):
        build_backbone(spec)


def test_identity_follows_the_weights_and_the_size_but_not_the_place(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None)
    first = weights_of(network, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(first.read_bytes())
    name = "torchvision:resnet18"
    here, there = backbone_spec(name, first), backbone_spec(name, tmp_path / "b.safetensors")
    assert here.identity == there.identity
    network.fc.weight.data += 1
    other = weights_of(network, tmp_path / "c.safetensors")
    assert len({here.identity, backbone_spec(name, other).identity, backbone_spec(name, first, 192).identity}) == 3
