"""An exchange and the mapping to prediction records."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.adapters.mapping import From, ImageMap, InstancesMap, Mapping, SemanticMap, Text
from monitor.adapters.pixels import image_png, media_type, png
from monitor.adapters.protocol import EntryError, Exchange
from monitor.adapters.tensors import Body, Tensor, lookup
from monitor.masks import encode_rle
from monitor.records import PREDICTION_TYPE
from monitor.records.types import MAX_INSTANCES
from monitor.windows import to_text

MOST_ENTRIES: Final = 1024
"""Of one exchange: tensors without elements could claim any number."""


def is_meant(exchange: Exchange, mapping: Mapping) -> bool:
    """Whether the mapping's ``where`` takes it (paths are below ``event``)."""
    return all(str(lookup(exchange.event, path)) == value for path, value in mapping.where.items())


def records_of(exchange: Exchange, mapping: Mapping) -> Iterator[dict[str, Any]]:
    """The records of an exchange, ready for JSON: one, or one for each entry of a batch. Raises EntryError."""
    source = _Source(exchange, mapping)
    if exchange.response is None:
        yield {**source.common(), "status": "error"}
        return
    entries = source.batch_size() if mapping.batch else 1
    for i in range(entries):
        record = source.common()
        if entries > 1:
            record["input_id"] = f"{record['input_id']}/{i}"
        yield record | source.content(i)


class _Source:
    """One exchange while it is read."""

    def __init__(self, exchange: Exchange, mapping: Mapping) -> None:
        self._exchange, self._mapping = exchange, mapping
        self._request = Body("request", exchange.request) if exchange.request is not None else None
        self._response = Body("response", exchange.response) if exchange.response is not None else None
        self._tensors: dict[tuple[str, str], Tensor] = {}

    def common(self) -> dict[str, Any]:
        """What every record has."""
        mapping, exchange = self._mapping, self._exchange
        begun, ended = exchange.request, exchange.response
        time_us = next((part.time_us for part in (begun, ended) if part is not None and part.time_us is not None), None)
        if time_us is None:
            raise EntryError("time: missing in both request and response")
        record: dict[str, Any] = {
            "type": PREDICTION_TYPE,
            "input_id": exchange.id if mapping.input_id is None else self._text(mapping.input_id, "input_id"),
            "event_time": to_text(time_us),
            "model": {"name": self._text(mapping.model, "model"), "version": self._text(mapping.version, "version")},
        }
        if mapping.slices:
            record["slices"] = {key: self._text(text, f"slices.{key}") for key, text in mapping.slices.items()}
        if mapping.sequence is not None:
            record["sequence"] = self._text(mapping.sequence, "sequence")
        if mapping.sampling_probability != 1:
            record["sampling_probability"] = mapping.sampling_probability
        if isinstance(mapping.latency, From):
            record["latency_seconds"] = self._number(mapping.latency)
        elif mapping.latency == "events":
            record |= _between(exchange)
        return record

    def content(self, index: int) -> dict[str, Any]:
        """Image or embedding, instances, semantic map."""
        mapping = self._mapping
        found: dict[str, Any] = {}
        if mapping.image is not None:
            found["image"] = self._image(mapping.image, index)
        if mapping.embedding is not None:
            found["embedding"] = _numbers(self._tensor("response", mapping.embedding, index), 1).tolist()
        if mapping.instances is not None:
            found["instances"] = self._instances(mapping.instances, index)
        if mapping.semantic is not None:
            found["semantic"] = self._semantic(mapping.semantic, index)
        return found

    def batch_size(self) -> int:
        """The first dimension of every tensor that the mapping names."""
        mapping, sizes = self._mapping, {}
        names = [("request", mapping.image.tensor if mapping.image else None), ("response", mapping.embedding)]
        if mapping.instances is not None:
            names += [("response", name) for name in (mapping.instances.classes, mapping.instances.scores)]
            names.append(("response", mapping.instances.masks))
        if mapping.semantic is not None:
            names += [("response", mapping.semantic.tensor), ("response", mapping.semantic.confidence)]
        for side, name in names:
            if name is not None:
                tensor = self._whole(side, name)
                sizes[tensor.name] = tensor.shape[0] if tensor.shape else 0
        if len(set(sizes.values())) != 1:
            raise EntryError(f"batch: first dimensions differ: {sizes}")
        entries = next(iter(sizes.values()))
        if not 1 <= entries <= MOST_ENTRIES:
            raise EntryError(f"batch: {entries} entries, 1 to {MOST_ENTRIES} are read")
        return entries

    def _whole(self, side: str, name: str) -> Tensor:
        body = self._request if side == "request" else self._response
        if body is None:
            raise EntryError(f"{side}: not logged")
        if (side, name) not in self._tensors:
            self._tensors[side, name] = body.tensor(name)
        return self._tensors[side, name]

    def _tensor(self, side: str, name: str, index: int) -> Tensor:
        tensor = self._whole(side, name)
        return tensor.of_batch(index) if self._mapping.batch else tensor

    def _find(self, place: From) -> Any:
        root, _, path = place.path.partition(".")
        if root == "event":
            return lookup(self._exchange.event, path)
        body = self._request if root == "request" else self._response
        return None if body is None else lookup(body.fields, path)

    def _text(self, text: Text, field: str) -> str:
        if not isinstance(text, From):
            return str(text)
        found = self._find(text)
        if found is None or found == "" or isinstance(found, (dict, list)):
            raise EntryError(f"{field}: no text at {text.path}")
        return str(found)

    def _number(self, place: From) -> float:
        found = self._find(place)
        try:
            return float(found)
        except (TypeError, ValueError):
            raise EntryError(f"latency: no number at {place.path}") from None

    def _image(self, how: ImageMap, index: int) -> dict[str, str]:
        if how.uri is not None:
            return {"uri": self._text(how.uri, "image.uri")}
        if how.body:
            data = self._request.raw if self._request is not None else b""
            return _file(data, "request")
        tensor = self._tensor("request", how.tensor or "", index)
        if how.layout != "encoded":
            return _file(image_png(_numbers(tensor, 3), how, tensor.name), tensor.name)
        if not isinstance(tensor.values, list) or len(tensor.values) != 1:
            raise EntryError(f"{tensor.name}: not one encoded image but shape {list(tensor.shape)}{_HINT}")
        return _file(_bytes(tensor.values[0], tensor.name), tensor.name)

    def _instances(self, how: InstancesMap, index: int) -> list[dict[str, Any]]:
        scores = _numbers(self._tensor("response", how.scores, index), 1)
        found = np.count_nonzero(~(scores < how.score_threshold))
        if found > MAX_INSTANCES:  # before an object is made of each: a line may hold many millions
            raise EntryError(f"response: {found} instances, at most {MAX_INSTANCES} are read")
        classes = _flat(self._tensor("response", how.classes, index))
        masks = _each_mask(self._tensor("response", how.masks, index), how.form)
        if not len(scores) == len(classes) == len(masks):
            raise EntryError(f"response: {len(classes)} classes, {len(scores)} scores, {len(masks)} masks")
        return [
            {"class": self._class(classes[i], how.classes), "score": float(scores[i]), "mask": _mask(masks[i], how)}
            for i in range(len(scores))
            # Written so that NaN passes: a score that is none is for the checks to refuse, not to be lost.
            if not scores[i] < how.score_threshold
        ]

    def _class(self, value: Any, field: str) -> str:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, str):
            return value
        if not isinstance(value, (int, float, np.number)) or not float(value).is_integer():
            raise EntryError(f"response.{field}: {str(value)[:80]} is no class")
        name = self._mapping.class_name(int(value))
        if name is None:
            raise EntryError(f"response.{field}: class {int(value)} has no name in class_names")
        return name

    def _semantic(self, how: SemanticMap, index: int) -> dict[str, str]:
        tensor = self._tensor("response", how.tensor, index)
        confidence = None
        if how.values == "classes":
            classes = _numbers(tensor, 2)
            if how.confidence is not None:
                confidence = _numbers(self._tensor("response", how.confidence, index), 2)
        else:
            scores = _numbers(tensor, 3).astype(np.float64, copy=False)
            if not scores.size:
                raise EntryError(f"{tensor.name}: shape {list(scores.shape)} is no map")
            if not np.isfinite(scores).all():
                raise EntryError(f"{tensor.name}: a value is not finite")
            classes = scores.argmax(axis=0)
            confidence = scores.max(axis=0)
            if how.values == "logits":
                with np.errstate(over="ignore", under="ignore"):
                    confidence = 1 / np.exp(scores - confidence).sum(axis=0)
        if classes.size == 0 or classes.min() < 0 or classes.max() > 65_535 or (classes != np.rint(classes)).any():
            raise EntryError(f"{tensor.name}: not a map of classes 0 to 65535")
        small = classes.max() < 256
        found = {"classes_png": _base64(png(np.ascontiguousarray(classes, np.uint8 if small else np.uint16)))}
        if confidence is not None:
            if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
                raise EntryError(f"{how.confidence or tensor.name}: a confidence is outside 0..1")
            found["confidence_png"] = _base64(png(np.rint(255 * np.minimum(confidence, 1)).astype(np.uint8)))
        return found


_HINT = " (a batch? then set batch: true)"


def _between(exchange: Exchange) -> dict[str, float]:
    """The time from request to response, where both have one and it did not run backwards."""
    begun, ended = (part.time_us if part else None for part in (exchange.request, exchange.response))
    if begun is None or ended is None or ended < begun:
        return {}
    return {"latency_seconds": (ended - begun) / 1e6}


def _numbers(tensor: Tensor, dimensions: int) -> NDArray[Any]:
    """With leading dimensions of 1 taken off."""
    values = tensor.values
    if isinstance(values, list):
        if values:
            raise EntryError(f"{tensor.name}: not numbers")
        values = np.empty(tensor.shape)
    while values.ndim > dimensions and values.shape[0] == 1:
        values = values[0]
    if values.ndim != dimensions:
        raise EntryError(f"{tensor.name}: shape {list(tensor.shape)}, expected {dimensions} dimensions{_HINT}")
    return values


def _flat(tensor: Tensor) -> Any:
    """Texts or numbers, one an object."""
    return tensor.values if isinstance(tensor.values, list) else _numbers(tensor, 1)


def _each_mask(tensor: Tensor, form: str) -> Any:
    values = tensor.values
    if isinstance(values, list):
        return values
    if values.size == 0:  # of whatever shape: one of [10**12, 0] costs nothing to send
        return []
    if form == "coco":
        return values.tolist()  # polygons of equal length look like an array
    if values.ndim == 4 and values.shape[1] == 1 and values.shape[0] > 1:
        values = values[:, 0]  # torchvision's (N, 1, H, W)
    return _numbers(Tensor(tensor.name, values, values.shape), 3)


def _mask(value: Any, how: InstancesMap) -> Any:
    if isinstance(value, np.ndarray):
        on = value > how.mask_threshold if value.dtype.kind == "f" else value != 0
        return encode_rle(np.ascontiguousarray(on))
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return value  # one of COCO's forms as JSON: checked with the record
    if value.lstrip()[:2] in ('{"', "[["):  # counts may begin with a bracket too
        try:
            return msgspec.json.decode(value)
        except (ValueError, RecursionError):
            raise EntryError(f"response.{how.masks}: a mask is not JSON") from None
    if how.mask_size is None:
        raise EntryError(f"response.{how.masks}: masks are counts alone: set instances.mask_size")
    return {"size": list(how.mask_size), "counts": value}


def _bytes(value: Any, field: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict) and isinstance(value.get("b64"), str):
        value = value["b64"]  # the V1 protocol's way to write bytes
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise EntryError(f"{field}: not base64") from None


def _file(data: bytes, field: str) -> dict[str, str]:
    return {"media_type": media_type(data, field), "data": _base64(data)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
