"""A short round of the fuzzer (tests/fuzz_records.py): only BadRecord comes out, in bounded time."""

from __future__ import annotations

import time
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz_records import HEADERS, check_one, extremes, mutations, seeds


@pytest.mark.parametrize("number", range(len(seeds())))
def test_the_fuzzers_seeds_are_valid_before_they_are_damaged(number: int) -> None:
    record = seeds()[number]
    expected = "uri_refused" if record.get("image", {}).get("uri") else "ok"
    assert check_one(msgspec.msgpack.encode(record)) == expected
    assert check_one(msgspec.json.encode(record)) == expected


def test_damaged_records_end_as_records_or_with_a_reason() -> None:
    tally = Counter(check_one(value, headers) for value, headers in mutations(3000, seed=20261123))
    assert tally["ok"] > 100, "damage that nobody notices must be tried too"
    assert len(tally) > 12, "many kinds of damage must be met"


def test_messages_made_to_hurt_are_dealt_with_quickly() -> None:
    check_one(msgspec.msgpack.encode(seeds()[0]))  # compile the kernels before the clock runs
    for value in extremes():
        started = time.perf_counter()
        check_one(value)
        assert time.perf_counter() - started < 5, value[:100]


@given(st.binary(max_size=200), st.sampled_from(HEADERS))
def test_any_bytes_end_as_a_record_or_with_a_reason(value: bytes, headers: tuple[tuple[str, bytes], ...]) -> None:
    check_one(value, headers)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*seeds()[0], *seeds()[4], "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.sampled_from(seeds()), st.data())
def test_any_values_in_any_fields_end_as_a_record_or_with_a_reason(
    record: dict[str, object], data: st.DataObject
) -> None:
    for field in data.draw(st.lists(st.sampled_from(sorted(record)), max_size=2)):
        record = record | {field: data.draw(json_values)}
    check_one(msgspec.msgpack.encode(record))
    check_one(msgspec.json.encode(record))
