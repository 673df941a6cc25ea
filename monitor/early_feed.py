"""What a sequential test is fed: closed panes, in the order of event time.

Records without a sequence are fed with their pane, pooled; a sequence once, when it is whole: when a pane has closed
after it without any of its records. It is one unit, however many panes it spans. What comes later, for a pane that was
fed or a sequence that was whole, belongs to the window's next revision and never to the test: evidence that has been
looked at cannot be taken back.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.sequential import SequentialDetector
from detectors.statistic import PaneStatistic
from detectors.units import BaselineUnits
from monitor.store.values import EarlyAlarm
from monitor.windows import DAY_US, to_text

BUDGET_US = 30 * DAY_US
FORMAT_VERSION = 1
MOST_TOLD = 16_384
"""Sequences that were fed and are remembered, 8 bytes each: what they bring later must not count as one more unit."""
MOST_OPEN = 1024
"""Sequences that may be open at one time, some 20 kB each. More are left out: by then there is no lack of units."""
MOST_BYTES = 1 << 30


@dataclass(eq=False)
class _Open:
    """A sequence that is not whole yet."""

    last_us: int
    """Start of the last pane with records of it."""
    counts: NDArray[np.int64]


class _Saved(msgspec.Struct, array_like=True):
    format: int
    detector: bytes
    rate: float
    elapsed_us: int
    told: bytes
    open: list[tuple[bytes, int, bytes]]


class Feed:
    """One sequential test, and what it has yet to be told.

    ``alarms_per_30_days``: how many may be false. ``exceeds(fed_until_us)``: whether the last records before that are
    further from the baseline than its own blocks are; asked when the evidence reaches the run length, which restarts
    the test either way and is an alarm only if so.
    """

    def __init__(
        self, units: BaselineUnits, pane_us: int, alarms_per_30_days: float, exceeds: Callable[[int], bool]
    ) -> None:
        self._pane_us = pane_us
        self._budget = alarms_per_30_days
        self._exceeds = exceeds
        self._detector = SequentialDetector(units, 1.0)
        self._shape = units.location.shape
        self._rate = 0.0
        self._elapsed_us = 0
        self._told: dict[bytes, None] = {}
        self._open: dict[str, _Open] = {}
        self.fed_until_us: int | None = None
        self.alarms: list[EarlyAlarm] = []

    @property
    def records(self) -> int:
        return self._detector.records

    @property
    def evidence(self) -> float:
        return self._detector.evidence

    @property
    def run_length(self) -> float:
        """Records in which the test may raise one false alarm: those of 30 days, by the rate seen so far, over its
        share of the budget."""
        return self._rate / self._budget

    def pane(self, start_us: int, statistic: PaneStatistic) -> None:
        """Feed a closed pane. Raises ValueError where a later one was fed already."""
        if self.fed_until_us is not None and start_us < self.fed_until_us:
            raise ValueError(f"pane {start_us} begins before {self.fed_until_us}, the end of the last one fed")
        self.close(start_us)
        pool = None
        for group in statistic.groups():
            if group.sequence:
                self._continue(group.sequence, start_us, group.counts)
            else:
                pool = group.counts
        end_us = start_us + self._pane_us
        self.close(end_us)
        self._count(statistic.records, start_us, end_us)
        self.fed_until_us = end_us
        if pool is not None:
            self._add(pool, end_us, sequence=False)

    def close(self, until_us: int) -> None:
        """All panes that end by then were fed: feed the sequences that are whole by now."""
        missed_us = 2 * self._pane_us  # from the start of a sequence's last pane to the end of the next one
        whole = [(held.last_us + missed_us, name) for name, held in self._open.items()]
        for at_us, name in sorted(one for one in whole if one[0] <= until_us):
            self._told[_mark(name)] = None
            self._add(self._open.pop(name).counts, at_us, sequence=True)
        while len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]

    def _continue(self, name: str, start_us: int, counts: NDArray[np.int64]) -> None:
        mark = _mark(name)
        if mark in self._told:
            self._told[mark] = self._told.pop(mark)  # the ones heard of last are forgotten last
        elif name in self._open:
            held = self._open[name]
            held.last_us, held.counts = start_us, held.counts + counts
        elif len(self._open) < MOST_OPEN:
            self._open[name] = _Open(start_us, counts)
        else:
            self._told[mark] = None

    def _count(self, records: int, start_us: int, end_us: int) -> None:
        """The rate of records: their mean so far, in which after 30 days the oldest fade."""
        passed_us = end_us - (start_us if self.fed_until_us is None else self.fed_until_us)
        self._elapsed_us += passed_us
        weight = min(1.0, passed_us / min(self._elapsed_us, BUDGET_US))
        self._rate += (records * BUDGET_US / passed_us - self._rate) * weight

    def _add(self, counts: NDArray[np.int64], at_us: int, *, sequence: bool) -> None:
        detector = self._detector
        detector.run_length = self.run_length
        evidence = detector.add_group(counts, sequence=sequence)
        if detector.alarm_at is None:
            return
        assert self.fed_until_us is not None  # a sequence was open, or this is the pool of a pane
        if self._exceeds(self.fed_until_us):
            payload = {
                "at": to_text(at_us),
                "records": detector.records,
                "evidence": evidence,
                "run_length": detector.run_length,
                "attribution": [{"signal": signal, "share": share} for signal, share in detector.attribution()],
            }
            self.alarms.append(EarlyAlarm(at_us, msgspec.json.encode(payload)))
        detector.restart()

    def to_bytes(self) -> bytes:
        """All but ``fed_until_us`` and the alarms."""
        saved = _Saved(
            FORMAT_VERSION,
            self._detector.to_bytes(),
            self._rate,
            self._elapsed_us,
            b"".join(self._told),
            [
                (_encoded(name), held.last_us, held.counts.astype("<i8").tobytes())
                for name, held in sorted(self._open.items())
            ],
        )
        return zlib.compress(msgspec.msgpack.encode(saved), 1)

    def restore(self, state: bytes, fed_until_us: int) -> None:
        """Go on where `to_bytes` was called. Raises ValueError where the state is damaged or another release's."""
        saved = _read(state)
        self._detector = SequentialDetector.from_bytes(saved.detector, self._detector.units, 1.0)
        self._open = {
            name.decode("utf-8", "surrogatepass"): _Open(
                last_us, np.frombuffer(counts, dtype="<i8").astype(np.int64).reshape(self._shape)
            )
            for name, last_us, counts in saved.open
        }
        self._told = dict.fromkeys(saved.told[at : at + 8] for at in range(0, len(saved.told), 8))
        self._rate, self._elapsed_us, self.fed_until_us = saved.rate, saved.elapsed_us, fed_until_us


def waits(state: bytes) -> bool:
    """Whether a stored feed has sequences that are not whole yet. Raises ValueError as `Feed.restore`."""
    return bool(_read(state).open)


def _read(state: bytes) -> _Saved:
    try:
        saved = msgspec.msgpack.decode(zlib.decompressobj().decompress(state, MOST_BYTES), type=_Saved)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"the state is damaged: {error}") from None
    if saved.format != FORMAT_VERSION:
        raise ValueError(f"the state has format {saved.format}, this release reads {FORMAT_VERSION}")
    return saved


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _mark(name: str) -> bytes:
    return blake2b(_encoded(name), digest_size=8).digest()
