"""Event time: panes, windows, lateness, the watermark."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import InputError
from monitor.windows import (
    PartitionClock,
    is_late,
    pane_start,
    parse_length,
    parse_time,
    to_text,
    watermark,
    window_of,
)

TIMES = st.integers(min_value=0, max_value=4 * 10**15)


@given(TIMES, st.integers(min_value=1, max_value=10**12))
def test_a_pane_holds_the_time_that_it_was_asked_for(time_us: int, length_us: int) -> None:
    start = pane_start(time_us, length_us)
    assert start <= time_us < start + length_us
    assert start % length_us == 0


@given(TIMES, st.integers(min_value=1, max_value=10**6), st.integers(min_value=1, max_value=50))
def test_a_pane_lies_wholly_in_one_window_of_a_multiple_of_its_length(time_us: int, pane_us: int, times: int) -> None:
    window = window_of(time_us, pane_us * times)
    start = pane_start(time_us, pane_us)
    assert window.start_us <= start
    assert start + pane_us <= window.end_us


@given(TIMES)
def test_times_survive_being_written_and_read(time_us: int) -> None:
    assert parse_time(to_text(time_us)) == time_us


def test_a_time_with_another_zone_is_the_same_moment() -> None:
    assert parse_time("2026-11-23T03:45:00+01:00") == parse_time("2026-11-23T02:45:00Z")
    assert parse_time("2026-11-23") == int(datetime(2026, 11, 23, tzinfo=UTC).timestamp()) * 10**6


@pytest.mark.parametrize("text", ["yesterday", "2026-11-23T02:45:00", ""])
def test_a_time_that_is_unclear_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(InputError, match=repr(text)):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("300", 300), ("45s", 45), ("5m", 300), ("1h", 3600), ("24h", 86400), ("7d", 604800)]
)
def test_lengths_are_read_with_their_unit(text: str, seconds: int) -> None:
    assert parse_length(text) == seconds * 10**6


@pytest.mark.parametrize("text", ["", "0", "0h", "-1h", "1.5h", "1w", "h"])
def test_a_length_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="length of time"):
        parse_length(text)


def test_lateness_is_exact_at_its_bound_and_never_in_files() -> None:
    assert not is_late(90, 100, 10)
    assert is_late(89, 100, 10)
    assert not is_late(-(10**18), None, 0)


def test_an_idle_partition_does_not_hold_a_busy_one_up_and_a_lagging_one_does() -> None:
    busy, idle, lagging = PartitionClock(1000, None), PartitionClock(5, 1200), PartitionClock(400, None)
    assert watermark([busy, idle]) == 1000
    assert watermark([busy, idle, lagging]) == 400


def test_with_all_partitions_idle_the_clock_moves_the_watermark() -> None:
    assert watermark([PartitionClock(5, 1200), PartitionClock(None, 1300)]) == 1200


def test_nothing_is_known_before_every_partition_has_spoken() -> None:
    assert watermark([]) is None
    assert watermark([PartitionClock(None, None), PartitionClock(5, 1200)]) is None
