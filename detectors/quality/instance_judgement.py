"""What is kept of one prediction judged against one label, where both are instance masks: integers, no pixels.

Everything a window's figures need follows from it: sums per class, one row a predicted instance and one row a label.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.quality.matching import EVERY_BIT
from detectors.quality.tables import read_lists
from detectors.wire import Reader, Writer

MAGIC = b"SWIJ"
VERSION = 1
MAX_BYTES = 1 << 26
"""Of content that is unpacked: 10,000 instances a side take half a megabyte."""
MAX_CLASSES = 1 << 16
LIMIT = 1 << 48
"""Above every number that is written, small enough for sums of many."""
SMALL, LARGE = 32**2, 96**2
"""Pixels: small is below the first, large from the second on, medium between (COCO's sizes, each area in one)."""
SIZES = ("small", "medium", "large")
SUMS = (
    *("predicted_pixels", "labelled_pixels", "intersection", "overlap"),
    *("boundary_intersection", "boundary_union", "merges", "splits"),
)
"""Fields of a judgement that are sums per class, in the order in which they are written."""


@dataclass(frozen=True, eq=False, slots=True)
class InstanceJudgement:
    """One image's predicted instances against its labelled ones.

    Classes are 0..C-1; C is a predicted class that the ontology does not know. *Void* are the pixels of a labelled
    crowd in no label of the class: drawn too roughly to judge by, they are left out of all pixel sums.
    """

    predicted_pixels: NDArray[np.int64]
    """(C,) pixels in any predicted instance of the class."""
    labelled_pixels: NDArray[np.int64]
    """(C,)"""
    intersection: NDArray[np.int64]
    """(C,) pixels in both."""
    overlap: NDArray[np.int64]
    """(C,) pixels in two or more predicted instances of the class: masks that bleed into each other."""
    boundary_intersection: NDArray[np.int64]
    """(C,) pixels, as `boundary_sums` counts them."""
    boundary_union: NDArray[np.int64]
    """(C,)"""
    merges: NDArray[np.int64]
    """(C,) predictions that merge labels (see merge_split.py)."""
    splits: NDArray[np.int64]
    """(C,) labels that are split."""
    label_kind: NDArray[np.int64]
    """(N,) class of each label, in the order given."""
    label_area: NDArray[np.int64]
    """(N,) pixels."""
    label_crowd: NDArray[np.bool_]
    """(N,)"""
    kind: NDArray[np.int64]
    """(M,) class of each prediction, in descending order of score; of equal ones in the order given."""
    score: NDArray[np.float64]
    """(M,)"""
    area: NDArray[np.int64]
    """(M,) pixels."""
    label: NDArray[np.int64]
    """(M,) the label of its class that the prediction is matched to at IoU 0.5 (matching.py); -1 for none."""
    shared: NDArray[np.int64]
    """(M,) pixels in common with that label; 0 for none."""
    any_label: NDArray[np.int64]
    """(M,) the same as ``label`` when classes play no part, but of labels that fit equally well one of its class."""
    true_bits: NDArray[np.uint64]
    """(M,) for average precision: see `match_for_precision`."""
    ignored_bits: NDArray[np.uint64]
    """(M,)"""

    @property
    def classes(self) -> int:
        """C"""
        return len(self.intersection)

    @property
    def union(self) -> NDArray[np.int64]:
        """(C,) pixels in either."""
        return self.predicted_pixels + self.labelled_pixels - self.intersection

    @property
    def is_ignored(self) -> NDArray[np.bool_]:
        """(M,) matched to a crowd: neither right nor wrong."""
        matched = self.label >= 0
        matched[matched] = self.label_crowd[self.label[matched]]
        return matched

    @property
    def is_true(self) -> NDArray[np.bool_]:
        """(M,) matched to a label at IoU 0.5."""
        return (self.label >= 0) & ~self.is_ignored

    @property
    def is_false(self) -> NDArray[np.bool_]:
        """(M,) matched to nothing at IoU 0.5."""
        return self.label < 0

    @property
    def true_positives(self) -> NDArray[np.int64]:
        """(C,) at IoU 0.5, as are the two below."""
        return self._count(self.kind[self.is_true])

    @property
    def false_positives(self) -> NDArray[np.int64]:
        """(C,)"""
        return self._count(self.kind[self.is_false])

    @property
    def false_negatives(self) -> NDArray[np.int64]:
        """(C,) labels, crowds apart, that no prediction is matched to."""
        return self._count(self.label_kind[~self.label_crowd]) - self.true_positives

    @property
    def matched_pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(M,) intersection and union of each prediction with its label, exact; zeros where it has none."""
        true = self.is_true
        union = np.zeros_like(self.shared)
        union[true] = self.area[true] + self.label_area[self.label[true]] - self.shared[true]
        return np.where(true, self.shared, 0), union

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(C + 1, C + 2) instances by label and prediction, matched at IoU 0.5 whatever their classes.

        Rows: the label's class, then "no label" (invented). Columns: the predicted class, then a class that the
        ontology does not know, then "no prediction" (missed). Crowds, and predictions matched to them, are left out.
        """
        classes = self.classes
        table = np.zeros((classes + 1, classes + 2), np.int64)
        matched = self.any_label >= 0
        crowd = np.zeros(len(self.kind), np.bool_)
        crowd[matched] = self.label_crowd[self.any_label[matched]]
        rows: NDArray[np.int64] = np.full(len(self.kind), classes, np.int64)
        rows[matched] = self.label_kind[self.any_label[matched]]
        np.add.at(table, (rows[~crowd], self.kind[~crowd]), 1)
        missed = ~self.label_crowd
        missed[self.any_label[matched]] = False
        table[:classes, classes + 1] = self._count(self.label_kind[missed])
        return table

    @property
    def calibration(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Class, score and whether it is matched, of each prediction of a known class that is not ignored."""
        kept = (self.kind < self.classes) & ~self.is_ignored
        return self.kind[kept], self.score[kept], self.is_true[kept]

    def _count(self, kinds: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(kinds, minlength=self.classes)[: self.classes].astype(np.int64)

    def to_bytes(self) -> bytes:
        """Some 400 bytes for 20 instances a side; the same judgement gives the same bytes."""
        writer = Writer()
        sums = self._sums()
        used = np.flatnonzero(sums.any(axis=1))
        writer.number(self.classes)
        _write(writer, np.diff(used, prepend=0))
        _write(writer, sums[used].T.ravel())
        for column in (self.label_kind, self.label_area, self.label_crowd):
            _write(writer, column)
        for column in (self.kind, self.area, self.label + 1, self.shared, self.any_label + 1):
            _write(writer, column)
        for bits in (self.true_bits, self.ignored_bits):
            writer.raw(np.ascontiguousarray(_as_bytes(bits)[:, :5].T).tobytes())
        writer.raw(self.score.astype("<f8").tobytes())
        content = writer.data()
        packed = Writer()
        packed.raw(MAGIC + bytes([VERSION]))
        packed.number(len(content))
        packed.raw(zlib.compress(content, 9))
        return packed.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> InstanceJudgement:
        """Raises ValueError where the data are damaged, of another kind or a newer format."""
        reader = Reader.unpacked(data, MAGIC, VERSION, "instance judgement", MAX_BYTES)
        classes = reader.number()
        if not 1 <= classes <= MAX_CLASSES:
            raise ValueError(f"damaged {reader.what}: {classes} classes")
        steps, columns = read_lists(reader, 2, LIMIT)
        used = np.cumsum(steps)
        if len(columns) != len(SUMS) * len(used) or (len(used) and used[-1] >= classes):
            raise ValueError(f"damaged {reader.what}: its sums are not of {classes} classes")
        sums = np.zeros((classes, len(SUMS)), np.int64)
        sums[used] = columns.reshape(len(SUMS), -1).T
        lists = read_lists(reader, 8, LIMIT)
        labels, rows = lists[:3], lists[3:]
        bits = [_read_bits(reader, len(rows[0])) for _ in range(2)]
        score = np.frombuffer(reader.raw(8 * len(rows[0])), "<f8").astype(np.float64)
        reader.end()
        kind, area, label, shared, any_label = rows
        label_kind, label_area, label_crowd = labels
        if len({len(row) for row in rows}) > 1 or len({len(row) for row in labels}) > 1:
            raise ValueError(f"damaged {reader.what}: columns of different lengths")
        made = cls(
            **dict(zip(SUMS, np.ascontiguousarray(sums.T), strict=True)),
            label_kind=label_kind,
            label_area=label_area,
            label_crowd=label_crowd.astype(np.bool_),
            kind=kind,
            score=score,
            area=area,
            label=label - 1,
            shared=shared,
            any_label=any_label - 1,
            true_bits=bits[0],
            ignored_bits=bits[1],
        )
        made._check(reader.what, label_crowd)
        return made

    def _sums(self) -> NDArray[np.int64]:
        """(C, 8)"""
        return np.stack([getattr(self, name) for name in SUMS], axis=1)

    def _check(self, what: str, crowd: NDArray[np.int64]) -> None:
        """Raises ValueError where numbers that came from outside contradict each other."""
        sound = (
            _sums_agree(*(getattr(self, name) for name in SUMS[:6]))
            and _labels_agree(self.label_kind, crowd, self.classes)
            and _rows_agree(
                self.kind, self.area, self.label, self.shared, self.any_label, self.label_area, self.classes
            )
            and _flags_agree(self.true_bits, self.ignored_bits, self.score)
        )
        if not sound:
            raise ValueError(f"damaged {what}: its numbers contradict each other")


@njit(cache=True, nogil=True)
def _sums_agree(
    predicted: Any, labelled: Any, both: Any, overlap: Any, edge_both: Any, edge: Any
) -> Any:  # pragma: no cover
    for c in range(len(both)):
        if both[c] > min(predicted[c], labelled[c]) or overlap[c] > predicted[c] or edge_both[c] > edge[c]:
            return False
    return True


@njit(cache=True, nogil=True)
def _labels_agree(kind: Any, crowd: Any, classes: Any) -> Any:  # pragma: no cover
    fit = True
    for n in range(len(kind)):
        fit &= kind[n] < classes and crowd[n] <= 1
    return fit


@njit(cache=True, nogil=True)
def _rows_agree(
    kind: Any, area: Any, label: Any, shared: Any, any_label: Any, label_area: Any, classes: Any
) -> Any:  # pragma: no cover
    labels = len(label_area)
    for m in range(len(kind)):
        if kind[m] > classes or label[m] >= labels or any_label[m] >= labels or shared[m] > area[m]:
            return False
        if label[m] >= 0 and shared[m] > label_area[label[m]]:
            return False
    return True


@njit(cache=True, nogil=True)
def _flags_agree(true: Any, ignored: Any, score: Any) -> Any:  # pragma: no cover
    for m in range(len(score)):
        if true[m] & ignored[m] or not np.isfinite(score[m]) or (m > 0 and score[m] > score[m - 1]):
            return False
    return True


def size_of(area: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1 or 2 for small, medium or large areas.

    >>> size_of(np.array([1023, 1024, 9215, 9216])).tolist()
    [0, 1, 1, 2]
    """
    return (area >= SMALL).astype(np.int64) + (area >= LARGE)


def _write(writer: Writer, values: NDArray[np.int64] | NDArray[np.bool_]) -> None:
    writer.number(len(values))
    for value in values.tolist():
        writer.number(value)


def _as_bytes(bits: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return bits.astype("<u8").view(np.uint8).reshape(-1, 8)


def _read_bits(reader: Reader, rows: int) -> NDArray[np.uint64]:
    padded = np.zeros((rows, 8), np.uint8)
    padded[:, :5] = np.frombuffer(reader.raw(5 * rows), np.uint8).reshape(5, rows).T
    bits = padded.view("<u8").reshape(-1).astype(np.uint64)
    if (bits > EVERY_BIT).any():
        raise ValueError(f"damaged {reader.what}: flags of no threshold")
    return bits
