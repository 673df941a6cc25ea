"""Signal `embedding_frechet`: means and covariances of the embedding's components, all of them together.

Bins look at one component at a time, and random features at few directions; components that begin to vary together, or
a direction between them that spreads or collapses, hardly show in either. Frechet's distance from the baseline
(`detectors.moments`) sees them. It is no column, so it is judged here and joins the verdict of `detectors.score`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from detectors.attribution import ColumnShare
from detectors.baseline import BaselineStatistic
from detectors.divergence import g_statistic, used_bins
from detectors.frechet_law import FrechetLaw, frechet_law
from detectors.moments import Moments, displacements, distances, frechet_distance
from detectors.moments_baseline import SAMPLE_STEPS, MomentsBaseline
from detectors.nulls import lowest_p_value
from detectors.resampling import WindowShape
from detectors.sample import Sample
from detectors.score import (
    FEWEST_BASELINE_SEQUENCES,
    FEWEST_SEQUENCES,
    SignalScore,
    WindowScore,
    score_window,
)
from detectors.statistic import PaneStatistic
from detectors.unevenness import QUANTILE, blocks_of

SIGNAL = "embedding_frechet"
KIND = "embedding"
"""What an alarm of it is counted as: it looks at the same values."""
FEWEST_RECORDS = 10
"""And no fewer than components: with ten records in 32 components, against a baseline of 500, 2.3 % of windows without
drift had a p-value of 0.01 or less."""
FEWEST_BASELINE = 10
"""Records a component of the baseline: below, its whitening follows noise (`embeddings.projection`)."""
FEWEST_IN_BLOCK = 2


@dataclass(frozen=True, slots=True)
class FrechetReading:
    """Frechet's distance of a window from the baseline, squared, in the baseline's standard deviations."""

    distance: float
    """What is left of it without that of `without_drift`, not below 0."""
    without_drift: float
    """What chance alone makes of it in windows like this one, on average."""
    baseline: float
    """What the baseline's own blocks reach: a shift that matters is larger."""


def score_with_frechet(
    baseline: BaselineStatistic,
    own: MomentsBaseline | None,
    window: PaneStatistic,
    moments: Moments | None,
    alpha: float,
) -> tuple[WindowScore, FrechetReading | None]:
    """`score_window`, with Frechet's distance as one more signal where it can be judged.

    It cannot without moments on both sides or with few records, nor where sequences are exchanged instead of drawn
    (fewer than 3 in the window or 30 in the baseline): a pane has the moments of its records, not those of each
    sequence. Then it takes no share of ``alpha``. Raises ValueError as `score_window` does.
    """
    signals = len(baseline.watched)
    shape = None if own is None or moments is None else _shape(own, window, moments)
    if own is None or moments is None or shape is None or not signals:
        return score_window(baseline, window, alpha), None
    score = score_window(baseline, window, alpha * signals / (signals + 1))
    score = replace(score, alpha=alpha, supported_alpha=min(1.0, score.supported_alpha * (signals + 1) / signals))
    if score.status != "ok":
        return score, None
    law = frechet_law(own, shape)
    judged, reading = _judge(own, moments, law, shape, alpha / (signals + 1))
    score = replace(score, scores=(*score.scores, judged), alarm=score.alarm or judged.alarm)
    return (_attributed(score, baseline, window, own, moments, reading) if judged.alarm else score), reading


def _shape(own: MomentsBaseline, window: PaneStatistic, moments: Moments) -> WindowShape | None:
    """The make-up of the records that have moments; None where no law can be drawn for it."""
    components = own.moments.components
    if moments.components != components or moments.records < max(FEWEST_RECORDS, components):
        return None
    if own.moments.records < FEWEST_BASELINE * components:
        return None
    share = moments.records / window.records
    sizes = window.sizes()
    independent = round(sizes.pop("", 0) * share)
    sequences = tuple(sorted(max(1, round(size * share)) for size in sizes.values()))
    if not len(own.lengths):
        # Nothing is known of the dependence within sequences: each counts as a single record, as in `score_window`.
        units = independent + len(sequences)
        return WindowShape(units, ()) if units >= FEWEST_RECORDS else None
    few = len(sequences) < FEWEST_SEQUENCES or own.sequences < FEWEST_BASELINE_SEQUENCES
    return None if sequences and few else WindowShape(independent, sequences)


def _judge(
    own: MomentsBaseline, moments: Moments, law: FrechetLaw, shape: WindowShape, share: float
) -> tuple[SignalScore, FrechetReading]:
    whole = frechet_distance(own.moments, moments)
    reading = FrechetReading(max(0.0, whole - law.mean), law.mean, unevenness(own))
    units = own.independent_records + own.sequences if not shape.sequences else own.sequences
    floor = lowest_p_value(shape.units, units)
    p_value = max(law.p_value(whole), floor)
    js = shift_js(reading.distance)
    own_js = shift_js(reading.baseline)
    independent = independent_distance(moments.components, moments.records, own.moments.records)
    alarm = floor <= share and p_value <= share and js > own_js
    bound = max(shift_js(max(0.0, law.critical(share) - law.mean)), own_js)
    threshold = None if floor > share else min(bound, js) if alarm else max(bound, float(np.nextafter(js, 2)))
    score = SignalScore(
        signal=SIGNAL,
        js=js,
        kl_nats=reading.distance / 2,
        p_value=p_value,
        threshold=threshold,
        baseline_js=own_js,
        design_effect=max(1.0, law.mean / independent),
        alarm=alarm,
        dimensions=(),
    )
    return score, reading


@lru_cache(maxsize=64)
def unevenness(own: MomentsBaseline) -> float:
    """How far the baseline's own blocks are from the rest of it, chance removed: the upper quartile over the blocks.

    As `detectors.unevenness` has it for columns; 0 where the baseline has no two blocks.
    """
    owner = blocks_of(Sample(own.rows.view(np.uint8), own.independent, own.lengths))
    values = own.rows / SAMPLE_STEPS
    found = []
    for block in range(int(owner.max(initial=-1)) + 1):
        inside, outside = values[owner == block], values[owner != block]
        if min(len(inside), len(outside)) >= FEWEST_IN_BLOCK:
            noise = independent_distance(values.shape[1], len(inside), len(outside))
            found.append(max(0.0, _between(outside, inside) - noise))
    return float(np.quantile(found, QUANTILE)) if found else 0.0


def independent_distance(components: int, records: int, others: int) -> float:
    """Frechet's distance that chance makes between two samples of one normal distribution, on average.

    ``K + K (K + 1) / 4`` times ``1/n + 1/m``, to first order: what each component's mean is off by, squared, and
    half of what each entry of the covariance is.
    """
    return (components + components * (components + 1) / 4) * (1 / records + 1 / others)


def shift_js(distance: float) -> float:
    """Jensen-Shannon divergence (bits) of a shift of one component that is as far, by sqrt(distance).

    So distances can stand beside other signals' divergences. With p standard normal and q the shifted one:
    ``1 - E_p log2(1 + q / p)``, by the trapezoid rule, which is exact to rounding for so smooth a function.

    >>> [round(shift_js(distance), 3) for distance in (0.0, 0.25, 1.0, 100.0)]
    [0.0, 0.044, 0.161, 1.0]
    """
    if distance <= 0:
        return 0.0
    shift = math.sqrt(distance)
    x = np.linspace(-12.0, 12.0, 961)
    p = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return float(
        np.clip(1 - (p * np.logaddexp(0.0, shift * x - distance / 2)).sum() * (x[1] - x[0]) / math.log(2), 0, 1)
    )


def _between(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """From rows (N, K) and (M, K), at least two each."""
    covariances = [np.cov(rows.T).reshape(rows.shape[1], -1) for rows in (first, second)]
    return float(distances(first.mean(0), covariances[0], second.mean(0)[None], covariances[1][None])[0])


def _attributed(
    score: WindowScore,
    baseline: BaselineStatistic,
    window: PaneStatistic,
    own: MomentsBaseline,
    moments: Moments,
    reading: FrechetReading,
) -> WindowScore:
    """The alarm's shares, with those of the components added where the embedding does not carry it already.

    ``n m / (n + m)`` times a distance is what G is for a shift of one component by that much.
    """
    if any(signal == KIND for signal, _ in score.attribution):
        return score
    n, m = moments.records, own.moments.records
    weight = reading.distance * n * m / (n + m)
    others = _excess(score, baseline, window)
    share = weight / (weight + others)
    moved = displacements(own.moments, moments)
    beyond = np.maximum(moved - reading.without_drift / len(moved), 0.0)
    parts = share * (beyond if beyond.any() else np.ones_like(moved)) / (beyond.sum() or len(moved))
    added = [ColumnShare(KIND, f"component_{i}", part, ()) for i, part in enumerate(parts.tolist()) if part > 0]
    kept = [replace(column, share=column.share * (1 - share)) for column in score.dimensions]
    named = [(KIND, share), *((signal, one * (1 - share)) for signal, one in score.attribution)]
    return replace(
        score,
        attribution=tuple(sorted(named, key=lambda pair: (-pair[1], pair[0]))),
        dimensions=tuple(sorted([*kept, *added], key=lambda column: -column.share)),
    )


def _excess(score: WindowScore, baseline: BaselineStatistic, window: PaneStatistic) -> float:
    """G beyond its expectation of all the signals that carry the alarm so far: what their shares are shares of."""
    carrying = {column.signal for column in score.dimensions}
    effects = {one.signal: one.design_effect for one in score.scores}
    counts = window.counts()
    g, freedom = g_statistic(counts, baseline.counts), used_bins(counts, baseline.counts) - 1
    total = 0.0
    for part in baseline.watched:
        if part.signal in carrying:
            over = np.nan_to_num(g - effects[part.signal] * freedom)[part.start : part.stop]
            total += max(float(over.sum()), float(over.max()), 0.0)
    return total
