"""A baseline: everything that is frozen when a model version is trained, so that production can be compared with it.

Classes, backbone, projection, bins, counts and a sample of the records' codes. Immutable; the store names it by the
hash of its content, so the same records built twice give the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec

from detectors.baseline import BaselineStatistic
from detectors.clusters import ClusterCentres
from detectors.moments_baseline import MomentsBaseline
from embeddings.projection import Projection
from monitor.classes import Classes
from monitor.embedding_plan import EmbeddingPlan
from monitor.errors import BaselineError
from monitor.reference import Reference

FORMAT_VERSION = 3
"""2 adds the statistics of slices, and clusters; 3 adds moments, seasons and quality by labels. What a format does not
have is absent."""

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class BackboneRef:
    """Which backbone, without loading any of it.

    ``weights`` is None where they come with a package, since that lies elsewhere on each machine.
    """

    name: str
    weights: str | None
    weights_sha256: str
    input_size: int
    dtype: Dtype
    """What it computed in: production must not differ, or rounding alone would look like drift."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Baseline:
    """``backbone`` is None where records bring their embedding. ``slice`` is "key=value", or "" for all records."""

    model: str
    version: str
    slice: str
    classes: Classes
    plan: EmbeddingPlan
    backbone: BackboneRef | None
    projection: Projection
    statistic: BaselineStatistic
    slices: Mapping[str, BaselineStatistic] = field(default_factory=dict)
    """By "key=value": what windows of that slice are compared with, on the same bins."""
    centres: ClusterCentres | None = None
    """Clusters of the components; None where the baseline is too small for any, and in format 1."""
    moments: MomentsBaseline | None = None
    """Of the components of all records; None where hardly any embedding is finite, and before format 3."""
    reference: Reference | None = None
    """How good the model was on the labelled records among these; None without labels, and before format 3."""

    def statistic_of(self, slice_key: str) -> BaselineStatistic | None:
        """What a slice's windows are compared with ("" for all records); None where the baseline has none of it."""
        return self.slices.get(slice_key) if slice_key else self.statistic

    def to_bytes(self) -> bytes:
        """MessagePack; equal content gives equal bytes."""
        return msgspec.msgpack.encode(
            {
                "format": FORMAT_VERSION,
                "model": self.model,
                "version": self.version,
                "slice": self.slice,
                "classes": self.classes.to_dict(),
                "plan": [self.plan.identity, self.plan.dimensions, self.plan.input_size],
                "backbone": self.backbone.to_dict() if self.backbone else None,
                "projection": self.projection.to_dict(),
                "statistic": self.statistic.to_bytes(),
                "centres": self.centres.to_bytes() if self.centres else None,
                "moments": self.moments.to_bytes() if self.moments else None,
                "reference": self.reference.to_bytes() if self.reference else None,
                "slices": {name: self.slices[name].to_bytes() for name in sorted(self.slices)},
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Baseline:
        """Raises BaselineError where the bytes are damaged or of a newer format."""
        try:
            tree: dict[str, Any] = msgspec.msgpack.decode(data)
            if tree["format"] > FORMAT_VERSION:
                raise BaselineError(f"baseline has format {tree['format']}, this segwatch reads up to {FORMAT_VERSION}")
            centres, slices, moments = tree.get("centres"), tree.get("slices", {}), tree.get("moments")
            reference = tree.get("reference")
            baseline = cls(
                tree["model"],
                tree["version"],
                tree["slice"],
                Classes.from_dict(tree["classes"]),
                EmbeddingPlan(*tree["plan"]),
                BackboneRef(**tree["backbone"]) if tree["backbone"] else None,
                Projection.from_dict(tree["projection"]),
                BaselineStatistic.from_bytes(tree["statistic"]),
                {name: BaselineStatistic.from_bytes(each) for name, each in slices.items()},
                ClusterCentres.from_bytes(centres) if centres else None,
                MomentsBaseline.from_bytes(moments) if moments else None,
                Reference.from_bytes(reference) if reference else None,
            )
            baseline.statistic.layout.check(baseline.classes.names, baseline.projection.components)
            return baseline
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise BaselineError(f"baseline is damaged: {error}") from None

    def summary(self) -> dict[str, Any]:
        """What ``baseline list`` and the pages show; small enough to live beside the payload."""
        return {
            "records": self.statistic.records,
            "sequences": self.statistic.sequences,
            "classes": list(self.classes.names),
            "ignore": list(self.classes.ignore),
            "critical": dict(self.classes.critical),
            "embedding": self.plan.identity,
            "dimensions": self.plan.dimensions,
            "components": self.projection.components,
            "slice": self.slice or None,
            "slices": len(self.slices),
            "seasons": self.statistic.seasons.rhythm.describe() if self.statistic.seasons else None,
            "labelled": self.reference.labelled if self.reference else 0,
            "iou": {one.name: one.to_json() for one in self.reference.figures[""]} if self.reference else None,
        }
