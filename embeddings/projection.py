"""Embeddings to a few whitened components, frozen with the baseline, and exact to the last bit.

The idea: principal components (Pearson 1901; Jolliffe, Principal Component Analysis, 2002) turn D correlated
dimensions into K uncorrelated ones; divided by their standard deviations they have mean 0 and variance 1 on the
baseline, so that one set of bins fits them all:

    y_k = v_k . (x - m) / sqrt(lambda_k)

where m is the mean, and (lambda_k, v_k) are the largest eigenvalues and their eigenvectors of the covariance.

Exactness: a floating-point dot product depends on the order of its additions, hence on the batch, the BLAS and
the machine, and a value beside a bin's edge would then be counted in one bin here and in another there. So
everything is rounded to integers first, and integers held in float64 add exactly in any order while every
partial sum stays below 2**53. The bits:

    embedding  z_d = (x_d - m_d) / s_d clipped to +-64, in steps of 2**(6 - e):  |q| <= 2**e      e bits
    matrix     v_dk s_d / sqrt(lambda_k), scaled so that column k's largest is 2**b               b bits
    sum        over D dimensions                                                       c = ceil(log2 D) bits
    in all     e + b + c = 53, and b = (53 - c) // 2:  e = b = 21 for D = 1280 or 2048

Subtracting, multiplying and rounding element by element is exact in the sense of IEEE 754: the same everywhere.
Clipping at 64 standard deviations also means that no outlier can overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
CLIP_BITS = 6
"""Embeddings are clipped at 2**6 standard deviations of their dimension."""
SMALLEST_EIGENVALUE = 1e-9
"""Relative to the largest. float32 embeddings carry 24 bits: squared, 1e-14; directions below 1e-9 are rounding."""


def bit_budget(dimensions: int) -> tuple[int, int]:
    """(e, b): bits of the quantised embedding and of the matrix, see the module.

    >>> bit_budget(2048), bit_budget(1)
    ((21, 21), (27, 26))
    """
    matrix_bits = (53 - (dimensions - 1).bit_length()) // 2
    return 53 - (dimensions - 1).bit_length() - matrix_bits, matrix_bits


@dataclass(frozen=True, eq=False)
class Projection:
    """A frozen whitened PCA; made by ``ProjectionFit``, kept in the baseline."""

    centre: NDArray[np.float64]
    """(D,) the baseline's mean."""
    steps_per_unit: NDArray[np.float64]
    """(D,) steps of the quantised embedding, 2**(e - 6), divided by the dimension's standard deviation."""
    matrix: NDArray[np.int32]
    """(D, K) integers of at most b bits."""
    unit: NDArray[np.float64]
    """(K,) what 1 in the integer product means."""
    explained: NDArray[np.float64]
    """(K,) share of the baseline's variance that the component holds, 0..1."""

    @property
    def dimensions(self) -> int:
        """D, of an embedding."""
        return int(self.matrix.shape[0])

    @property
    def components(self) -> int:
        """K."""
        return int(self.matrix.shape[1])

    def project(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, D) to (N, K). A row with any NaN or infinity becomes a row of NaN. Exact: see the module."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dimensions:
            raise ValueError(f"projection takes (N, {self.dimensions}) embeddings, got {embeddings.shape}")
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(embeddings).all(axis=1))
        limit = 2.0 ** bit_budget(self.dimensions)[0]
        quantised = np.where(finite[:, None], embeddings, 0.0).astype(np.float64)
        quantised -= self.centre
        quantised *= self.steps_per_unit
        np.clip(quantised, -limit, limit, out=quantised)
        np.rint(quantised, out=quantised)
        product = quantised @ self.matrix.astype(np.float64)
        product *= self.unit
        product[~finite] = np.nan
        return product

    def to_dict(self) -> dict[str, Any]:
        """Plain integers and bytes (little endian): the same projection always gives the same bytes."""
        return {
            "format": FORMAT,
            "dimensions": self.dimensions,
            "components": self.components,
            "centre": self.centre.astype("<f8").tobytes(),
            "steps_per_unit": self.steps_per_unit.astype("<f8").tobytes(),
            "matrix": self.matrix.astype("<i4").tobytes(),
            "unit": self.unit.astype("<f8").tobytes(),
            "explained": self.explained.astype("<f8").tobytes(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``. Raises ValueError that names what does not fit."""
        if values.get("format") != FORMAT:
            raise ValueError(f"projection has format {values.get('format')!r}, this version reads {FORMAT}")
        d, k = values["dimensions"], values["components"]

        def array(name: str, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
            found = np.frombuffer(values[name], dtype=kind)
            if found.size != np.prod(shape, dtype=int):
                raise ValueError(f"projection: {name} has {found.size} values, expected {shape}")
            return found.reshape(shape)

        return cls(
            centre=array("centre", "<f8", (d,)),
            steps_per_unit=array("steps_per_unit", "<f8", (d,)),
            matrix=array("matrix", "<i4", (d, k)),
            unit=array("unit", "<f8", (k,)),
            explained=array("explained", "<f8", (k,)),
        )


class ProjectionFit:
    """Counts and sums of a stream of embeddings, from which the projection is made; memory (D, D).

    Sums are taken around the first embedding seen, so that a large common offset cancels before squaring.
    Embeddings with a NaN or infinity are left out, and counted in ``skipped``.

    >>> rng = np.random.default_rng(7)
    >>> fit = ProjectionFit()
    >>> for _ in range(10):
    ...     fit.update((rng.normal(size=(100, 3)) * [5.0, 1.0, 0.0]).astype(np.float32))
    >>> projection = fit.finish(components=32)  # the third dimension never varies
    >>> projection.components, [round(float(share), 2) for share in projection.explained]
    (2, [0.96, 0.04])
    """

    def __init__(self) -> None:
        self.count = 0
        self.skipped = 0
        self._origin: NDArray[np.float64] | None = None
        self._sum: NDArray[np.float64] = np.zeros(0)
        self._products: NDArray[np.float64] = np.zeros((0, 0))

    def update(self, embeddings: NDArray[np.float32]) -> None:
        """Take in (N, D) embeddings."""
        if embeddings.ndim != 2:
            raise ValueError(f"embeddings must be (N, D), got {embeddings.shape}")
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(embeddings).all(axis=1))
        self.skipped += int((~finite).sum())
        rows = embeddings[finite].astype(np.float64)
        if not len(rows):
            return
        if self._origin is None:
            self._start(rows[0])
        if self._origin is None or rows.shape[1] != len(self._origin):
            raise ValueError(f"embeddings have {rows.shape[1]} dimensions, the ones before had {len(self._sum)}")
        rows -= self._origin
        self.count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    def merge(self, other: ProjectionFit) -> None:
        """Take in what ``other`` has seen, as if its embeddings had been given to this one."""
        self.skipped += other.skipped
        if other._origin is None:
            return
        if self._origin is None:
            self._start(other._origin)
        if self._origin is None or len(other._sum) != len(self._sum):
            raise ValueError(f"fits of {len(self._sum)} and {len(other._sum)} dimensions cannot be merged")
        # With t = other's origin - own: sum of (r + t) and of (r + t)(r + t)' over the other's rows r.
        shift = other._origin - self._origin
        cross = np.outer(other._sum, shift)
        self._products += other._products + cross + cross.T + other.count * np.outer(shift, shift)
        self._sum += other._sum + other.count * shift
        self.count += other.count

    def finish(self, components: int = 32) -> Projection:
        """The projection to at most ``components`` components; fewer where the data has fewer directions.

        Raises ValueError when fewer than two embeddings were seen or all are equal. Misleads with few
        embeddings: the last components then follow noise, and their variance on new data is not 1; some ten
        embeddings a component are a fair minimum.
        """
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        if self._origin is None or self.count < 2:
            raise ValueError(f"a projection needs at least 2 finite embeddings, got {self.count}")
        d = len(self._origin)
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        covariance = (covariance + covariance.T) / 2
        centre = self._origin + mean
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        # What rounding leaves of equal embeddings: float64 sums of float32 values agree to some 1e-13 of their square.
        floor = 1e-13 * float((self._products.diagonal() / self.count).max(initial=0.0))
        if values[0] <= floor or values[0] <= 0:
            raise ValueError("embeddings are constant: there is no direction to project on")
        rank = int((values > max(SMALLEST_EIGENVALUE * values[0], floor)).sum())
        kept = min(components, rank, d, self.count - 1)
        values_kept, vectors = values[:kept], vectors[:, :kept]
        # An eigenvector's sign is arbitrary: the entry of largest size is made positive (the first one, if several).
        largest = np.abs(vectors).argmax(axis=0)
        vectors = vectors * np.where(vectors[largest, np.arange(kept)] < 0, -1.0, 1.0)
        deviation = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
        # A dimension that hardly varies would be clipped at once; its steps are those of a thousandth of the widest.
        deviation = np.maximum(deviation, 1e-3 * deviation.max())
        embedding_bits, matrix_bits = bit_budget(d)
        steps_per_unit = 2.0 ** (embedding_bits - CLIP_BITS) / deviation
        exact = vectors / np.sqrt(values_kept) / steps_per_unit[:, None]
        unit = np.abs(exact).max(axis=0) / 2.0**matrix_bits
        return Projection(
            centre=centre,
            steps_per_unit=steps_per_unit,
            matrix=np.rint(exact / unit).astype(np.int32),
            unit=unit,
            explained=values_kept / np.maximum(values, 0.0).sum(),
        )

    def _start(self, origin: NDArray[np.float64]) -> None:
        self._origin = origin.copy()
        self._sum = np.zeros(len(origin))
        self._products = np.zeros((len(origin), len(origin)))
