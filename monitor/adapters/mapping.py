"""The mapping file: what a model's tensors mean, and where a record's other fields stand in the log.

YAML or JSON. A *text* is a word (``street``) or ``{from: PATH}``, where the path begins with ``request``, ``response``
(their JSON) or ``event`` (attributes and headers of the log) and goes on with keys and positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from msgspec import Meta

from monitor.errors import InputError

Side = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class From(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in the log."""

    path: Annotated[str, Meta(pattern=r"^(request|response|event)\..+")] = msgspec.field(name="from")


Text = str | int | From


class ImageMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the image is: one of ``tensor``, ``body`` and ``uri``.

    ``layout`` of a tensor: ``encoded`` (a file as base64 or bytes), ``hwc`` or ``chw`` (pixels; RGB or grey). Pixels
    that are not integers become ``(value * std + mean) * scale``, which undoes what the client did.
    """

    tensor: str | None = None
    body: bool = False
    uri: Text | None = None
    layout: Literal["encoded", "hwc", "chw"] = "encoded"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0


class InstancesMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tensors of one object each: (N,) ``classes`` and ``scores``, and N ``masks``.

    ``form`` of masks: ``pixels`` (N, H, W), or ``coco``: polygons or RLE as JSON, or RLE's compressed counts alone
    (then with ``mask_size``, height and width).
    """

    classes: str
    scores: str
    masks: str
    form: Literal["pixels", "coco"] = "pixels"
    score_threshold: Ratio = 0.0
    mask_threshold: float = 0.5
    mask_size: tuple[Side, Side] | None = None


class SemanticMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of ``classes`` (H, W), or of ``probabilities`` or ``logits`` (C, H, W), whose winner it is.

    ``confidence``: a tensor (H, W) of the winner's probability, where the classes alone are given.
    """

    tensor: str
    values: Literal["classes", "probabilities", "logits"] = "classes"
    confidence: str | None = None


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a mapping file."""

    model: Text = From("response.model_name")
    version: Text = From("response.model_version")
    input_id: Text | None = None
    image: ImageMap | None = None
    embedding: str | None = None
    instances: InstancesMap | None = None
    semantic: SemanticMap | None = None
    class_names: dict[int, str] | list[str] = {}
    slices: dict[str, Text] = {}
    sequence: Text | None = None
    sampling_probability: Annotated[float, Meta(gt=0, le=1)] = 1.0
    latency: Literal["none", "events"] | From = "none"
    where: dict[str, str] = {}
    unanswered: Literal["skip", "error"] = "skip"
    batch: bool = False

    @property
    def needs_request(self) -> bool:
        """Whether a response alone is not enough."""
        image = self.image
        texts = [self.model, self.version, self.input_id, self.sequence, self.latency, *self.slices.values()]
        if image is not None:
            texts.append(image.uri)
            if image.uri is None:
                return True
        asked = any(isinstance(text, From) and text.path.startswith("request.") for text in texts)
        return asked or self.latency == "events" or self.unanswered == "error"

    def class_name(self, index: int) -> str | None:
        """The name of a class's number; None where the mapping does not have it."""
        if isinstance(self.class_names, dict):
            return self.class_names.get(index)
        return self.class_names[index] if 0 <= index < len(self.class_names) else None


def read_mapping(path: Path) -> Mapping:
    """Raises InputError that names the file and the key."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from None
    try:
        mapping = msgspec.convert(tree, Mapping)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}") from None
    for fault in _faults(mapping):
        raise InputError(f"{path}: {fault}")
    return mapping


def _faults(mapping: Mapping) -> list[str]:
    found = []
    if mapping.instances is None and mapping.semantic is None:
        found.append("neither instances nor semantic: a record needs one of them")
    if mapping.image is None and mapping.embedding is None:
        found.append("neither image nor embedding: a record needs one of them")
    image = mapping.image
    if image is not None and (image.tensor is not None) + image.body + (image.uri is not None) != 1:
        found.append("image: give one of tensor, body, uri")
    if image is not None and mapping.batch and image.tensor is None:
        found.append("batch: the image must be a tensor")
    return found
