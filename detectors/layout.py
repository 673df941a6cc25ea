"""Which column of a baseline's bins belongs to which signal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features
from detectors.signals import SIGNALS


@dataclass(frozen=True, slots=True)
class SignalColumns:
    """A signal's columns: ``start`` to ``stop`` (exclusive) of all, named by ``dimensions``."""

    signal: str
    dimensions: tuple[str, ...]
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.dimensions)


@dataclass(frozen=True, slots=True)
class Layout:
    """The signals of one baseline side by side, in the table's order. Frozen with the baseline.

    >>> layout = Layout.of(["car", "person"], components=2)
    >>> layout.width
    9
    >>> [(columns.signal, columns.start, columns.stop) for columns in layout.signals]
    [('embedding', 0, 2), ('confidence', 2, 5), ('class_mix', 5, 8), ('instances', 8, 9)]
    """

    signals: tuple[SignalColumns, ...]

    @classmethod
    def of(cls, classes: Sequence[str], components: int) -> Layout:
        """All signals of the table, for a baseline with these classes and this many embedding components."""
        return cls.stacked((name, signal.dimensions(classes, components)) for name, signal in SIGNALS.items())

    @classmethod
    def stacked(cls, signals: Iterable[tuple[str, Sequence[str]]]) -> Layout:
        """A layout from the signals' names and the names of their columns, one signal after the other."""
        columns: list[SignalColumns] = []
        for signal, dimensions in signals:
            columns.append(SignalColumns(signal, tuple(dimensions), columns[-1].stop if columns else 0))
        return cls(tuple(columns))

    @property
    def width(self) -> int:
        """Number of columns of all signals together."""
        return self.signals[-1].stop if self.signals else 0

    def values(self, features: Features) -> NDArray[np.float64]:
        """The signals' values side by side, (N, width).

        Raises:
            ValueError: the layout names a signal that this release does not have, or a signal's columns are not
                those that the baseline was built with (other classes or components).
        """
        if not self.signals:
            return np.empty((len(features), 0))
        parts = []
        for columns in self.signals:
            signal = SIGNALS.get(columns.signal)
            if signal is None:
                raise ValueError(f"the baseline has signal '{columns.signal}', which this release does not know")
            values = signal.values(features)
            if values.shape != (len(features), len(columns.dimensions)):
                raise ValueError(
                    f"signal '{columns.signal}' has {values.shape[1]} columns, its baseline {len(columns.dimensions)}"
                )
            parts.append(values)
        return np.concatenate(parts, axis=1)
