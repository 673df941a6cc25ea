"""Random Fourier features: cosines of random directions, whose means tell two distributions apart."""

from __future__ import annotations

import math
import random
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

FEATURES = 32
SEED = 1807
TURN_BITS = 30
"""A phase is a whole number of 2**-30 turns."""
STEPS = 2.0**10
"""Steps per unit of a component, so that weights are in steps of 2**-20 turns."""
LIMIT = 64.0
"""Components are clipped here. A phase has at most 16 + 20 bits a component: sums over 2**16 stay below 2**53."""
TABLE_BITS = 12
"""The cosine comes from a table of 4,096: no two mathematical libraries agree on its last bit."""


def fourier_features(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """``cos(w_j . z)`` of whitened components z (N, K), to (N, 32), -1..1; NaN where any component is not finite.

    The directions w_j come from the Gaussian kernel ``k(x, y) = exp(-|x - y|^2 / (2 s^2))`` (Bochner's theorem): their
    entries are normal with deviation 1/s. Its bandwidth s is the median heuristic for whitened, normal data,
    where ``|x - y|^2`` is 2 K on average: ``s = sqrt(2 K)``.

    Only cosines without a phase are taken, the even half of the features. Their squared mean difference is the MMD of
    the kernel ``(k(x, y) + k(x, -y)) / 2``, of both distributions made symmetric: it sees spread and dependence,
    and is blind to a mere shift, which every component shows by itself. With random phases half of each feature
    would go to shifts once more. A correlation of 0.5 in 16 pairs of 32 components is found in 300 records at
    p <= 0.01 with a probability of 0.88 (over random directions 0.76 to 1), instead of 0.22 with phases.

    Everything is a whole number but the cosine, which is rounded to 2**-16: equal on every machine.
    Sources: Rahimi and Recht, "Random features for large-scale kernel machines" (2007); Gretton et al., "A kernel
    two-sample test", JMLR 13 (2012).
    """
    rows, width = components.shape
    out = np.empty((rows, FEATURES))
    if width:
        _features(np.ascontiguousarray(components, dtype=np.float64), weights(width), _cosines(), out)
    else:
        out[:] = np.nan
    return out


@lru_cache(maxsize=8)
def weights(components: int) -> NDArray[np.float64]:
    """(32, K) whole numbers, in 2**-20 turns per unit; a function of K alone.

    Python's `random.random` keeps its sequence over releases and machines, NumPy's generators do not. Rounding hides
    what libraries make of the last bits of logarithm, cosine and root.
    """
    uniform = random.Random(SEED + components).random
    scale = 2.0 ** (TURN_BITS - 10) / (2 * math.pi * math.sqrt(2 * components))

    def weight() -> float:
        """From two uniform numbers a normal one (Box and Muller 1958)."""
        normal = math.sqrt(-2 * math.log(1 - uniform())) * math.cos(2 * math.pi * uniform())
        return float(round(scale * normal))

    table = np.array([[weight() for _ in range(components)] for _ in range(FEATURES)])
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """One turn in 4,096 steps, rounded to 2**-16."""
    middles = (np.arange(1 << TABLE_BITS) + 0.5) / (1 << TABLE_BITS)
    table: NDArray[np.float64] = np.rint(np.cos(2 * np.pi * middles) * 2.0**16) / 2.0**16
    return table


# Integers in float64: the compiler may add them in any order and fuse what it likes, and nothing changes.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _features(components, weights, cosines, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    rows, width = components.shape
    steps = np.empty(width)
    for row in range(rows):
        finite = True
        for k in range(width):
            value = components[row, k]
            finite &= np.isfinite(value)
            steps[k] = np.rint(min(max(value, -LIMIT), LIMIT) * STEPS)
        for feature in range(len(weights)):
            phase = 0.0
            for k in range(width):
                phase += weights[feature, k] * steps[k]
            at = (np.int64(phase if finite else 0.0) >> (TURN_BITS - TABLE_BITS)) & ((1 << TABLE_BITS) - 1)
            out[row, feature] = cosines[at] if finite else np.nan
