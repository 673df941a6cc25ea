"""Choosing what to label: probabilities that hold exactly, draws that spread out, greedy choices that differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.active_learning import (
    COMPONENTS,
    choose_greedily,
    draw_spread,
    points,
    probabilities,
    sketches,
    wishes,
)


@given(wished=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40), count=st.floats(0, 60))
def test_probabilities_add_up_to_what_was_asked_for_and_keep_the_order_of_the_wishes(
    wished: list[float], count: float
) -> None:
    found = probabilities(np.array(wished), count)
    assert ((found >= 0) & (found <= 1)).all()
    assert found.sum() == pytest.approx(min(count, len(wished)))
    order = np.argsort(wished, kind="stable")
    assert (np.diff(found[order]) >= -1e-12).all()


@pytest.mark.parametrize("records", [12, 40])
def test_every_record_is_drawn_as_often_as_its_probability_says(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.active_learning.NEIGHBOURHOOD", 16)  # so that 40 records need three of them
    rng = np.random.default_rng(5)
    where = rng.normal(size=(records, 3))
    chance = probabilities(rng.random(records) + 0.05, 4)
    draws = 4000
    drawn = sum(draw_spread(where, chance, rng).astype(int) for _ in range(draws))
    deviation = np.sqrt(chance * (1 - chance) / draws)
    # 5 standard deviations: with 52 records a false alarm once in 30,000 runs, and the seed is fixed anyway.
    assert (np.abs(drawn / draws - chance) <= 5 * deviation + 1e-9).all()


@given(count=st.integers(0, 20), seed=st.integers(0, 50))
def test_a_draw_has_the_size_that_was_asked_for(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chance = probabilities(rng.random(30) + 0.01, count)
    assert draw_spread(rng.normal(size=(30, 2)), chance, rng).sum() == count


def test_a_draw_spreads_over_the_space_better_than_one_by_one() -> None:
    """Ten heaps of ten: ten draws reach nearly all, where independent ones reach 1 - 0.9 ** 10 = 65 % of them."""
    rng = np.random.default_rng(3)
    heaps = np.repeat(np.arange(10), 10)
    where = np.column_stack([10.0 * np.cos(heaps), 10.0 * np.sin(heaps)]) + rng.normal(0, 0.1, (100, 2))
    reached = [len(set(heaps[draw_spread(where, np.full(100, 0.1), rng)])) for _ in range(50)]
    assert np.mean(reached) > 9.5


def test_records_without_any_embedding_are_drawn_all_the_same() -> None:
    rng = np.random.default_rng(0)
    assert points([None] * 50).shape == (50, 0)
    assert draw_spread(points([None] * 50), np.full(50, 0.2), rng).sum() == 10


def test_a_sketch_keeps_places_and_caps_what_is_far_out() -> None:
    rng = np.random.default_rng(0)
    components = rng.normal(size=(100, COMPONENTS + 4))
    components[7, 0], components[8, 1] = 1e9, np.nan
    rows = sketches(components)
    assert {len(row) for row in rows if row} == {COMPONENTS}
    assert rows[8] is None
    back = points(rows)
    kept = np.delete(np.arange(100), [7, 8])
    assert np.abs(back[kept] - components[kept, :COMPONENTS]).max() <= 1 / 32
    assert back[7, 0] == pytest.approx(127 / 16)
    assert sketches(np.zeros((3, 0))) == [None] * 3


def test_sketches_of_other_axes_count_as_none() -> None:
    assert points([b"\x10\x10", b"\x10", None]).tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


def test_wishes_grow_with_doubt_and_need() -> None:
    found = wishes(np.array([1.0, 0.5, np.nan, 0.5]), [{"car"}, {"car"}, set(), {"car", "bus"}], {"bus": 0.5})
    assert found.tolist() == pytest.approx([0.02, 0.27, 1.02, 0.27 * 3])


class TestGreedy:
    def test_it_goes_where_nothing_was_chosen_yet(self) -> None:
        where = np.array([[0.0], [0.2], [10.0], [10.1], [-10.0]])
        assert choose_greedily(where, np.array([1.0, 0.9, 0.5, 0.45, 0.3]), 3) == [0, 2, 4]

    def test_what_is_known_needs_no_label_again(self) -> None:
        where = np.array([[0.0], [0.2], [10.0]])
        assert choose_greedily(where, np.ones(3), 1, known=np.array([[0.0]])) == [2]

    def test_without_distances_the_wish_decides_and_none_is_chosen_twice(self) -> None:
        wished = np.array([0.1, 0.9, 0.5])
        assert choose_greedily(np.zeros((3, 0)), wished, 5) == [1, 2, 0]
        assert choose_greedily(np.zeros((0, 4)), wished[:0], 5) == []
