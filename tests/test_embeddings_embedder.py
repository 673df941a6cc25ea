"""The embedder: one image, one vector, whatever else is in the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from embeddings.backbones import BackboneSpec, backbone_spec
from embeddings.backbones.efficientnet_lite0 import build_classifier
from embeddings.embedder import Embedder, computes_bfloat16, trial_images
from embeddings.engines import usable_cores
from tests.test_embeddings_backbones import weights_of

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]
DEVICES: list[Device] = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
DTYPES: list[Dtype] = ["float32", "bfloat16"]
SIZE = 96


def crops(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random crops of two photographs."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        photo = load_sample_images().images[index % 2]
        side = int(rng.integers(120, 427))
        y, x = int(rng.integers(0, 427 - side + 1)), int(rng.integers(0, 640 - side + 1))
        found.append(cv2.resize(photo[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA))
    return np.stack(found).astype(np.uint8)


def spec_of(name: str, folder: Path) -> BackboneSpec:
    """The two that ship, and one by name with weights from a file."""
    if not name.startswith("timm:"):
        return backbone_spec(name, input_size=SIZE)
    network = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    return backbone_spec(name, weights_of(network, folder / "weights.safetensors"), SIZE)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "segmenter", "timm:resnet18"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES)
def test_an_embedding_does_not_depend_on_its_batch(tmp_path: Path, name: str, device: Device, dtype: Dtype) -> None:
    embedder = Embedder(spec_of(name, tmp_path), device, dtype, batch_size=4, threads=2)
    images = crops(10, SIZE)
    whole = embedder.embed(images)
    assert whole.shape == (10, embedder.dimensions) and whole.dtype == np.float32 and np.isfinite(whole).all()
    assert (embedder.device, embedder.dtype, embedder.fallbacks) == (device, dtype, 0)
    for index in range(10):  # alone, in a batch filled up with black
        assert np.array_equal(embedder.embed(images[index : index + 1])[0], whole[index])
    rng = np.random.default_rng(1)
    for _ in range(3):  # at other positions, beside other images
        order = rng.permutation(10)
        assert np.array_equal(embedder.embed(images[order]), whole[order])
    for position in range(4):  # beside extreme neighbours
        batch = np.full((4, SIZE, SIZE, 3), 255, dtype=np.uint8)
        batch[position] = images[3]
        assert np.array_equal(embedder.embed(batch)[position], whole[3])
    assert len(np.unique(whole, axis=0)) == 10
    embedder.close()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype: Dtype) -> None:
    spec, images = backbone_spec("efficientnet_lite0", input_size=SIZE), crops(9, SIZE)
    one, three = (Embedder(spec, "cpu", dtype, batch_size=4, threads=threads) for threads in (1, 3))
    assert np.array_equal(one.embed(images), three.embed(images))


def test_the_default_backbone_gives_timm_s_features_in_float32() -> None:
    spec = backbone_spec("efficientnet_lite0")
    images = crops(3, 224)
    embedder = Embedder(spec, "cpu", "float32")
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        expected = build_classifier(spec).forward_features(x).mean((2, 3)).numpy()
    assert embedder.dimensions == 1280
    assert np.abs(embedder.embed(images) - expected).max() < 1e-4


@pytest.mark.slow
def test_bfloat16_of_the_default_backbone_is_close_to_float32_on_photographs() -> None:
    spec, images = backbone_spec("efficientnet_lite0"), crops(32, 224)
    exact, quick = (Embedder(spec, "cpu", dtype).embed(images).astype(np.float64) for dtype in DTYPES)
    cosine = (exact * quick).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(quick, axis=1)
    assert cosine.min() > 0.999 and cosine.mean() > 0.9995


@pytest.mark.slow
def test_auto_takes_bfloat16_only_on_a_cpu_that_computes_in_it() -> None:
    embedder = Embedder(backbone_spec("efficientnet_lite0"), "cpu")
    assert embedder.dtype == ("bfloat16" if computes_bfloat16() else "float32")


@pytest.mark.parametrize(
    ("text", "native"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu avx512f avx2\n", False),
        ("", False),
    ],
)
def test_native_bfloat16_is_read_from_the_cpu_s_flags(tmp_path: Path, text: str, native: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert computes_bfloat16(tmp_path / "cpuinfo") is native
    assert not computes_bfloat16(tmp_path / "absent")


def test_cuda_that_fails_falls_back_to_the_cpu_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    embedder = Embedder(backbone_spec("segmenter", input_size=SIZE), "cuda", batch_size=2)
    embedder.embed(crops(3, SIZE))
    has_cuda = torch.cuda.is_available()
    assert (embedder.device, embedder.fallbacks) == (("cuda", 0) if has_cuda else ("cpu", 1))
    assert ("falls back from CUDA to the CPU" in caplog.text) is not has_cuda


def test_auto_without_cuda_is_no_fallback() -> None:
    embedder = Embedder(backbone_spec("segmenter", input_size=SIZE), batch_size=2)
    assert embedder.fallbacks == 0
    assert embedder.device == DEVICES[-1]


def test_no_images_give_no_vectors_and_wrong_ones_are_named() -> None:
    embedder = Embedder(backbone_spec("segmenter", input_size=SIZE), "cpu", "float32", batch_size=2)
    assert embedder.embed(np.zeros((0, SIZE, SIZE, 3), np.uint8)).shape == (0, embedder.dimensions)
    for wrong in (np.zeros((1, 64, 64, 3), np.uint8), np.zeros((SIZE, SIZE, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"images must be \(N, 96, 96, 3\) uint8"):
            embedder.embed(wrong)
    with pytest.raises(ValueError, match="float32"):
        embedder.embed(np.zeros((1, SIZE, SIZE, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Embedder(embedder.spec, "cpu", batch_size=0)


def test_warming_up_changes_nothing() -> None:
    embedder = Embedder(backbone_spec("segmenter", input_size=SIZE), "cpu", "float32", batch_size=2)
    before = embedder.embed(crops(3, SIZE))
    embedder.warm_up()
    assert np.array_equal(embedder.embed(crops(3, SIZE)), before)


def test_identity_is_the_same_on_every_device_and_in_every_dtype() -> None:
    spec = backbone_spec("segmenter", input_size=SIZE)
    found = {Embedder(spec, "cpu", dtype, batch_size=2).identity for dtype in DTYPES}
    assert found == {spec.identity}


def test_trial_images_are_the_same_at_every_start_and_use_the_whole_range() -> None:
    images = trial_images(8, 64)
    assert np.array_equal(images, trial_images(8, 64))
    assert images.min() < 16 and images.max() > 239 and images.std(axis=(1, 2)).min() > 5


def test_there_is_at_least_one_core() -> None:
    assert usable_cores() >= 1
