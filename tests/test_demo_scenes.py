"""The demo's scenes: exact, disjoint, repeatable."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.demo.scenes import (
    CLASS_NAMES,
    MAX_DIGITS,
    NEW_CLASS,
    SCENE_CLASSES,
    SIZE_PX,
    Image,
    Recipe,
    Scene,
    SceneSource,
    Split,
    _digits,
    _tiles,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "traffic")


def owners(scene: Scene) -> np.ndarray:
    return sum((mask.astype(np.int64) for _, mask in scene.instances), np.zeros((SIZE_PX, SIZE_PX), np.int64))


@given(seed=st.integers(0, 2**32 - 1), split=st.sampled_from(SPLITS))
@settings(max_examples=60, deadline=None)
def test_no_pixel_has_two_owners_and_every_instance_is_visible(seed: int, split: Split) -> None:
    scene = SceneSource(split).scene(np.random.default_rng(seed))
    assert scene.image.shape == (SIZE_PX, SIZE_PX, 3) and scene.image.dtype == np.uint8
    assert 1 <= len(scene.instances) <= MAX_DIGITS
    assert owners(scene).max() == 1
    for class_index, mask in scene.instances:
        assert mask.shape == (SIZE_PX, SIZE_PX) and mask.dtype == np.bool_ and mask.any()
        assert 0 <= class_index < len(CLASS_NAMES)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_sequence(seed: int) -> None:
    source = SceneSource("traffic")
    one, other = (source.sequence(np.random.default_rng(seed), 3) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.image, b.image)
        assert [c for c, _ in a.instances] == [c for c, _ in b.instances]
        assert all(np.array_equal(m, n) for (_, m), (_, n) in zip(a.instances, b.instances, strict=True))


def test_no_digit_and_no_tile_is_in_two_parts() -> None:
    def prints(images: tuple[Image, ...]) -> set[str]:
        return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images}

    digits: dict[str, set[str]] = {
        split: set().union(*(prints(members) for members in _digits(split))) for split in SPLITS
    }
    tiles: dict[str, set[str]] = {split: prints(_tiles(split)) for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "traffic"), ("validation", "traffic")):
        assert not digits[one] & digits[other]
        assert not tiles[one] & tiles[other]
    assert sum(len(part) for part in digits.values()) == 1797
    assert {split: len(part) for split, part in tiles.items()} == {"train": 24, "validation": 8, "traffic": 16}


def test_the_ink_lies_where_the_mask_says() -> None:
    # The same scene with thin and with thick pens: the pictures differ in the ring between the masks and nowhere else,
    # but for the antialiased edge (3 px at most) and some faint ink (a pixel less than half inked is background).
    source, ring_changed, ring_size, strays = SceneSource("validation"), 0, 0, 0
    for seed in range(30):
        thin = source.scene(np.random.default_rng(seed))
        thick = source.scene(np.random.default_rng(seed), Recipe(pen_growth_cells=0.8))
        changed = (thin.image != thick.image).any(axis=2)
        edge = cv2.dilate((owners(thick) == 1).astype(np.uint8), np.ones((7, 7), np.uint8)) == 1
        ring = (owners(thick) == 1) & (owners(thin) == 0)
        ring_changed, ring_size = ring_changed + int(changed[ring].sum()), ring_size + int(ring.sum())
        strays += int(changed[~edge].sum())
    assert ring_size > 10_000 and ring_changed > 0.95 * ring_size
    assert strays < 0.005 * ring_size


def test_frames_of_a_sequence_resemble_each_other_more_than_other_sequences() -> None:
    source = SceneSource("traffic")
    runs = [source.sequence(np.random.default_rng(seed), 4) for seed in range(12)]
    frames = np.array([[scene.image for scene in run] for run in runs], dtype=float)
    within = np.abs(frames[:, 0] - frames[:, 1]).mean()
    between = np.abs(frames[:-1, 0] - frames[1:, 0]).mean()
    assert within < between / 3
    assert all(not np.array_equal(run[0].image, run[1].image) for run in runs)
    assert all([c for c, _ in run[0].instances] == [c for c, _ in run[3].instances] for run in runs[:4])


def test_a_camera_sees_only_its_own_places() -> None:
    source = SceneSource("traffic")

    def seen(seed: int, tiles: list[int]) -> bytes:
        return source.sequence(np.random.default_rng(seed), 1, tiles=tiles)[0].image.tobytes()

    chosen = {
        (seen(seed, [5, 6]) == seen(seed, [5, 5]), seen(seed, [5, 6]) == seen(seed, [6, 6])) for seed in range(20)
    }
    assert chosen == {(True, False), (False, True)}


def test_digits_of_all_classes_come_equally_often() -> None:
    source, rng = SceneSource("train"), np.random.default_rng(1)
    seen = np.bincount([c for _ in range(400) for c, _ in source.scene(rng).instances], minlength=10)
    share = seen / seen.sum()
    assert np.abs(share - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / seen.sum())


def test_the_new_class_is_the_letter() -> None:
    scene = SceneSource("train").scene(np.random.default_rng(1), Recipe(new_class_share=1.0))
    assert {SCENE_CLASSES[c] for c, _ in scene.instances} == {NEW_CLASS}
    assert NEW_CLASS not in CLASS_NAMES


def test_an_unknown_part_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="split: 'test' is none of train, validation, traffic"):
        SceneSource("test")  # type: ignore[arg-type]
