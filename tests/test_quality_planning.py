"""Planning: labels that halve an interval do halve it, and a budget goes where it tells most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.quality.planning import Stratum, allocate, plan, widest
from detectors.quality.ratio import RatioSample
from detectors.quality.spotcheck import spotcheck


def sample(count: int, share: float = 1.0, seed: int = 0, spread: float = 1.0) -> RatioSample:
    rng = np.random.default_rng(seed)
    union = rng.lognormal(5, 0.4, count) * (rng.random(count) < share)
    quality = 0.7 + spread * (rng.beta(6, 3, count) - 2 / 3)
    return RatioSample.uniform(union * np.clip(quality, 0, 1), union)


class TestPlan:
    @pytest.mark.parametrize("population", [None, 3000])
    def test_as_many_labels_more_do_halve_the_interval(self, population: int | None) -> None:
        ratios = []
        for seed in range(40):
            few = sample(100, seed=seed)
            planned = plan("car", few, population, price=2.0)
            assert planned.cost == 2.0 * planned.labels
            assert planned.target is not None and planned.expected_width is not None
            assert planned.expected_width <= planned.target * 1.001
            after = spotcheck(sample(100 + planned.labels, seed=1000 + seed), population).width
            assert after is not None and planned.width is not None
            ratios.append(after / planned.width)
        assert np.mean(ratios) == pytest.approx(0.5, abs=0.07)

    def test_never_more_than_the_window_holds(self) -> None:
        planned = plan("car", sample(100), 150, price=1.0)
        assert 0 < planned.labels <= 50
        assert plan("car", sample(100), 100, price=1.0).labels == 0

    def test_labels_with_the_class_are_told_apart(self) -> None:
        planned = plan("bicycle", sample(200, share=0.2), None, price=1.0)
        assert 0.1 < planned.with_class / planned.labels < 0.3

    def test_a_class_without_a_number_gets_a_plan_for_its_first(self) -> None:
        planned = plan("train", RatioSample.uniform([9] + [0] * 19, [10] + [0] * 19), 2000, price=3.0)
        assert (planned.width, planned.target) == (None, None)
        assert (planned.labels, planned.with_class, planned.cost) == (20, 1, 60.0)
        clustered = RatioSample.uniform([0] * 50, [0] * 50, clusters=np.arange(50) // 5)
        by_sequence = spotcheck(clustered)
        assert plan("train", clustered, None, price=1.0).labels == by_sequence.needed * 5

    def test_one_sequence_alone_wants_another(self) -> None:
        union = np.r_[np.full(5, 10.0), np.zeros(45)]
        planned = plan("train", RatioSample.uniform(union, union, clusters=np.arange(50) // 5), None, price=1.0)
        assert (planned.labels, planned.target) == (50, None)
        assert planned.width is not None and planned.width > 0.9

    def test_the_widest_comes_first(self) -> None:
        plans = widest(
            {"calm": sample(100, spread=0.2), "wild": sample(100, spread=1.5), "none": sample(100, share=0.0)},
            2000,
            price=1.0,
        )
        assert [one.name for one in plans] == ["none", "wild", "calm"]

    def test_a_negative_price_is_refused(self) -> None:
        with pytest.raises(ValueError, match="price"):
            plan("car", sample(50), None, price=-1.0)


class TestAllocate:
    def test_is_neymans_optimum(self) -> None:
        strata = [Stratum("a", 1000, 5.0), Stratum("b", 500, 20.0), Stratum("c", 200, 1.0)]
        best = allocate(strata, 150)

        def variance(counts: list[int]) -> float:
            parts = zip(strata, counts, strict=True)
            return sum(one.records**2 * one.spread**2 * (1 / count - 1 / one.records) for one, count in parts)

        counts = [best[one.name][0] for one in strata]
        assert sum(counts) == 150
        rng = np.random.default_rng(0)
        for _ in range(300):
            other = 1 + rng.multinomial(147, rng.dirichlet([1, 1, 1]))
            assert variance(counts) <= variance(other.tolist()) * 1.01

    def test_a_small_stratum_that_matters_is_labelled_whole(self) -> None:
        shares = allocate([Stratum("rare", 10, 1000.0), Stratum("common", 1000, 1.0)], 60)
        assert shares["rare"] == (10, 1.0)
        assert shares["common"][0] == 50

    @given(
        st.lists(st.tuples(st.integers(1, 500), st.floats(0, 100), st.floats(0.1, 5)), min_size=1, max_size=6),
        st.floats(0, 500),
    )
    def test_keeps_to_budget_and_records(self, made: list[tuple[int, float, float]], budget: float) -> None:
        strata = [Stratum(str(number), *values) for number, values in enumerate(made)]
        shares = allocate(strata, budget)
        assert sum(shares[one.name][0] * one.price for one in strata) <= budget + 1e-6
        for one in strata:
            count, probability = shares[one.name]
            assert 0 <= count <= one.records
            assert probability == pytest.approx(count / one.records)

    def test_dear_labels_are_bought_less(self) -> None:
        shares = allocate([Stratum("cheap", 1000, 1.0, 1.0), Stratum("dear", 1000, 1.0, 4.0)], 300)
        assert shares["cheap"][0] == 2 * shares["dear"][0] == 100

    def test_a_stratum_without_records_is_refused_by_name(self) -> None:
        with pytest.raises(ValueError, match="stratum 'empty'"):
            allocate([Stratum("empty", 0, 1.0)], 10)
