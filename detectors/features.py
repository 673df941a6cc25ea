"""What a batch of predictions offers to the signals, column by column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Features:
    """Columns over N records; M instances in all; C classes of the baseline; K components.

    ``class_shares`` and ``semantic_confidence`` are NaN rows for records without a semantic map.
    Index C in ``instance_class`` means a class that the baseline does not know.
    """

    components: NDArray[np.float64]
    """(N, K) whitened projection of the embedding; NaN where the embedding is not finite."""
    instance_offsets: NDArray[np.int64]
    """(N + 1,) instances of record i are ``[instance_offsets[i], instance_offsets[i + 1])``."""
    instance_class: NDArray[np.int64]
    """(M,) class index, 0..C."""
    instance_score: NDArray[np.float64]
    """(M,) in 0..1."""
    has_instances: NDArray[np.bool_]
    """(N,) whether the record has an ``instances`` list at all (an empty list counts as having one)."""
    class_shares: NDArray[np.float64]
    """(N, C + 1) share of the semantic map's pixels by class (last: unknown or ignored); NaN without a map."""
    semantic_confidence: NDArray[np.float64]
    """(N,) mean of the semantic confidence map, 0..1; NaN without one."""
    image_statistics: NDArray[np.float64] | None = None
    """(N, len(detectors.signals.input.COLUMNS)); NaN rows for records without an image. None: no record has one."""
    instance_shapes: NDArray[np.float64] | None = None
    """(M, len(detectors.signals.mask_geometry.SHAPES)); NaN where a measure was not taken. None: none was."""
    mask_overlap: NDArray[np.float64] | None = None
    """(N,) share of the instances' pixels that another instance of the same class covers too; NaN where not known."""
    cluster: NDArray[np.float64] | None = None
    """(N,) index of the nearest of the baseline's `detectors.clusters.ClusterCentres`; NaN where the embedding is not
    finite. None: the baseline has no centres."""

    def __len__(self) -> int:
        return len(self.components)

    @property
    def classes(self) -> int:
        """C, the number of classes of the baseline."""
        return int(self.class_shares.shape[1]) - 1
