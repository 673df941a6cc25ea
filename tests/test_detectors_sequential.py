"""Sequential detection: ranks that are uniform, bets that are fair, run lengths that hold, drift seen soon."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtri
from scipy.stats import binomtest, kstest, ttest_1samp

from detectors.baseline import BaselineStatistic
from detectors.betting import bet, code_p_values, learned_bets, scale_bets, shift_bets, tie_breaker, urn_p_values
from detectors.layout import Layout
from detectors.sequential import ENERGY_BETS, RECORD_BETS, UNIT_BETS, SequentialDetector
from detectors.statistic import PaneStatistic
from detectors.units import BaselineUnits, count

K = 8
LAYOUT = Layout.stacked([("embedding", [f"component_{k}" for k in range(K)]), ("instances", ["count"])])
SEED = np.uint64(7)


def records(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.column_stack([rng.normal(size=(n, K)), rng.poisson(3.0, size=n)])


def video(rng: np.random.Generator, sequences: int, length: int) -> NDArray[np.float64]:
    """(sequences, length, K + 1) of AR(1) 0.9."""
    x = rng.normal(size=(sequences, K + 1))
    out = np.empty((sequences, length, K + 1))
    for t in range(length):
        x = 0.9 * x + np.sqrt(1 - 0.81) * rng.normal(size=x.shape)
        out[:, t] = x
    return out


def units_of(values: NDArray[np.float64], length: int = 0, layout: Layout = LAYOUT) -> BaselineUnits:
    """A baseline of records, or of sequences of ``length``."""
    names = [f"s{row // length}" if length else "" for row in range(len(values))]
    return BaselineUnits(BaselineStatistic.fit(layout, values, names))


def videos(units: BaselineUnits, values: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    binning = units.baseline.binning
    return [count(binning.codes(sequence), binning.cells) for sequence in values]


@pytest.fixture(scope="module")
def images() -> BaselineUnits:
    return units_of(records(np.random.default_rng(0), 5000))


@pytest.fixture(scope="module")
def clips() -> BaselineUnits:
    """40 sequences of 50 frames."""
    return units_of(video(np.random.default_rng(0), 40, 50).reshape(-1, K + 1), 50)


@pytest.mark.parametrize("table", [RECORD_BETS, UNIT_BETS, ENERGY_BETS])
def test_every_bet_has_mean_one_over_uniform_p_values(table: NDArray[np.float64]) -> None:
    for a, b, c in table:
        mean, _ = quad(lambda z, a=a, b=b, c=c: np.exp(a + b * z + c * z * z - z * z / 2) / np.sqrt(2 * np.pi), -40, 40)
        assert mean == pytest.approx(1, abs=1e-6)


def test_bets_are_likelihood_ratios_of_shifted_and_scaled_normals() -> None:
    table = np.concatenate([shift_bets((2.0,)), scale_bets((3.0,))])
    z = 1.3
    ratios = np.exp(table @ [1, z, z * z])
    normal = np.exp(-z * z / 2)
    moved = [np.exp(-((z - 2) ** 2) / 2), np.exp(-((z + 2) ** 2) / 2), np.exp(-((z / 3) ** 2) / 2) / 3]
    assert ratios == pytest.approx(np.array(moved) / normal)


def test_what_a_histogram_has_learned_is_a_fair_bet_at_every_moment() -> None:
    p = np.random.default_rng(1).random((60, 1)) ** 2
    for n in (0, 1, 59):
        seen = np.zeros((1, 10))
        learned_bets(p[:n], seen, 5.0, 300.0)
        grid = ((np.arange(10) + 0.5) / 10)[:, None]
        offers = [learned_bets(grid[k : k + 1], seen.copy(), 5.0, 300.0)[0, 0] for k in range(10)]
        assert np.mean(offers) == pytest.approx(1)
    assert offers[0] > 2 > 0.9 > np.mean(offers[5:])


def test_tie_breakers_are_uniform_and_depend_on_unit_and_stream_alone() -> None:
    drawn = np.array([[tie_breaker(SEED, unit, stream) for stream in range(40)] for unit in range(200)])
    assert kstest(drawn.ravel(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 0.04
    assert tie_breaker(SEED, 3, 4) == drawn[3, 4] != tie_breaker(np.uint64(8), 3, 4)


@pytest.mark.parametrize("m", [1, 5, 40])
def test_ranks_of_codes_are_independent_and_uniform_for_any_baseline_size(m: int) -> None:
    """Four codes with ties, and 12 records after a baseline of m, many times over."""
    rng = np.random.default_rng(m)
    runs = []
    for run in range(2000):
        codes = np.minimum(rng.poisson(1.0, size=m + 12), 3).astype(np.uint8)
        counts = count(codes[:m, None], 4)
        runs.append(code_p_values(codes[m:, None], counts, np.uint64(run), 0)[:, 0])
        assert counts.sum() == m + 12
    p = np.array(runs)
    assert min(kstest(p[:, step], "uniform").pvalue for step in range(12)) > 0.001
    correlation = np.corrcoef(ndtri(p).T) - np.eye(12)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(2000)


@pytest.mark.parametrize("m", [2, 10, 60])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_in_the_urn_are_independent_and_uniform_for_any_baseline_size(m: int, ties: bool) -> None:
    rng = np.random.default_rng(m)
    runs = []
    for run in range(2000):
        scores = rng.normal(size=m + 12)
        scores = scores.round() if ties else scores
        reference, new = np.sort(scores[:m]), scores[m:]
        low, high = (np.searchsorted(reference, new, side)[:, None] for side in ("left", "right"))
        urn = np.zeros((1, m + 1), dtype=np.int64)
        runs.append(urn_p_values(low, high, np.full(12, m), urn, np.uint64(run), 0, 0)[:, 0])
        assert urn.sum() == 12
    p = np.array(runs)
    assert min(kstest(p[:, step], "uniform").pvalue for step in range(12)) > 0.001
    assert np.abs(np.corrcoef(ndtri(p).T) - np.eye(12)).max() < 4.5 / np.sqrt(2000)


def test_the_urn_gives_the_ranks_among_baseline_and_past() -> None:
    """Without ties p lies between the ranks that a new score can have among all the others."""
    rng = np.random.default_rng(3)
    reference, new = np.sort(rng.normal(size=30)), rng.normal(size=200)
    places = np.searchsorted(reference, new)
    urn = np.zeros((1, 31), dtype=np.int64)
    p = urn_p_values(places[:, None], places[:, None], np.full(200, 30), urn, SEED, 0, 0)[:, 0]
    assert urn[0].tolist() == np.bincount(places, minlength=31).tolist()
    for step in range(200):
        total = 31 + step
        below = places[step] + (places[:step] < places[step]).sum()
        assert below / total <= p[step] <= (below + 1 + (places[:step] == places[step]).sum()) / total


def test_restarted_and_summed_evidence_grows_by_the_records_seen() -> None:
    """Mild bets, 20 steps, 4,000 runs: E[R] is the number of records; the sum is that of all restarts."""
    rng = np.random.default_rng(4)
    table, sizes = shift_bets((0.25,)), np.array([3, 1] * 10)
    ends = []
    for _ in range(4000):
        z = rng.normal(size=(20, 1))
        evidence = np.zeros((1, 2))
        ends.append(bet(z, z, sizes, table, evidence, np.ones(1))[-1])
    assert ttest_1samp(ends, sizes.sum()).pvalue > 0.001
    e = np.exp(z @ table[:, 1][None] + table[:, 0])
    restarts = [sizes[start] * e[start:].prod(0) for start in range(20)]
    assert evidence[0] == pytest.approx(np.sum(restarts, axis=0))


def test_without_drift_the_evidence_of_a_small_baseline_does_not_outgrow_the_records() -> None:
    """P(evidence ever reaches A within t records) is at most t / A."""
    alarms = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        units = units_of(records(rng, 60))
        detector = SequentialDetector(units, run_length=500)
        detector.add_records(units.baseline.binning.codes(records(rng, 100)))
        alarms += detector.alarm_at is not None
    assert binomtest(alarms, 150, 0.2, alternative="greater").pvalue > 0.01


def test_run_lengths_hold_for_frames_of_few_sequences() -> None:
    """150 runs of at most 1,500 frames, an average of 500 asked for, where cutting them short only takes away."""
    lengths = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        units = units_of(video(rng, 30, 20).reshape(-1, K + 1), 20)
        detector = SequentialDetector(units, run_length=500)
        for counts in videos(units, video(rng, 75, 20)):
            detector.add_group(counts, sequence=True)
            if detector.alarm_at is not None:
                break
        lengths.append(detector.alarm_at or 1500)
    assert np.mean(lengths) >= 500
    assert np.mean(np.array(lengths) <= 100) <= 0.2


@pytest.mark.parametrize(
    ("sigma", "columns", "within"),
    [(1.0, 1, 40), (0.5, 1, 140), (0.25, 1, 500), (1.0, 9, 15), (0.5, 9, 45), (0.25, 9, 75)],
)
def test_a_shift_is_seen_within(images: BaselineUnits, sigma: float, columns: int, within: int) -> None:
    """Mean delay in records over 20 runs, at an average run length of 10,000."""
    delays = []
    for seed in range(20):
        values = records(np.random.default_rng([5, seed]), 2000)
        values[:, :columns] += sigma * np.where(np.arange(columns) == K, np.sqrt(3), 1)
        detector = SequentialDetector(images, run_length=10_000)
        detector.add_records(images.baseline.binning.codes(values))
        delays.append(detector.alarm_at or 2000)
    assert np.mean(delays) <= within


def test_other_shapes_with_the_same_mean_and_spread_are_learned(images: BaselineUnits) -> None:
    rng = np.random.default_rng(6)
    values = records(rng, 1500)
    values[:, 2] = (0.9 * rng.choice([-1, 1], size=1500) + np.sqrt(1 - 0.81) * rng.normal(size=1500)).clip(-4, 4)
    detector = SequentialDetector(images, run_length=10_000)
    detector.add_records(images.baseline.binning.codes(values))
    assert detector.alarm_at is not None and detector.alarm_at <= 300
    assert int(detector.column_evidence().argmax()) == 2


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_column_that_spreads_more_or_less_is_seen(images: BaselineUnits, factor: float) -> None:
    values = records(np.random.default_rng(7), 300)
    values[:, 1] *= factor
    detector = SequentialDetector(images, run_length=10_000)
    detector.add_records(images.baseline.binning.codes(values))
    assert detector.alarm_at is not None and detector.alarm_at <= 200


def test_sequences_that_moved_are_seen_and_put_down_to_their_signal(clips: BaselineUnits) -> None:
    values = video(np.random.default_rng(8), 30, 50)
    values[:, :, K] += 1.5
    detector = SequentialDetector(clips, run_length=10_000)
    for counts in videos(clips, values):
        detector.add_group(counts, sequence=True)
    assert detector.alarm_at is not None and detector.alarm_at <= 12 * 50
    signal, share = detector.attribution()[0]
    assert signal == "instances" and share > 0.9
    assert sum(part for _, part in detector.attribution()) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 150), max_size=6))
def test_chunks_do_not_matter(images: BaselineUnits, cuts: list[int]) -> None:
    codes = images.baseline.binning.codes(records(np.random.default_rng(9), 150) + 0.3)
    whole, parts = SequentialDetector(images, 1000), SequentialDetector(images, 1000)
    evidence = whole.add_records(codes)
    borders = [0, *sorted(cuts), 150]
    pieces = [parts.add_records(codes[start:stop]) for start, stop in pairwise(borders)]
    assert np.concatenate(pieces) == pytest.approx(evidence)
    assert parts.to_bytes() == whole.to_bytes()
    assert whole.evidence == pytest.approx(evidence[-1])


def test_the_state_survives_being_written_and_read(images: BaselineUnits, clips: BaselineUnits) -> None:
    rng = np.random.default_rng(10)
    codes = images.baseline.binning.codes(records(rng, 600) + 0.4)
    whole, first = SequentialDetector(images, 1000), SequentialDetector(images, 1000)
    whole.add_records(codes)
    first.add_records(codes[:77])
    second = SequentialDetector.from_bytes(first.to_bytes(), images, 1000)
    second.add_records(codes[77:])
    assert second.to_bytes() == whole.to_bytes()
    assert second.alarm_at == whole.alarm_at is not None

    held = videos(clips, video(rng, 6, 50))
    one = SequentialDetector(clips, 1000)
    for counts in held[:3]:
        one.add_group(counts, sequence=True)
    other = SequentialDetector.from_bytes(one.to_bytes(), clips, 1000)
    for counts in held[3:]:
        assert one.add_group(counts, sequence=True) == other.add_group(counts, sequence=True)


def test_damaged_and_foreign_states_are_refused(images: BaselineUnits, clips: BaselineUnits) -> None:
    data = SequentialDetector(images, 1000).to_bytes()
    with pytest.raises(ValueError, match="another baseline"):
        SequentialDetector.from_bytes(data, clips, 1000)
    for damaged in (data[:-1], data + b"x", b"SWXX" + data[4:], data[:40] + bytes([data[40] ^ 255]) + data[41:], b""):
        with pytest.raises(ValueError):
            SequentialDetector.from_bytes(damaged, images, 1000)


def test_a_pane_is_added_group_by_group(clips: BaselineUnits) -> None:
    rng = np.random.default_rng(11)
    binning = clips.baseline.binning
    codes = binning.codes(video(rng, 3, 50).reshape(-1, K + 1))
    pane = PaneStatistic(K + 1, binning.bins)
    pane.add(codes, ["b"] * 50 + ["a"] * 50 + [""] * 50)
    whole, single = SequentialDetector(clips, 1000), SequentialDetector(clips, 1000)
    whole.add_pane(pane)
    for start, sequence in ((100, False), (50, True), (0, True)):
        single.add_group(count(codes[start : start + 50], binning.cells), sequence=sequence)
    assert whole.to_bytes() == single.to_bytes()
    assert whole.records == 150


def test_pooled_records_see_what_records_one_by_one_see(images: BaselineUnits) -> None:
    """In panes of 20: half a sigma in one column, and a quarter in all, which only blocks see this soon."""
    binning = images.baseline.binning
    for columns, sigma, within in ((1, 0.5, 250), (K, 0.25, 400)):
        values = records(np.random.default_rng(12), 1000)
        values[:, :columns] += sigma
        detector = SequentialDetector(images, 10_000)
        for start in range(0, 1000, 20):
            detector.add_group(count(binning.codes(values[start : start + 20]), binning.cells), sequence=False)
        assert detector.alarm_at is not None and detector.alarm_at <= within
        assert detector.alarm_at % 20 == 0


def test_single_records_against_a_baseline_of_sequences(clips: BaselineUnits) -> None:
    """One record of each sequence stands for the baseline's records: 40 of them, so all of it is slower."""
    assert clips.singles.shape == (40, K + 1)
    binning = clips.baseline.binning
    early, late = 0, []
    for seed in range(40):
        rng = np.random.default_rng([13, seed])
        units = units_of(video(rng, 40, 50).reshape(-1, K + 1), 50)
        detector = SequentialDetector(units, 1000)
        detector.add_records(units.baseline.binning.codes(rng.normal(size=(100, K + 1))))
        early += detector.alarm_at is not None
        moved = SequentialDetector(clips, 1000)
        moved.add_records(binning.codes(rng.normal(size=(100, K + 1)) + 1.5))
        late.append(moved.alarm_at or 100)
    assert binomtest(early, 40, 0.1, alternative="greater").pvalue > 0.01
    assert np.mean(late) <= 12


def test_a_sequence_against_a_baseline_without_any_counts_as_one_record() -> None:
    """Frames that all look the same would make 50 records' worth of evidence out of one."""
    rng = np.random.default_rng(14)
    units = units_of(rng.normal(size=(500, K + 1)))
    detector, naive = SequentialDetector(units, 5000), SequentialDetector(units, 5000)
    binning = units.baseline.binning
    for _ in range(10):
        still = binning.codes(np.repeat(rng.normal(size=(1, K + 1)), 50, axis=0))
        detector.add_group(count(still, binning.cells), sequence=True)
        naive.add_records(still)
    assert detector.alarm_at is None and naive.alarm_at is not None
    assert detector.records == 500
    for _ in range(30):
        moved = binning.codes(np.repeat(rng.normal(2, size=(1, K + 1)), 50, axis=0))
        detector.add_group(count(moved, binning.cells), sequence=True)
    assert detector.alarm_at is not None


@pytest.mark.parametrize("length", [5, 23, 49, 50, 51, 400])
def test_sequences_of_other_lengths_are_compared_with_their_like(length: int) -> None:
    """P(evidence reaches A within t records) is at most t / A = 1/5, for sequences of any length."""
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng([15, seed])
        units = units_of(video(rng, 40, 50).reshape(-1, K + 1), 50)
        detector = SequentialDetector(units, run_length=100 * length)
        for counts in videos(units, video(rng, 20, length)):
            detector.add_group(counts, sequence=True)
        alarms += detector.alarm_at is not None
    assert binomtest(alarms, 40, 0.2, alternative="greater").pvalue > 0.01


def test_long_sequences_do_not_make_ordinary_ones_look_extreme() -> None:
    """200 of 500 frames, whose means hardly spread, and then 20 like the baseline's: P(alarm) is at most 1/5 there."""
    alarms = 0
    rng = np.random.default_rng(19)
    lasting = video(rng, 200, 500)
    for _ in range(40):
        units = units_of(video(rng, 40, 50).reshape(-1, K + 1), 50)
        detector = SequentialDetector(units, run_length=1e9)
        for counts in videos(units, lasting):
            detector.add_group(counts, sequence=True)
        before = detector.evidence
        for counts in videos(units, video(rng, 20, 50)):
            detector.add_group(counts, sequence=True)
        alarms += detector.evidence > 5 * (before + 20 * 50)
    assert binomtest(alarms, 40, 0.2, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("m", "within"), [(1, None), (3, None), (20, 20), (40, 10)])
def test_few_records_of_the_baseline_allow_slow_growth(m: int, within: int | None) -> None:
    """However far off: once as many records as the baseline has are far off, being so is no longer odd."""
    units = units_of(np.random.default_rng(16).normal(size=(m, K + 1)))
    detector = SequentialDetector(units, run_length=10_000)
    detector.add_records(units.baseline.binning.codes(np.full((400, K + 1), 50.0)))
    assert (detector.alarm_at is None) == (within is None)
    assert within is None or (detector.alarm_at or 400) <= within


def test_constants_ties_and_values_that_are_not_finite() -> None:
    layout = Layout.stacked([("embedding", ["constant", "normal", "zeros"])])
    rng = np.random.default_rng(17)

    def made(n: int) -> NDArray[np.float64]:
        return np.column_stack([np.full(n, 7.0), rng.normal(size=n), np.maximum(rng.normal(size=n) - 0.5, 0)])

    units = units_of(made(1000), layout=layout)
    codes = units.baseline.binning.codes
    calm = SequentialDetector(units, 10_000)
    calm.add_records(codes(made(500)))
    assert calm.alarm_at is None
    for column, value in ((0, 7.1), (0, 6.9), (1, np.nan), (2, np.inf), (0, np.nan)):
        values = made(60)
        values[:, column] = value
        detector = SequentialDetector(units, 10_000)
        detector.add_records(codes(values))
        assert detector.alarm_at is not None and detector.alarm_at <= 20
        assert int(detector.column_evidence().argmax()) == column


def test_after_a_restart_all_is_as_at_the_start_but_for_the_clock(images: BaselineUnits) -> None:
    rng = np.random.default_rng(18)
    detector = SequentialDetector(images, 1000)
    detector.add_records(images.baseline.binning.codes(records(rng, 100) + 1))
    assert detector.alarm_at is not None
    detector.restart()
    assert detector.evidence == 0 and detector.alarm_at is None and not detector.attribution()
    assert detector.records == 100
    detector.add_records(images.baseline.binning.codes(records(rng, 100) + 1))
    assert detector.alarm_at is not None and 100 < detector.alarm_at <= 110


def test_what_does_not_fit_is_refused(images: BaselineUnits) -> None:
    detector = SequentialDetector(images, 1000)
    with pytest.raises(ValueError, match="9 columns"):
        detector.add_records(np.zeros((2, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="beyond the last"):
        detector.add_records(np.full((2, K + 1), 17, dtype=np.uint8))
    with pytest.raises(ValueError, match="shape"):
        detector.add_group(np.ones((2, 3), dtype=np.int64), sequence=True)
    for wrong in (np.zeros((K + 1, 17)), np.eye(K + 1, 17) - 1, np.eye(K + 1, 17) * np.arange(1, K + 2)[:, None]):
        with pytest.raises(ValueError, match="same records"):
            detector.add_group(wrong.astype(np.int64), sequence=False)
    with pytest.raises(ValueError, match="run length"):
        SequentialDetector(images, 0)
    with pytest.raises(ValueError, match="without columns"):
        BaselineUnits(BaselineStatistic.fit(Layout.stacked([]), np.empty((5, 0)), [""] * 5))
    assert detector.records == 0 and detector.evidence == 0
    assert len(detector.add_records(np.empty((0, K + 1), dtype=np.uint8))) == 0
