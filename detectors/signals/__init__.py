"""The signals: everything about a record whose distribution is watched. One file each, one line each in the table.

A new signal is a new file in this folder, with a class that keeps the protocol `Signal`, and a line in `SIGNALS`;
the contract test in ``tests/test_detectors_signals.py`` then runs over it. Baselines remember which signals they
were built with (`detectors.layout`), so a baseline from before a signal existed stays valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features
from detectors.signals.class_mix import ClassMix
from detectors.signals.class_score import ClassScore
from detectors.signals.confidence import Confidence
from detectors.signals.cooccurrence import Cooccurrence
from detectors.signals.embedding import Embedding
from detectors.signals.embedding_clusters import Clusters
from detectors.signals.embedding_mmd import Mmd
from detectors.signals.input import Input
from detectors.signals.instances import Instances
from detectors.signals.mask_geometry import MaskGeometry


class Signal(Protocol):
    """Turns records into numbers, one row a record, so that no record is counted as many observations."""

    @property
    def name(self) -> str:
        """The label value in metrics and JSON; equal to the file's name."""

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        """Names of the D columns, for a baseline with these classes and this many embedding components."""

    def values(self, features: Features) -> NDArray[np.float64]:
        """(N, D); NaN where a record has no value. Row i depends on record i alone."""


SIGNALS: dict[str, Signal] = {
    signal.name: signal
    for signal in (
        Embedding(),
        Mmd(),
        Clusters(),
        Input(),
        Confidence(),
        ClassScore(),
        ClassMix(),
        Cooccurrence(),
        Instances(),
        MaskGeometry(),
    )
}
