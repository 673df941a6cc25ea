"""A baseline: everything that is frozen when a model version is trained, so that production can be compared with it.

Classes, backbone, projection, bins, counts and a sample of the records' codes. Immutable; the store names it by the
hash of its content, so the same records built twice give the same id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from detectors.baseline import BaselineStatistic
from embeddings.backbones import BACKBONES, BackboneSpec
from embeddings.projection import Projection
from monitor.classes import Classes
from monitor.errors import BaselineError
from monitor.extract import EmbeddingPlan

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Baseline:
    """``backbone`` is None where records bring their embedding. ``slice`` is "key=value", or "" for all records."""

    model: str
    version: str
    slice: str
    classes: Classes
    plan: EmbeddingPlan
    backbone: BackboneSpec | None
    projection: Projection
    statistic: BaselineStatistic

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
                "backbone": _spec_to_dict(self.backbone) if self.backbone else None,
                "projection": self.projection.to_dict(),
                "statistic": self.statistic.to_bytes(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Baseline:
        """Raises BaselineError where the bytes are damaged or of a newer format."""
        try:
            tree: dict[str, Any] = msgspec.msgpack.decode(data)
            if tree["format"] > FORMAT_VERSION:
                raise BaselineError(f"baseline has format {tree['format']}, this segwatch reads up to {FORMAT_VERSION}")
            return cls(
                tree["model"],
                tree["version"],
                tree["slice"],
                Classes.from_dict(tree["classes"]),
                EmbeddingPlan(*tree["plan"]),
                _spec_from_dict(tree["backbone"]) if tree["backbone"] else None,
                Projection.from_dict(tree["projection"]),
                BaselineStatistic.from_bytes(tree["statistic"]),
            )
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
        }


def _spec_to_dict(spec: BackboneSpec) -> dict[str, Any]:
    # Weights that come with a package lie elsewhere on each machine; only those that a person named keep their place.
    own = bool(BACKBONES[spec.name.partition(":")[0]].TAKES_MODEL)
    return {
        "name": spec.name,
        "weights": str(spec.weights) if own else None,
        "weights_sha256": spec.weights_sha256,
        "input_size": spec.input_size,
    }


def _spec_from_dict(tree: dict[str, Any]) -> BackboneSpec:
    name = str(tree["name"])
    builder = BACKBONES.get(name.partition(":")[0])
    if builder is None:
        raise ValueError(f"its backbone {name!r} is unknown to this release")
    weights = Path(tree["weights"]) if tree["weights"] is not None else builder.weights_path("", None)
    return BackboneSpec(name, weights, tree["weights_sha256"], tree["input_size"])
