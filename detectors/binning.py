"""Bins frozen in the baseline: from real values to small codes that can be counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK_BYTES = 64 << 20
"""Columns are read in blocks of about this size, so that a memory-mapped array larger than memory can be fitted."""


@dataclass(frozen=True, eq=False)
class Binning:
    """Equal-mass bins of the baseline, open at both ends, and one more for values that are not finite.

    Edges come from the baseline alone. Where they follow the window as well, one outlier of 1e6 stretches all bins
    and hides a shift of 3 sigma; here it falls into the last bin, as any other large value does.

    A value x of dimension d has the code "number of edges <= x": 0 to bins - 1, and ``bins`` if it is NaN or
    infinite. Values that make up a bin's worth of the baseline on their own (zeros of a ReLU, counts, constants)
    have an edge on either side, so that a constant that moves up or down is seen. Edges that are not needed are
    +inf at the end of their row, and no finite value ever reaches them.

    >>> rng = np.random.default_rng(0)
    >>> binning = Binning.fit(rng.normal(size=(1000, 1)), bins=4)
    >>> binning.edges.round(2).tolist()
    [[-0.69, -0.07, 0.62]]
    >>> binning.codes(np.array([[-9.0], [0.0], [1e6], [np.nan]])).ravel().tolist()
    [0, 2, 3, 4]
    >>> Binning.fit(np.full((50, 1), 7.0), bins=4).codes(np.array([[6.9], [7.0], [7.1]])).ravel().tolist()
    [0, 1, 2]
    """

    edges: NDArray[np.float64]
    """(D, bins - 1), ascending in each row, padded with +inf."""

    def __post_init__(self) -> None:
        if self.edges.ndim != 2 or not 1 <= self.edges.shape[1] <= 254:
            raise ValueError(f"edges have shape {self.edges.shape}, expected (dimensions, 1..254)")
        if np.isnan(self.edges).any() or (self.edges[:, 1:] < self.edges[:, :-1]).any():
            raise ValueError("edges are not in ascending order")

    @property
    def dimensions(self) -> int:
        return int(self.edges.shape[0])

    @property
    def bins(self) -> int:
        """Bins for finite values; the code of values that are not finite."""
        return int(self.edges.shape[1]) + 1

    @property
    def cells(self) -> int:
        """All bins of a dimension, the one for non-finite values included."""
        return self.bins + 1

    @classmethod
    def fit(cls, values: NDArray[np.floating], bins: int = 16) -> Binning:
        """Bins from the baseline's values (N, D); exact quantiles, whatever the order of the rows.

        A memory-mapped array of more rows than memory holds is read a few columns at a time. Fit on the numbers
        that `codes` will see: float32 roundings of float64 values would move constants across their edges.

        Raises:
            ValueError: no rows, or ``bins`` outside 2..255.
        """
        if values.ndim != 2 or len(values) == 0:
            raise ValueError(f"bins need at least one record, got values of shape {values.shape}")
        if not 2 <= bins <= 255:
            raise ValueError(f"bins must be in 2..255, got {bins}")
        edges = np.full((values.shape[1], bins - 1), np.inf)
        step = max(1, BLOCK_BYTES // (8 * len(values)))
        for start in range(0, values.shape[1], step):
            block = np.asarray(values[:, start : start + step], dtype=np.float64)
            for offset in range(block.shape[1]):
                column = block[:, offset]
                found = _column_edges(np.sort(column[np.isfinite(column)]), bins)
                edges[start + offset, : len(found)] = found
        return cls(edges)

    def codes(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The bin of every value, (N, D) to (N, D). Each row is coded on its own, so batches do not matter.

        Raises:
            ValueError: the number of columns is not the baseline's.
        """
        if values.ndim != 2 or values.shape[1] != self.dimensions:
            raise ValueError(f"baseline has {self.dimensions} dimensions, values have shape {values.shape}")
        out = np.empty(values.shape, dtype=np.uint8)
        _code(np.ascontiguousarray(values, dtype=np.float64), self.edges, out)
        return out


def _column_edges(ordered: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """At most bins - 1 edges for one ascending column of finite values."""
    count = len(ordered)
    if count == 0:
        return np.empty(0)
    cuts = np.unique(ordered[np.arange(1, bins) * count // bins])
    mass = np.searchsorted(ordered, cuts, side="right") - np.searchsorted(ordered, cuts, side="left")
    atoms = cuts[mass * bins >= count]
    # The number after 0 is subnormal, and code elsewhere in the process may have told the CPU to take those for 0.
    with np.errstate(over="ignore"):
        after = np.where(atoms == 0, np.finfo(np.float64).tiny, np.nextafter(atoms, np.inf))
    edges = np.unique(np.concatenate([cuts, after[np.isfinite(after)]]))
    while len(edges) >= bins:
        # Too many atoms for all to have both edges: drop the edge whose two bins hold least together. Gaps between
        # neighbouring counts go first, the edges around a heavy constant last.
        held = np.diff(np.searchsorted(ordered, edges, side="left"), prepend=0, append=count)
        edges = np.delete(edges, np.argmin(held[:-1] + held[1:]))
    return edges


@njit(cache=True, nogil=True)
def _code(values: NDArray[np.float64], edges: NDArray[np.float64], out: NDArray[np.uint8]) -> None:  # pragma: no cover
    rows, dimensions = values.shape
    cuts = edges.shape[1]
    for row in range(rows):
        for dimension in range(dimensions):
            value = values[row, dimension]
            if not np.isfinite(value):
                out[row, dimension] = cuts + 1
                continue
            code = 0
            for cut in range(cuts):  # without a branch: the compiler makes it a few vector comparisons
                code += edges[dimension, cut] <= value
            out[row, dimension] = code
