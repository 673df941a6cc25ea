"""State of the label-free and the assisted estimate: how sure the model was, in pixels and instances, as integers.

What a model expects of its own intersections and unions is linear in these counts (`semantic_expectation`,
`instance_expectation`), so a pane carries counts, and labels that come later change the expectation of panes long
closed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.quality.confidence_bins import BINS, bins_of, confidence_counts
from detectors.quality.confusion import MAX_CLASSES, ClassTable, IndexMap, Size, check_map, common_size, enlarge
from detectors.quality.tables import ordered, read_table, seal, unseal, write_table
from detectors.wire import Writer

MAGIC = b"SWES"
FORMAT_VERSION = 1
LIMIT = 2**62
"""Largest sum that is read: adding two of them does not wrap around."""


def semantic_confidence(
    predicted: IndexMap, confidence: NDArray[np.uint8], table: ClassTable, size: Size | None = None
) -> NDArray[np.int64]:
    """(C + 1, BINS) pixels of a prediction by class and bin of the confidence, counted at the larger of the two sizes.

    Pixels are counted as judgements count them only at the same ``size``: give the image's wherever it is known.

    >>> maps = np.array([[0, 1]], np.uint8), np.array([[255, 128]], np.uint8)
    >>> semantic_confidence(*maps, ClassTable.of([0, 1]), size=(2, 2)).sum(1).tolist()
    [2, 2, 0]
    """
    check_map(predicted, "predicted")
    check_map(confidence, "confidence")
    wanted = size or common_size(predicted, confidence)
    positions = table.predicted[enlarge(predicted, wanted)]
    return confidence_counts(positions, enlarge(confidence, wanted), table.classes)


class ExpectedSums:
    """Sums over the predictions of a pane or window; adding is all it does, so order and batches do not matter.

    Class C, the last row of each table, holds what is no class of the model.

    >>> first, second = ExpectedSums(classes=2), ExpectedSums(classes=2)
    >>> first.add_instances(np.array([0, 1]), np.array([0.9, 0.4]), np.array([100, 30]))
    >>> second.add_instances(np.array([0]), np.array([0.9]), np.array([50]))
    >>> first.merge(second)
    >>> first.instance_records, first.instances.sum(1).tolist(), first.area.sum(1).tolist()
    (2, [2, 1, 0], [150, 30, 0])
    """

    __slots__ = ("area", "instance_records", "instances", "pixels", "semantic_records")

    def __init__(self, classes: int) -> None:
        if not 1 <= classes <= MAX_CLASSES:
            raise ValueError(f"{classes} classes, expected 1..{MAX_CLASSES}")
        self.semantic_records = 0
        """Records with a semantic map and its confidence."""
        self.pixels: NDArray[np.int64] = np.zeros((classes + 1, BINS), np.int64)
        """Their pixels by predicted class and confidence."""
        self.instance_records = 0
        """Records with instances, or with an empty list of them."""
        self.instances: NDArray[np.int64] = np.zeros((classes + 1, BINS), np.int64)
        """Their instances by predicted class and score."""
        self.area: NDArray[np.int64] = np.zeros((classes + 1, BINS), np.int64)
        """Pixels of those instances' masks."""

    @property
    def classes(self) -> int:
        return len(self.pixels) - 1

    def add_semantic(self, counts: NDArray[np.int64]) -> None:
        """One record, as `semantic_confidence` counted it."""
        if counts.shape != self.pixels.shape:
            raise ValueError(f"counts have shape {counts.shape}, expected {self.pixels.shape}")
        self.pixels += counts
        self.semantic_records += 1

    def add_instances(
        self,
        position: NDArray[np.integer],
        scores: NDArray[np.floating],
        area: NDArray[np.integer],
        records: int = 1,
    ) -> None:
        """One record of M instances (or ``records`` with M in all), (M,) each: class 0..C, score in 0..1, pixels.

        Raises:
            ValueError: a class out of range, which would otherwise be counted from the end.
        """
        if len(position) and not 0 <= int(np.min(position)) <= int(np.max(position)) <= self.classes:
            raise ValueError(f"a class outside 0..{self.classes}")
        bins = bins_of(scores)
        np.add.at(self.instances, (position, bins), 1)
        np.add.at(self.area, (position, bins), area)
        self.instance_records += records

    def merge(self, other: ExpectedSums) -> None:
        if other.classes != self.classes:
            raise ValueError(f"sums have {self.classes} classes, the others {other.classes}")
        self.semantic_records += other.semantic_records
        self.instance_records += other.instance_records
        self.pixels += other.pixels
        self.instances += other.instances
        self.area += other.area

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExpectedSums) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_bytes(self) -> bytes:
        """The canonical form: equal sums give equal bytes, on any machine. Cells that hold nothing take no room."""
        content = Writer()
        for number in (self.classes, self.semantic_records, self.instance_records):
            content.number(number)
        for columns in ((self.pixels,), (self.instances, self.area)):
            position, code = np.nonzero(np.logical_or.reduce([column > 0 for column in columns]))
            write_table(content, np.column_stack([position, code, *(column[position, code] for column in columns)]))
        return seal(MAGIC, FORMAT_VERSION, content.data())

    @classmethod
    def from_bytes(cls, data: bytes) -> ExpectedSums:
        """The sums that `to_bytes` wrote. Raises ValueError where the data is damaged or of another format."""
        reader = unseal(data, MAGIC, FORMAT_VERSION, "expected sums")
        classes = reader.number()
        if not 1 <= classes <= MAX_CLASSES:
            raise ValueError(f"damaged {reader.what}: {classes} classes")
        found = cls(classes)
        found.semantic_records, found.instance_records = reader.number(), reader.number()
        for columns in ((found.pixels,), (found.instances, found.area)):
            rows = read_table(reader, 2 + len(columns))
            if not ordered(rows, (classes + 1, BINS)):
                raise ValueError(f"damaged {reader.what}: classes or bins out of range or order")
            if rows.sum(dtype=np.float64) > LIMIT:
                raise ValueError(f"damaged {reader.what}: sums beyond 2^62")
            for place, column in enumerate(columns, start=2):
                column[rows[:, 0], rows[:, 1]] = rows[:, place]
        reader.end()
        return found
