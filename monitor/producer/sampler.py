"""Which inputs are taken: by a hash of their name, so that everybody who asks gets the same answer."""

from __future__ import annotations

import hashlib


class Sampler:
    """Takes an input with ``probability`` (0 < p <= 1), the same inputs in every process, version and restart.

    So a stable model and its canary sample the same inputs and can be compared in pairs, and a sampler of a lower
    probability takes a part of what one of a higher takes. ``salt``: another one draws another sample.

    The hash is uniform whatever the names are; it is no secret, and whoever chooses names can choose to be taken.

    >>> half = Sampler(0.5)
    >>> half.takes("cam7-000123"), sum(half.takes(f"input-{i}") for i in range(10_000))
    (False, 4941)

    Raises ValueError for a probability outside (0, 1].
    """

    def __init__(self, probability: float, salt: str = "") -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"probability must be in (0, 1], got {probability!r}")
        self.probability = probability
        self._key = hashlib.blake2b(salt.encode(), digest_size=16).digest()

    def takes(self, input_id: str) -> bool:
        """Whether this input is in the sample."""
        digest = hashlib.blake2b(input_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.probability * 2.0**64
