"""``segwatch backbone export``: a network cut at a layer answers as the network does at that layer."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from embeddings.backbones import BackboneError, backbone_spec, build_backbone
from embeddings.cutting import export_backbone
from embeddings.embedder import Embedder
from tests.test_embeddings_backbones import Trap, weights_of

SIZE = 64


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        y += x
        return torch.relu_(y)


class Encoder(nn.Module):
    """Calls a method of its own, as torchvision's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8), Block(8))
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), Block(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(self.stem(x))).mean((2, 3))  # type: ignore[no-any-return]


class Net(nn.Module):
    """A user's segmentation network: encoder, decoder, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x).mean((2, 3)) + self.encoder(x).mean(1, keepdim=True)  # type: ignore[no-any-return]


def network() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return net


def traced(net: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, torch.rand(1, 3, SIZE, SIZE)).save(path)
    return str(path)


def scripted(net: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(path)
    return str(path)


def program(net: nn.Module, path: Path) -> str:
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},)), path)
    return str(path)


SOURCES: dict[str, tuple[Callable[[nn.Module, Path], str], str]] = {
    "traced": (traced, "net.pt"),
    "scripted": (scripted, "net.pt"),
    "exported": (program, "net.pt2"),
}


def at_layer(net: nn.Module, layer: str, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.inference_mode():
        net.eval()(x)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("layer", ["encoder.layer2", "encoder.layer1.1.conv1", "encoder", "decoder.1"])
def test_a_user_s_network_is_cut_at_a_layer(tmp_path: Path, source: str, layer: str) -> None:
    save, name = SOURCES[source]
    net, x = network(), torch.rand(3, 3, SIZE, SIZE)
    expected = at_layer(net, layer, x)
    shape = export_backbone(save(net, tmp_path / name), None, layer, tmp_path / "backbone.pt2", SIZE)
    backbone = build_backbone(backbone_spec(f"exported:{tmp_path / 'backbone.pt2'}", input_size=SIZE))
    assert shape == expected.shape[1:]
    assert torch.allclose(backbone.network(x), expected, atol=1e-5)


def test_normalisation_becomes_part_of_the_program(tmp_path: Path) -> None:
    net, x = network(), torch.rand(2, 3, SIZE, SIZE)
    source, out = traced(net, tmp_path / "net.pt"), tmp_path / "backbone.pt2"
    export_backbone(source, None, "encoder.layer1", out, SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    backbone = build_backbone(backbone_spec(f"exported:{out}", input_size=SIZE))
    assert torch.allclose(backbone.network(x), at_layer(net, "encoder.layer1", (x - mean) / std), atol=1e-4)


@pytest.mark.slow
def test_a_torchvision_segmentation_network_of_three_classes_is_cut_at_its_encoder(tmp_path: Path) -> None:
    net = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    ).eval()
    weights, out = weights_of(net, tmp_path / "weights.safetensors"), tmp_path / "backbone.pt2"
    shape = export_backbone("torchvision:lraspp_mobilenet_v3_large", weights, "backbone", out, SIZE)
    backbone = build_backbone(backbone_spec(f"exported:{out}", input_size=SIZE))
    x = torch.rand(2, 3, SIZE, SIZE)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert shape == (960, 4, 4)
    assert torch.allclose(backbone.network(x), net.backbone((x - mean) / std)["high"], atol=1e-4)


def test_a_timm_network_is_cut_and_embeds_like_its_layer(tmp_path: Path) -> None:
    net = timm.create_model("resnet18", pretrained=False, num_classes=5)
    weights, out = weights_of(net, tmp_path / "weights.pth"), tmp_path / "backbone.pt2"
    assert export_backbone("timm:resnet18", weights, "layer3", out, SIZE) == (256, 4, 4)
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    embedder = Embedder(backbone_spec(f"exported:{out}", input_size=SIZE), "cpu", "float32", batch_size=4)
    mean, std = (torch.tensor(net.pretrained_cfg[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    assert np.allclose(embedder.embed(images), at_layer(net, "layer3", x).mean((2, 3)).numpy(), atol=1e-4)
    assert embedder.identity.startswith("exported/") and str(tmp_path) not in embedder.identity


def test_a_whole_torchscript_network_is_a_backbone_too(tmp_path: Path) -> None:
    net = network()
    spec = backbone_spec(f"exported:{traced(net.encoder, tmp_path / 'net.pt')}", input_size=SIZE)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    found = Embedder(spec, "cpu", "float32", batch_size=2).embed(images)
    with torch.inference_mode():
        expected = net.encoder(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).numpy()
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("layer", ["encoder.layer9", "unused", ""])
def test_a_layer_that_is_not_there_or_not_called_is_named(tmp_path: Path, source: str, layer: str) -> None:
    save, name = SOURCES[source]
    with pytest.raises(BackboneError, match=f"no layer '?{layer}"):
        export_backbone(save(network(), tmp_path / name), None, layer, tmp_path / "backbone.pt2", SIZE)
    assert not (tmp_path / "backbone.pt2").exists()


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    source = traced(network(), tmp_path / "net.pt")
    with pytest.raises(BackboneError, match=r"backbone.onnx: a torch.export program's name ends in .pt2"):
        export_backbone(source, None, "encoder", tmp_path / "backbone.onnx", SIZE)
    with pytest.raises(BackboneError, match="has its weights in its file"):
        export_backbone(source, tmp_path / "net.pt", "encoder", tmp_path / "out.pt2", SIZE)
    with pytest.raises(BackboneError, match="needs a local weights file"):
        export_backbone("timm:resnet18", None, "layer3", tmp_path / "out.pt2", SIZE)
    with pytest.raises(BackboneError, match="is no timm:NAME, torchvision:NAME, .pt2 or TorchScript .pt file"):
        export_backbone("net.onnx", None, "layer3", tmp_path / "out.pt2", SIZE)
    with pytest.raises(BackboneError, match=r"absent.pt2?: No such file"):
        export_backbone(str(tmp_path / "absent.pt2"), None, "layer3", tmp_path / "out.pt2", SIZE)


def test_a_program_for_another_size_or_batch_is_refused(tmp_path: Path) -> None:
    fixed = torch.export.export(network().encoder, (torch.rand(4, 3, SIZE, SIZE),))
    torch.export.save(fixed, tmp_path / "fixed.pt2")
    name = f"exported:{tmp_path / 'fixed.pt2'}"
    with pytest.raises(BackboneError, match="takes images of 64 pixels, embedding.input_size is 224"):
        build_backbone(backbone_spec(name))
    with pytest.raises(BackboneError, match="takes batches of exactly 4: set embedding.batch_size"):
        Embedder(backbone_spec(name, input_size=SIZE), "cpu", "float32", batch_size=8)
    assert Embedder(backbone_spec(name, input_size=SIZE), "cpu", "float32", batch_size=4).dimensions == 16


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


def trapped_example(folder: Path) -> Callable[[str, bytes], bytes]:
    buffer = io.BytesIO()
    torch.save(((Trap(folder / "sprung"),), {}), buffer)
    return lambda name, data: buffer.getvalue() if name.endswith("sample_inputs/model.pt") else data


def pickled_weights(folder: Path) -> Callable[[str, bytes], bytes]:
    trap = pickle.dumps(Trap(folder / "sprung"))

    def change(name: str, data: bytes) -> bytes:
        if "/data/weights/" in name and not name.endswith(".json"):
            return trap
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')

    return change


def calling_shape(folder: Path) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if "/models/" not in name:
            return data
        text = json.dumps(json.loads(data))
        assert '"expr_str": "' in text
        head, _, tail = text.partition('"expr_str": "')
        return f"{head}\"expr_str\": \"__import__('os').mkdir('{folder / 'sprung'}') or {tail}".encode()

    return change


def calling_operation(folder: Path) -> Callable[[str, bytes], bytes]:
    return lambda name, data: data.replace(b"torch.ops.aten.relu_.default", b"torch.os.mkdir")


@pytest.mark.parametrize("attack", [trapped_example, pickled_weights, calling_shape, calling_operation])
def test_a_program_that_would_run_code_while_it_is_read_is_refused(
    tmp_path: Path, attack: Callable[[Path], Callable[[str, bytes], bytes]]
) -> None:
    path = tmp_path / "net.pt2"
    program(network().encoder, path)
    rewritten(path, lambda name, data: data)
    build_backbone(backbone_spec(f"exported:{path}", input_size=SIZE))  # rewriting alone does no harm
    rewritten(path, attack(tmp_path))
    with pytest.raises(BackboneError, match="net.pt2"):
        build_backbone(backbone_spec(f"exported:{path}", input_size=SIZE))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["net.pt2", "net.pt"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no network at all")
    with pytest.raises(BackboneError, match=f"{name}: not a readable"):
        build_backbone(backbone_spec(f"exported:{tmp_path / name}", input_size=SIZE))
