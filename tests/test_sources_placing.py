"""Where a partition goes on: never before what is there, never past it, and never in silence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.sources.placing import place
from monitor.sources.protocol import Gap, Partition

CAMERA = Partition("c", "t", "predictions", 0)
offsets = st.integers(0, 1000)


@given(wanted=st.none() | offsets, ends=st.tuples(offsets, offsets), whole=st.booleans(), diverged=st.none() | offsets)
def test_it_goes_on_inside_the_log_and_every_jump_is_told(
    wanted: int | None, ends: tuple[int, int], whole: bool, diverged: int | None
) -> None:
    beginning, end = sorted(ends)
    found = place(CAMERA, wanted, beginning, end, from_beginning=whole, diverged_at=diverged)
    assert beginning <= found.start <= end
    if wanted is not None:
        assert (found.start == wanted) == (found.gap is None)
        if found.gap is not None:
            assert found.remark and found.gap.stop == found.start
            # What is counted as dropped is exactly what retention took.
            assert found.gap.stop - found.gap.start == max(0, beginning - wanted)
    else:
        assert found.gap is None and found.start == (beginning if whole else end)


def test_a_log_that_parted_from_what_was_read_goes_on_where_it_parted() -> None:
    found = place(CAMERA, 80, 10, 100, from_beginning=True, diverged_at=60)
    assert found.start == 60 and found.gap == Gap(CAMERA, 60, 60, "truncated")


def test_a_divergence_beyond_what_was_read_is_none() -> None:
    assert place(CAMERA, 80, 10, 100, from_beginning=True, diverged_at=90).start == 80
