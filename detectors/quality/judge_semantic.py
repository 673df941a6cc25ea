"""A predicted semantic map against its label: what the window's figures need of the pair, in integers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.quality.confidence_bins import BINS, judged_confidence
from detectors.quality.confusion import (
    MAX_CLASSES,
    ClassTable,
    IndexMap,
    Size,
    check_map,
    common_size,
    enlarge,
    sparse_confusion,
)
from detectors.quality.semantic_boundary import boundary_sums
from detectors.quality.tables import ordered, read_table, write_table
from detectors.wire import Reader, Writer

MAGIC = b"SWJS"
FORMAT_VERSION = 1
PACKING = 6
MAX_CONTENT_BYTES = 64 << 20
MAX_SIDE = 2**31 - 1


@dataclass(frozen=True, eq=False, slots=True)
class SemanticJudgement:
    """Counts of pixels of one pair of maps; void counts as nothing. Tables are sparse and in ascending order.

    A class that the model alone sees has a union and no intersection, and so an IoU of 0; a class that neither sees
    has no pixel and no say.

    >>> table = ClassTable.of([0, 1], ignore=[255])
    >>> judged = judge_semantic(np.array([[0, 1, 1]], np.uint8), np.array([[0, 0, 255]], np.uint8), table)
    >>> judged.intersection.tolist(), judged.union.tolist()
    ([1, 0], [2, 1])
    """

    classes: int
    """C"""
    height: int
    width: int
    """Size at which pixels were counted."""
    confusion: NDArray[np.int64]
    """(K, 3): labelled class 0..C-1, predicted class 0..C, pixels."""
    boundary: NDArray[np.int64]
    """(B, 3): class, pixels of the intersection and of the union of its boundary regions."""
    confidence: NDArray[np.int64] | None
    """(Q, 6): predicted class 0..C, bin of the confidence, pixels that are not void, the correct ones among them, the
    sum of their confidence (0..255 each), pixels that are void. None where the model gave no confidence."""

    @property
    def pixels(self) -> int:
        """Pixels that are not void."""
        return int(self.confusion[:, 2].sum())

    @property
    def correct(self) -> int:
        return int(self.intersection.sum())

    @property
    def intersection(self) -> NDArray[np.int64]:
        """(C,)"""
        return self._sum_by(0, self.confusion[:, 0] == self.confusion[:, 1])

    @property
    def union(self) -> NDArray[np.int64]:
        """(C,)"""
        return self.predicted_pixels + self.labelled_pixels - self.intersection

    @property
    def predicted_pixels(self) -> NDArray[np.int64]:
        """(C,)"""
        return self._sum_by(1, self.confusion[:, 1] < self.classes)

    @property
    def labelled_pixels(self) -> NDArray[np.int64]:
        """(C,)"""
        return self._sum_by(0, np.True_)

    @property
    def boundary_intersection(self) -> NDArray[np.int64]:
        """(C,)"""
        return self._dense_boundary(1)

    @property
    def boundary_union(self) -> NDArray[np.int64]:
        """(C,)"""
        return self._dense_boundary(2)

    def confusion_counts(self) -> NDArray[np.int64]:
        """(C + 1, C + 1) as `detectors.quality.confusion.confusion_counts` gives them."""
        counts = np.zeros((self.classes + 1, self.classes + 1), np.int64)
        counts[self.confusion[:, 0], self.confusion[:, 1]] = self.confusion[:, 2]
        return counts

    def confidence_sums(self) -> NDArray[np.int64] | None:
        """(C + 1, BINS, 4) as `detectors.quality.confidence_bins.judged_confidence` gives them, or None."""
        if self.confidence is None:
            return None
        sums = np.zeros((self.classes + 1, BINS, 4), np.int64)
        sums[self.confidence[:, 0], self.confidence[:, 1]] = self.confidence[:, 2:]
        return sums

    def to_bytes(self) -> bytes:
        content = Writer()
        for number in (self.classes, self.height, self.width, int(self.confidence is not None)):
            content.number(number)
        for table in (self.confusion, self.boundary, self.confidence):
            if table is not None:
                write_table(content, table)
        header = Writer()
        header.raw(MAGIC + bytes([FORMAT_VERSION]))
        header.number(len(content.data()))
        header.raw(zlib.compress(content.data(), PACKING))
        return header.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> SemanticJudgement:
        """The judgement that `to_bytes` wrote. Raises ValueError where the data is damaged or of another format."""
        reader = Reader.unpacked(data, MAGIC, FORMAT_VERSION, "semantic judgement", MAX_CONTENT_BYTES)
        classes, height, width, confident = (reader.number() for _ in range(4))
        if not (1 <= classes <= MAX_CLASSES and 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and confident <= 1):
            raise ValueError(f"damaged {reader.what}: {classes} classes, {height} x {width} pixels")
        confusion, boundary = read_table(reader, 3), read_table(reader, 3)
        confidence = read_table(reader, 6) if confident else None
        reader.end()
        judgement = cls(classes, height, width, confusion, boundary, confidence)
        judgement._check(reader.what)
        return judgement

    def _check(self, what: str) -> None:
        """Raises ValueError where classes, order or sums are impossible."""
        limit = self.height * self.width
        tables: list[tuple[NDArray[np.int64], tuple[int, ...]]]
        tables = [(self.confusion, (self.classes, self.classes + 1)), (self.boundary, (self.classes,))]
        if self.confidence is not None:
            tables.append((self.confidence, (self.classes + 1, BINS)))
        for table, ends in tables:
            if not ordered(table, ends):
                raise ValueError(f"damaged {what}: classes out of range or order")
        # In floating point, since eight-byte counts chosen by an attacker could wrap around.
        if self.confusion[:, 2].sum(dtype=np.float64) > limit or self.boundary[:, 2].max(initial=0) > limit:
            raise ValueError(f"damaged {what}: more pixels than {self.height} x {self.width}")
        if (self.boundary[:, 1] > self.boundary[:, 2]).any():
            raise ValueError(f"damaged {what}: an intersection larger than its union")
        if self.confidence is not None and self.confidence[:, [2, 5]].sum(dtype=np.float64) > limit:
            raise ValueError(f"damaged {what}: more pixels than {self.height} x {self.width}")

    def _sum_by(self, column: int, chosen: NDArray[np.bool_] | np.bool_) -> NDArray[np.int64]:
        sums = np.zeros(self.classes, np.int64)
        rows = self.confusion[np.broadcast_to(chosen, len(self.confusion))]
        np.add.at(sums, rows[:, column], rows[:, 2])
        return sums

    def _dense_boundary(self, column: int) -> NDArray[np.int64]:
        sums = np.zeros(self.classes, np.int64)
        sums[self.boundary[:, 0]] = self.boundary[:, column]
        return sums


def judge_semantic(
    predicted: IndexMap,
    labelled: IndexMap,
    table: ClassTable,
    confidence: NDArray[np.uint8] | None = None,
    size: Size | None = None,
) -> SemanticJudgement:
    """Compare two maps at the larger of their sizes, or at ``size``.

    Args:
        predicted: (h, w) values, uint8 or uint16.
        labelled: (h', w') values.
        table: what the values mean.
        confidence: (h'', w'') of the winning class, 0..255 for 0..1.
        size: height and width of the image, where it is known.

    Raises:
        ValueError: not a map, or a label with a value that is no class of the model and not ignored. Counting such
            pixels as a miss would call the model wrong for what the annotators renamed.
    """
    check_map(predicted, "predicted")
    check_map(labelled, "labelled")
    if confidence is not None:
        check_map(confidence, "confidence")
        if confidence.dtype != np.uint8:
            raise ValueError("a confidence map has bytes, 0..255 for 0..1")
    wanted = size or common_size(predicted, labelled)
    predicted, labelled = enlarge(predicted, wanted), enlarge(labelled, wanted)
    rows, columns, pixels = sparse_confusion(predicted, labelled, table)
    if (rows == table.classes).any():
        unknown = np.unique(labelled[table.labelled[labelled] == table.classes]).tolist()
        raise ValueError(f"the label has the value {unknown[0]}, which is no class of the model and not ignored")
    first, second = table.predicted[predicted], table.labelled[labelled]
    return SemanticJudgement(
        table.classes,
        *wanted,
        np.stack([rows, columns, pixels], axis=1),
        _sparse_boundary(first, second, table.classes),
        None if confidence is None else _sparse_confidence(first, second, enlarge(confidence, wanted), table.classes),
    )


def _sparse_boundary(predicted: NDArray[np.int32], labelled: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    intersection, union = boundary_sums(predicted, labelled, classes)
    at = np.flatnonzero(union)
    return np.stack([at, intersection[at], union[at]], axis=1)


def _sparse_confidence(
    predicted: NDArray[np.int32], labelled: NDArray[np.int32], confidence: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    sums = judged_confidence(predicted, labelled, confidence, classes)
    position, code = np.nonzero(sums[:, :, 0] + sums[:, :, 3])
    return np.column_stack([position, code, sums[position, code]])
