"""Bets against p-values: they grow where p-values that should be uniform are not, and nowhere else on average."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.resampling import mix

MOST = 1e300
"""Evidence stops here rather than at infinity, where it would no longer be a number to share out."""
GOLDEN = 0x9E3779B97F4A7C15


def shift_bets(strengths: tuple[float, ...], *, both: bool = True) -> NDArray[np.float64]:
    """Bets ``exp(l z - l^2 / 2)`` that scores have moved up by l standard deviations, and (``both``) down.

    (K, 3): each bet is ``exp(a + b z + c z^2)`` with z the normal quantile of a p-value; its mean over uniform p is 1.
    """
    moves = [move for strength in strengths for move in ((strength, -strength) if both else (strength,))]
    return np.array([(-move * move / 2, move, 0.0) for move in moves])


def scale_bets(factors: tuple[float, ...]) -> NDArray[np.float64]:
    """Bets ``exp(z^2 / 2 (1 - 1/s^2)) / s`` that scores spread s times as far. (K, 3) as `shift_bets`."""
    return np.array([(-np.log(factor), 0.0, (1 - factor**-2) / 2) for factor in factors])


@njit(cache=True, nogil=True)
def tie_breaker(seed: np.uint64, unit: int, stream: int) -> float:  # pragma: no cover
    """A uniform number in (0, 1) that depends on nothing else: the same in every process that judges this unit."""
    state = mix(seed + np.uint64(GOLDEN) * np.uint64(unit + 1))
    state = mix(state + np.uint64(GOLDEN) * np.uint64(stream + 1))
    return (float(state >> np.uint64(11)) + 0.5) / 9007199254740992.0


@njit(cache=True, nogil=True)
def shuffle_columns(codes: NDArray[np.uint8], seed: np.uint64, first: int) -> None:  # pragma: no cover
    """Put each column's codes (N, D) into an order of its own, in place. ``first`` is the first record's number."""
    for column in range(codes.shape[1]):
        for row in range(len(codes) - 1, 0, -1):
            other = int(tie_breaker(seed, first + row, column) * (row + 1))
            codes[row, column], codes[other, column] = codes[other, column], codes[row, column]


@njit(cache=True, nogil=True)
def code_p_values(  # pragma: no cover
    codes: NDArray[np.uint8], counts: NDArray[np.int64], seed: np.uint64, first: int
) -> NDArray[np.float64]:
    """Conformal p-values (N, D) of codes, each ranked among ``counts`` (D, cells) and itself, then added to them.

    ``p = (less + u (equal + 1)) / (n + 1)``, small for small codes.
    """
    out = np.empty(codes.shape)
    for column in range(codes.shape[1]):
        cells = counts[column]
        total = cells.sum()
        for row in range(len(codes)):
            code = codes[row, column]
            less = cells[:code].sum()
            u = tie_breaker(seed, first + row, column)
            out[row, column] = (less + u * (cells[code] + 1)) / (total + 1)
            cells[code] += 1
            total += 1
    return out


@njit(cache=True, nogil=True)
def urn_p_values(  # pragma: no cover
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    reference: NDArray[np.int64],
    urns: NDArray[np.int64],
    seed: np.uint64,
    first: int,
    stream: int,
) -> NDArray[np.float64]:
    """Conformal p-values (N, T) of scores, ranked among the reference's M scores and those that came before.

    M scores leave M + 1 gaps. A new one falls into each alike, the next one twice as often into that gap (a Polya
    urn), and so on: ``urns`` (T, Q) count who came into which gap, which is all that ranks need to know about the
    past. ``low`` and ``high`` (N, T) are how many of the reference's scores are less, and less or equal; ``reference``
    (N,) is M. Where M + 1 is not Q, gaps are stretched to the urn's cells: an approximation.
    """
    out = np.empty(low.shape)
    cells = urns.shape[1]
    for t in range(low.shape[1]):
        urn = urns[t]
        for row in range(len(low)):
            gaps = reference[row] + 1
            per_cell = gaps / cells
            begin, end = low[row, t] / per_cell, min((high[row, t] + 1) / per_cell, float(cells))
            cell, last = min(int(begin), cells - 1), min(int(end), cells - 1)
            left = begin - cell
            below = begin * per_cell + urn[:cell].sum() + left * urn[cell]
            inside = (end - begin) * per_cell + urn[cell:last].sum() + (end - last) * urn[last] - left * urn[cell]
            u = tie_breaker(seed, first + row, stream + t)
            out[row, t] = (below + u * inside) / (gaps + urn.sum())
            rest = u * inside - (1 - left) * (per_cell + urn[cell])
            while rest >= 0 and cell < last:
                cell += 1
                rest -= per_cell + urn[cell]
            urn[cell] += 1
    return out


@njit(cache=True, nogil=True)
def learned_bets(  # pragma: no cover
    p_values: NDArray[np.float64], seen: NDArray[np.float64], prior: float, memory: float
) -> NDArray[np.float64]:
    """What a histogram of the p-values so far bets on the next: ``K (s_k + a) / (sum s + K a)``, (N, D).

    ``seen`` (D, K) holds the counts s, which fade by ``1 - 1/memory`` a record; ``prior`` is a. It learns changes of
    any shape, however slowly.
    """
    out = np.empty(p_values.shape)
    cells = seen.shape[1]
    for column in range(p_values.shape[1]):
        held = seen[column]
        for row in range(len(p_values)):
            cell = min(int(p_values[row, column] * cells), cells - 1)
            out[row, column] = cells * (held[cell] + prior) / (held.sum() + cells * prior)
            for k in range(cells):
                held[k] *= 1 - 1 / memory
            held[cell] += 1
    return out


@njit(cache=True, nogil=True)
def bet(  # pragma: no cover
    z: NDArray[np.float64],
    learned: NDArray[np.float64],
    sizes: NDArray[np.int64],
    bets: NDArray[np.float64],
    evidence: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Restart and sum every bet, ``R = (R + size) e``, in place; returns the weighted mean after each unit (N,).

    ``z`` (N, T) are normal quantiles of p-values; ``evidence`` (T, K or K + 1) is R, whose last column beyond the K
    ``bets`` takes its e from ``learned`` (N, T). ``weights`` (T,) add up to 1; bets share alike. As every e has mean
    1, R less the records seen is a martingale.
    """
    out = np.zeros(len(z))
    kinds = evidence.shape[1]
    mirrored = np.zeros(len(bets))
    for k in range(1, len(bets)):  # the bet before it on the other side: a division is cheaper than an exponential
        if bets[k, 0] == bets[k - 1, 0] and bets[k, 1] == -bets[k - 1, 1] and bets[k, 2] == bets[k - 1, 2] == 0:
            mirrored[k] = np.exp(2 * bets[k, 0])
    for row in range(len(z)):
        for t in range(z.shape[1]):
            value = z[row, t]
            total, e = 0.0, 1.0
            for k in range(kinds):
                if k < len(bets) and mirrored[k] > 0:
                    e = mirrored[k] / e
                elif k < len(bets):
                    e = np.exp(bets[k, 0] + value * (bets[k, 1] + value * bets[k, 2]))
                else:
                    e = learned[row, t]
                evidence[t, k] = min((evidence[t, k] + sizes[row]) * e, MOST)
                total += evidence[t, k]
            out[row] += weights[t] * total / kinds
    return out
