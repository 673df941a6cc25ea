"""The baseline's side of Frechet's distance: its moments, and a sample of components to draw windows from."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import choose_rows
from detectors.moments import LIMIT, MOST_COMPONENTS, STEPS, Moments, steps_of
from detectors.wire import Reader, Writer

FORMAT_VERSION = 1
MAGIC = b"SWMB"
MAX_CONTENT_BYTES = 64 << 20

SAMPLE_ROWS = 16_384
"""82 sequences of 200 frames; a byte a row and component, half a megabyte."""
SAMPLE_STEPS = 127 / LIMIT
"""Steps per unit, so that a component takes a byte: rounding adds a variance of 0.0003 to the 1 of a component."""
READ_ROWS = 8192


@dataclass(frozen=True, eq=False)
class MomentsBaseline:
    """Moments of all records, and rounded components of some of them. Immutable.

    Bins lose what moments are made of, so that the sample of codes in `detectors.baseline` cannot stand in.
    """

    moments: Moments
    independent_records: int
    """Of all records with finite components, those without a sequence."""
    sequences: int
    """Their distinct sequences, also those outside the sample."""
    rows: NDArray[np.int8]
    """(S, K) in steps of 1 / `SAMPLE_STEPS`: first records without a sequence, then sequence after sequence."""
    independent: int
    """How many rows at the front are records without a sequence."""
    lengths: NDArray[np.int64]
    """Rows of each sampled sequence; together with ``independent`` they make up S."""

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != self.moments.components:
            raise ValueError(f"moments have {self.moments.components} components, the sample shape {self.rows.shape}")
        if self.independent + int(self.lengths.sum()) != len(self.rows) or (self.lengths < 1).any():
            raise ValueError("the sample's sequences do not make up its rows")
        if not 2 <= len(self.rows) <= self.moments.records:
            raise ValueError(f"a sample of {len(self.rows)} of {self.moments.records} records")

    @classmethod
    def fit(
        cls,
        components: NDArray[np.floating],
        sequences: Sequence[str],
        *,
        sample_rows: int = SAMPLE_ROWS,
        seed: int = 0,
    ) -> MomentsBaseline | None:
        """From components (N, K), which may be memory-mapped, and each record's sequence ("" for none).

        Records whose components are not all finite are left out; None where fewer than two are left.
        """
        kept = min(components.shape[1], MOST_COMPONENTS)
        moments = Moments(kept)
        finite = np.empty(len(components), dtype=np.bool_)
        for start in range(0, len(components), READ_ROWS):
            block = np.asarray(components[start : start + READ_ROWS, :kept], dtype=np.float64)
            finite[start : start + READ_ROWS] = np.isfinite(block).all(axis=1)
            moments.add(block)
        if moments.records < 2:
            return None
        used = np.flatnonzero(finite)
        numbers: dict[str, int] = {"": 0}
        named = (numbers.setdefault(sequences[row], len(numbers)) for row in used.tolist())
        owner = np.fromiter(named, np.int64, len(used))
        chosen, independent, lengths = choose_rows(owner, len(numbers), sample_rows, np.random.default_rng(seed))
        sample = np.empty((len(chosen), kept), dtype=np.int8)
        for start in range(0, len(chosen), READ_ROWS):
            some = components[used[chosen[start : start + READ_ROWS]], :kept]
            sample[start : start + READ_ROWS] = np.rint(steps_of(some) * (SAMPLE_STEPS / STEPS))
        return cls(
            moments=moments,
            independent_records=int((owner == 0).sum()),
            sequences=len(numbers) - 1,
            rows=sample,
            independent=independent,
            lengths=lengths,
        )

    @cached_property
    def digest(self) -> str:
        """Hash of what windows are drawn from, equal wherever that is equal, whatever zlib library packs the rest."""
        return hashlib.blake2b(self._sample(), digest_size=16).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MomentsBaseline) and self.digest == other.digest and self.moments == other.moments

    def __hash__(self) -> int:
        return hash(self.digest)

    def to_bytes(self) -> bytes:
        """The canonical form."""
        content = self._content()
        writer = Writer()
        writer.raw(MAGIC + bytes([FORMAT_VERSION]))
        writer.number(len(content))
        writer.raw(zlib.compress(content, 6))
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes) -> MomentsBaseline:
        """What `to_bytes` wrote. Raises ValueError for damaged data and for newer formats."""
        reader = Reader.unpacked(data, MAGIC, FORMAT_VERSION, "baseline of moments", MAX_CONTENT_BYTES)
        moments = Moments.from_bytes(reader.raw(reader.number()))
        independent_records, sequences = reader.number(), reader.number()
        size, independent, groups = reader.number(), reader.number(), reader.number()
        lengths = np.frombuffer(reader.raw(8 * groups), dtype="<i8").astype(np.int64)
        rows = np.frombuffer(reader.raw(size * moments.components), dtype=np.int8)
        reader.end()
        try:
            shaped = rows.reshape(size, moments.components)
            return cls(moments, independent_records, sequences, shaped, independent, lengths)
        except ValueError as error:
            raise ValueError(f"damaged {reader.what}: {error}") from None

    def _content(self) -> bytes:
        writer = Writer()
        writer.block(self.moments.to_bytes())
        writer.raw(self._sample())
        return writer.data()

    def _sample(self) -> bytes:
        writer = Writer()
        for number in (self.independent_records, self.sequences):
            writer.number(number)
        for number in (len(self.rows), self.independent, len(self.lengths)):
            writer.number(number)
        writer.raw(self.lengths.astype("<i8").tobytes())
        writer.raw(self.rows.tobytes())
        return writer.data()
