"""The shipped segmentation network: what it promises as a model, as a backbone and as a file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import ndimage

from embeddings.segmenter import (
    FEATURES,
    MIN_AREA_PX,
    WEIGHTS,
    SegmentationNetwork,
    Segmenter,
    instances,
    load_segmenter,
    save_segmenter,
)
from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import CLASS_NAMES, PLAIN, Recipe, Scene, SceneSource


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter()


def validation(count: int, recipe: Recipe = PLAIN) -> list[Scene]:
    return [SceneSource("validation").scene(np.random.default_rng([77, seed]), recipe) for seed in range(count)]


def digits_iou(segmenter: Segmenter, recipe: Recipe) -> float:
    """Pooled IoU, mean over the digits, on 48 validation scenes."""
    scenes = validation(48, recipe)
    guessed = segmenter.segment(np.stack([scene.image for scene in scenes])).argmax(axis=1)
    truth = np.zeros_like(guessed)
    for channels, scene in zip(truth, scenes, strict=True):
        for class_index, mask in scene.instances:
            channels[mask] = 1 + class_index
    both = [((guessed == c) & (truth == c)).sum() / ((guessed == c) | (truth == c)).sum() for c in range(1, 11)]
    return float(np.mean(both))


def test_it_segments_scenes_that_it_was_not_trained_on(segmenter: Segmenter) -> None:
    assert digits_iou(segmenter, PLAIN) > 0.75


@pytest.mark.parametrize("name", ["blur", "noise", "darkness", "thicker_pens", "new_background"])
def test_a_gross_corruption_makes_it_worse(segmenter: Segmenter, name: str) -> None:
    assert digits_iou(segmenter, CORRUPTIONS[name](3)) < digits_iou(segmenter, PLAIN) - 0.1


def test_it_is_less_sure_of_what_it_cannot_see(segmenter: Segmenter) -> None:
    def confidence(recipe: Recipe) -> float:
        found = segmenter.predict(np.stack([scene.image for scene in validation(48, recipe)]))
        return float(np.mean([instance.score for image in found for instance in image]))

    assert confidence(CORRUPTIONS["blur"](3)) < confidence(PLAIN) - 0.02


def test_probabilities_add_up_to_one_at_every_pixel_for_any_number_of_images(segmenter: Segmenter) -> None:
    images = np.stack([scene.image for scene in validation(35)])
    probabilities = segmenter.segment(images)
    assert probabilities.shape == (35, 11, 128, 128) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert segmenter.segment(images[:0]).shape == (0, 11, 128, 128)


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(segmenter: Segmenter) -> None:
    images = np.stack([scene.image for scene in validation(8)])
    turned = segmenter.segment(images[::-1])[::-1]
    assert np.array_equal(segmenter.segment(images), turned)


@pytest.mark.parametrize("side", [32, 100, 128, 224])
def test_features_have_one_size_for_images_of_any_side(segmenter: Segmenter, side: int) -> None:
    features = segmenter.features(torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)))
    assert features.shape == (3, FEATURES) and segmenter.dimensions == FEATURES
    assert features.dtype == torch.float32 and bool(torch.isfinite(features).all())


def test_folding_the_normalisation_away_changes_nothing() -> None:
    torch.manual_seed(3)
    network = SegmentationNetwork(11)
    for _ in range(3):  # running means and variances that are not 0 and 1
        network(torch.rand(4, 3, 64, 64))
    network.eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        before = network(x)
        after = network.fuse()(x)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_instances_are_the_connected_regions_that_scipy_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = ndimage.gaussian_filter(rng.normal(size=(4, 48, 48)), (0, 3, 3)) * 40
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    found = instances(probabilities)
    winner = probabilities.argmax(axis=0)
    expected = set()
    for channel in range(1, 4):
        regions, count = ndimage.label(winner == channel, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            if (regions == region).sum() >= MIN_AREA_PX:
                expected.add((channel - 1, (regions == region).tobytes()))
    assert {(i.class_index, i.mask.tobytes()) for i in found} == expected
    for instance in found:
        own = probabilities[1 + instance.class_index][instance.mask]
        assert instance.score == pytest.approx(own.mean(), abs=1e-6) and 0 <= instance.score <= 1


def test_an_image_of_background_has_no_instances() -> None:
    probabilities = np.zeros((11, 16, 16), dtype=np.float32)
    probabilities[0] = 1.0
    assert instances(probabilities) == []


def test_what_is_saved_loads_as_the_same_network(tmp_path: Path, segmenter: Segmenter) -> None:
    path = tmp_path / "copy.safetensors"
    save_segmenter(segmenter.network, segmenter.class_names, path)
    again = load_segmenter(path)
    assert again.class_names == CLASS_NAMES
    images = np.stack([scene.image for scene in validation(2)])
    assert np.array_equal(again.segment(images), segmenter.segment(images))


def test_a_file_that_is_not_its_weights_is_refused_by_name(tmp_path: Path) -> None:
    text, other, cut = (tmp_path / name for name in ("text.safetensors", "other.safetensors", "cut.safetensors"))
    text.write_text("no tensors here")
    save_file({"a": torch.zeros(1)}, other)
    save_file({"a": torch.zeros(1)}, cut, metadata={"format": "segwatch-segmenter-1", "classes": "0,1"})
    with pytest.raises(ValueError, match=r"text\.safetensors: no safetensors file"):
        load_segmenter(text)
    with pytest.raises(ValueError, match=r"other\.safetensors: format None"):
        load_segmenter(other)
    with pytest.raises(ValueError, match=r"cut\.safetensors: weights of another network"):
        load_segmenter(cut)


def test_images_of_another_shape_or_type_are_refused(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="uint8"):
        segmenter.segment(np.zeros((1, 64, 64, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="images must be"):
        segmenter.segment(np.zeros((64, 64, 3), dtype=np.uint8))


def test_the_weights_are_small_and_are_those_of_the_model_card() -> None:
    assert WEIGHTS.stat().st_size < 4 * 2**20
    card = (WEIGHTS.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert re.findall(r"SHA-256 `([0-9a-f]{64})`", card) == [hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()]
    assert sum(p.numel() for p in load_segmenter().network.parameters()) < 1_000_000
