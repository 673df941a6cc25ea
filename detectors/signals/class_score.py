"""Signal `class_score`: how sure the model is of each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features


class ClassScore:
    """Per record and class the mean score of its instances.

    A record without instances of a class has no value there: the share of such records is a bin of its own, so that
    a class that comes and goes is seen here too. Records with a semantic map alone have no value in any class.
    """

    name = "class_score"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return tuple(classes)

    def values(self, features: Features) -> NDArray[np.float64]:
        records, classes = features.class_shares.shape
        owner = np.repeat(np.arange(records), np.diff(features.instance_offsets))
        cells = owner * classes + features.instance_class
        counts = np.bincount(cells, minlength=records * classes)
        sums = np.bincount(cells, features.instance_score, minlength=records * classes)
        means = np.divide(sums, counts, out=np.full(records * classes, np.nan), where=counts > 0)
        return means.reshape(records, classes)[:, :-1].copy()
