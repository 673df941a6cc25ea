"""Clusters of the baseline's whitened embeddings: which of a few centres lies nearest to a record."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.wire import Reader, Writer

FORMAT_VERSION = 1
MAGIC = b"SWCC"
MAX_CONTENT_BYTES = 64 << 20

CLUSTERS = 16
LEADING = 8
"""Only the first components, those of largest variance before whitening: groups of images lie apart along these, and
the others have been made as wide. 0.1 of the records moving to a rare one of 8 groups is found in 300 records with a
probability of 0.75, over all 32 components 0.55; with 16 groups in 15 directions both find as much."""
FEWEST_RECORDS = 25
"""Records a cluster: with fewer, the centres are those of the sample rather than those of the data."""
SAMPLE_ROWS = 20_000
"""1,250 records a cluster; more do not move the centres by anything that a count could show."""
STEPS = 2.0**10
"""Steps per unit: components are whitened, so a step is a thousandth of a standard deviation."""
LIMIT = 64.0
"""Components are clipped here: the square of a distance then has at most 2 (6 + 1 + 10) bits a component."""


@dataclass(frozen=True, eq=False)
class ClusterCentres:
    """k-means centres (Lloyd 1982) in the first 8 components, frozen with the baseline.

    Components and centres are rounded to 1/1024 and clipped at +-64. Integers held in float64 add exactly while sums
    stay below 2**53, so that no order, batch or machine ever moves a record to another cluster.

    Misleads where the embedding forms no groups: the clusters are then arbitrary cells, which still see what changes
    in several components at once, though with less power than where there are groups to see.

    >>> rng = np.random.default_rng(0)
    >>> blobs = np.concatenate([rng.normal(-3, 1, (500, 2)), rng.normal(3, 1, (500, 2))])
    >>> centres = ClusterCentres.fit(blobs, clusters=2)
    >>> first, second, none = centres.nearest(np.array([[-2.0, -4.0], [9.0, 1.0], [np.nan, 0.0]]))
    >>> bool(first != second), float(none)
    (True, nan)
    """

    steps: NDArray[np.float64]
    """(k, K) whole numbers, 1/1024 each; K is 8 at most."""

    def __post_init__(self) -> None:
        if self.steps.ndim != 2 or not 1 <= len(self.steps) <= CLUSTERS or not 1 <= self.components <= LEADING:
            raise ValueError(f"centres have shape {self.steps.shape}, expected (1..{CLUSTERS}, 1..{LEADING})")
        if not (np.abs(self.steps) <= LIMIT * STEPS).all() or (self.steps != np.rint(self.steps)).any():
            raise ValueError(f"centres are no whole numbers of steps within +-{LIMIT:g}")

    @property
    def components(self) -> int:
        """K, those that count."""
        return int(self.steps.shape[1])

    @classmethod
    def fit(cls, components: NDArray[np.float64], clusters: int = CLUSTERS, seed: int = 0) -> ClusterCentres:
        """Centres of components (N, any), 20,000 rows of which are drawn; rows that are not finite are left out.

        There are fewer than ``clusters`` where records or distinct values are few. The largest cluster comes first.
        Equal rows in equal order give equal centres on one kind of machine: scikit-learn uses its own BLAS.

        Raises:
            ValueError: no finite row, or ``clusters`` outside 1..16.
        """
        if not 1 <= clusters <= CLUSTERS:
            raise ValueError(f"clusters must be in 1..{CLUSTERS}, got {clusters}")
        rows = components[:, :LEADING]
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            raise ValueError("clusters need at least one record with a finite embedding")
        rows = np.clip(rows[sample_rows(len(rows), seed)], -LIMIT, LIMIT)
        distinct = len(np.unique(np.rint(rows * STEPS), axis=0))
        count = min(clusters, max(1, len(rows) // FEWEST_RECORDS), distinct)
        # Here alone: it loads pandas wherever that is installed, half the memory and start-up time of every command.
        from sklearn.cluster import KMeans

        found = KMeans(count, n_init=3, random_state=seed).fit(rows)
        largest_first = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
        # Rounding also hides the last bits, which threads that add in another order would change. Adding 0 turns -0
        # into 0, so that equal centres are equal bytes.
        return cls(np.rint(found.cluster_centers_[largest_first] * STEPS) + 0.0)

    def nearest(self, components: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, K) to (N,): index of the nearest centre, the first of equals; NaN where a component is not finite.

        Components beyond the eighth may stand there, and do not count.

        Raises:
            ValueError: the number of components is not that of the centres.
        """
        if components.ndim != 2 or min(components.shape[1], LEADING) != self.components:
            raise ValueError(f"centres have {self.components} components, got values of shape {components.shape}")
        out = np.empty(len(components))
        _nearest(np.asarray(components, dtype=np.float64), self.steps, out)
        return out

    def to_bytes(self) -> bytes:
        """Equal centres give equal bytes with one zlib library."""
        writer = Writer()
        writer.number(len(self.steps))
        writer.number(self.components)
        writer.raw(self.steps.astype("<i4").tobytes())
        content = writer.data()
        header = Writer()
        header.raw(MAGIC + bytes([FORMAT_VERSION]))
        header.number(len(content))
        header.raw(zlib.compress(content, 6))
        return header.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> ClusterCentres:
        """The centres that `to_bytes` wrote. Raises ValueError for damaged data and for newer formats."""
        reader = Reader.unpacked(data, MAGIC, FORMAT_VERSION, "set of cluster centres", MAX_CONTENT_BYTES)
        count, components = reader.number(), reader.number()
        steps = np.frombuffer(reader.raw(4 * count * components), dtype="<i4")
        reader.end()
        try:
            return cls(steps.astype(np.float64).reshape(count, components))
        except ValueError as error:
            raise ValueError(f"damaged {reader.what}: {error}") from None


def sample_rows(records: int, seed: int = 0) -> NDArray[np.int64]:
    """At most `SAMPLE_ROWS` of so many rows, ascending.

    At random: every third record may well be that of one camera of three.

    >>> len(sample_rows(7)), len(sample_rows(1_000_000))
    (7, 20000)
    """
    if records <= SAMPLE_ROWS:
        return np.arange(records)
    return np.sort(np.random.default_rng(seed).choice(records, SAMPLE_ROWS, replace=False))


# Integers in float64: the compiler may add them in any order and fuse what it likes, and nothing changes.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _nearest(components, centres, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    width = centres.shape[1]
    steps = np.empty(width)
    for row in range(len(components)):
        finite = True
        for k in range(width):
            value = components[row, k]
            finite &= np.isfinite(value)
            steps[k] = np.rint(min(max(value, -LIMIT), LIMIT) * STEPS)
        best = np.inf
        chosen = np.nan
        for centre in range(len(centres)):
            distance = 0.0
            for k in range(width):
                gap = steps[k] - centres[centre, k]
                distance += gap * gap
            if distance < best:
                best = distance
                chosen = centre
        out[row] = chosen if finite else np.nan
