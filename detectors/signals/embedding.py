"""Signal `embedding`: what the images look like to the backbone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features


class Embedding:
    """The K components of the whitened projection that the baseline froze.

    Whitened means: variance 1 and no linear correlation over the baseline, the component of largest variance
    first. A record whose embedding is not finite has no value in any component.
    """

    name = "embedding"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return tuple(f"component_{index}" for index in range(components))

    def values(self, features: Features) -> NDArray[np.float64]:
        return features.components
