"""Signal `instances`: how many objects the model finds in an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features


class Instances:
    """Instances per record. An empty list is a 0; a record without the list (a semantic map alone) has no value."""

    name = "instances"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return ("count",)

    def values(self, features: Features) -> NDArray[np.float64]:
        counts = np.diff(features.instance_offsets).astype(np.float64)
        return np.where(features.has_instances, counts, np.nan)[:, None]
