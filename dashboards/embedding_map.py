"""The embedding map: a window's records among the baseline's, on a plane, and which cell of it holds how many.

Only geometry: samples in, coordinates out. The template draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.joint_plane import Plane

WIDTH: Final = 720
HEIGHT: Final = 540
MARGIN: Final = 12
COLUMNS: Final = 12
ROWS: Final = 9
WITHIN: Final = 0.5
"""Per cent of each sample that may lie beyond either side; it is drawn at the border."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    index: int
    """Of the record in its sample."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Part of the plane. Shares 0..1, each of its own sample."""

    column: int
    row: int
    x: float
    y: float
    records: tuple[int, ...]
    """Of the window's sample, by index."""
    window: float
    baseline: float

    @property
    def name(self) -> str:
        """As in addresses."""
        return f"{self.column}-{self.row}"

    @property
    def label(self) -> str:
        """As on the margins of the map: a letter for the column, a number for the row, from the top left.

        >>> Cell(2, 0, 0.0, 0.0, (), 0.0, 0.0).label
        'C1'
        """
        return f"{chr(ord('A') + self.column)}{self.row + 1}"


@dataclass(frozen=True, slots=True)
class Map:
    baseline: tuple[Dot, ...]
    window: tuple[Dot, ...]
    cells: tuple[Cell, ...]
    """Those with records of the window: the one where the window has gained most over the baseline first."""
    share: tuple[float, float]
    """Of the variance of both samples that the axes hold, 0..1."""

    def cell(self, name: str) -> Cell | None:
        return next((one for one in self.cells if one.name == name), None)


def embedding_map(baseline: Floats, window: Floats, drawn: int) -> Map:
    """Samples (N, K) and (M, K) of the same components; of the baseline's ``drawn`` are drawn, all are counted."""
    plane = Plane.of(baseline, window)
    sides = [plane.project(one) for one in (baseline, window)]
    bounds = np.stack([np.percentile(side, [WITHIN, 100 - WITHIN], axis=0) for side in sides])
    low, high = bounds[:, 0].min(0), bounds[:, 1].max(0)
    usual, now = (_placed(side, low, high) for side in sides)
    cells = _cells(usual, now)
    return Map(
        tuple(_dot(usual, index) for index in range(0, len(usual), max(1, -(-len(usual) // drawn)))),
        tuple(_dot(now, index) for index in range(len(now))),
        tuple(sorted(cells, key=lambda one: (one.baseline - one.window, one.name))),
        plane.share,
    )


def _placed(points: Floats, low: Floats, high: Floats) -> Floats:
    """(N, 2) shares of the drawing's width and height, 0..1 from the top left."""
    share = np.clip((points - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    return np.column_stack([share[:, 0], 1 - share[:, 1]])


def _dot(places: Floats, index: int) -> Dot:
    x = MARGIN + places[index, 0] * (WIDTH - 2 * MARGIN)
    y = MARGIN + places[index, 1] * (HEIGHT - 2 * MARGIN)
    return Dot(round(float(x), 1), round(float(y), 1), index)


def _cells(usual: Floats, now: Floats) -> list[Cell]:
    of_usual, of_now = _numbers(usual), _numbers(now)
    shares = np.bincount(of_usual, minlength=COLUMNS * ROWS) / len(usual)
    found = []
    for number in np.unique(of_now).tolist():
        records = tuple(np.flatnonzero(of_now == number).tolist())
        row, column = divmod(number, COLUMNS)
        x, y = WIDTH * column / COLUMNS, HEIGHT * row / ROWS
        found.append(Cell(column, row, x, y, records, len(records) / len(now), float(shares[number])))
    return found


def _numbers(places: Floats) -> NDArray[np.int64]:
    drawn = MARGIN + places * np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    columns = np.minimum(drawn[:, 0] * COLUMNS / WIDTH, COLUMNS - 1).astype(np.int64)
    rows = np.minimum(drawn[:, 1] * ROWS / HEIGHT, ROWS - 1).astype(np.int64)
    numbers: NDArray[np.int64] = rows * COLUMNS + columns
    return numbers
