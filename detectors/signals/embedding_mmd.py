"""Signal `embedding_mmd`: how the components of the embedding hang together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features
from detectors.fourier import FEATURES, fourier_features


class Mmd:
    """Random Fourier features of the whitened embedding: the numbers whose means a kernel two-sample test compares.

    It is there for what no component shows by itself: components that have begun to move together or stopped doing
    so, and a spread that grows a little in all of them. `embedding` is far better at anything that a single component
    shows, `embedding_clusters` at groups that change their shares. Two modes along one direction between many
    components are seen by none of the three in windows of 300 records. A record whose embedding is not finite has no
    value in any feature.
    """

    name = "embedding_mmd"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return tuple(f"feature_{index}" for index in range(FEATURES))

    def values(self, features: Features) -> NDArray[np.float64]:
        return fourier_features(features.components)
