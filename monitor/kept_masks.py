"""What is kept of a prediction until its labels come: its masks, scores and maps, as they came."""

from __future__ import annotations

import msgspec

from monitor.records import Instance, Prediction, Semantic


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
