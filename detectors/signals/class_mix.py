"""Signal `class_mix`: which classes the model finds, and how much of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features

OTHER = "<other>"
"""Classes that the baseline does not know (and, in semantic maps, ignored pixels)."""


class ClassMix:
    """Per record and class: the number of its instances, or its share of the pixels.

    A record with an ``instances`` list counts instances, any other one the shares of its semantic map. One
    observation a record: the instances of one image come and go together, so that a test which took every
    instance for an observation of its own would cry wolf.
    """

    name = "class_mix"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return (*classes, OTHER)

    def values(self, features: Features) -> NDArray[np.float64]:
        records, classes = features.class_shares.shape
        owner = np.repeat(np.arange(records), np.diff(features.instance_offsets))
        cells = owner * classes + features.instance_class
        counts = np.bincount(cells, minlength=records * classes).reshape(records, classes)
        return np.where(features.has_instances[:, None], counts, features.class_shares)
