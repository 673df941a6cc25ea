"""What an image looks like without any network: light, colour, sharpness, noise, size. One row an image.

Taken from the network input (`embeddings.images.prepare`), so that the cost does not depend on the camera. A row is a
function of its image alone: sums of integers, exact in any order, then a few divisions; logarithms have base 2.

- ``brightness``, ``contrast``: mean and standard deviation of luma Y (ITU-R BT.601), divided by 255.
- ``shadows``, ``highlights``: shares of pixels with Y < 32, and with Y >= 224.
- ``saturation``: sum(max - min) / sum(max) over pixels, of their three channels. HSV's saturation weighted by its
  value, so that noise in the dark does not count, and half the light leaves it as it is.
- ``red_green``, ``blue_yellow``: log((R + 1) / (G + 1)) and log((B + 1) / ((R + G) / 2 + 1)) of the channels' means,
  the cast by the assumption of a grey world (Buchsbaum 1980). Light cancels here as well.
- ``hue_red`` to ``hue_magenta``: the saturation split into six sectors of 60 degrees around the named hues. They add up
  to it, so a grey image has six zeros and not a random hue.
- ``sharpness``: log of the mean squared Laplacian of Y (4 neighbours; its variance in Pech-Pacheco 2000).
- ``noise``: log of the noise's standard deviation in grey levels (Immerkaer 1996) in the tile of 8 x 8 pixels that has
  a quarter of all tiles below it: edges and texture fill some tiles, noise fills all.
- ``fine_detail``: log(D(1) / D(2)), D(k) the mean absolute difference of Y between pixels k apart, both directions. 0
  for white noise, -1 for ramps, photographs in between (the structure function; Pentland 1984 for images). Blur lowers
  it, noise raises it, contrast and light cancel. ``middle_detail``: log(D(2) / D(4)).
- ``colour_detail``: log(D(2) / D(4)) of R - G. Strong JPEG compression throws the detail of colours away first.
- ``pixels``, ``aspect``: log10(width * height) and log2(width / height) of the original.

What is small or rare in a picture moves nothing here. On the demo's scenes (128 pixels, 300 against 300, corruptions at
their weakest) the most moved column has a Kolmogorov-Smirnov distance of 1.00 under noise (``fine_detail``), 0.96 under
blur (``fine_detail``), 0.85 under JPEG (``colour_detail``), 0.81 in darkness (``fine_detail``), 0.63 on a new
background (``shadows``), 0.44 under a colour cast (``hue_blue``); 0.13 between two draws without a shift; and at most
0.11 with thicker pens, a new class or one class less: those are for the embedding and the masks to see.

Sources: G. Buchsbaum, A spatial processor model for object colour perception, J. Franklin Institute 310, 1980;
J. Immerkaer, Fast noise variance estimation, CVIU 64, 1996; J. L. Pech-Pacheco et al., Diatom autofocusing in
brightfield microscopy, ICPR 2000; A. P. Pentland, Fractal-based description of natural scenes, PAMI 6, 1984.
"""

from __future__ import annotations

from math import log2, log10, pi, sqrt
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["COLUMNS", "image_statistics"]

COLUMNS: tuple[str, ...] = (
    *("brightness", "contrast", "shadows", "highlights", "saturation", "red_green", "blue_yellow"),
    *("hue_red", "hue_yellow", "hue_green", "hue_cyan", "hue_blue", "hue_magenta"),
    *("sharpness", "noise", "fine_detail", "middle_detail", "colour_detail", "pixels", "aspect"),
)
"""Names of a row's values, in order."""

SHADOW, HIGHLIGHT = 32, 224  # an eighth of the range at either end
TILE = 8
SMALLEST_SIDE = TILE + 2
"""Sides below hold no tile of second differences."""
LARGEST_SIDE = 2**15 - 1
"""Squares of a column of more pixels could exceed 2^31."""
FLOOR = 1 / 16
"""Added to grey levels inside logarithms, so that a black image has finite values; far below any sensor's noise."""
FIXED = 2.0**20
"""Logarithms are rounded to this part of 1: their last bit differs between C libraries, and a constant (every image of
a camera has one aspect) must stay in its bin on any machine."""


def image_statistics(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float64]:
    """The row of one image, ``(len(COLUMNS),)``, always finite. Safe to call from many threads.

    ``image``: (H, W, 3) uint8 RGB; ``width`` and ``height``: pixels of the original. All three as
    `embeddings.images.prepare_sized` gives them. Sharpness, noise and detail depend on the size to which images
    are prepared, and on the original's where that is smaller: compare only what was prepared to one size.

    Raises ValueError: another shape or type, sides outside 10 to 32,767, an original without pixels.

    >>> grey = np.full((32, 32, 3), 51, dtype=np.uint8)
    >>> row = dict(zip(COLUMNS, image_statistics(grey, 2000, 500).tolist(), strict=True))
    >>> row["brightness"], row["contrast"], row["noise"], row["pixels"], row["aspect"]
    (0.2, 0.0, -4.0, 6.0, 2.0)
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}, expected (H, W, 3) uint8")
    if min(image.shape[:2]) < SMALLEST_SIDE or max(image.shape[:2]) > LARGEST_SIDE:
        raise ValueError(f"image is {image.shape}, expected sides of {SMALLEST_SIDE} to {LARGEST_SIDE}")
    if width < 1 or height < 1:
        raise ValueError(f"an original of {width} x {height} pixels")
    luma, red_green, *by_column = _planes(*cv2.split(image))
    light, hues = (sums.sum(axis=1).tolist() for sums in by_column)
    return np.array(
        [
            *_light(luma, light[:2]),
            *_colour(luma.size, light[2:], hues),
            *_detail(luma, red_green),
            _fixed(log10(width * height)),
            _log(width / height),
        ]
    )


def _light(luma: NDArray[np.uint8], sums: list[int]) -> tuple[float, ...]:
    """Brightness, contrast, shadows, highlights; ``sums`` of luma and its square."""
    pixels, (total, squares) = luma.size, sums
    deviation = sqrt(pixels * squares - total * total) / pixels
    dark, bright = np.count_nonzero(luma < SHADOW), np.count_nonzero(luma >= HIGHLIGHT)
    return total / pixels / 255, deviation / 255, dark / pixels, bright / pixels


def _colour(pixels: int, sums: list[int], hues: list[int]) -> tuple[float, ...]:
    """Saturation, red against green, blue against yellow, six hues; ``sums`` of R, G, B and their largest."""
    red, green, blue, value = sums
    cast = (red + pixels) / (green + pixels), (blue + pixels) / ((red + green) / 2 + pixels)
    most = max(value, 1)  # 0 in a black image, where all is 0
    return sum(hues) / most, _log(cast[0]), _log(cast[1]), *(hue / most for hue in hues)


def _detail(luma: NDArray[np.uint8], red_green: NDArray[np.int16]) -> tuple[float, ...]:
    """Sharpness, noise, fine, middle and colour detail."""
    energy, tiles = _curvatures(luma)
    quarter = tiles.size // 4
    # |N| of Gaussian noise of deviation s has the mean 6 s sqrt(2 / pi): the mask's squared weights add up to 36.
    deviation = sqrt(pi / 2) / 6 * int(np.partition(tiles, quarter)[quarter]) / TILE**2
    inner = (luma.shape[0] - 2) * (luma.shape[1] - 2)
    near, middle, far = (_step(luma, lag) for lag in (1, 2, 4))
    colour = _step(red_green, 2) / _step(red_green, 4)
    return _log(energy / inner + FLOOR), _log(deviation + FLOOR), _log(near / middle), _log(middle / far), _log(colour)


def _step(plane: NDArray[Any], lag: int) -> float:
    """Mean absolute difference between pixels ``lag`` apart, and ``FLOOR``."""
    # OpenCV's L1 norm of integers takes a tenth of the time of a compiled loop, and is exact.
    across: float = cv2.norm(plane[:, lag:], plane[:, :-lag], cv2.NORM_L1)
    down: float = cv2.norm(plane[lag:], plane[:-lag], cv2.NORM_L1)
    height, width = plane.shape
    pairs: int = height * (width - lag) + (height - lag) * width
    return (across + down) / pairs + FLOOR


def _log(value: float) -> float:
    return _fixed(log2(value))


def _fixed(value: float) -> float:
    return round(value * FIXED) / FIXED


@njit(cache=True, nogil=True)
def _planes(red: Any, green: Any, blue: Any) -> tuple[Any, Any, Any, Any]:  # pragma: no cover
    """Luma (H, W) uint8; red minus green (H, W) int16; by column sums of Y, Y^2, R, G, B and max, of max - min by hue.

    Sums (6, W) are kept by column, in small integers: so the compiler makes vectors of them, at a third of the time of
    a loop over pixels with branches.
    """
    height, width = red.shape
    luma, red_green = np.empty((height, width), np.uint8), np.empty((height, width), np.int16)
    light, hues = np.zeros((6, width), np.int32), np.zeros((6, width), np.int32)
    chroma, value, sector = np.empty(width, np.int16), np.empty(width, np.int16), np.empty(width, np.int16)
    for y in range(height):
        for x in range(width):
            weighted = np.uint16(77) * np.uint16(red[y, x]) + np.uint16(150) * np.uint16(green[y, x])
            luma[y, x] = np.uint8((weighted + np.uint16(29) * np.uint16(blue[y, x]) + np.uint16(128)) >> 8)
        for x in range(width):
            r, g, b = np.int16(red[y, x]), np.int16(green[y, x]), np.int16(blue[y, x])
            red_green[y, x] = r - g
            most, least = max(r, max(g, b)), min(r, min(g, b))
            value[x], chroma[x] = most, most - least
            # Nearer to red, green or blue where the channel between the two others is nearer to the lower one.
            primary = 0 if most == r else (2 if most == g else 4)
            secondary = 1 if least == b else (3 if least == r else 5)
            sector[x] = primary if 2 * (r + g + b) <= 3 * (most + least) else secondary
        for x in range(width):
            light[0, x] += luma[y, x]
            light[1, x] += np.int32(luma[y, x]) * np.int32(luma[y, x])
            light[2, x] += red[y, x]
            light[3, x] += green[y, x]
            light[4, x] += blue[y, x]
            light[5, x] += value[x]
        for hue in range(6):
            for x in range(width):
                hues[hue, x] += chroma[x] if sector[x] == hue else 0
    return luma, red_green, light, hues


@njit(cache=True, nogil=True)
def _curvatures(luma: Any) -> tuple[int, Any]:  # pragma: no cover
    """Sum of squared Laplacians; and sums of |N| over whole tiles from the upper left, (T,) int64.

    N is Immerkaer's mask, the second difference across of the second difference down: 1 -2 1, -2 4 -2, 1 -2 1.
    """
    height, width = luma.shape
    rows, columns = (height - 2) // TILE, (width - 2) // TILE
    tiles = np.zeros((rows, columns), np.int64)
    noise = np.empty(width, np.int32)
    energy: Any = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            above = np.int32(luma[y - 1, x - 1]) - 2 * np.int32(luma[y - 1, x]) + np.int32(luma[y - 1, x + 1])
            here = np.int32(luma[y, x - 1]) - 2 * np.int32(luma[y, x]) + np.int32(luma[y, x + 1])
            below = np.int32(luma[y + 1, x - 1]) - 2 * np.int32(luma[y + 1, x]) + np.int32(luma[y + 1, x + 1])
            laplacian = here + np.int32(luma[y - 1, x]) - 2 * np.int32(luma[y, x]) + np.int32(luma[y + 1, x])
            energy += laplacian * laplacian
            noise[x] = abs(above - 2 * here + below)
        row = (y - 1) // TILE
        if row < rows:
            for column in range(columns):
                for x in range(1 + column * TILE, 1 + (column + 1) * TILE):
                    tiles[row, column] += noise[x]
    return energy, tiles.ravel()
