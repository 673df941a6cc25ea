"""How far two annotators agree on the same images: pixel IoU and Cohen's kappa by class, and where they differ most.

Neither annotator is the truth, so both figures are symmetric. IoU is pooled over the records, as the model's own is:
what two annotators reach together is about the best that a model can be seen to reach. Kappa takes out the agreement
that would come about by chance, of which there is much where a class covers nearly all or nearly nothing.

Source: Cohen, A Coefficient of Agreement for Nominal Scales, 1960.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.quality.judge_semantic import SemanticJudgement


@dataclass(frozen=True, eq=False, slots=True)
class Shared:
    """Pixels of n records that both annotators labelled. Int64; classes may overlap, as instances do."""

    intersection: NDArray[np.int64]
    """(n, C) pixels that both say are of the class."""
    first: NDArray[np.int64]
    """(n, C) pixels that the first says are."""
    second: NDArray[np.int64]
    """(n, C) pixels that the second says are."""
    pixels: NDArray[np.int64]
    """(n,) pixels on which both have a say."""

    def __post_init__(self) -> None:
        shape = self.intersection.shape
        if len(shape) != 2 or self.first.shape != shape or self.second.shape != shape:
            raise ValueError(
                f"sums have shapes {shape}, {self.first.shape} and {self.second.shape}, expected (records, classes)"
            )
        if self.pixels.shape != shape[:1]:
            raise ValueError(f"{shape[0]} records, but pixels of shape {self.pixels.shape}")

    @classmethod
    def of_semantic(cls, judgements: Sequence[SemanticJudgement]) -> Shared:
        """From judgements of the first annotator's maps against the second's; what is void to either is left out.

        Raises:
            ValueError: no judgement, which would leave the number of classes open.
        """
        if not judgements:
            raise ValueError("without a judgement the number of classes is not known")
        intersection = np.stack([judgement.intersection for judgement in judgements])
        first = np.stack([judgement.predicted_pixels for judgement in judgements])
        # The first annotator's void is column C of the confusion: no class, and here no disagreement either.
        void = np.zeros_like(first)
        for row, judgement in enumerate(judgements):
            unsaid = judgement.confusion[judgement.confusion[:, 1] == judgement.classes]
            void[row, unsaid[:, 0]] = unsaid[:, 2]
        second = np.stack([judgement.labelled_pixels for judgement in judgements]) - void
        return cls(intersection, first, second, second.sum(1))


@dataclass(frozen=True, eq=False, slots=True)
class Agreement:
    """Of two annotators over their records in common; (C,) each. NaN where neither has labelled the class."""

    records: int
    iou: NDArray[np.float64]
    """Pooled over pixels: sum of intersections over sum of unions."""
    kappa: NDArray[np.float64]
    """Of "is the class" against "is not", pixel by pixel; NaN also where the class is all that both have labelled."""
    surplus: NDArray[np.float64]
    """(first - second) / union, -1..1: how much more of the class the first annotator labels. Far from 0 it is habit,
    near 0 with a low IoU it is noise."""


def agreement(shared: Shared) -> Agreement:
    """The figures of all records together.

    >>> one = Shared(np.array([[4]]), np.array([[6]]), np.array([[4]]), np.array([10]))
    >>> found = agreement(one)
    >>> [round(float(each[0]), 3) for each in (found.iou, found.kappa, found.surplus)]
    [0.667, 0.615, 0.333]
    """
    both, first, second = (each.sum(0) for each in (shared.intersection, shared.first, shared.second))
    union = first + second - both
    pixels = float(shared.pixels.sum())
    unequal = (union - both).astype(np.float64)
    chance = first * (pixels - second) + second * (pixels - first)
    return Agreement(
        len(shared.pixels),
        _ratio(both, union),
        1 - _ratio(unequal * pixels, chance),
        _ratio(first - second, union),
    )


def overall_kappa(shared: Shared) -> float | None:
    """Cohen's kappa over all classes at once, for maps in which every pixel has one class; None where chance alone
    agrees."""
    pixels = float(shared.pixels.sum())
    unequal = pixels - float(shared.intersection.sum())
    chance = pixels**2 - float((shared.first.sum(0).astype(np.float64) * shared.second.sum(0)).sum())
    return 1 - unequal * pixels / chance if chance > 0 else None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A record on which two annotators differ."""

    record: int
    """Row in `Shared`."""
    position: int
    """The class with the most disputed pixels."""
    disputed: int
    """Pixels of the class that one of the two alone has labelled."""
    iou: float
    """Of that class in this record."""


def disagreements(shared: Shared, most: int) -> list[Disagreement]:
    """The records with the largest share of disputed pixels, worst first, at most so many; none that agree wholly.

    A record's share is that of its most disputed class, so that a small image counts like a large one.

    >>> one = Shared(np.array([[4], [5]]), np.array([[6], [5]]), np.array([[4], [5]]), np.array([10, 10]))
    >>> [(each.record, each.disputed) for each in disagreements(one, most=5)]
    [(0, 2)]
    """
    union = shared.first + shared.second - shared.intersection
    disputed = union - shared.intersection
    if not disputed.size:
        return []
    worst = disputed.argmax(1)
    rows = np.arange(len(worst))
    pixels = disputed[rows, worst]
    share = _ratio(pixels, shared.pixels)
    order = [int(row) for row in np.argsort(-share, kind="stable") if pixels[row]]
    return [
        Disagreement(row, int(worst[row]), int(pixels[row]), _iou(shared.intersection, union, row, worst))
        for row in order[:most]
    ]


def _iou(intersection: NDArray[np.int64], union: NDArray[np.int64], row: int, worst: NDArray[np.int64]) -> float:
    return float(intersection[row, worst[row]] / union[row, worst[row]])


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> NDArray[np.float64]:
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
