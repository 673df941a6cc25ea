"""Windows without drift, drawn from the baseline's own records: what the statistics do when nothing has happened."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.sample import Sample

REPLICATES = 4000
"""Windows drawn for one law: p-values near 0.01 then carry some 7 % of error, in either direction."""
MOST_RECORDS = 512
"""A larger window's law is drawn at this size, with the baseline shrunk alike: the statistics are scaled by n and m,
and at 32 records a bin little is left of what distinguishes small windows."""
MOST_SEQUENCES = 32
"""The same for windows of many sequences."""
FEWEST_UNITS = 256
"""The baseline is not shrunk below this: its own uncertainty would no longer look normal."""
EXACT_SEQUENCES = 6
GROUPS = 4
TABLED = 128
"""Counts of a cell whose share of G is looked up; larger ones are rare, and calculated."""
MOST_TABLED = 1025
"""The same for windows of fewer records, and their shares of A: 30 MB for 200 columns, as long as the drawing takes."""
BLOCK = 16
"""Runs of at least four blocks are added block by block from running sums."""


@dataclass(frozen=True, slots=True)
class WindowShape:
    """A window's make-up, which decides the law: records without a sequence, and the size of each sequence."""

    independent: int
    sequences: tuple[int, ...]

    @property
    def records(self) -> int:
        return self.independent + sum(self.sequences)

    @property
    def units(self) -> int:
        """Independent observations: records without a sequence, and sequences."""
        return self.independent + len(self.sequences)


@dataclass(frozen=True, eq=False)
class NullStatistics:
    """G and A of each dimension in R windows without drift: two arrays (R, D)."""

    g: NDArray[np.float64]
    a: NDArray[np.float64]


def coarse(shape: WindowShape) -> WindowShape:
    """A nearby shape that stands for many, so that few laws need to be drawn and can be kept.

    Single records are exact to 32, then in steps of at most 1/16. Sequences are exact up to `EXACT_SEQUENCES`, but for
    their records, which go in steps of at most 1/8; more of them are counted in such steps too, and stand in groups of
    equal size, the mean of that part of the sorted sizes: what a law depends on is how many there are and how unequal.
    """
    sizes = sorted(shape.sequences)
    if len(sizes) > EXACT_SEQUENCES:
        kept = _step(len(sizes), 3)
        groups = np.array_split(np.array(sizes), GROUPS)
        many = [len(part) for part in np.array_split(np.arange(kept), GROUPS)]
        sizes = [max(1, round(part.mean())) for part, count in zip(groups, many, strict=True) for _ in range(count)]
    return WindowShape(_step(shape.independent, 4), tuple(sorted(_step(size, 3) for size in sizes)))


def draw(baseline: BaselineStatistic, shape: WindowShape, replicates: int = REPLICATES) -> NullStatistics:
    """Statistics of windows of this shape, had the baseline gone on.

    Each window is drawn from the baseline's sample: single records one by one, each of the window's sequences as a
    run of as many consecutive records of one of the baseline's sequences. So windows without drift keep the dependence
    between dimensions and between frames. The baseline is uncertain itself. That enters through a Polya urn: the i-th
    draw is a new one with probability M / (M + i), else another record from a source that was drawn before, M being
    the baseline's number of sources. For continuous values and single records this is the exact predictive
    distribution of ranks.

    The random numbers start from the baseline's digest and the shape: every process draws the same windows.

    Raises:
        ValueError: the shape has sequences and the baseline's sample has none.
    """
    sample = baseline.sample
    if shape.sequences and not len(sample.lengths):
        raise ValueError("the window has sequences, the baseline has none to draw from")
    shrink = max(1.0, shape.independent / MOST_RECORDS, len(shape.sequences) / MOST_SEQUENCES)
    singles = math.ceil(shape.independent / shrink)
    ordered = np.array(sorted(shape.sequences), dtype=np.int64)
    kept = np.linspace(0, len(ordered) - 1, math.ceil(len(ordered) / shrink)).round().astype(np.int64)
    first, last = (0, sample.independent) if sample.independent else (0, len(sample.codes))
    single_units = baseline.independent_records or baseline.sequences
    all_units = baseline.independent_records + baseline.sequences
    shrink = max(1.0, min(shrink, all_units / FEWEST_UNITS))
    cells = baseline.binning.cells
    source_start, source_length = _sources(sample)
    sums, first_block = _running_sums(sample, cells)
    key = f"{baseline.digest} {singles} {ordered[kept].tolist()}".encode()
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
    width = sample.codes.shape[1] * cells
    flat = sample.codes + np.arange(0, width, cells, dtype=np.uint16 if width < 1 << 16 else np.uint32)
    g, a = _simulate(
        flat,
        source_start,
        source_length,
        sums,
        first_block,
        np.array([singles, first, last, sample.independent], dtype=np.int64),
        ordered[kept],
        np.array([single_units, baseline.sequences], dtype=np.float64) / shrink,
        _scaled_counts(sample, cells) * (baseline.records / shrink),
        baseline.counts[:, -1] == 0,
        replicates,
        np.uint64(seed),
    )
    # Windows drawn from M sources spread less about those sources than new ones do, by (M - 1) / (M + 1) in variance:
    # the sources' own mean has moved towards them. Without this, 50 sequences give 6 % alarms at a nominal 5 %.
    units = baseline.sequences if shape.sequences else single_units
    widen = (units + 1) / max(units - 1, 0.5)
    return NullStatistics(g * widen, a * widen)


def _step(size: int, bits: int) -> int:
    """``size`` down to its leading bits, 1 + ``bits`` of them."""
    if size < 1 << (bits + 1):
        return size
    unit = 1 << (size.bit_length() - bits - 1)
    return size // unit * unit


def _sources(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row the first row and the length of its sequence; a record without one is its own."""
    lengths = np.concatenate([np.ones(sample.independent, dtype=np.int64), sample.lengths])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.repeat(starts, lengths), np.repeat(lengths, lengths)


def _scaled_counts(sample: Sample, cells: int) -> NDArray[np.float64]:
    """The sample's shares of cells (D, cells): in the drawn world they are the baseline."""
    dimensions = sample.codes.shape[1]
    flat = sample.codes + np.arange(0, dimensions * cells, cells)
    counts = np.bincount(flat.ravel(), minlength=dimensions * cells).reshape(dimensions, cells)
    return counts / len(sample.codes)


def _running_sums(sample: Sample, cells: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Counts of each sequence's rows up to every block's start, and the index of a row's sequence's first sum."""
    dimensions = sample.codes.shape[1]
    blocks = -(-sample.lengths // BLOCK) + 1
    sums = np.zeros((int(blocks.sum()), dimensions * cells), dtype=np.int32)
    first = np.cumsum(blocks) - blocks
    start = sample.independent
    offsets = np.arange(0, dimensions * cells, cells)
    for index, length in zip(first, sample.lengths, strict=True):
        flat = sample.codes[start : start + length] + offsets
        for block in range(-(-int(length) // BLOCK)):
            part = flat[block * BLOCK : (block + 1) * BLOCK].ravel()
            sums[index + block + 1] = sums[index + block] + np.bincount(part, minlength=dimensions * cells)
        start += length
    return sums, np.concatenate([np.zeros(sample.independent, dtype=np.int64), np.repeat(first, sample.lengths)])


@njit(cache=True, nogil=True)
def mix(state: np.uint64) -> np.uint64:  # pragma: no cover
    """splitmix64 (Steele, Lea and Flood 2014): the same numbers on every machine and release."""
    value = state
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _uniform(state: NDArray[np.uint64]) -> float:  # pragma: no cover
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    return float(mix(state[0]) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True, nogil=True)
def _simulate(  # type: ignore[no-untyped-def]  # pragma: no cover
    flat, source_start, source_length, sums, first_block, pools, sizes, units, baseline, skip_last, replicates, seed
):
    dimensions, cells = baseline.shape
    rows = len(flat)
    singles, first, last, chunk_first = pools[0], pools[1], pools[2], pools[3]
    g = np.zeros((replicates, dimensions))
    a = np.zeros((replicates, dimensions))
    counts = np.zeros(dimensions * cells, dtype=np.int32)
    drawn = np.zeros(max(singles, len(sizes)), dtype=np.int64)
    shares = _shares_of_g(baseline)
    records = singles + sizes.sum()
    kept = np.full((dimensions, cells, records + 1 if records < MOST_TABLED else 0), np.nan)
    state = np.empty(1, dtype=np.uint64)
    state[0] = seed
    for replicate in range(replicates):
        counts[:] = 0
        for i in range(singles):
            if _uniform(state) * (units[0] + i) < units[0]:
                row = first + int(_uniform(state) * (last - first))
            else:
                row = drawn[int(_uniform(state) * i)]
                row = source_start[row] + int(_uniform(state) * source_length[row])
            drawn[i] = row
            for d in range(dimensions):
                counts[flat[row, d]] += 1
        for j in range(len(sizes)):
            if _uniform(state) * (units[1] + j) < units[1]:
                row = chunk_first + int(_uniform(state) * (rows - chunk_first))
            else:
                row = drawn[int(_uniform(state) * j)]
                row = source_start[row] + int(_uniform(state) * source_length[row])
            drawn[j] = row
            _add_run(counts, flat, sums, source_start[row], source_length[row], first_block[row], row, sizes[j])
        for d in range(dimensions):
            g[replicate, d], a[replicate, d] = _statistics(
                counts[d * cells : (d + 1) * cells],
                baseline[d],
                shares[d],
                kept[d],
                cells - 1 if skip_last[d] else cells,
            )
    return g, a


@njit(cache=True, nogil=True)
def _add_run(counts, flat, sums, start, length, block, row, size):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add ``size`` consecutive rows of the sequence, from ``row`` on or from as late as leaves enough of them."""
    blocks = -(-length // BLOCK)
    whole = size // length
    if whole > 0:  # a sequence longer than the one drawn: that one as often as it takes
        for k in range(len(counts)):
            counts[k] += whole * sums[block + blocks, k]
    size -= whole * length
    if size >= 4 * BLOCK:
        take = min((size + BLOCK // 2) // BLOCK, blocks)
        at = min((row - start) // BLOCK, blocks - take)
        for k in range(len(counts)):
            counts[k] += sums[block + at + take, k] - sums[block + at, k]
    else:
        at = min(row, start + length - size)
        for r in range(at, at + size):
            for d in range(flat.shape[1]):
                counts[flat[r, d]] += 1


@njit(cache=True, nogil=True)
def _shares_of_g(baseline):  # type: ignore[no-untyped-def]  # pragma: no cover
    """What a cell with c of the window's records adds to half of G: (D, B + 1, TABLED). Logarithms are most of the
    work otherwise."""
    dimensions, cells = baseline.shape
    shares = np.zeros((dimensions, cells, TABLED))
    for d in range(dimensions):
        for k in range(cells):
            for c in range(TABLED):
                shares[d, k, c] = _share_of_g(c, baseline[d, k])
    return shares


@njit(cache=True, nogil=True)
def _share_of_g(c, b):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _xlogx(c) + _xlogx(b) - _xlogx(c + b)


@njit(cache=True, nogil=True)
def _xlogx(x):  # type: ignore[no-untyped-def]  # pragma: no cover
    return x * np.log(x) if x > 0 else 0.0


@njit(cache=True, nogil=True)
def _share_of_a(c, n, b, m):  # type: ignore[no-untyped-def]  # pragma: no cover
    """What a cut with c of the window's n records below it, and b of the baseline's m, adds to half of A."""
    cells = _share_of_g(c, b) + _share_of_g(n - c, m - b)
    return cells + _xlogx(n + m) - _xlogx(n) - _xlogx(m)


@njit(cache=True, nogil=True)
def _statistics(window, baseline, shares, kept, cells):  # type: ignore[no-untyped-def]  # pragma: no cover
    """G and A of one dimension over its first ``cells`` cells: `detectors.divergence`, with tables of logarithms.

    ``shares`` is the dimension's `_shares_of_g`; ``kept`` (B, n + 1) fills with A's as they come up, from NaN."""
    n = 0
    m = 0.0
    for k in range(cells):
        n += window[k]
        m += baseline[k]
    if n == 0 or m == 0:
        return 0.0, 0.0
    total = _xlogx(n + m) - _xlogx(n) - _xlogx(m)
    for k in range(cells):
        c = window[k]
        total += shares[k, c] if c < TABLED else _share_of_g(c, baseline[k])
    below_n = 0
    below_m = 0.0
    ordered = 0.0
    tabled = n < kept.shape[1]
    for k in range(cells - 1):
        below_n += window[k]
        below_m += baseline[k]
        share = kept[k, below_n] if tabled else np.nan
        if np.isnan(share):
            share = _share_of_a(below_n, n, below_m, m)
            if tabled:
                kept[k, below_n] = share
        ordered += share
    return 2 * total, 2 * ordered
