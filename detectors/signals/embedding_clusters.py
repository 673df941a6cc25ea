"""Signal `embedding_clusters`: into which of the baseline's clusters of images a record falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.clusters import CLUSTERS
from detectors.features import Features


class Clusters:
    """Per record and cluster 1 where the record's embedding is nearest to that cluster's centre, else 0.

    A column a cluster, rather than one that holds the index: equal-mass bins would throw rare clusters together, and
    theirs is the news. Over all columns the sum of G sees any change of the mixture, the largest one a single
    cluster's rise or fall. A baseline of fewer clusters fills the last columns with zeros. A record whose embedding is
    not finite has no value, nor has any where the baseline has no centres.
    """

    name = "embedding_clusters"

    def dimensions(self, classes: Sequence[str], components: int) -> tuple[str, ...]:
        return tuple(f"cluster_{index}" for index in range(CLUSTERS))

    def values(self, features: Features) -> NDArray[np.float64]:
        if features.cluster is None:
            return np.full((len(features), CLUSTERS), np.nan)
        cluster = features.cluster[:, None]
        return np.where(np.isnan(cluster), np.nan, cluster == np.arange(CLUSTERS))
