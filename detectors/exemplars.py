"""A few records of a pane, drawn at random and kept whole, so that a shift can be shown by name and not only in shares.

A bottom-k sample (Cohen and Kaplan 2007): of all records the k with the smallest hash of their id. The hash is a
property of the record, so any number of workers in any order keep the same ones, and merging is taking the k smallest
of both. Every record of a pane has the same chance to be among them.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.wire import Reader, Writer

KEPT = 32
"""Records of a pane: of an hour of twelve panes 384, of which the ten most typical are the most typical 3 %."""


class Exemplars:
    """The `KEPT` records of smallest hash, each with its id and its D codes.

    >>> first, second = Exemplars(2), Exemplars(2)
    >>> first.add(["a"], np.array([[0, 1]], dtype=np.uint8))
    >>> second.add(["b"], np.array([[2, 3]], dtype=np.uint8))
    >>> first.merge(second)
    >>> sorted(first.ids)
    ['a', 'b']
    """

    __slots__ = ("_dimensions", "_kept", "_records")

    def __init__(self, dimensions: int, kept: int | None = KEPT) -> None:
        """``kept`` None keeps all: for the panes of a window together."""
        self._dimensions = dimensions
        self._kept = kept
        self._records: dict[tuple[int, str], bytes] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exemplars) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # mutable

    @property
    def ids(self) -> list[str]:
        """In the order of their hashes."""
        return [identity for _, identity in sorted(self._records)]

    @property
    def codes(self) -> NDArray[np.uint8]:
        """(K, D) in the order of `ids`."""
        rows = b"".join(self._records[key] for key in sorted(self._records))
        return np.frombuffer(rows, dtype=np.uint8).reshape(len(self._records), self._dimensions)

    def add(self, ids: Sequence[str], codes: NDArray[np.uint8]) -> None:
        """Offer records: their ids, unique in the pane, and codes (N, D)."""
        if codes.shape != (len(ids), self._dimensions):
            raise ValueError(f"exemplars have {self._dimensions} dimensions, got codes of shape {codes.shape}")
        nearest = heapq.nsmallest(KEPT, ((_hash(each), each, row) for row, each in enumerate(ids)))
        self._keep(((key, each), codes[row].tobytes()) for key, each, row in nearest)

    def merge(self, other: Exemplars) -> None:
        """Take the records of smallest hash of both."""
        if other._dimensions != self._dimensions:
            raise ValueError(f"exemplars have {self._dimensions} dimensions, the others {other._dimensions}")
        self._keep(other._records.items())

    def without(self, gone: Callable[[str], bool]) -> Exemplars:
        """Those whose id is not ``gone``. The others of the pane are not known any more, so that none takes its place.

        >>> some = Exemplars(1)
        >>> some.add(["a", "b"], np.array([[0], [1]], dtype=np.uint8))
        >>> some.without(lambda identity: identity == "a").ids
        ['b']
        """
        left = Exemplars(self._dimensions, self._kept)
        left._records = {key: codes for key, codes in self._records.items() if not gone(key[1])}
        return left

    def to_bytes(self) -> bytes:
        """The canonical form."""
        writer = Writer()
        writer.number(self._dimensions)
        writer.number(len(self._records))
        for key in sorted(self._records):
            writer.text(key[1])
            writer.raw(self._records[key])
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> Exemplars:
        """What `to_bytes` wrote. Raises ValueError where the data is damaged."""
        reader = Reader(data, "exemplars")
        found = cls(reader.number())
        count = reader.number()
        if count > KEPT:
            raise ValueError(f"damaged exemplars: {count} records, at most {KEPT} are kept")
        for _ in range(count):
            identity = reader.text()
            found._records[_hash(identity), identity] = reader.raw(found._dimensions)
        reader.end()
        return found

    def _keep(self, records: Iterable[tuple[tuple[int, str], bytes]]) -> None:
        self._records.update(records)
        if self._kept is not None and len(self._records) > self._kept:
            self._records = dict(heapq.nsmallest(self._kept, self._records.items()))


def typical(
    ids: Sequence[str],
    codes: NDArray[np.uint8],
    counts: NDArray[np.int64],
    baseline: BaselineStatistic,
    columns: Sequence[int],
    most: int,
) -> list[tuple[str, float]]:
    """The records most typical of a shift: (id, evidence in nats), the largest first, only those above 0.

    Evidence is the mean over ``columns`` of ``ln(p / q)`` at the record's own bin, with p the window's and q the
    baseline's smoothed share of it: how much more often such a value occurs now. ``counts``: (D, B + 1) of the window.
    """
    if not len(ids) or not len(columns):
        return []
    own = baseline.counts[columns]
    p = (counts[columns] + 0.5) / (counts[columns].sum(1, keepdims=True) + 0.5 * own.shape[1])
    q = (own + 0.5) / (own.sum(1, keepdims=True) + 0.5 * own.shape[1])
    gain = np.log(p / q)
    evidence = np.mean([gain[i, codes[:, column]] for i, column in enumerate(columns)], axis=0)
    order = sorted(range(len(ids)), key=lambda i: (-evidence[i], ids[i]))[:most]
    return [(ids[i], float(evidence[i])) for i in order if evidence[i] > 0]


def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
