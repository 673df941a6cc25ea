"""From prepared records to bin codes: embed, project, take every signal's values, look up the baseline's bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.signals.mask_geometry import SHAPES, MaskGeometry
from monitor.baseline_book import Route
from monitor.extract import Prepared, features_of, sizes_of
from monitor.instances import Instances
from monitor.mask_shapes import no_shapes, shapes_of
from monitor.records import Prediction
from monitor.sureness import whole_areas

AREA = SHAPES.index("area")


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """What N records add to statistics under their baseline."""

    codes: NDArray[np.uint8]
    """(N, D); D = 0 for a version without a baseline."""
    components: NDArray[np.float64]
    """(N, K) for moments; K = 0 where the baseline has none to compare them with."""
    areas: NDArray[np.int64] | None = None
    """(M,) pixels of the instances' masks, where the geometry of masks was measured anyway."""

    def among(self, chosen: NDArray[np.bool_]) -> Coded:
        """These records as the ``chosen`` (M,) of M: the others have zeros for codes, and NaN for components."""
        if chosen.all():
            return self
        codes = np.zeros((len(chosen), self.codes.shape[1]), dtype=np.uint8)
        components = np.full((len(chosen), self.components.shape[1]), np.nan)
        codes[chosen], components[chosen] = self.codes, self.components
        return Coded(codes, components, self.areas)


def codes_of(
    route: Route, prepared: Sequence[Prepared], predictions: Sequence[Prediction], instances: Instances
) -> Coded:
    """Codes and components under the route's baseline. ``instances`` of the same records."""
    baseline = route.baseline
    if baseline is None:
        return Coded(np.zeros((len(prepared), 0), dtype=np.uint8), np.zeros((len(prepared), 0)))
    components = baseline.projection.project(route.extractor.embeddings(prepared))
    layout = baseline.statistic.layout
    shapes, overlap = no_shapes(instances)
    areas = None
    if layout.has(MaskGeometry.name):
        shapes, overlap = shapes_of(predictions, image_sizes=sizes_of(prepared))
        areas = whole_areas(shapes[:, AREA])
    features = features_of(
        prepared,
        instances,
        components,
        route.classes,
        cluster=baseline.centres.nearest(components) if baseline.centres is not None else None,
        shapes=shapes,
        overlap=overlap,
    )
    kept = baseline.moments.moments.components if baseline.moments is not None else 0
    return Coded(baseline.statistic.binning.codes(layout.values(features)), components[:, :kept], areas)
