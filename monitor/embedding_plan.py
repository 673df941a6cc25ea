"""How the records of a baseline become vectors, in a form that needs no backbone to be read."""

from __future__ import annotations

from dataclasses import dataclass

GIVEN = "given"
"""Identity prefix of embeddings that records bring along."""


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """How a baseline wants its records embedded."""

    identity: str
    """Of the backbone (name, weights' hash, input size), or ``given:D`` for embeddings that records bring."""
    dimensions: int
    input_size: int

    @property
    def given(self) -> bool:
        return self.identity.startswith(GIVEN)
