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

    >>> layout = Layout.of(["car", "person"], components=2, signals=["embedding", "class_mix"])
    >>> layout.width
    5
    >>> [(columns.signal, columns.start, columns.stop) for columns in layout.signals]
    [('embedding', 0, 2), ('class_mix', 2, 5)]
    """

    signals: tuple[SignalColumns, ...]

    @classmethod
    def of(cls, classes: Sequence[str], components: int, signals: Iterable[str] = tuple(SIGNALS)) -> Layout:
        """Signals of the table, by default all, for a baseline with these classes and this many components."""
        return cls.stacked((name, SIGNALS[name].dimensions(classes, components)) for name in signals)

    @classmethod
    def stacked(cls, signals: Iterable[tuple[str, Sequence[str]]]) -> Layout:
        """A layout from the signals' names and the names of their columns, one signal after the other."""
        columns: list[SignalColumns] = []
        for signal, dimensions in signals:
            columns.append(SignalColumns(signal, tuple(dimensions), columns[-1].stop if columns else 0))
        return cls(tuple(columns))

    def has(self, signal: str) -> bool:
        """Whether the layout has columns of this signal."""
        return any(part.signal == signal for part in self.signals)

    def column(self, signal: str, dimension: str) -> int:
        """The place of a column. Raises ValueError where there is none of that name."""
        for part in self.signals:
            if part.signal == signal and dimension in part.dimensions:
                return part.start + part.dimensions.index(dimension)
        raise ValueError(f"no column {dimension!r} in signal {signal!r}")

    def check(self, classes: Sequence[str], components: int) -> None:
        """Raises ValueError where this release names a signal's columns in another way than the layout's baseline."""
        for part in self.signals:
            signal = SIGNALS.get(part.signal)
            if signal is None:
                raise ValueError(f"signal '{part.signal}' is not known to this release; build the baseline again")
            if signal.dimensions(classes, components) != part.dimensions:
                raise ValueError(f"signal '{part.signal}' has other columns in this release; build the baseline again")

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
