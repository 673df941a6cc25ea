"""Populations of (intersection, union) per record, from seeds: several families, some of them held out of tuning."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.signal import lfilter
from scipy.special import beta as beta_function
from scipy.special import expit, ndtr, ndtri

Floats = NDArray[np.float64]
Choice = Literal["uniform", "biased"]

WINDOW_RECORDS = 2000
WINDOW_FRAMES = 15
"""Frames of a sequence in a window."""
FLOOR = 0.25
"""Least probability of the biased choice, over that of a uniform one."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One class: in which share of frames it is, how good it is, and how alike frames of a sequence are."""

    family: str
    frequency: float
    iou: float
    correlation: float = 0.5
    """Within a sequence, of the latent presence, area and quality."""
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.family}, in {100 * self.frequency:g} %, IoU {self.iou:g}"

    def generator(self, *what: object) -> np.random.Generator:
        """Random numbers of their own for everything that has a name."""
        return np.random.default_rng([self.seed, zlib.crc32(repr((self.name, self.correlation, *what)).encode())])


def draw(setting: Setting, rng: np.random.Generator, rows: int, sequences: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Intersections and unions (rows, n) of as many windows; ``sequences`` (n,) in ascending order, for every row."""
    latent = _Latent(rng, rows, sequences, setting.correlation)
    intersection, union = FAMILIES[setting.family](latent, setting)
    return intersection, union


class _Latent:
    """Standard normals that are alike within sequences."""

    def __init__(self, rng: np.random.Generator, rows: int, sequences: NDArray[np.int64], correlation: float) -> None:
        self.rng, self.rows, self.sequences, self.correlation = rng, rows, sequences, correlation

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, len(self.sequences)

    def per_sequence(self) -> Floats:
        drawn: Floats = self.rng.standard_normal((self.rows, int(self.sequences.max()) + 1))[:, self.sequences]
        return drawn

    def exchangeable(self) -> Floats:
        """Every two frames of a sequence equally alike."""
        own = self.rng.standard_normal(self.shape)
        return np.sqrt(self.correlation) * self.per_sequence() + np.sqrt(1 - self.correlation) * own

    def neighbours(self, rho: float) -> Floats:
        """Frames less alike the further they are apart: AR(1) within each sequence."""
        drawn = self.rng.standard_normal(self.shape)
        first = np.sqrt(1 - rho**2)
        starts = np.flatnonzero(np.diff(self.sequences, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(self.sequences)], strict=True):
            part = drawn[:, start:stop]
            part[:, 0] /= first
            drawn[:, start:stop] = lfilter([first], [1.0, -rho], part, axis=1)
        return drawn

    def present(self, frequency: float, normal: Floats) -> NDArray[np.bool_]:
        return normal < ndtri(frequency)


def _lognormal(latent: _Latent, setting: Setting, sigma: float = 1.0) -> tuple[Floats, Floats]:
    """Lognormal areas; IoU by Kumaraswamy's law, somewhat better for large areas."""
    present = latent.present(setting.frequency, latent.exchangeable())
    area, quality = latent.exchangeable(), latent.exchangeable()
    union = np.ceil(np.exp(7 + sigma * area)) * present
    b = 2.0 if setting.iou < 0.9 else 1.0
    uniform = ndtr(0.3 * area + np.sqrt(1 - 0.09) * quality)
    return np.floor(union * (1 - (1 - uniform) ** (1 / b)) ** (1 / _kumaraswamy(setting.iou, b))), union


def _wide(latent: _Latent, setting: Setting) -> tuple[Floats, Floats]:
    """Lognormal areas with sigma 1.6: the largest of a window is hundreds of times the median."""
    return _lognormal(latent, setting, 1.6)


@cache
def _kumaraswamy(mean: float, b: float) -> float:
    def excess(logarithm: float) -> float:
        return float(b * beta_function(1 + np.exp(-logarithm), b) - mean)

    return float(np.exp(brentq(excess, -6, 8)))


def _counts(latent: _Latent, setting: Setting) -> tuple[Floats, Floats]:
    """Beta-binomial pixels; each sequence has a quality of its own. Strongly skewed near 1."""
    present = latent.present(setting.frequency, latent.exchangeable())
    correlation, rng, concentration = setting.correlation, latent.rng, 8.0
    scale = np.exp(0.7 * np.sqrt(correlation) * latent.per_sequence())
    union = (rng.poisson(rng.gamma(1.0, 400, latent.shape) * scale) + 1.0) * present
    spread = concentration * (1 - correlation) / max(correlation, 1e-9) + 1
    of_sequence = rng.beta(setting.iou * spread, (1 - setting.iou) * spread, (latent.rows, latent.sequences.max() + 1))
    mean = np.clip(of_sequence, 1e-3, 1 - 1e-3)[:, latent.sequences]
    quality = rng.beta(mean * concentration, (1 - mean) * concentration)
    return rng.binomial(union.astype(np.int64), quality).astype(np.float64), union


def _misses(latent: _Latent, setting: Setting) -> tuple[Floats, Floats]:
    """Objects that are found well or missed whole (smaller ones more often), and some that are not there."""
    present = latent.present(setting.frequency, latent.exchangeable())
    area, luck, invention = latent.exchangeable(), latent.exchangeable(), latent.exchangeable()
    good = min(0.97, setting.iou + (1 - setting.iou) * 0.6)
    share = float(np.clip((1 - setting.iou / good) * 1.2, 0, 0.99))
    missed = luck < ndtri(share) - 0.3 * area
    quality = expit(np.log(good / (1 - good)) + 0.5 * latent.rng.standard_normal(latent.shape))
    invented = ~present & (invention < ndtri(0.1 * setting.frequency))
    size = np.exp(7 + 1.2 * area)
    union = np.where(present, size, np.where(invented, 0.3 * size, 0))
    return np.floor(np.where(present & ~missed, size * quality, 0)), np.ceil(union)


def _objects(latent: _Latent, setting: Setting) -> tuple[Floats, Floats]:
    """Several objects a frame, Pareto areas up to a fifth of the image, found by size, blurred along the boundary."""
    rng, shape, iou = latent.rng, latent.shape, setting.iou
    expected = -np.log1p(-min(setting.frequency, 0.98))
    count = rng.poisson(expected * np.exp(latent.exchangeable() - 0.5))
    quality = latent.exchangeable()
    intersection, union = np.zeros(shape), np.zeros(shape)
    for number in range(8):
        there = count > number
        area = np.minimum(200 * (1 - rng.random(shape)) ** (-1 / 1.3), 60_000)
        boundary = (1 - iou) * (20 * np.exp(0.4 * quality) / np.sqrt(area) + 0.5 * np.exp(0.5 * quality))
        chance = ndtr(ndtri(min(0.5 + 0.55 * iou, 0.995)) + 0.25 * np.log(area / 800) - 0.3 * quality)
        found = rng.random(shape) < chance
        union += there * area
        intersection += there * found * area * np.clip(1 - boundary, 0, 1)
    invented = rng.random(shape) < 0.1 * (1 - iou) * min(setting.frequency, 0.5)
    union += invented * np.minimum(150 * (1 - rng.random(shape)) ** (-1 / 1.5), 20_000)
    return np.floor(intersection), np.ceil(union)


def _video(latent: _Latent, setting: Setting) -> tuple[Floats, Floats]:
    """A share of the image (logistic), IoU logistic with Student's noise, all AR(1) along the sequence."""
    rho = min(0.97, setting.correlation + 0.4) if setting.correlation else 0.0
    present = latent.present(setting.frequency, latent.neighbours(rho))
    area, quality = latent.neighbours(rho), latent.neighbours(rho)
    union = np.ceil(3e5 * expit(-2.5 + 1.1 * area)) * present
    noise = quality * np.sqrt(5 / latent.rng.chisquare(5, latent.shape))
    return np.floor(union * expit(np.log(setting.iou / (1 - setting.iou)) + 0.9 * noise + 0.2 * area)), union


FAMILIES: dict[str, Callable[[_Latent, Setting], tuple[Floats, Floats]]] = {
    "lognormal": _lognormal,
    "wide": _wide,
    "counts": _counts,
    "misses": _misses,
    "objects": _objects,
    "video": _video,
}
HELD_OUT = ("objects", "video")
"""Written before the intervals were tuned, looked at after."""


def probabilities(intersection: Floats, union: Floats, labels: int, choice: Choice, rng: np.random.Generator) -> Floats:
    """(n,) of being chosen: alike, or by an uncertainty that is higher where the prediction is worse."""
    count = len(union)
    if choice == "uniform":
        return np.full(count, labels / count)
    quality = np.where(union > 0, intersection / np.maximum(union, 1), 0.9)
    wanted = np.exp(-2.0 * quality + 0.7 * rng.standard_normal(count))
    for _ in range(20):
        wanted = np.clip(wanted * labels / wanted.sum(), FLOOR * labels / count, 1.0)
    return wanted


def expectations(
    intersection: Floats, union: Floats, correlation: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Expected intersections and unions (n,) whose residuals correlate so with the true ones; useless where 0.

    The part that does not correlate has the true residuals' own law, shuffled among the records.
    """
    ratio = intersection.sum() / union.sum()
    residual = intersection - ratio * union
    noise = rng.permutation(residual)
    if correlation == 0:
        size = rng.permutation(union)
    else:
        size = union * np.exp(0.1 * rng.standard_normal(len(union)))
    return correlation * residual + np.sqrt(1 - correlation**2) * noise + ratio * size, size


def blind_expectations(intersection: Floats, union: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Expectations (n,) that are good, except that a record which is wholly wrong looks like any other."""
    ratio = intersection.sum() / union.sum()
    looks = np.where((intersection == 0) & (union > 0), ratio * union, intersection)
    return looks * np.exp(0.05 * rng.standard_normal(len(union))), union
