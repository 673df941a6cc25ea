"""Signal `confidence`: how sure the model says it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features


class Confidence:
    """Per record the mean and the lowest score of its instances, and the mean of its confidence map.

    A record without instances has no score, one without a map no confidence of a map. The share of records
    without a value is a bin of its own, so that it is watched as well.
    """

    name = "confidence"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return ("score_mean", "score_lowest", "semantic_mean")

    def values(self, features: Features) -> NDArray[np.float64]:
        starts, sizes = features.instance_offsets[:-1], np.diff(features.instance_offsets)
        filled = sizes > 0
        values = np.full((len(features), 3), np.nan)
        if filled.any():
            # Empty records own no scores, so the starts of the filled ones alone cut the column without gaps.
            values[filled, 0] = np.add.reduceat(features.instance_score, starts[filled]) / sizes[filled]
            values[filled, 1] = np.minimum.reduceat(features.instance_score, starts[filled])
        values[:, 2] = features.semantic_confidence
        return values
