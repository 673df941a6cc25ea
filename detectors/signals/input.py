"""Signal `input`: what the images look like without any network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features

COLUMNS: tuple[str, ...] = (
    *("brightness", "contrast", "shadows", "highlights", "saturation", "red_green", "blue_yellow"),
    *("hue_red", "hue_yellow", "hue_green", "hue_cyan", "hue_blue", "hue_magenta"),
    *("sharpness", "noise", "fine_detail", "middle_detail", "colour_detail", "pixels", "aspect"),
)
"""As `embeddings.image_statistics` gives them, which has their formulas; neither room may import the other."""


class Input:
    """Light, colour, sharpness, noise and size of the image, each a number that a person can check by looking.

    Says what happened to a camera where the embedding says only that something did: ``blue_yellow`` is a white balance,
    ``fine_detail`` a focus. Blind to what is in the picture. A record that came without its image has no value.
    """

    name = "input"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return COLUMNS

    def values(self, features: Features) -> NDArray[np.float64]:
        if features.image_statistics is None:
            return np.full((len(features), len(COLUMNS)), np.nan)
        return features.image_statistics
