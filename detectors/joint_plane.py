"""The plane on which two samples of embeddings are looked at: principal components of both together.

The components of a whitened embedding all have the baseline's variance 1, so that in the baseline alone no direction
stands out. In both samples together those do in which the second differs, by its mean or by its spread. Each sample
weighs one half, however many records it has.

Source: Pearson, On lines and planes of closest fit to systems of points in space, 1901. Misleads where the samples
differ in many directions a little: the plane shows two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Plane:
    """Two orthonormal axes through the middle of both samples."""

    centre: NDArray[np.float64]
    """(K,)"""
    axes: NDArray[np.float64]
    """(K, 2), the one of larger variance first; the second is zero where K is 1."""
    share: tuple[float, float]
    """Of the variance of both together that each axis holds, 0..1."""

    @classmethod
    def of(cls, first: NDArray[np.float64], second: NDArray[np.float64]) -> Plane:
        """From samples (N, K) and (M, K).

        Raises:
            ValueError: a sample is empty, or they have different components, or none.

        >>> rng = np.random.default_rng(0)
        >>> usual, odd = rng.normal(size=(500, 8)), rng.normal(size=(60, 8))
        >>> odd[:, 5] += 4
        >>> plane = Plane.of(usual, odd)
        >>> int(np.abs(plane.axes[:, 0]).argmax())
        5
        """
        if not len(first) or not len(second) or first.shape[1] != second.shape[1] or not first.shape[1]:
            raise ValueError(f"a plane needs two samples of the same components, got {first.shape} and {second.shape}")
        centre = (first.mean(0) + second.mean(0)) / 2
        parts = [(one - centre).T @ (one - centre) / len(one) for one in (first, second)]
        values, vectors = np.linalg.eigh((parts[0] + parts[1]) / 2)
        axes = np.zeros((len(centre), 2))
        held = np.zeros(2)
        kept = min(2, len(centre))
        axes[:, :kept] = vectors[:, ::-1][:, :kept]
        held[:kept] = np.maximum(values[::-1][:kept], 0.0)
        # An eigenvector's sign is arbitrary: what is on the right today shall be there tomorrow.
        axes *= np.where(axes[np.abs(axes).argmax(0), [0, 1]] < 0, -1.0, 1.0)
        total = float(np.maximum(values, 0.0).sum()) or 1.0
        return cls(centre, axes, (float(held[0] / total), float(held[1] / total)))

    def project(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, K) to (N, 2)."""
        found: NDArray[np.float64] = (rows - self.centre) @ self.axes
        return found
