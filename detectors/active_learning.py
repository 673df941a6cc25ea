"""Which records to have labelled so that a model learns most from few: uncertain ones, unlike each other, of the
classes that need it.

Two ways, which differ in what their labels may be used for. By chance: every record gets a probability in proportion
to how much is expected of it, and the draw is spread over the embedding space by the local pivotal method, which keeps
exactly these probabilities; so the labels can be weighed, and count in estimates. Greedy: one record after another,
each time the one that is most wanted and farthest from all chosen so far; nothing is left to chance, no probability is
known, and the labels are no evidence of how good the model is.

Distances are between sketches: the leading components of the whitened embedding, an eighth of a byte's range for each
standard deviation, which is small enough to be kept for every record.

Sources: Grafstroem, Lundstroem and Schelin, Spatially balanced sampling through the pivotal method, 2012; Deville and
Tille, Unequal probability sampling without replacement through a splitting method, 1998; Sener and Savarese, Active
learning for convolutional neural networks: a core-set approach, 2018.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 16
STEP = 1 / 16
"""Standard deviations of a component for one step of a sketch: int8 then reaches 7.9 of them."""
NEED = 4.0
"""How many times more a record is wanted that has a class of full need."""
LEAST = 0.02
"""Of the wish for a record of which the model is wholly sure: it may be wrong, and nothing else would ever tell."""
NEIGHBOURHOOD = 512
"""Records among which a neighbour is looked for: time grows with it; so, 0.15 ms a record."""
SURE = 1e-9
"""Probabilities this near to 0 and 1 are these."""


def sketches(components: NDArray[np.float64]) -> list[bytes | None]:
    """(N, K) components of whitened embeddings, N sketches; None where there are none, or not all are finite.

    >>> sketches(np.array([[0.5, -100.0], [np.nan, 0.0]]))
    [b'\\x08\\x81', None]
    """
    kept = components[:, :COMPONENTS]
    if not kept.shape[1]:
        return [None] * len(kept)
    finite = np.asarray(np.isfinite(kept).all(axis=1))
    steps = np.clip(np.rint(np.where(finite[:, None], kept, 0.0) / STEP), -127, 127).astype(np.int8)
    return [row.tobytes() if good else None for row, good in zip(steps, finite.tolist(), strict=True)]


def points(rows: Sequence[bytes | None]) -> NDArray[np.float64]:
    """(N, K) what N sketches stand for, in standard deviations; records without one lie in the middle.

    Sketches of another length than the first, made under an older baseline, count as none: they are of other axes.
    """
    width = next((len(row) for row in rows if row), 0)
    out = np.zeros((len(rows), width))
    for i, row in enumerate(rows):
        if row and len(row) == width:
            out[i] = np.frombuffer(row, np.int8) * STEP
    return out


def wishes(
    confidence: NDArray[np.float64], classes: Sequence[Collection[str]], need: Mapping[str, float] | None = None
) -> NDArray[np.float64]:
    """(N,) how much each record is wanted, above 0.

    Args:
        confidence: (N,) 0..1; NaN where it is not known, which counts as wholly unsure.
        classes: those that the model found in each record.
        need: by class, 0..1; a record has that of its neediest class.

    >>> wishes(np.array([0.9, 0.5]), [{"car"}, {"bus"}], {"bus": 1.0}).round(3).tolist()
    [0.03, 1.35]
    """
    unsure = (1 - np.clip(np.nan_to_num(confidence, nan=0.0), 0, 1)) ** 2
    needed = np.array([max([(need or {}).get(name, 0.0) for name in names], default=0.0) for names in classes])
    wished: NDArray[np.float64] = (LEAST + unsure) * (1 + NEED * needed.reshape(-1))
    return wished


def probabilities(wished: NDArray[np.float64], count: float) -> NDArray[np.float64]:
    """(N,) in proportion to the wishes, at most 1, that add up to ``count`` (or N, if that is less).

    >>> probabilities(np.array([8.0, 1.0, 1.0]), 2).tolist()
    [1.0, 0.5, 0.5]
    """
    found = np.zeros(len(wished))
    certain = np.zeros(len(wished), np.bool_)
    left = min(count, float(len(wished)))
    while left > 0 and not certain.all():
        total = wished[~certain].sum()
        found[~certain] = wished[~certain] * (left / total) if total > 0 else left / (~certain).sum()
        over = ~certain & (found >= 1)
        if not over.any():
            break
        found[over] = 1.0
        certain |= over
        left = min(count, float(len(wished))) - int(certain.sum())
    return np.minimum(found, 1.0)


def draw_spread(where: NDArray[np.float64], chance: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N,) which records are drawn: each with its ``chance`` exactly, and near ones seldom together.

    The local pivotal method. An undecided record and its nearest undecided neighbour settle between themselves who
    keeps the probability of both: with p + q < 1 one of them falls to 0, otherwise one rises to 1, in such a
    proportion that nobody's expectation changes. Neighbours are looked for among `NEIGHBOURHOOD` records that follow
    each other along the first component; who is left undecided there joins the next ones.

    Args:
        where: (N, K) points.
        chance: (N,) 0..1.

    >>> rng = np.random.default_rng(0)
    >>> line = np.arange(8.0)[:, None]
    >>> [int(draw_spread(line, np.full(8, 0.5), rng).sum()) for _ in range(5)]
    [4, 4, 4, 4, 4]
    """
    left = chance.astype(np.float64)
    waiting = np.flatnonzero((left > SURE) & (left < 1 - SURE))
    if where.shape[1]:
        waiting = waiting[np.argsort(where[waiting, 0], kind="stable")]
    rest = waiting[:0]
    for start in range(0, len(waiting), NEIGHBOURHOOD):
        rest = _settle(where, left, np.concatenate([rest, waiting[start : start + NEIGHBOURHOOD]]), rng)
    for last in rest.tolist():
        left[last] = float(rng.random() < left[last])
    drawn: NDArray[np.bool_] = left > 0.5
    return drawn


def _settle(
    where: NDArray[np.float64], left: NDArray[np.float64], undecided: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Pivot until at most one of these rows is undecided, which is returned; ``left`` is changed in place."""
    while len(undecided) > 1:
        at = int(rng.integers(len(undecided)))
        gaps = ((where[undecided] - where[undecided[at]]) ** 2).sum(1)
        gaps[at] = np.inf
        # Among several at one place the first would always be taken, and they lie in the order of their names.
        nearest = np.flatnonzero(gaps == gaps.min())
        i, j = undecided[at], undecided[int(rng.choice(nearest))]
        total = left[i] + left[j]
        if total < 1:
            to_first = rng.random() * total < left[i]
            left[i], left[j] = (total, 0.0) if to_first else (0.0, total)
        else:
            first_is_drawn = rng.random() * (2 - total) < 1 - left[j]
            left[i], left[j] = (1.0, total - 1) if first_is_drawn else (total - 1, 1.0)
        undecided = undecided[(left[undecided] > SURE) & (left[undecided] < 1 - SURE)]
    return undecided


def choose_greedily(
    where: NDArray[np.float64],
    wished: NDArray[np.float64],
    count: int,
    known: NDArray[np.float64] | None = None,
) -> list[int]:
    """Rows of up to ``count`` records, one by one: the largest wish times distance to the nearest chosen one.

    Args:
        where: (N, K) points.
        wished: (N,) above 0.
        known: (M, K) points that need no label any more, because they have one.

    >>> where = np.array([[0.0], [0.1], [5.0]])
    >>> choose_greedily(where, np.array([1.0, 0.9, 0.5]), 2)
    [0, 2]
    """
    nearest = np.full(len(where), np.inf)
    for row in known if known is not None else ():
        nearest = np.minimum(nearest, ((where - row) ** 2).sum(1))
    waiting = np.ones(len(where), np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(count, len(where)):
        # Squared distances, so the root; without any, or with all at one place, the wish alone decides.
        reach = np.where(np.isinf(nearest), 1.0, np.sqrt(nearest))
        reach = reach if reach[waiting].max() > 0 else np.ones(len(where))
        best = int(np.argmax(np.where(waiting, wished * reach, -1.0)))
        chosen.append(best)
        waiting[best] = False
        nearest = np.minimum(nearest, ((where - where[best]) ** 2).sum(1))
    return chosen
