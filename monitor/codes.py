"""From prepared records to bin codes: embed, project, take every signal's values, look up the baseline's bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.baseline_book import Route
from monitor.extract import Prepared, features_of
from monitor.instances import Instances


def codes_of(route: Route, prepared: Sequence[Prepared], instances: Instances) -> NDArray[np.uint8]:
    """(N, D) codes under the route's baseline; D = 0 for a version without one. ``instances`` of the same records."""
    if route.baseline is None:
        return np.zeros((len(prepared), 0), dtype=np.uint8)
    components = route.baseline.projection.project(route.extractor.embeddings(prepared))
    statistic = route.baseline.statistic
    return statistic.binning.codes(statistic.layout.values(features_of(prepared, instances, components, route.classes)))
