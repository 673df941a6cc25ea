"""Bets along a learned direction: fair for any shape of data, quick where many columns move, kept across releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binomtest

from detectors.baseline import BaselineStatistic
from detectors.betting import code_p_values
from detectors.direction import STRENGTHS, Directions, _follow
from detectors.layout import Layout
from detectors.sequential import SequentialDetector
from detectors.units import BaselineUnits, count

SEED = np.uint64(7)


def embedding(width: int) -> Layout:
    return Layout.stacked([("embedding", [f"component_{k}" for k in range(width)])])


def units_of(values: NDArray[np.float64], layout: Layout | None = None) -> BaselineUnits:
    layout = layout or embedding(values.shape[1])
    return BaselineUnits(BaselineStatistic.fit(layout, values, [""] * len(values)))


@pytest.mark.parametrize("variance", [1.0, 1.1])
def test_a_bet_along_a_direction_is_fair_whatever_the_shape(variance: float) -> None:
    """t of mean 0 and variance 1 from a two-point law, as far from normal as it gets: e has mean 1, or less."""
    share = 0.1
    points, chances = np.array([3.0, -1 / 3]), np.array([share, 1 - share])
    assert (points @ chances, points**2 @ chances) == pytest.approx((0, 1))
    for strength in STRENGTHS:
        gained = []
        for point in points:
            evidence, sums = np.zeros((1, 1)), np.array([[2.0]])
            one, sizes = np.array([[point]]), np.array([1])
            _follow(one, sizes, np.eye(1), variance, np.array([10.0]), np.array([strength]), sums, evidence)
            gained.append(evidence[0, 0])
        assert np.array(gained) @ chances == pytest.approx((1 + strength**2) / (variance + strength**2))


def test_whitened_ranks_are_uncorrelated_whatever_the_columns_share() -> None:
    """Columns that copy each other with noise, one of three values, and one that never changes."""
    rng = np.random.default_rng(20)
    common = rng.normal(size=(8000, 1))
    values = np.column_stack([common + 0.5 * rng.normal(size=(8000, 3)), (common > 0) + (common > 1), np.ones(8000)])
    units = units_of(values[:4000])
    codes = units.baseline.binning.codes(values[4000:])
    z = ndtri(code_p_values(codes, units.single_counts.copy(), SEED, 0))
    assert np.abs(np.corrcoef(z.T) - np.eye(5)).max() > 0.5
    white = z @ units.whitening(0)
    assert white.T @ white / len(white) == pytest.approx(np.eye(5), abs=0.08)


def test_many_columns_that_move_a_little_are_seen_early() -> None:
    """A quarter of a sigma in all of 64 columns, in 20 records or fewer where blocks and columns take 35."""
    units = units_of(np.random.default_rng(21).normal(size=(4000, 64)))
    delays, shares = [], []
    for seed in range(20):
        detector = SequentialDetector(units, run_length=1000)
        values = np.random.default_rng([21, seed]).normal(size=(60, 64)) + 0.25
        detector.add_records(units.baseline.binning.codes(values))
        delays.append(detector.alarm_at or 60)
        shares.append(detector._directions.of_signals().sum() / 4 / detector.evidence)
    assert np.mean(delays) <= 20
    assert np.median(shares) > 0.9


def test_a_direction_is_put_down_to_its_signal_and_followed_when_it_turns() -> None:
    layout = Layout.stacked([(name, [f"{name}{k}" for k in range(24)]) for name in ("embedding", "input")])
    rng = np.random.default_rng(22)
    units = units_of(rng.normal(size=(4000, 48)), layout)
    codes = units.baseline.binning.codes
    detector = SequentialDetector(units, run_length=10_000)
    detector.add_records(codes(rng.normal(size=(400, 48))))
    assert detector.evidence < 10_000
    values = rng.normal(size=(80, 48))
    values[:, 24:] += 0.4
    detector.add_records(codes(values))
    assert detector.alarm_at is not None
    assert detector.attribution()[0][0] == "input" and detector.attribution()[0][1] > 0.9


@pytest.mark.parametrize("pool", [1, 10])
def test_evidence_does_not_outgrow_the_records_where_columns_depend_on_each_other(pool: int) -> None:
    """Skewed columns with a common factor and scale, few baseline records: P(A within t records) is at most t / A."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng([23, seed])
        values = np.exp(rng.normal(size=(320, 12)) + rng.normal(size=(320, 1))) * rng.exponential(size=(320, 1))
        units = units_of(values[:120])
        directions, known = Directions(units), units.single_counts.copy()
        z = ndtri(code_p_values(units.baseline.binning.codes(values[120:]), known, SEED, 0))
        sums = z.reshape(-1, pool, 12).sum(1) / np.sqrt(pool)
        alarms += directions.observe(sums, np.full(len(sums), pool)).max() >= 1000
    assert binomtest(alarms, 100, 0.2, alternative="greater").pvalue > 0.01


def test_pools_larger_than_what_they_are_ranked_among_teach_a_direction_without_a_bet() -> None:
    rng = np.random.default_rng(24)
    units = units_of(rng.normal(size=(400, 2)))
    detector, binning = SequentialDetector(units, 1e9), units.baseline.binning
    detector.add_group(count(binning.codes(rng.normal(1, 1, size=(60, 2))), binning.cells), sequence=False)
    assert (detector._directions.sums[0] > 0).all()
    assert detector._directions.evidence.ravel() == pytest.approx(60)
    detector.add_group(count(binning.codes(rng.normal(1, 1, size=(55, 2))), binning.cells), sequence=False)
    assert detector._directions.evidence.max() > 200


@pytest.mark.parametrize(("columns", "records"), [(64, 512), (32, 256), (8, 64)])
def test_the_variance_along_a_direction_is_at_most_what_is_taken_for_it(columns: int, records: int) -> None:
    """Without drift, on average over baselines: also at the fewest records a column that may bet."""
    squares = []
    for seed in range(40):
        rng = np.random.default_rng([26, seed])
        units = units_of(rng.normal(size=(records, columns)))
        white, codes = units.whitening(0), units.baseline.binning.codes(rng.normal(size=(200, columns)))
        z = ndtri(code_p_values(codes, units.single_counts.copy(), SEED, 0)) @ white
        for number in range(40, 200):
            along = z[:number].sum(0)
            squares.append(float(z[number] @ along) ** 2 / float(along @ along))
    taken = float(Directions(units)._variance[0])
    assert np.mean(squares) < taken * 1.03


def test_signals_that_cannot_learn_leave_their_share_to_blocks() -> None:
    """One column has no direction, and 8 columns need 64 records."""
    layout = Layout.stacked([("embedding", list("abcdefgh")), ("instances", ["count"])])
    for m, learns in ((63, [False, False]), (64, [True, False])):
        units = units_of(np.random.default_rng(25).normal(size=(m, 9)), layout)
        assert Directions(units).learns.tolist() == learns
        detector = SequentialDetector(units, 1000)
        shares = sum(track.weights.sum() for pair in detector._blocks for track in pair) / 16
        assert shares + detector._directions.learns.sum() / 2 / 4 == pytest.approx(0.5)


def test_states_of_the_format_without_directions_go_on() -> None:
    """10 records after a baseline of 40, written by the release before; from there on directions are learned."""

    def made(first: int, n: int) -> NDArray[np.float64]:
        k = np.arange(first, first + n)
        return np.column_stack([(k * k) % 17, (k * 7) % 13]).astype(float)

    units = units_of(made(0, 40), Layout.stacked([("embedding", ["a", "b"])]))
    old = (Path(__file__).parent / "data" / "sequential_state_1.bin").read_bytes()
    detector = SequentialDetector.from_bytes(old, units, 1000)
    assert detector.records == 10
    assert detector.column_evidence() == pytest.approx([1.49768222, 1.34668428])
    assert not detector._directions.evidence.any()
    detector.add_records(units.baseline.binning.codes(made(50, 3)))
    assert detector._directions.evidence.any()
    again = SequentialDetector.from_bytes(detector.to_bytes(), units, 1000)
    assert again.evidence == detector.evidence
    with pytest.raises(ValueError, match="damaged"):
        SequentialDetector.from_bytes(old[:-1], units, 1000)
    with pytest.raises(ValueError, match="format 3"):
        SequentialDetector.from_bytes(old[:4] + b"\x03" + old[5:], units, 1000)
