"""Which records to have labelled: drawn one by one with known probabilities, so that estimates can weigh by them.

Half of what may be spent on measuring goes to all records alike, a floor under every probability; the other half is
shared evenly by the classes that the model found, so that a class in one record of a hundred is not left to chance.
A record that is wanted by several classes adds up what they give. A second, independent draw prefers records from which
a model learns most, for training; its labels count in the estimates too, weighed by the probability of either draw.

Poisson sampling: Saerndal, Swensson and Wretman 1992, section 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.active_learning import probabilities

FLOOR_SHARE = 0.5
"""Of the checks to measure by: spread over all records alike."""
CRITICAL = 2.0
"""A critical class's share, as a multiple of another's."""


@dataclass(frozen=True, slots=True, eq=False)
class Chances:
    """Of N records, (N,) each, in 0..1."""

    uniform: NDArray[np.float64]
    """Of being drawn to measure by."""
    floor: NDArray[np.float64]
    """The part of it that is the same for all records, whatever was found in them."""
    training: NDArray[np.float64]
    """Of being drawn to train on."""

    @property
    def either(self) -> NDArray[np.float64]:
        """Of being drawn at all."""
        return 1 - (1 - self.uniform) * (1 - self.training)


def chances(
    classes: Sequence[frozenset[str]],
    wished: NDArray[np.float64],
    checks: float,
    training: float,
    critical: Mapping[str, float | None] | frozenset[str] = frozenset(),
) -> Chances:
    """Chances of N records.

    Args:
        classes: the classes found in each record.
        wished: (N,) above 0, how much each is wanted to train on (`detectors.active_learning.wishes`).
        checks: how many are to be drawn to measure by, expected; at most N are.
        training: how many to train on.
        critical: classes that get `CRITICAL` times another's share.

    >>> found = chances([frozenset({"car"})] * 98 + [frozenset({"bus"})] * 2, np.ones(100), 10, 0)
    >>> found.uniform[[0, 99]].round(3).tolist(), round(float(found.uniform.sum()), 6)
    ([0.076, 1.0], 9.4)
    """
    count = len(classes)
    if not count:
        return Chances(np.zeros(0), np.zeros(0), np.zeros(0))
    floor = np.full(count, FLOOR_SHARE * checks / count)
    wanted = floor.copy()
    members: dict[str, list[int]] = {}
    for row, names in enumerate(classes):
        for name in names:
            members.setdefault(name, []).append(row)
    shares = {name: CRITICAL if name in critical else 1.0 for name in members}
    for name, rows in members.items():
        wanted[rows] += (1 - FLOOR_SHARE) * checks * shares[name] / sum(shares.values()) / len(rows)
    if not members:
        wanted[:] = floor[:] = checks / count
    trained = probabilities(wished, training)
    return Chances(np.minimum(wanted, 1.0), np.minimum(floor, 1.0), trained)
