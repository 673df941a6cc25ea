"""Scenes with exact masks, made from data that packages ship: nothing is downloaded.

Instances are scikit-learn's handwritten digits (8 x 8 cells of ink, ten classes), drawn as smooth
strokes on crops of scikit-learn's two sample photographs. Where the ink is, is known for every pixel,
so a scene comes with its exact label.

Both sources are cut into three disjoint parts: ``train`` and ``validation`` made the segmentation
network, ``traffic`` is what the demo shows it. The cut is a constant, not a seed: no choice of seed can
put a training digit into the traffic. The tiles of the photographs are interleaved rather than split
left and right, so that the parts differ in their pixels and not in their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""
ImageChange = Callable[[Image, np.random.Generator], Image]

CLASS_NAMES: tuple[str, ...] = tuple("0123456789")
NEW_CLASS = "A"
SCENE_CLASSES = (*CLASS_NAMES, NEW_CLASS)
"""What ``Scene.instances`` indexes: the ten digits, then the glyph that no network was trained on."""

Split = Literal["train", "validation", "traffic"]

SIZE_PX = 128
CELL_PX = 5  # a digit's 8 x 8 cells are kept at 5 px a cell: the cubic curve between cells is smooth from there on
PAD_CELLS = 2  # room for thicker pens and for the blur at the edge
GLYPH_PX = (8 + 2 * PAD_CELLS) * CELL_PX
TILE_PX = 106  # 4 x 6 tiles in a photograph of 427 x 640
MAX_DIGITS = 6


@dataclass(frozen=True)
class Recipe:
    """How scenes are made. The default is what the network was trained on; a shift is another recipe."""

    digits: tuple[int, ...] = tuple(range(10))
    """The digits that occur, each as often as the others."""
    new_class_share: float = 0.0
    """Chance that a glyph is the letter ``NEW_CLASS`` instead of a digit, 0..1."""
    pen_growth_cells: float = 0.0
    """How much wider the stroke is on each side, in cells (a digit is 8 cells high)."""
    texture_share: float = 0.0
    """How much of the photograph is replaced by a synthetic texture, 0..1."""
    finish: ImageChange | None = None
    """What happens to the finished image: the camera's fault, not the world's."""


PLAIN = Recipe()


@dataclass(frozen=True, eq=False)
class Scene:
    """One image and its exact label."""

    image: Image
    """(H, W, 3) uint8, RGB."""
    instances: tuple[tuple[int, NDArray[np.bool_]], ...]
    """(index into ``SCENE_CLASSES``, mask (H, W)) of all that is visible; masks never overlap."""


def target(scene: Scene) -> NDArray[np.int64]:
    """(H, W) channel numbers: 0 background, 1 + class. A glyph of no known class counts as background."""
    channels = np.zeros(scene.image.shape[:2], dtype=np.int64)
    for class_index, mask in scene.instances:
        if class_index < len(CLASS_NAMES):
            channels[mask] = 1 + class_index
    return channels


@dataclass
class _Glyph:
    """A digit under way through a sequence. Positions in px, velocities in px a frame, angles in degrees."""

    class_index: int
    ink: NDArray[np.uint8]
    height: float
    angle: float
    spin: float
    threshold: float
    colour: NDArray[np.float32]
    centre: NDArray[np.float64]
    velocity: NDArray[np.float64]

    @property
    def reach(self) -> float:
        """Half the side of the square that holds the strokes at any angle in use."""
        return 0.6 * self.height

    def step(self) -> None:
        """One frame on; the border of the image turns it round."""
        self.angle += self.spin
        ahead = self.centre + self.velocity
        self.centre, self.velocity = _bounce(ahead, self.velocity, self.reach, SIZE_PX - self.reach)


def _bounce(
    position: NDArray[np.float64], velocity: NDArray[np.float64], low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    outside = (position < low) | (position > high)
    return np.clip(position, low, high), np.where(outside, -velocity, velocity)


def _smooth(cells: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(8, 8) ink in 0..1 to (GLYPH_PX, GLYPH_PX) uint8, the stroke's edge without the cells' corners."""
    padded = np.pad(cells, PAD_CELLS)
    big = cv2.resize(padded, (GLYPH_PX, GLYPH_PX), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(big, (0, 0), 0.35 * CELL_PX)
    return np.asarray(np.clip(soft * 255.0, 0, 255), dtype=np.uint8)


@cache
def _letter() -> NDArray[np.uint8]:
    """The letter, with strokes as wide and as soft as the digits'."""
    canvas = np.zeros((GLYPH_PX, GLYPH_PX), dtype=np.uint8)
    cv2.putText(canvas, NEW_CLASS, (10, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.9, 255, 8, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.35 * CELL_PX), dtype=np.uint8)


@cache
def _digits(split: Split) -> tuple[tuple[NDArray[np.uint8], ...], ...]:
    """The part's digits, by class: 60 % train, 15 % validation, 25 % traffic of the 1,797, by a fixed shuffle."""
    data = load_digits()
    by_class = []
    for digit in range(10):
        members = np.random.default_rng(20_000 + digit).permutation(np.flatnonzero(data.target == digit))
        first, second = round(0.60 * len(members)), round(0.75 * len(members))
        part = {"train": members[:first], "validation": members[first:second], "traffic": members[second:]}[split]
        by_class.append(tuple(_smooth(data.images[i] / 16.0) for i in part))
    return tuple(by_class)


@cache
def _tiles(split: Split) -> tuple[Image, ...]:
    """The part's tiles of both photographs: 24 train, 8 validation, 16 traffic; photographs take turns."""
    photographs = load_sample_images().images
    mine = {"train": (0, 2, 4), "validation": (1,), "traffic": (3, 5)}[split]
    tiles = []
    for row in range(4):
        for column in range(6):
            if (column + 2 * row) % 6 in mine:
                top, left = row * TILE_PX, column * TILE_PX
                tiles += [np.ascontiguousarray(p[top : top + TILE_PX, left : left + TILE_PX]) for p in photographs]
    return tuple(tiles)


def _texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """(SIZE_PX, SIZE_PX, 3) stripes of two colours at a random angle: a floor that no photograph shows."""
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / rng.uniform(9, 22)))[..., None]
    one, other = rng.uniform(20, 235, (2, 3))
    return np.asarray((one + other) / 2 + wave * (one - other) / 2, dtype=np.float32)


class SceneSource:
    """Draws scenes of one part of the data.

    >>> import numpy as np
    >>> scene = SceneSource("traffic").scene(np.random.default_rng(7))
    >>> scene.image.shape, scene.image.dtype.name
    ((128, 128, 3), 'uint8')
    >>> int(sum(mask.astype(int) for _, mask in scene.instances).max())  # no pixel has two owners
    1
    """

    def __init__(self, split: Split) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split: {split!r} is none of {', '.join(get_args(Split))}")
        self._digits = _digits(split)
        self._tiles = _tiles(split)

    @property
    def tiles(self) -> int:
        """How many places there are for a camera to look at."""
        return len(self._tiles)

    def scene(self, rng: np.random.Generator, recipe: Recipe = PLAIN) -> Scene:
        """One scene of 1 to 6 glyphs."""
        return self.sequence(rng, 1, recipe)[0]

    def sequence(
        self, rng: np.random.Generator, frames: int, recipe: Recipe = PLAIN, tiles: Sequence[int] | None = None
    ) -> list[Scene]:
        """What one camera sees in a row: the same place drifting by, the same glyphs moving.

        Frames of a sequence are strongly dependent (guess the next one from the last), as a video's are.
        ``tiles`` are the places that this camera looks at; one of them is drawn for the sequence.
        """
        tile = self._tiles[int(rng.choice(self.tiles if tiles is None else np.asarray(tiles)))]
        side = rng.uniform(72, 100)
        corner, drift = rng.uniform(0, TILE_PX - side, 2), rng.normal(0, 0.8, 2)
        flip, gain = bool(rng.random() < 0.5), rng.uniform(0.8, 1.12)
        texture = _texture(rng) if recipe.texture_share else None
        glyphs: list[_Glyph] = []
        scenes: list[Scene] = []
        for _ in range(frames):
            scale = SIZE_PX / side
            view = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
            crop = cv2.warpAffine(
                tile, view, (SIZE_PX, SIZE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            canvas = (crop[:, ::-1] if flip else crop).astype(np.float32) * np.float32(gain)
            if texture is not None:
                canvas += np.float32(recipe.texture_share) * (texture - canvas)
            if not scenes:
                glyphs = self._cast(rng, recipe, canvas)
            scenes.append(_draw(canvas, glyphs, rng, recipe.finish))
            corner, drift = _bounce(corner + drift, drift, 0, TILE_PX - side)
            for glyph in glyphs:
                glyph.step()
        return scenes

    def _cast(self, rng: np.random.Generator, recipe: Recipe, canvas: NDArray[np.float32]) -> list[_Glyph]:
        """The glyphs of a sequence: 1 to 6 where there is room, at most a little over each other at the start."""
        glyphs: list[_Glyph] = []
        for _ in range(int(rng.integers(1, MAX_DIGITS + 1))):
            height = rng.uniform(26, 46)
            for _attempt in range(12):
                centre = rng.uniform(0.6 * height, SIZE_PX - 0.6 * height, 2)
                if all(np.hypot(*(centre - g.centre)) > 0.42 * (height + g.height) for g in glyphs):
                    break
            else:
                continue
            class_index, ink = self._glyph(rng, recipe)
            x, y = centre.astype(int)
            around = canvas[max(0, y - 12) : y + 12, max(0, x - 12) : x + 12].reshape(-1, 3).mean(axis=0)
            glyphs.append(
                _Glyph(
                    class_index=class_index,
                    ink=ink,
                    height=height,
                    angle=rng.uniform(-18, 18),
                    spin=rng.normal(0, 0.7),
                    threshold=rng.uniform(0.33, 0.52),
                    colour=_pen_colour(rng, around),
                    centre=centre,
                    velocity=rng.normal(0, 1.2, 2),
                )
            )
        return glyphs

    def _glyph(self, rng: np.random.Generator, recipe: Recipe) -> tuple[int, NDArray[np.uint8]]:
        if rng.random() < recipe.new_class_share:
            class_index, ink = SCENE_CLASSES.index(NEW_CLASS), _letter()
        else:
            class_index = int(rng.choice(np.asarray(recipe.digits)))
            ink = self._digits[class_index][int(rng.integers(len(self._digits[class_index])))]
        if recipe.pen_growth_cells:
            grown = 2 * round(recipe.pen_growth_cells * CELL_PX) + 1
            nib = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grown, grown))
            ink = np.asarray(cv2.dilate(ink, nib), dtype=np.uint8)
        return class_index, ink


def _pen_colour(rng: np.random.Generator, around: NDArray[np.float32]) -> NDArray[np.float32]:
    """A random colour that stands out: ink that nobody can see would make a label that nobody can learn."""
    for _ in range(20):
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        if abs(float((colour - around) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))) > 55:
            return colour
    return np.full(3, 255 if around.mean() < 128 else 0, dtype=np.float32)


def _draw(
    canvas: NDArray[np.float32], glyphs: Sequence[_Glyph], rng: np.random.Generator, finish: ImageChange | None
) -> Scene:
    """Paint the glyphs one over the other; the upper one owns the pixel. Then the sensor's noise."""
    owner = np.full((SIZE_PX, SIZE_PX), -1, dtype=np.int8)
    for number, glyph in enumerate(glyphs):
        half = int(np.ceil(glyph.height))
        left, top = int(glyph.centre[0]) - half, int(glyph.centre[1]) - half
        turn = cv2.getRotationMatrix2D((GLYPH_PX / 2, GLYPH_PX / 2), glyph.angle, glyph.height / (8 * CELL_PX))
        turn[:, 2] += glyph.centre - np.array([left, top]) - GLYPH_PX / 2
        field = cv2.warpAffine(glyph.ink, turn, (2 * half, 2 * half), flags=cv2.INTER_LINEAR)
        # Ink rises over about 1.2 cells; this slope makes the painted edge some 1.5 px wide at any height.
        alpha = np.clip((field.astype(np.float32) / 255.0 - glyph.threshold) * (glyph.height / 10) + 0.5, 0, 1)
        rows = slice(max(0, top), min(SIZE_PX, top + 2 * half))
        columns = slice(max(0, left), min(SIZE_PX, left + 2 * half))
        alpha = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        canvas[rows, columns] += alpha[..., None] * (glyph.colour - canvas[rows, columns])
        owner[rows, columns][alpha > 0.5] = number
    canvas += 3.0 * rng.standard_normal(canvas.shape, dtype=np.float32)
    image = np.asarray(np.clip(canvas, 0, 255), dtype=np.uint8)
    if finish is not None:
        image = finish(image, rng)
    masks = ((glyph.class_index, owner == number) for number, glyph in enumerate(glyphs))
    return Scene(image, tuple((class_index, mask) for class_index, mask in masks if mask.any()))
