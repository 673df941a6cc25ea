"""From prepared records to bin codes: embed, project, take every signal's values, look up the baseline's bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.signals.mask_geometry import MaskGeometry
from monitor.baseline_book import Route
from monitor.extract import Prepared, features_of, sizes_of
from monitor.instances import Instances
from monitor.mask_shapes import no_shapes, shapes_of
from monitor.records import Prediction


def codes_of(
    route: Route, prepared: Sequence[Prepared], predictions: Sequence[Prediction], instances: Instances
) -> NDArray[np.uint8]:
    """(N, D) codes under the route's baseline; D = 0 for a version without one. ``instances`` of the same records."""
    baseline = route.baseline
    if baseline is None:
        return np.zeros((len(prepared), 0), dtype=np.uint8)
    components = baseline.projection.project(route.extractor.embeddings(prepared))
    layout = baseline.statistic.layout
    shapes, overlap = no_shapes(instances)
    if layout.has(MaskGeometry.name):
        shapes, overlap = shapes_of(predictions, image_sizes=sizes_of(prepared))
    features = features_of(
        prepared,
        instances,
        components,
        route.classes,
        cluster=baseline.centres.nearest(components) if baseline.centres is not None else None,
        shapes=shapes,
        overlap=overlap,
    )
    return baseline.statistic.binning.codes(layout.values(features))
