"""What is kept of a prediction until its labels come: its masks, scores and maps, as they came."""

from __future__ import annotations

import msgspec
import numpy as np

from monitor.classes import Classes
from monitor.records import Instance, Prediction, Semantic, decode_semantic


class KeptMasks(msgspec.Struct, frozen=True, array_like=True):
    """``height`` and ``width`` are the image's, zeros where they were not known."""

    height: int
    width: int
    instances: list[Instance] | None
    semantic: Semantic | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(KeptMasks)


def keep(prediction: Prediction, size: tuple[int, int]) -> bytes:
    """The masks of a successful prediction; ``size`` is the image's height and width, zeros where not known."""
    return _encoder.encode((*size, prediction.instances, prediction.semantic))


def kept(data: bytes) -> KeptMasks:
    """What `keep` wrote. Raises ValueError where it is damaged."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"damaged masks of a prediction: {error}") from None


def found_classes(data: bytes, classes: Classes, max_pixels: int) -> frozenset[str]:
    """The classes that the model found in a record; a name that nobody knows is none."""
    record = kept(data)
    names = {one.class_name for one in record.instances or ()}
    if record.semantic is not None:
        indices, _ = decode_semantic(record.semantic, max_pixels)
        position = classes.position_of_index
        names |= {classes.names[position[value]] for value in np.unique(indices).tolist() if value in position}
    return frozenset(names & classes.position.keys())
