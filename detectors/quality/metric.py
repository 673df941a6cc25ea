"""A quality metric: a ratio of two sums over records, kept apart until the records have been weighed and added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

Judgement = TypeVar("Judgement")


@dataclass(frozen=True, slots=True)
class Metric(Generic[Judgement]):
    """What each of n judgements adds to the metric's numerator and denominator.

    Pooling the sums before dividing is what makes a rare class count: a mean of ratios per image gives an image with
    three pixels of a class as much say as one full of it.
    """

    name: str
    numerator: Callable[[Sequence[Judgement]], NDArray[Any]]
    """n judgements to (n, C) sums, or (n, 1) for a metric over all classes at once."""
    denominator: Callable[[Sequence[Judgement]], NDArray[Any]]
    """The same shape; a column that adds up to 0 has no value."""
