"""Mean and covariance of the embedding as sums of integers, and Frechet's distance between two of them."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from detectors.wire import Reader, Writer

FORMAT_VERSION = 1
MAGIC = b"SWMO"
MAX_CONTENT_BYTES = 1 << 20

MOST_COMPONENTS = 32
"""Components beyond are left out: their products grow with the square, and the first ones hold most variance."""
LIMIT = 8.0
"""Components are clipped here: whitened, 8 standard deviations."""
FARTHEST = 4.0
"""Records further out than this many standard deviations of a normal one's squared length are drawn in, see `steps_of`:
none then weighs much more than others, and heavy tails do not make the law of a window (`detectors.frechet_law`)
depend on the few largest records that the baseline happens to hold."""
STEPS = 2.0**13
"""Steps per unit. A product has at most 2 (3 + 13) = 32 bits, so that sums of 2**31 records stay within int64."""
MOST_RECORDS = 2**31 - 1
SINGULAR = 1e-12
"""Variances below this share of the largest are rounding."""
BLOCK_ROWS = 1 << 20
"""Products of so many rows add up to at most 2**52, which float64 holds exactly in any order of adding."""


class Moments:
    """Sums of the first 32 whitened components and of their products, exact in any order of records and merges.

    Records far out are drawn in (`steps_of`), and components rounded to 2**-13, which adds a variance of 1e-9. Records
    whose components are not all finite are left out. Memory: 8 K (K + 1) bytes.

    >>> rng = np.random.default_rng(0)
    >>> first, second = Moments(components=2), Moments(components=2)
    >>> rows = rng.normal(size=(1000, 2))
    >>> first.add(rows)
    >>> second.add(rows + [0.5, 0.0])
    >>> round(frechet_distance(first, second), 2)
    0.25
    """

    __slots__ = ("_products", "_records", "_sums")

    def __init__(self, components: int) -> None:
        if components < 1:
            raise ValueError(f"moments need at least one component, got {components}")
        kept = min(components, MOST_COMPONENTS)
        self._records = 0
        self._sums = np.zeros(kept, dtype=np.int64)
        self._products = np.zeros((kept, kept), dtype=np.int64)

    @property
    def components(self) -> int:
        """K, 32 at most."""
        return len(self._sums)

    @property
    def records(self) -> int:
        """Those with finite components."""
        return self._records

    def add(self, components: NDArray[np.float64]) -> None:
        """Take in components (N, K); of more than 32 the first 32.

        Raises:
            ValueError: another number of components, or more than 2**31 - 1 records in all.
        """
        kept = self.components
        if components.ndim != 2 or min(components.shape[1], MOST_COMPONENTS) != kept:
            raise ValueError(f"moments have {kept} components, got values of shape {components.shape}")
        for start in range(0, len(components), BLOCK_ROWS):
            block = components[start : start + BLOCK_ROWS, :kept]
            block = block[np.isfinite(block).all(axis=1)]
            self._check_room(len(block))
            steps = steps_of(block)
            self._records += len(block)
            self._sums += steps.sum(axis=0).astype(np.int64)
            self._products += (steps.T @ steps).astype(np.int64)

    def merge(self, other: Moments) -> None:
        """Add another one's sums to these. Raises ValueError as `add` does."""
        self._check(other)
        self._check_room(other._records)
        self._records += other._records
        self._sums += other._sums
        self._products += other._products

    def subtract(self, other: Moments) -> None:
        """Take away what was merged before, as when a window slides.

        Raises:
            ValueError: the other one holds what this one cannot; nothing has changed then.
        """
        self._check(other)
        records, sums, products = (
            self._records - other._records,
            self._sums - other._sums,
            self._products - other._products,
        )
        if not _possible(records, sums, products):
            raise ValueError(f"cannot subtract: {other._records} records are not among these {self._records}")
        self._records, self._sums, self._products = records, sums, products

    def mean(self) -> NDArray[np.float64]:
        """(K,). Raises ValueError without records."""
        if not self._records:
            raise ValueError("a mean needs at least one record")
        mean: NDArray[np.float64] = self._sums / (self._records * STEPS)
        return mean

    def covariance(self) -> NDArray[np.float64]:
        """(K, K), with n - 1 in the denominator. Raises ValueError for fewer than two records."""
        n = self._records
        if n < 2:
            raise ValueError(f"a covariance needs at least two records, got {n}")
        # Around whole numbers of steps next to the means: what is summed then has no digits to cancel. A product here
        # may wrap around 2**64, their sum cannot: it is within 2**63, and integers that wrap add up right in the end.
        near = self._sums // n
        rest = (self._sums - n * near).astype(np.float64)
        crossed = near[:, None] * self._sums
        centred = self._products - crossed - crossed.T + n * near[:, None] * near
        covariance: NDArray[np.float64] = (centred - np.outer(rest, rest) / n) / ((n - 1) * STEPS**2)
        return covariance

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moments) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_bytes(self) -> bytes:
        """The canonical form: equal moments give equal bytes with one zlib library, whatever order built them."""
        content = self._content()
        header = Writer()
        header.raw(MAGIC + bytes([FORMAT_VERSION]))
        header.number(len(content))
        header.raw(zlib.compress(content, 1))
        return header.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> Moments:
        """The moments that `to_bytes` wrote. Raises ValueError for damaged data and for newer formats."""
        reader = Reader.unpacked(data, MAGIC, FORMAT_VERSION, "moment statistic", MAX_CONTENT_BYTES)
        kept, records = reader.number(), reader.number()
        if not 1 <= kept <= MOST_COMPONENTS or records > MOST_RECORDS:
            raise ValueError(f"damaged moment statistic: {kept} components of {records} records")
        sums = np.frombuffer(reader.raw(8 * kept), dtype="<i8").astype(np.int64)
        upper = np.frombuffer(reader.raw(4 * kept * (kept + 1)), dtype="<i8")
        reader.end()
        moments = cls(kept)
        moments._records, moments._sums = records, sums
        moments._products[np.triu_indices(kept)] = upper
        moments._products += np.triu(moments._products, 1).T
        if not _possible(records, sums, moments._products):
            raise ValueError(f"damaged moment statistic: no {records} records have such sums")
        return moments

    def _content(self) -> bytes:
        writer = Writer()
        writer.number(self.components)
        writer.number(self._records)
        writer.raw(self._sums.astype("<i8").tobytes())
        writer.raw(self._products[np.triu_indices(self.components)].astype("<i8").tobytes())
        return writer.data()

    def _check(self, other: Moments) -> None:
        if other.components != self.components:
            raise ValueError(f"one side has {self.components} components, the other {other.components}")

    def _check_room(self, records: int) -> None:
        if self._records + records > MOST_RECORDS:
            raise ValueError(f"sums hold {MOST_RECORDS} records at most, these would be {self._records + records}")


def steps_of(components: NDArray[np.floating]) -> NDArray[np.float64]:
    """Finite components (N, K) in whole steps of 1 / `STEPS`, each record within `farthest` of the origin.

    What lies beyond is clipped and scaled to that length. Each operation is exact or rounded once, as IEEE 754 has it,
    and the squares add up exactly: the same everywhere, whatever records stand beside.
    """
    steps: NDArray[np.float64] = np.rint(np.clip(components, -LIMIT, LIMIT).astype(np.float64) * STEPS)
    squares = (steps * steps).sum(axis=1)
    most = (farthest(steps.shape[1]) * STEPS) ** 2
    far = squares > most
    if far.any():
        steps[far] = np.rint(steps[far] * np.sqrt(most / squares[far])[:, None])
    return steps


def farthest(components: int) -> float:
    """The length at which records are drawn in: mean and 4 standard deviations of the chi-square law, 8 for K = 32."""
    return math.sqrt(components + FARTHEST * math.sqrt(2 * components))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Frechet's distance between the normal distributions with these means and covariances, squared, as FID has it.

        d^2 = |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))

    0 for equal moments; in whitened components a shift by one standard deviation of one component is 1. It sees
    nothing beyond means and covariances. Two samples of one distribution are not at 0: the smaller the window, the
    further (K = 32, a large baseline: 3.1 on average with 100 records, 0.30 with 1,000); so compare windows of
    one size. Sources: Dowson and Landau, "The Frechet distance between multivariate normal distributions",
    J. Multivariate Anal. 12 (1982); Heusel et al., "GANs trained by a two time-scale update rule" (2017), for its use
    on embeddings.

    Raises:
        ValueError: different numbers of components, or fewer than two records on a side.
    """
    first._check(second)
    one, other = first.covariance(), second.covariance()
    return float(distances(first.mean(), one, second.mean()[None], other[None])[0])


def distances(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    means: NDArray[np.float64],
    covariances: NDArray[np.float64],
) -> NDArray[np.float64]:
    """`frechet_distance` from one mean (K,) and covariance (K, K) to R others, (R, K) and (R, K, K): (R,)."""
    # tr (S S')^(1/2) is the sum of the roots of the eigenvalues of P S' P with P = S^(1/2), which is symmetric.
    root = _power(covariance, 0.5)
    products = root @ covariances @ root
    values = np.linalg.eigvalsh((products + products.transpose(0, 2, 1)) / 2)
    shared = np.sqrt(np.maximum(values, 0.0)).sum(1)
    spreads = np.trace(covariance) + np.trace(covariances, axis1=1, axis2=2) - 2 * shared
    found: NDArray[np.float64] = np.maximum(((means - mean) ** 2).sum(1) + spreads, 0.0)
    return found


def displacements(first: Moments, second: Moments) -> NDArray[np.float64]:
    """What each component adds to `frechet_distance`, (K,), all at least 0.

    The squared way, along that component, of the map that turns the first normal distribution into the second with the
    least movement: ``x -> m' + A (x - m)`` with ``A = S^(-1/2) (S^(1/2) S' S^(1/2))^(1/2) S^(-1/2)``. They add up to
    the distance where S is not singular. Raises ValueError as `frechet_distance` does.
    """
    first._check(second)
    covariance = first.covariance()
    root, inverse = _power(covariance, 0.5), _power(covariance, -0.5)
    moved = inverse @ _power(root @ second.covariance() @ root, 0.5) @ inverse - np.eye(first.components)
    found: NDArray[np.float64] = (first.mean() - second.mean()) ** 2 + np.diagonal(moved @ covariance @ moved.T)
    return np.maximum(found, 0.0)


def _power(symmetric: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Of a matrix without negative eigenvalues; directions without variance stay without."""
    values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)
    there = values > SINGULAR * max(float(values[-1]), SINGULAR)
    powers = np.where(there, np.where(there, values, 1.0) ** exponent, 0.0)
    power: NDArray[np.float64] = (vectors * powers) @ vectors.T
    return power


def _possible(records: int, sums: NDArray[np.int64], products: NDArray[np.int64]) -> bool:
    """Whether so many records can have such sums: within the limits, and no variance below 0."""
    most = int(LIMIT * STEPS)
    squares = products.diagonal().tolist()
    return 0 <= records <= MOST_RECORDS and all(
        0 <= square <= records * most**2 and total**2 <= records * square
        for total, square in zip(sums.tolist(), squares, strict=True)
    )
