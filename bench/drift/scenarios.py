"""Baselines and windows from seeds: what every contender is given, number for number the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Embedding = Literal["raw", "relu", "l2", "independent"]

DIMENSIONS = 64
FACTORS = 8
"""Half of the variance of raw embeddings comes from so many directions that all dimensions share."""
BASELINE_RECORDS = 10_000
WINDOWS_PER_BASELINE = 100
SEQUENCE_FRAMES = 200


@dataclass(frozen=True, slots=True)
class Shift:
    """What is added to a window: ``sigmas`` standard deviations in the first ``dimensions`` columns."""

    dimensions: int
    sigmas: float


@dataclass(frozen=True, slots=True)
class Case:
    """Windows of ``records`` each, a fresh baseline for every ``per_baseline`` of them.

    Windows of two cases differ where their ``stream`` does; baselines are those of the embedding, the correlation and
    the seed alone, so that thresholds set on one stream are used on another against the same baselines.
    """

    embedding: Embedding
    records: int
    windows: int
    stream: str = "identical"
    shift: Shift | None = None
    ar: float = 0.0
    """Correlation of neighbouring frames, AR(1), within sequences of `SEQUENCE_FRAMES`; 0 for independent records."""
    baseline_records: int = BASELINE_RECORDS
    per_baseline: int = WINDOWS_PER_BASELINE
    seed: int = 0

    @property
    def name(self) -> str:
        frames = f" AR {self.ar:g} m={self.baseline_records}" if self.ar else ""
        shift = f" +{self.shift.sigmas:g} in {self.shift.dimensions}" if self.shift else ""
        return f"{self.embedding} n={self.records}{frames}{shift} {self.stream}"

    @property
    def blocks(self) -> int:
        """How many baselines the windows need."""
        return -(-self.windows // self.per_baseline)


def generator(seed: int, *what: object) -> np.random.Generator:
    """Random numbers of their own for everything that has a name."""
    return np.random.default_rng([seed, zlib.crc32(repr(what).encode())])


def baseline(case: Case, block: int) -> NDArray[np.float32]:
    """(m, 64) records of the block's baseline."""
    rng = generator(case.seed, "baseline", case.embedding, case.ar, case.baseline_records, block)
    values: NDArray[np.float32] = _embed(case, _latent(case, rng, 1, case.baseline_records))[0]
    return values


def windows(case: Case, block: int) -> NDArray[np.float32]:
    """(W, n, 64): the block's windows, W of them at most ``case.per_baseline``."""
    shift = case.shift or Shift(0, 0.0)
    count = min(case.per_baseline, case.windows - block * case.per_baseline)
    rng = generator(case.seed, "windows", case.name, block)
    values = _embed(case, _latent(case, rng, count, case.records))
    values[:, :, : shift.dimensions] += np.float32(shift.sigmas)
    return values


def all_blocks(case: Case) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Baseline and windows of each block."""
    for block in range(case.blocks):
        yield baseline(case, block), windows(case, block)


def sequence_names(records: int, case: Case, prefix: str) -> list[str]:
    """The sequence of each record: none for independent ones."""
    if not case.ar:
        return [""] * records
    return [f"{prefix}{index // SEQUENCE_FRAMES}" for index in range(records)]


def _latent(case: Case, rng: np.random.Generator, batches: int, records: int) -> NDArray[np.float32]:
    """(batches, records, 64 + 8) standard normals, correlated from frame to frame within sequences."""
    width = DIMENSIONS if case.embedding == "independent" else DIMENSIONS + FACTORS
    drawn = rng.standard_normal((batches, records, width), dtype=np.float32)
    if not case.ar:
        return drawn
    # The first frame of a sequence is drawn from the stationary law, so that every frame has the same one.
    first = np.sqrt(1 - case.ar**2)
    for start in range(0, records, SEQUENCE_FRAMES):
        part = drawn[:, start : start + SEQUENCE_FRAMES]
        part[:, 0] /= first
        drawn[:, start : start + SEQUENCE_FRAMES] = lfilter([first], [1.0, -case.ar], part, axis=1)
    return drawn


def _embed(case: Case, latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """From normals to embeddings, by constants that are the same for every seed."""
    if case.embedding == "independent":
        return latent
    rng = np.random.default_rng(20)
    mixing = rng.standard_normal((FACTORS, DIMENSIONS), dtype=np.float32)
    mixing *= np.sqrt(0.5) / np.linalg.norm(mixing, axis=0)
    raw: NDArray[np.float32] = np.float32(np.sqrt(0.5)) * latent[..., :DIMENSIONS] + latent[..., DIMENSIONS:] @ mixing
    if case.embedding == "raw":
        return raw
    offset = rng.uniform(-1.3, 1.3, DIMENSIONS).astype(np.float32)  # 10 to 90 % below 0
    moved: NDArray[np.float32] = raw + offset
    if case.embedding == "relu":
        return np.maximum(moved, np.float32(0), out=moved)
    moved /= np.linalg.norm(moved, axis=-1, keepdims=True)
    return moved
