"""Masks that formats are likely to lose: holes, lines one pixel wide, full, empty, at the borders, single pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
SIDES = (1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 40, 63, 64, 65, 97)


def adversarial(height: int, width: int) -> list[Mask]:
    """One of each kind that an image of this size can have."""
    rows, columns = np.mgrid[:height, :width]
    middle_y, middle_x, radius = height / 2, width / 2, min(height, width) / 2
    distance = np.hypot(rows - middle_y, columns - middle_x)
    edge = (rows == 0) | (columns == 0) | (rows == height - 1) | (columns == width - 1)
    masks = [
        np.zeros((height, width), np.bool_),
        np.ones((height, width), np.bool_),
        edge,
        ~edge,
        rows == height // 2,
        columns == width // 2,
        rows == 0,
        columns == width - 1,
        rows == columns,
        rows + columns == width - 1,
        (rows + columns) % 2 == 0,
        (rows + columns) % 2 == 1,
        rows % 2 == 0,
        columns % 2 == 1,
        (distance < radius) & (distance > radius - 1.5),
        (distance < radius) & (distance > 1),
        (distance < radius / 2) | edge,
        rows * width + columns == 0,
        rows * width + columns == height * width - 1,
        rows * width + columns != (height * width) // 2,
        (rows < height // 2) == (columns < width // 2),
    ]
    return [np.asarray(mask, np.bool_) for mask in masks]


def random_mask(rng: np.random.Generator, height: int, width: int) -> Mask:
    """Noise of any density, boxes with holes in them, or a walk of single pixels."""
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(rng.random((height, width)) < rng.random() ** 2, np.bool_)
    mask = np.zeros((height, width), np.bool_)
    if kind == 1:
        for k in range(int(rng.integers(1, 8))):
            top, left = int(rng.integers(height)), int(rng.integers(width))
            mask[top : top + 1 + int(rng.integers(height)), left : left + 1 + int(rng.integers(width))] = k % 3 != 2
        return mask
    steps = rng.integers(-1, 2, (int(rng.integers(1, 3 * (height + width))), 2))
    middle, last = np.array([height // 2, width // 2]), np.array([height - 1, width - 1])
    path = np.clip(np.cumsum(steps, axis=0) + middle, 0, last)
    mask[path[:, 0], path[:, 1]] = True
    return mask


def images_of_masks(count: int, seed: int, a_image: int = 100) -> Iterator[list[Mask]]:
    """``count`` masks in images of odd sizes: all adversarial ones of its size in each, the others at random."""
    rng = np.random.default_rng(seed)
    left = count
    while left > 0:
        height, width = (int(side) for side in rng.choice(SIDES, 2))
        masks = adversarial(height, width)
        masks += [random_mask(rng, height, width) for _ in range(a_image - len(masks))]
        yield masks[:left]
        left -= len(masks[:left])
