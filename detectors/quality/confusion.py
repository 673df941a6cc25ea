"""Confusion counts of two semantic maps: how many pixels of each labelled class were predicted as which.

Classes are positions 0..C-1; position C stands for every value that is none of them. Void (ignored values of the
label) counts as nothing at all: neither a hit nor a miss, whatever was predicted there.

Maps of different size are brought to one size by nearest neighbour: row ``i`` of ``H`` takes the source row in which
its centre lies, ``floor((i + 1/2) h / H)``, in integers and so the same anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

IndexMap = NDArray[np.uint8] | NDArray[np.uint16]
Size = tuple[int, int]

VALUES = 65_536
"""Values that a 16-bit map can have."""
MAX_CLASSES = 4096
DENSE_CLASSES = 255
"""Up to so many classes are counted in one table (512 KiB a copy); with more, only those in the two maps."""
COPIES = 4
"""Tables filled in turn: neighbours are mostly equal, and adding to one cell would wait for its own last store."""


@dataclass(frozen=True, eq=False, slots=True)
class ClassTable:
    """Value in a map to class position: made once for a model's classes, used for every map.

    >>> table = ClassTable.of([3, 7], ignore=[255])
    >>> table.classes, table.predicted[[3, 7, 8, 255]].tolist(), table.labelled[[3, 7, 8, 255]].tolist()
    (2, [0, 1, 2, 2], [0, 1, 2, 3])
    """

    classes: int
    """C"""
    predicted: NDArray[np.int32]
    """(65536,): position of each value of a prediction; C for values that are no class, ignored ones among them. A
    model that answers "void" where there is something has missed it."""
    labelled: NDArray[np.int32]
    """(65536,): position of each value of a label; C for values that are no class, C + 1 for ignored ones."""

    @classmethod
    def of(cls, indices: Sequence[int], ignore: Sequence[int] = ()) -> ClassTable:
        """``indices[c]`` is the value that means class c; ``ignore`` holds the values that count as nothing.

        Raises:
            ValueError: no or too many classes, a value outside 0..65535, or one that stands for two things.
        """
        total = len(indices)
        if not 1 <= total <= MAX_CLASSES:
            raise ValueError(f"{total} classes, expected 1..{MAX_CLASSES}")
        every = [*indices, *set(ignore)]
        if min(every) < 0 or max(every) >= VALUES:
            raise ValueError(f"values of a map are 0..{VALUES - 1}, got {min(every)}..{max(every)}")
        if len(set(every)) < len(every):
            raise ValueError("a value stands for two classes, or for a class and for void")
        predicted = np.full(VALUES, total, np.int32)
        predicted[np.array(indices, np.int64)] = np.arange(total)
        labelled = predicted.copy()
        labelled[np.array(sorted(set(ignore)), np.int64)] = total + 1
        return cls(total, predicted, labelled)


def confusion_counts(
    predicted: IndexMap, labelled: IndexMap, table: ClassTable, size: Size | None = None
) -> NDArray[np.int64]:
    """(C + 1, C + 1): pixels by labelled class (row) and predicted class (column).

    Args:
        predicted: (h, w) values, uint8 or uint16.
        labelled: (h', w') values; the two need not have the same size.
        size: height and width at which pixels are counted; by default the larger of the two, side by side.

    Raises:
        ValueError: not a map of bytes or 16-bit numbers, or one without a pixel.

    >>> predicted, labelled = np.array([[0, 9], [0, 1]], np.uint8), np.array([[0, 0], [255, 1]], np.uint8)
    >>> confusion_counts(predicted, labelled, ClassTable.of([0, 1], ignore=[255])).tolist()
    [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    """
    counts = np.zeros((table.classes + 1, table.classes + 1), np.int64)
    rows, columns, pixels = sparse_confusion(predicted, labelled, table, size)
    counts[rows, columns] = pixels
    return counts


def sparse_confusion(
    predicted: IndexMap, labelled: IndexMap, table: ClassTable, size: Size | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The cells of ``confusion_counts`` that hold a pixel: rows, columns and counts, (K,) each, ascending."""
    check_map(predicted, "predicted")
    check_map(labelled, "labelled")
    if size is not None or predicted.shape != labelled.shape:
        wanted = size or common_size(predicted, labelled)
        predicted, labelled = enlarge(predicted, wanted), enlarge(labelled, wanted)
    column_of, columns = _compact(predicted, table.predicted, table.classes + 1)
    row_of, rows = _compact(labelled, table.labelled, table.classes + 2)
    cells = _count(
        np.ascontiguousarray(predicted).reshape(-1),
        np.ascontiguousarray(labelled).reshape(-1),
        column_of,
        row_of * np.int32(len(columns)),
        len(rows) * len(columns),
    )
    at = np.flatnonzero(cells)
    row, column = rows[at // len(columns)], columns[at % len(columns)]
    kept = row <= table.classes
    return row[kept], column[kept], cells[at[kept]]


def check_map(values: NDArray[Any], what: str) -> None:
    """Raises ValueError where this is no map of bytes or 16-bit numbers with at least one pixel."""
    if values.ndim != 2 or values.size == 0 or values.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ValueError(
            f"the {what} map has shape {values.shape} and type {values.dtype}, expected (H, W) of uint8 or uint16"
        )


def common_size(*maps: NDArray[Any]) -> Size:
    """The height and width that no map has to be reduced to."""
    return max(each.shape[0] for each in maps), max(each.shape[1] for each in maps)


def enlarge(values: NDArray[Any], size: Size) -> NDArray[Any]:
    """(h, w) to (H, W) by nearest neighbour; the same array where the size is right.

    >>> enlarge(np.array([[1, 2]], np.uint8), (2, 5)).tolist()
    [[1, 1, 2, 2, 2], [1, 1, 2, 2, 2]]
    """
    if values.shape == size:
        return values
    rows, columns = (_nearest(have, want) for have, want in zip(values.shape, size, strict=True))
    return np.take(np.take(values, rows, axis=0), columns, axis=1)


def _nearest(have: int, want: int) -> NDArray[np.int64]:
    return (2 * np.arange(want, dtype=np.int64) + 1) * have // (2 * want)


def _compact(values: IndexMap, lookup: NDArray[np.int32], cells: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """``(row of each value, position of each row)``: all positions, or with many classes those that the map has."""
    if cells <= DENSE_CLASSES + 2:
        return lookup, np.arange(cells)
    seen = np.zeros(VALUES, np.bool_)
    _mark(values.reshape(-1), seen)
    positions = np.unique(lookup[seen])
    row = np.zeros(cells, np.int32)
    row[positions] = np.arange(len(positions))
    return row[lookup], positions.astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _mark(values: Any, seen: Any) -> None:
    for p in range(len(values)):
        seen[values[p]] = True


@numba.njit(cache=True, nogil=True)
def _count(predicted: Any, labelled: Any, column_of: Any, row_of: Any, cells: int) -> Any:
    """(cells,) pixels; ``row_of`` is multiplied by the number of columns already."""
    tables = np.zeros((COPIES, cells), np.int64)
    blocks = len(predicted) // COPIES
    for b in range(blocks):
        for k in range(COPIES):
            p = b * COPIES + k
            tables[k, row_of[labelled[p]] + column_of[predicted[p]]] += 1
    for p in range(blocks * COPIES, len(predicted)):
        tables[0, row_of[labelled[p]] + column_of[predicted[p]]] += 1
    return tables.sum(0)
