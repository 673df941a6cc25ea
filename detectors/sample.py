"""Records of the baseline, kept as codes: what windows without drift are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sample:
    """Code rows of the baseline, from which windows without drift are drawn.

    Rows keep what counts lose: which dimensions move together, and how alike the records of one sequence are.
    """

    codes: NDArray[np.uint8]
    """(S, D): first the records without a sequence, then sequence after sequence, each in its own order."""
    independent: int
    """How many rows at the front are records without a sequence."""
    lengths: NDArray[np.int64]
    """Rows of each sampled sequence; together with ``independent`` they make up S."""

    def __post_init__(self) -> None:
        if self.independent + int(self.lengths.sum()) != len(self.codes) or (self.lengths < 1).any():
            raise ValueError("the sample's sequences do not make up its rows")
