"""What can go wrong with a scene, at strengths 1 (slight) to 3 (gross): one table, one line each.

Some shifts change the world (thicker pens, a new glyph) and some the camera (blur, darkness). Both are
recipes for ``SceneSource``, so whoever injects a shift need not know which kind it is. A shift of the
world keeps its labels exact, because they come from the scene; so does a shift of the camera, because it
changes colours and moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import simplejpeg

from monitor.demo.scenes import Image, Recipe


def blur(image: Image, rng: np.random.Generator, *, sigma_px: float) -> Image:
    """Out of focus."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), dtype=np.uint8)


def noise(image: Image, rng: np.random.Generator, *, deviation: float) -> Image:
    """A sensor's noise, independent by pixel and channel; ``deviation`` in grey levels."""
    noisy = image + deviation * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(noisy, 0, 255), dtype=np.uint8)


def jpeg(image: Image, rng: np.random.Generator, *, quality: int) -> Image:
    """Compressed hard on the way."""
    data = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420")
    return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"), dtype=np.uint8)


def darkness(image: Image, rng: np.random.Generator, *, light: float) -> Image:
    """``light`` of the light is left, and the noise that the sensor adds when it has little."""
    return noise(np.asarray(image * np.float32(light), dtype=np.uint8), rng, deviation=4.0)


def colour_cast(image: Image, rng: np.random.Generator, *, gains: tuple[float, float, float]) -> Image:
    """A wrong white balance: red, green and blue multiplied."""
    return np.asarray(np.clip(image * np.asarray(gains, dtype=np.float32), 0, 255), dtype=np.uint8)


def _step(strength: int) -> int:
    if strength not in (1, 2, 3):
        raise ValueError(f"strength: {strength!r} is none of 1, 2, 3")
    return strength - 1


def _blur(strength: int) -> Recipe:
    return Recipe(finish=partial(blur, sigma_px=(1.2, 2.4, 4.0)[_step(strength)]))


def _noise(strength: int) -> Recipe:
    return Recipe(finish=partial(noise, deviation=(15.0, 30.0, 55.0)[_step(strength)]))


def _jpeg(strength: int) -> Recipe:
    return Recipe(finish=partial(jpeg, quality=(30, 12, 4)[_step(strength)]))


def _darkness(strength: int) -> Recipe:
    return Recipe(finish=partial(darkness, light=(0.55, 0.3, 0.12)[_step(strength)]))


def _colour_cast(strength: int) -> Recipe:
    return Recipe(
        finish=partial(colour_cast, gains=((1.15, 1.0, 0.8), (1.35, 0.95, 0.55), (1.6, 0.8, 0.25))[_step(strength)])
    )


def _new_background(strength: int) -> Recipe:
    return Recipe(texture_share=(0.35, 0.7, 1.0)[_step(strength)])


def _thicker_pens(strength: int) -> Recipe:
    return Recipe(pen_growth_cells=(0.2, 0.4, 0.8)[_step(strength)])


def _new_class(strength: int) -> Recipe:
    return Recipe(new_class_share=(0.1, 0.25, 0.5)[_step(strength)])


def _class_gone(strength: int) -> Recipe:
    gone = ((7,), (7, 3), (7, 3, 0))[_step(strength)]
    return Recipe(digits=tuple(d for d in range(10) if d not in gone))


CORRUPTIONS: dict[str, Callable[[int], Recipe]] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "darkness": _darkness,
    "colour_cast": _colour_cast,
    "new_background": _new_background,
    "thicker_pens": _thicker_pens,
    "new_class": _new_class,
    "class_gone": _class_gone,
}
"""By name; called with a strength of 1 to 3. ``class_gone`` takes 1, 2 or 3 digits away."""
