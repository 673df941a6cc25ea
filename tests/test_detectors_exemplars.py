"""The records that are kept whole: the same ones whoever reads them in what order, and a fair draw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.exemplars import KEPT, Exemplars, typical
from detectors.layout import Layout


def codes_of(ids: list[str]) -> NDArray[np.uint8]:
    """Each record's codes are a function of its id, as in life."""
    return np.array([[len(each) % 7, sum(map(ord, each)) % 11] for each in ids], dtype=np.uint8).reshape(-1, 2)


def kept(*parts: list[str]) -> Exemplars:
    found = Exemplars(2)
    for part in parts:
        other = Exemplars(2)
        other.add(part, codes_of(part))
        found.merge(other)
    return found


@given(ids=st.lists(st.text(max_size=8), unique=True, max_size=120), cuts=st.lists(st.integers(0, 120), max_size=4))
def test_any_split_and_order_keeps_the_same_records(ids: list[str], cuts: list[int]) -> None:
    whole = kept(ids)
    ends = [0, *sorted(cuts), len(ids)]
    parts = [ids[start:end] for start, end in itertools.pairwise(ends)]
    assert kept(*reversed(parts)) == whole
    assert Exemplars.from_bytes(whole.to_bytes()) == whole
    assert len(whole) == min(KEPT, len(ids))
    assert (whole.codes == codes_of(whole.ids)).all()


def test_every_record_has_the_same_chance() -> None:
    # 400 panes of 128 records: the first half of each should give half of what is kept, within 4 standard deviations.
    first = 0
    for pane in range(400):
        ids = [f"cam{pane}-{number:04d}" for number in range(128)]
        first += sum(int(each[-4:]) < 64 for each in kept(ids).ids)
    assert abs(first - 400 * KEPT / 2) < 4 * (400 * KEPT / 4) ** 0.5


def test_damaged_bytes_are_refused() -> None:
    data = kept(["a", "b"]).to_bytes()
    with pytest.raises(ValueError, match="ends early"):
        Exemplars.from_bytes(data[:-1])
    with pytest.raises(ValueError, match="too many"):
        Exemplars.from_bytes(data + b"x")
    with pytest.raises(ValueError, match="at most"):
        Exemplars.from_bytes(b"\x02\x7f" + data[2:])


def test_the_shifted_records_of_a_window_are_the_typical_ones() -> None:
    rng = np.random.default_rng(0)
    layout = Layout.stacked([("embedding", ["component_0", "component_1"])])
    baseline = BaselineStatistic.fit(layout, rng.normal(size=(4000, 2)), [""] * 4000)
    values = rng.normal(size=(200, 2))
    values[150:, 0] += 4.0
    codes = baseline.binning.codes(values)
    counts = np.stack([np.bincount(codes[:, d], minlength=17) for d in range(2)])
    ids = [f"{number:03d}" for number in range(200)]
    found = typical(ids, codes, counts, baseline, [0], most=20)
    assert len(found) == 20
    assert all(int(each) >= 150 or values[int(each), 0] > 1.5 for each, _ in found)
    assert [evidence for _, evidence in found] == sorted((evidence for _, evidence in found), reverse=True)
    assert typical([], codes[:0], counts, baseline, [0], most=20) == []
