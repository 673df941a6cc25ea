"""What each corruption does to a scene, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.demo.corruptions import CORRUPTIONS
from monitor.demo.scenes import PLAIN, SCENE_CLASSES, Recipe, Scene, SceneSource

SOURCE = SceneSource("validation")
CAMERA = ("blur", "noise", "jpeg", "darkness", "colour_cast")
WORLD = ("new_background", "thicker_pens", "new_class", "class_gone")


def scenes(recipe: Recipe, count: int = 40) -> list[Scene]:
    return [SOURCE.scene(np.random.default_rng(seed), recipe) for seed in range(count)]


def change(name: str, strength: int) -> float:
    pairs = zip(scenes(PLAIN), scenes(CORRUPTIONS[name](strength)), strict=True)
    return float(np.mean([np.abs(a.image.astype(float) - b.image.astype(float)).mean() for a, b in pairs]))


def test_the_table_names_every_corruption() -> None:
    assert set(CORRUPTIONS) == set(CAMERA) | set(WORLD)


@pytest.mark.parametrize("name", CAMERA)
def test_a_fault_of_the_camera_moves_nothing_so_that_labels_stay_exact(name: str) -> None:
    for plain, shifted in zip(scenes(PLAIN), scenes(CORRUPTIONS[name](3)), strict=True):
        assert len(plain.instances) == len(shifted.instances)
        for (a, mask), (b, same) in zip(plain.instances, shifted.instances, strict=True):
            assert a == b and np.array_equal(mask, same)


@pytest.mark.parametrize("name", [*CAMERA, "new_background", "thicker_pens"])
def test_a_higher_strength_changes_the_picture_more(name: str) -> None:
    weak, middle, strong = (change(name, strength) for strength in (1, 2, 3))
    assert 0.5 < weak < middle < strong


@pytest.mark.parametrize("name", [*CAMERA, *WORLD])
def test_a_corruption_is_repeatable(name: str) -> None:
    recipe = CORRUPTIONS[name](2)
    for a, b in zip(scenes(recipe, 5), scenes(recipe, 5), strict=True):
        assert np.array_equal(a.image, b.image)


def test_thicker_pens_cover_more() -> None:
    def ink(recipe: Recipe) -> float:
        return float(np.mean([mask.sum() for scene in scenes(recipe) for _, mask in scene.instances]))

    assert ink(PLAIN) < ink(CORRUPTIONS["thicker_pens"](1)) < ink(CORRUPTIONS["thicker_pens"](3))


def test_a_new_class_comes_as_often_as_its_strength_says() -> None:
    found = [SCENE_CLASSES[c] for scene in scenes(CORRUPTIONS["new_class"](2), 300) for c, _ in scene.instances]
    share = found.count("A") / len(found)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / len(found))


@pytest.mark.parametrize(("strength", "gone"), [(1, {"7"}), (2, {"7", "3"}), (3, {"7", "3", "0"})])
def test_a_class_that_is_gone_never_occurs(strength: int, gone: set[str]) -> None:
    recipe = CORRUPTIONS["class_gone"](strength)
    found = {SCENE_CLASSES[c] for scene in scenes(recipe, 200) for c, _ in scene.instances}
    assert found == set("0123456789") - gone


@pytest.mark.parametrize("strength", [0, 4, -1])
def test_there_are_three_strengths(strength: int) -> None:
    for make in CORRUPTIONS.values():
        with pytest.raises(ValueError, match=f"strength: {strength} is none of 1, 2, 3"):
            make(strength)
