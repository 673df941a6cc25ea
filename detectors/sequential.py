"""Drift that is noticed as it happens: evidence that may be looked at after every unit, with a stated run length."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from detectors.baseline import BaselineStatistic
from detectors.betting import (
    bet,
    code_p_values,
    learned_bets,
    scale_bets,
    shift_bets,
    shuffle_columns,
    tie_breaker,
    urn_p_values,
)
from detectors.direction import MEMORIES, SMALLEST_VARIANCE, STRENGTHS, Directions
from detectors.divergence import jensen_shannon
from detectors.statistic import PaneStatistic
from detectors.units import SCALE, BaselineUnits
from detectors.wire import Reader, Writer

FORMAT_VERSION = 2
NO_DIRECTIONS = 1
"""The format before there were `Directions`: read as if they had yet to see their first record."""
MAGIC = b"SWSQ"
MAX_CONTENT_BYTES = 256 << 20

BLOCK_SIZES = (1, 4, 16, 64)
"""Single records are also judged in blocks of at least these many, since many small shifts show in means alone."""
RECORD_BETS = np.concatenate([shift_bets((0.125, 0.25, 0.5, 1.0, 2.0)), scale_bets((0.5, 2.0))])
UNIT_BETS = np.concatenate([shift_bets((0.5, 1.0, 2.0)), scale_bets((2.0,))])
"""None gains from scores that spread less than the baseline's: a long sequence's mean does so without any drift."""
ENERGY_BETS = shift_bets((0.5, 1.0, 2.0, 3.0), both=False)
"""Upwards alone: energy falls with a sequence's length."""
HISTOGRAM_CELLS, HISTOGRAM_PRIOR, HISTOGRAM_MEMORY = 10, 5.0, 300.0
LARGEST_STEP = 8
"""Pools of more than this part of the records that they are ranked among make no bet along directions."""
SLICE = 1024
"""Records whose bets are worked out at once."""


@dataclass(frozen=True, eq=False)
class _Track:
    """Scores of one kind of unit: the urns of who came before, and the evidence of every bet."""

    bets: NDArray[np.float64]
    weights: NDArray[np.float64]
    """(T,) of the scores, adding up to 1."""
    stream: int
    """Number of the first score, which tells tie-breakers of different tracks apart."""
    reference: int
    """Units of the baseline, Q - 1."""
    urns: dict[int, NDArray[np.int64]]
    """(T, Q) for each kind of unit that is not exchangeable with the others."""
    evidence: NDArray[np.float64]
    """(T, K)"""

    @classmethod
    def fresh(cls, bets: NDArray[np.float64], weights: NDArray[np.float64], stream: int, reference: int) -> _Track:
        return cls(bets, weights, stream, reference, {}, np.zeros((len(weights), len(bets))))

    def urn(self, kind: int) -> NDArray[np.int64]:
        return self.urns.setdefault(kind, np.zeros((len(self.weights), self.reference + 1), dtype=np.int64))

    def observe(
        self,
        scores: NDArray[np.float64],
        reference: NDArray[np.float64],
        sizes: NDArray[np.int64],
        seed: np.uint64,
        first: int,
        kind: int = 0,
    ) -> NDArray[np.float64]:
        """Rank and bet on scores (N, T) against ``reference`` (T, M); the evidence after each unit (N,)."""
        low, high = np.empty(scores.shape, dtype=np.int64), np.empty(scores.shape, dtype=np.int64)
        for t, ordered in enumerate(reference):
            low[:, t] = np.searchsorted(ordered, scores[:, t], side="left")
            high[:, t] = np.searchsorted(ordered, scores[:, t], side="right")
        size = np.full(len(scores), reference.shape[1])
        z = ndtri(_inside(urn_p_values(low, high, size, self.urn(kind), seed, first, self.stream)))
        after: NDArray[np.float64] = bet(z, z, sizes, self.bets, self.evidence, self.weights)
        return after

    def of_scores(self) -> NDArray[np.float64]:
        """(T,) weighted, adding up to the track's evidence."""
        return np.asarray(self.weights * self.evidence.mean(1))


class SequentialDetector:
    """Looks at unit after unit and alarms when chance would need more than ``run_length`` records to get so far.

    A **unit** is a record without a sequence, or a whole sequence, in the order of event time. Each score of a unit
    (`BaselineUnits`) is ranked among those of the baseline's units and of the units before it, ties broken by a hash
    of the baseline's digest and the unit's number. If units of baseline and stream are exchangeable, these ranks are
    independent and uniform, whatever the dependence within a unit and however small the baseline (conformal p-values;
    Vovk, Nouretdinov and Gammerman 2003, "Testing exchangeability on-line"). On each p-value fixed bets are placed,
    functions e(p) with mean 1 over uniform p: that it is too small, too large, too often at either end, and, for
    single records, what a histogram of the earlier p-values has learned. Each bet restarts with every unit and all
    restarts are summed (Shiryaev-Roberts; Volkhonskiy et al. 2017; Shin, Ramdas and Rinaldo 2023, "E-detectors"):
    ``R = (R + records of the unit) e(p)``. R less the records seen is a martingale, an average over bets, columns,
    signals and kinds of score has the same mean, and so the records seen until it first reaches ``run_length`` are at
    least ``run_length`` on average.

    Records without a sequence bring their columns one by one, each record a unit, and in blocks of 1, 4, 16 and 64 or
    more records two scores a signal: its energy (many columns that move a little) and its spread. A quarter of the
    evidence is bet on records going on the way that those before them went (`Directions`). Sequences are
    compared with runs of their length from the baseline's sequences, by location and spread of each column, and by
    the same two scores a signal.

    What is exact and what is not: the mean of each column's martingale is, in the record of its own p-values, up to
    the bins having been fitted to the baseline itself. That the *average* over columns keeps its run length although
    it is stopped by all columns together is not proved for dependent columns but measured
    (``bench/bench_sequential.py``). A baseline unit's energy is taken about the centre of the other units, a new one's
    about that of all: equal in mean to 1/M^2. Bets along directions need means, which ranks make exact, and
    covariances, which the baseline estimates. Sequences of other lengths than the baseline's: ranks are exact where
    every sequence of the baseline is at least as long, else too seldom extreme.

    Where it misleads:

    - Slow for small baselines: M units allow an e of about M + 1 at most, and less once units after the change count
      as normal. Three sigma in all of 9 columns, sequences of 50, run length 10,000: 3 sequences with M = 40, 5 with
      M = 10, 18 with M = 2. Three single records never alarm, however far off the stream is. Valid all the same.
    - Units that came before count as normal. A change is best seen while there are fewer units after it than units
      before it and in the baseline together; later the evidence stops growing.
    - It asks whether *anything* differs from the baseline, however little, given enough records. Whether it matters
      is for the window's verdict to say.
    - Sequences longer than the baseline's are compared with whole ones; their means spread less: fewer alarms than
      could be had. Each octave of such lengths has a past of its own. Where sequences of the baseline are shorter than
      a new one and of another kind for that (short clips of night), it is the kind that alarms.
    - Sequences against a baseline without any: one record of each, drawn at random column by column, is all that is
      looked at. Nothing is known of the dependence within them.
    - Sequences that overlap in time or resemble their neighbours are not exchangeable: run lengths are shorter then.
    - Single records in a pooled group: their order, and which codes shared a record, are unknown; each column takes
      them in an order of its own, and the group as a whole is the smallest block and the smallest step along a
      direction. Such a step wins by the square of how far it goes, not exponentially: pools gain little from it.

    >>> from detectors.baseline import BaselineStatistic
    >>> from detectors.layout import Layout
    >>> rng = np.random.default_rng(0)
    >>> layout = Layout.stacked([("embedding", ["a", "b"])])
    >>> baseline = BaselineStatistic.fit(layout, rng.normal(size=(2000, 2)), [""] * 2000)
    >>> detector = SequentialDetector(BaselineUnits(baseline), run_length=10_000)
    >>> _ = detector.add_records(baseline.binning.codes(rng.normal(size=(500, 2))))
    >>> detector.alarm_at
    >>> _ = detector.add_records(baseline.binning.codes(rng.normal(size=(200, 2)) + [0, 1]))
    >>> detector.alarm_at is not None and detector.alarm_at < 550
    True
    >>> detector.attribution()[0][0], round(detector.attribution()[0][1], 2)
    ('embedding', 1.0)

    Raises:
        ValueError: ``run_length`` is not above 0.
    """

    def __init__(self, units: BaselineUnits, run_length: float) -> None:
        if not run_length > 0:
            raise ValueError(f"a run length is a number of records above 0, got {run_length}")
        self.units = units
        self.run_length = run_length
        self._records = self._singles = self._sequences = 0
        self._alarm_at: int | None = None
        self._formed = np.zeros(len(BLOCK_SIZES), dtype=np.int64)
        self._start()

    def _start(self) -> None:
        units, width, signals = self.units, len(self.units.location), self.units.signals
        self._counts = units.single_counts.copy()
        self._seen = np.zeros((width, HISTOGRAM_CELLS))
        self._columns = np.zeros((width, len(RECORD_BETS) + 1))
        column_weights, signal_weights = units.weights(), np.full(signals, 1 / signals)
        self._pending = np.zeros((len(BLOCK_SIZES), width + signals), dtype=np.int64)
        self._waiting = np.zeros(len(BLOCK_SIZES), dtype=np.int64)
        self._directions = Directions(units)
        block_weights = signal_weights * np.where(self._directions.learns, 0.5, 1.0)
        self._blocks: list[tuple[_Track, _Track]] = []
        for number, size in enumerate(BLOCK_SIZES):
            stream, reference = width + 2 * number * signals, units.blocks_at_most(size)
            spread = _Track.fresh(UNIT_BETS, block_weights, stream, reference)
            self._blocks.append((spread, _Track.fresh(ENERGY_BETS, block_weights, stream + signals, reference)))
        stream += 2 * signals
        thirds = np.concatenate([column_weights, column_weights, signal_weights]) / 3
        self._runs = _Track.fresh(UNIT_BETS, thirds, stream, units.sequences)
        self._run_energy = _Track.fresh(ENERGY_BETS, signal_weights, stream + len(thirds), units.sequences)

    @property
    def records(self) -> int:
        """Records seen, restarts included."""
        return self._records

    @property
    def alarm_at(self) -> int | None:
        """Records seen when the evidence first reached the run length; None before that. It stays until a restart."""
        return self._alarm_at

    @property
    def evidence(self) -> float:
        """What is compared with the run length. Its mean without drift is at most the number of records seen."""
        return float(self._by_column().sum() + self._by_signal().sum())

    def attribution(self) -> tuple[tuple[str, float], ...]:
        """Signals by their share of the evidence, the largest first; none where there is no evidence."""
        by_signal = np.add.reduceat(self._by_column(), self.units.starts) + self._by_signal()
        total = by_signal.sum()
        if total == 0:
            return ()
        names = [columns.signal for columns in self.units.baseline.layout.signals]
        shares = zip(names, (by_signal / total).tolist(), strict=True)
        return tuple(sorted(shares, key=lambda share: -share[1]))

    def column_evidence(self) -> NDArray[np.float64]:
        """(D,) the part of the evidence that lies in each column alone."""
        return self._by_column()

    def restart(self) -> None:
        """Begin a new run, as after an alarm that was dealt with: the units so far no longer count as normal."""
        self._alarm_at = None
        self._start()

    def add_records(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Single records (N, D) in order; the evidence after each (N,). In one call or many, the outcome is the same.

        Raises:
            ValueError: shape or type do not fit the baseline, or a code is beyond the last bin.
        """
        width, cells = self.units.location.shape
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width:
            raise ValueError(f"baseline has {width} columns, got {codes.dtype} codes of shape {codes.shape}")
        if codes.size and codes.max() >= cells:
            raise ValueError(f"code {codes.max()} is beyond the last of {cells} bins")
        parts = [np.empty(0)]
        for start in range(0, len(codes), SLICE):
            part = codes[start : start + SLICE]
            ones = np.ones(len(part), dtype=np.int64)
            p_values = self._ranked(part)
            columns = self._bet_columns(p_values, ones)
            directions = self._directions.observe(ndtri(p_values), ones)
            blocks = self._bet_blocks(self.units.record_sums(part), ones)
            parts.append(columns / 2 + blocks / 2 + directions / 4)
        return self._looked(np.concatenate(parts) + self._sequence_evidence(), np.ones(len(codes), dtype=np.int64))

    def add_group(self, counts: NDArray[np.int64], *, sequence: bool) -> float:
        """A whole sequence, or records without one that were pooled, by counts (D, B + 1); returns the evidence.

        Raises:
            ValueError: counts do not fit the baseline, or columns hold different numbers of records.
        """
        width, cells = self.units.location.shape
        if counts.shape != (width, cells):
            raise ValueError(f"baseline has counts of shape {(width, cells)}, the group {counts.shape}")
        held = counts.sum(1)
        if (counts < 0).any() or (held != held[0]).any() or held[0] == 0:
            raise ValueError("a group's counts must hold the same records, one at least, in every column")
        size = held[:1].astype(np.int64)
        if not sequence:
            self._bet_pool(counts, int(size[0]))
        elif self.units.sequences:
            self._bet_sequence(counts, size)
        else:
            self._bet_columns(self._ranked(self._one_of(counts)), size)
        return float(self._looked(np.array([self.evidence]), size)[0])

    def add_pane(self, pane: PaneStatistic) -> float:
        """Every group of a pane, in the order of names; its sequences must be whole. Returns the evidence.

        Raises:
            ValueError: as `add_group`.
        """
        for group in pane.groups():
            self.add_group(group.counts, sequence=bool(group.sequence))
        return self.evidence

    def _looked(self, evidence: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        if self._alarm_at is None:
            over = np.flatnonzero(evidence >= self.run_length)
            if len(over):
                self._alarm_at = self._records + int(sizes[: over[0] + 1].sum())
        self._records += int(sizes.sum())
        return evidence

    def _ranked(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        p_values = _inside(code_p_values(codes, self._counts, self.units.seed, self._singles))
        self._singles += len(codes)
        return p_values

    def _bet_columns(self, p_values: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        learned = learned_bets(p_values, self._seen, HISTOGRAM_PRIOR, HISTOGRAM_MEMORY)
        z, weights = ndtri(p_values), self.units.weights()
        after: NDArray[np.float64] = bet(z, learned, sizes, RECORD_BETS, self._columns, weights)
        return after

    def _bet_pool(self, counts: NDArray[np.int64], size: int) -> None:
        width, cells = counts.shape
        codes = np.repeat(np.tile(np.arange(cells, dtype=np.uint8), width), counts.ravel()).reshape(width, size)
        rows = np.ascontiguousarray(codes.T)
        shuffle_columns(rows, self.units.seed ^ _SHUFFLE, self._singles)
        known, moved, sizes = int(self._counts[0].sum()), np.zeros(width), np.array([size])
        for start in range(0, size, SLICE):
            p_values = self._ranked(rows[start : start + SLICE])
            self._bet_columns(p_values, np.ones(len(p_values), dtype=np.int64))
            moved += ndtri(p_values).sum(0)
        # Later ranks within a pool are among its own: columns shuffled apart are less correlated then than in records.
        betting = LARGEST_STEP * size <= known
        self._directions.observe(moved[None] / np.sqrt(size), sizes, betting=betting)
        location, spread = self.units.group_sums(counts)
        sums = np.concatenate([location, np.add.reduceat(spread, self.units.starts)])
        self._bet_blocks(sums[None], sizes)

    def _bet_blocks(self, sums: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sums (N, D + S) of as many units; the evidence of the blocks after each (N,)."""
        evidence, running = np.zeros(len(sums)), np.cumsum(sums, axis=0)
        for number in range(len(BLOCK_SIZES)):
            before = sum(float(track.of_scores().sum()) for track in self._blocks[number])
            ends, lengths = self._ends(number, sizes)
            blocks = np.diff(running[ends], axis=0, prepend=np.zeros((1, sums.shape[1]), dtype=np.int64))
            if len(ends):
                blocks[0] += self._pending[number]
                self._pending[number] = running[-1] - running[ends[-1]]
            else:
                self._pending[number] += running[-1]
            after = self._observe_blocks(number, blocks, lengths)
            evidence += np.r_[before, after][np.searchsorted(ends, np.arange(len(sums)), side="right")]
        return evidence / (2 * len(BLOCK_SIZES))

    def _ends(self, number: int, sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """With which units a block is full, and the records of each block."""
        ends, lengths, held = [], [], int(self._waiting[number])
        for index, size in enumerate(sizes.tolist()):
            held += size
            if held >= BLOCK_SIZES[number]:
                ends.append(index)
                lengths.append(held)
                held = 0
        self._waiting[number] = held
        return np.array(ends, dtype=np.int64), np.array(lengths, dtype=np.int64)

    def _observe_blocks(self, number: int, sums: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        spread, energy = self._blocks[number]
        width, parts, start = len(self.units.location), [np.empty(0)], 0
        for length, run in groupby(lengths.tolist()):
            stop = start + sum(1 for _ in run)
            sizes, first = lengths[start:stop], int(self._formed[number])
            reference = self.units.blocks(length)
            if reference is None:  # no baseline block of this size: nothing is bet, and nothing is gained
                now = float(spread.of_scores().sum() + energy.of_scores().sum())
                parts.append(np.full(stop - start, now))
            else:
                means = sums[start:stop] / (length * SCALE)
                scores = self.units.energies(means[:, :width], reference.centre)
                seed = self.units.seed
                one = spread.observe(means[:, width:], reference.columns, sizes, seed, first)
                parts.append(one + energy.observe(scores, reference.energy, sizes, seed, first))
            self._formed[number] += stop - start
            start = stop
        return np.concatenate(parts)

    def _bet_sequence(self, counts: NDArray[np.int64], size: NDArray[np.int64]) -> None:
        reference = self.units.runs(int(size[0]))
        location, spread = (sums[None] / (size[0] * SCALE) for sums in self.units.group_sums(counts))
        scores, seed = self.units.column_scores(location, spread), self.units.seed
        kind = self.units.kind(int(size[0]))
        self._runs.observe(scores, reference.columns, size, seed, self._sequences, kind)
        energy = self.units.energies(location, reference.centre)
        self._run_energy.observe(energy, reference.energy, size, seed, self._sequences, kind)
        self._sequences += 1

    def _one_of(self, counts: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A record's codes (1, D), each column's drawn from the group's."""
        seed, size = self.units.seed ^ _SHUFFLE, counts[0].sum()
        picks = [int(tie_breaker(seed, self._singles, column) * size) for column in range(len(counts))]
        codes = (np.cumsum(counts, axis=1) <= np.array(picks)[:, None]).sum(1)
        return np.asarray(codes[None], dtype=np.uint8)

    def _by_column(self) -> NDArray[np.float64]:
        width, runs = len(self.units.location), self._runs.of_scores()
        singles = self.units.weights() * self._columns.mean(1)
        return np.asarray(singles / 2 + (runs[:width] + runs[width : 2 * width]) * _RUN_SHARE)

    def _by_signal(self) -> NDArray[np.float64]:
        blocks = sum((one.of_scores() + other.of_scores() for one, other in self._blocks), np.zeros(self.units.signals))
        runs = self._runs.of_scores()[2 * len(self.units.location) :] * _RUN_SHARE
        runs += self._run_energy.of_scores() * (1 - _RUN_SHARE)
        return blocks / (4 * len(BLOCK_SIZES)) + self._directions.of_signals() / 4 + runs

    def _sequence_evidence(self) -> float:
        runs, energy = self._runs.of_scores().sum(), self._run_energy.of_scores().sum()
        return float(runs * _RUN_SHARE + energy * (1 - _RUN_SHARE))

    def to_bytes(self) -> bytes:
        """The state, which `from_bytes` continues as if there had been no break."""
        content = Writer()
        content.raw(self._identity(FORMAT_VERSION))
        numbers = [self._records, self._singles, self._sequences, 0 if self._alarm_at is None else self._alarm_at + 1]
        for number in numbers:
            content.number(number)
        for array in self._state():
            content.raw(array.astype(array.dtype.newbyteorder("<")).tobytes())
        for track in self._tracks():
            content.number(len(track.urns))
            for kind in sorted(track.urns):
                content.number(kind)
                content.raw(track.urns[kind].astype("<i8").tobytes())
        for array in (self._directions.sums, self._directions.evidence):
            content.raw(array.astype("<f8").tobytes())
        writer = Writer()
        writer.raw(MAGIC + bytes([FORMAT_VERSION]))
        writer.number(len(content.data()))
        writer.raw(zlib.compress(content.data(), 6))
        return writer.data()

    @classmethod
    def from_bytes(cls, data: bytes, units: BaselineUnits, run_length: float) -> SequentialDetector:
        """The detector that `to_bytes` wrote. Raises ValueError for damage, newer formats and other baselines."""
        what, older = "sequential state", (NO_DIRECTIONS,)
        reader = Reader.unpacked(data, MAGIC, FORMAT_VERSION, what, MAX_CONTENT_BYTES, older=older)
        detector = cls(units, run_length)
        if reader.raw(16) != detector._identity(reader.version):
            raise ValueError("the sequential state belongs to another baseline")
        detector._records, detector._singles, detector._sequences = (reader.number() for _ in range(3))
        alarm = reader.number()
        detector._alarm_at = alarm - 1 if alarm else None
        for array in detector._state():
            _fill(array, reader, signed=array is detector._pending)
        for track in detector._tracks():
            for _ in range(reader.number()):
                _fill(track.urn(reader.number()), reader)
        if reader.version > NO_DIRECTIONS:
            _fill(detector._directions.sums, reader, signed=True)
            _fill(detector._directions.evidence, reader)
        reader.end()
        return detector

    def _state(self) -> list[NDArray[np.int64] | NDArray[np.float64]]:
        arrays: list[NDArray[np.int64] | NDArray[np.float64]] = [self._counts, self._seen, self._columns]
        arrays += [self._pending, self._waiting, self._formed]
        return arrays + [track.evidence for track in self._tracks()]

    def _tracks(self) -> list[_Track]:
        return [*(track for pair in self._blocks for track in pair), self._runs, self._run_energy]

    def _identity(self, version: int) -> bytes:
        """The baseline, and which bets of which shape the state belongs to."""
        shapes = [array.shape for array in self._state()] + [track.reference for track in self._tracks()]
        bets = [table.round(9).tolist() for table in (RECORD_BETS, UNIT_BETS, ENERGY_BETS)]
        what = f"{self.units.baseline.digest} {shapes} {bets} {BLOCK_SIZES}"
        if version > NO_DIRECTIONS:
            learns = self._directions.learns.tolist()
            what += f" {self._directions.evidence.shape} {learns} {MEMORIES} {STRENGTHS} {SMALLEST_VARIANCE}"
        return hashlib.blake2b(what.encode(), digest_size=16).digest()


def exceeds_blocks(baseline: BaselineStatistic, counts: NDArray[np.int64]) -> bool:
    """Whether records with these counts (D, B + 1) are further from the baseline than its own blocks are.

    The window's condition of size: in any signal, the js of one column or of all together. The sequential test asks
    only whether anything differs at all.
    """
    js, uneven = np.nan_to_num(jensen_shannon(counts, baseline.counts)), baseline.unevenness
    spans = [(part.start, part.stop) for part in baseline.watched]
    return any(
        float(js[start:stop].max()) > uneven.largest(start, stop)
        or float(js[start:stop].sum()) > uneven.total(start, stop)
        for start, stop in spans
    )


_SHUFFLE = np.uint64(0x5DEECE66D)
"""Tells the numbers that shuffle and draw from those that break ties."""
_RUN_SHARE = 0.75
"""Three kinds of score, of column and signal, bet alike with the energy of a signal."""


def _inside(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounding may have taken a p-value to 1, where a normal quantile is infinite."""
    return np.asarray(np.clip(p_values, 1e-16, 1 - 1e-16))


def _fill(array: NDArray[np.int64] | NDArray[np.float64], reader: Reader, *, signed: bool = False) -> None:
    read = np.frombuffer(reader.raw(array.nbytes), dtype=array.dtype.newbyteorder("<"))
    if not np.isfinite(read).all() or (not signed and (read < 0).any()):
        raise ValueError(f"damaged {reader.what}: a count or evidence that is not a number from 0 up")
    array[...] = read.reshape(array.shape)
