"""Merging is adding: no order, batch or detour through bytes changes a bit."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.statistic import FORMAT_VERSION, MAGIC, PaneStatistic
from detectors.wire import Writer

BINS = 3


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, list[tuple[np.ndarray, list[str]]]]:
    """Code rows of some sequences, cut into batches; enough of them that groups become large as well as small."""
    dimensions = draw(st.integers(0, 4))
    result = []
    for _ in range(draw(st.integers(1, 6))):
        names = draw(st.lists(st.sampled_from(["", "a", "b", "ä", "\U0001f697"]), max_size=60))
        seed = draw(st.integers(0, 2**31))
        codes = np.random.default_rng(seed).integers(0, BINS + 1, (len(names), dimensions)).astype(np.uint8)
        result.append((codes, names))
    return dimensions, result


def of(dimensions: int, *parts: tuple[np.ndarray, list[str]]) -> PaneStatistic:
    statistic = PaneStatistic(dimensions, BINS)
    for codes, names in parts:
        statistic.add(codes, names)
    return statistic


@given(batches())
def test_counts_are_numpys_of_all_records_and_of_each_sequence(
    drawn: tuple[int, list[tuple[np.ndarray, list[str]]]],
) -> None:
    dimensions, parts = drawn
    statistic = of(dimensions, *parts)
    codes = np.concatenate([codes for codes, _ in parts])
    names = np.array([name for _, names in parts for name in names], dtype=object)

    def count(rows: np.ndarray) -> list[list[int]]:
        return [np.bincount(column, minlength=BINS + 1).tolist() for column in rows.T]

    assert statistic.records == len(names)
    assert statistic.sequences == len(set(names) - {""})
    assert statistic.counts().tolist() == count(codes)
    assert {group.sequence: group.counts.tolist() for group in statistic.groups()} == {
        name: count(codes[names == name]) for name in set(names)
    }
    assert {group.sequence: group.records for group in statistic.groups()} == statistic.sizes()


@given(batches(), st.randoms(use_true_random=False))
def test_any_batching_and_any_order_of_merging_gives_the_same_bytes(
    drawn: tuple[int, list[tuple[np.ndarray, list[str]]]], random: object
) -> None:
    dimensions, parts = drawn
    whole = of(dimensions, *parts)
    records = [(codes[i : i + 1], names[i : i + 1]) for codes, names in parts for i in range(len(names))]
    random.shuffle(records)  # type: ignore[attr-defined]
    assert of(dimensions, *records).to_bytes() == whole.to_bytes()

    panes = [of(dimensions, part) for part in parts]
    random.shuffle(panes)  # type: ignore[attr-defined]
    while len(panes) > 1:  # merge neighbours in a random tree
        at = random.randrange(len(panes) - 1)  # type: ignore[attr-defined]
        panes[at : at + 2] = [PaneStatistic.merged(panes[at : at + 2])]
    assert panes[0].to_bytes() == whole.to_bytes()
    assert panes[0] == whole


@given(batches(), batches())
def test_subtracting_inverts_merging(
    first: tuple[int, list[tuple[np.ndarray, list[str]]]], second: tuple[int, list[tuple[np.ndarray, list[str]]]]
) -> None:
    dimensions = first[0]
    one = of(dimensions, *first[1])
    other = of(dimensions, *[(codes[:, :1].repeat(dimensions, 1), names) for codes, names in second[1] if codes.size])
    before = one.to_bytes()
    one.merge(other)
    one.subtract(other)
    assert one.to_bytes() == before
    one.merge(one)
    assert one.records == 2 * sum(len(names) for _, names in first[1])


@given(batches())
def test_bytes_bring_back_an_equal_statistic_that_goes_on_counting(
    drawn: tuple[int, list[tuple[np.ndarray, list[str]]]],
) -> None:
    dimensions, parts = drawn
    whole = of(dimensions, *parts)
    back = PaneStatistic.from_bytes(of(dimensions, *parts[:-1]).to_bytes())
    back.add(*parts[-1])
    assert back == whole
    assert back.to_bytes() == whole.to_bytes()
    assert back.counts().tolist() == whole.counts().tolist()


@given(st.binary(max_size=200), st.booleans())
def test_hostile_bytes_are_refused_with_a_value_error(data: bytes, packed: bool) -> None:
    if packed:
        header = Writer()
        header.raw(MAGIC + bytes([FORMAT_VERSION]))
        header.number(len(data))
        data = header.data() + zlib.compress(data)
    try:
        PaneStatistic.from_bytes(data)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_no_flipped_byte_goes_unnoticed_or_gives_other_records(at: int) -> None:
    statistic = PaneStatistic(4, BINS)
    rng = np.random.default_rng(0)
    statistic.add(rng.integers(0, 4, (50, 4)).astype(np.uint8), ["a", ""] * 25)
    data = bytearray(statistic.to_bytes())
    data[at % len(data)] ^= 0x40
    with pytest.raises(ValueError, match="pane statistic"):
        PaneStatistic.from_bytes(bytes(data))


def test_a_newer_format_a_stranger_and_a_bomb_are_told_apart() -> None:
    data = PaneStatistic(2, 4).to_bytes()
    with pytest.raises(ValueError, match="has format 3, this release reads format 2"):
        PaneStatistic.from_bytes(data[:4] + b"\x03" + data[5:])
    with pytest.raises(ValueError, match="not a pane statistic"):
        PaneStatistic.from_bytes(b"PK\x03\x04 something else")
    bomb = Writer()
    bomb.raw(MAGIC + bytes([FORMAT_VERSION]))
    bomb.number(1 << 40)
    bomb.raw(zlib.compress(bytes(1000)))
    with pytest.raises(ValueError, match="1099511627776 bytes of content"):
        PaneStatistic.from_bytes(bomb.data())
    liar = Writer()
    liar.raw(MAGIC + bytes([FORMAT_VERSION]))
    liar.number(10)
    liar.raw(zlib.compress(bytes(1 << 20)))
    with pytest.raises(ValueError, match="content is not 10 bytes long"):
        PaneStatistic.from_bytes(liar.data())


@pytest.mark.parametrize(("records", "width"), [(3, 1), (200, 1), (300, 2), (70_000, 4)])
def test_panes_of_the_format_with_whole_counts_are_read(records: int, width: int) -> None:
    """As a release before wrote them: groups by name, sorted codes or counts in ``width`` bytes, lowest first."""
    codes = np.repeat([[0, 1], [0, 2], [3, 2]], [1, records // 3, records - 1 - records // 3], axis=0).astype(np.uint8)
    statistic = of(2, (codes, ["a"] * records), (codes[:1], [""]))
    content = Writer()
    for number in (2, BINS, 2):
        content.number(number)
    content.text("")
    content.number(1)
    content.raw(bytes([0, 1]))
    content.text("a")
    content.number(records)
    if records <= BINS + 1:
        content.raw(np.sort(codes.T, axis=1).tobytes())
    else:
        content.number(width)
        counts = [[int((codes[:, column] == code).sum()) for code in range(BINS + 1)] for column in range(2)]
        content.raw(b"".join(count.to_bytes(width, "little") for row in counts for count in row))
    old = Writer()
    old.raw(MAGIC + b"\x01")
    old.number(len(content.data()))
    old.raw(zlib.compress(content.data(), 1))
    read = PaneStatistic.from_bytes(old.data())
    assert read == statistic
    assert PaneStatistic.from_bytes(read.to_bytes()) == statistic
    assert read.to_bytes() == statistic.to_bytes() != old.data()


def test_a_version_without_a_baseline_still_counts_records_and_sequences() -> None:
    statistic = PaneStatistic(0, 16)
    statistic.add(np.empty((3, 0), dtype=np.uint8), ["", "a", "b"])
    back = PaneStatistic.from_bytes(statistic.to_bytes())
    assert (back.records, back.sequences, back.counts().shape) == (3, 2, (0, 17))


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    statistic = of(1, (np.array([[1], [2]], dtype=np.uint8), ["a", "b"]))
    before = statistic.to_bytes()
    with pytest.raises(ValueError, match="1 dimensions, the other 2"):
        statistic.merge(PaneStatistic(2, BINS))
    with pytest.raises(ValueError, match="3 bins, the other 4"):
        statistic.merge(PaneStatistic(1, 4))
    with pytest.raises(ValueError, match="code 4 is beyond"):
        statistic.add(np.array([[4]], dtype=np.uint8), ["a"])
    with pytest.raises(ValueError, match="2 sequences"):
        statistic.add(np.array([[1]], dtype=np.uint8), ["a", "b"])
    with pytest.raises(ValueError, match="cannot subtract"):
        statistic.subtract(of(1, (np.array([[1], [1]], dtype=np.uint8), ["a", "b"])))
    with pytest.raises(ValueError, match="sequence 'c' is not in the window"):
        statistic.subtract(of(1, (np.array([[1]], dtype=np.uint8), ["c"])))
    with pytest.raises(ValueError, match="nothing to merge"):
        PaneStatistic.merged([])
    assert statistic.to_bytes() == before


def test_a_pane_of_256_dimensions_stays_small() -> None:
    rng = np.random.default_rng(0)
    pane, with_sequences = PaneStatistic(256, 16), PaneStatistic(256, 16)
    for batch in range(100):
        codes = rng.integers(0, 16, (32, 256)).astype(np.uint8)
        pane.add(codes, [""] * 32)
        with_sequences.add(codes, [f"seq{batch // 6}"] * 32)
    assert len(pane.to_bytes()) <= 32 << 10
    assert len(with_sequences.to_bytes()) / with_sequences.sequences <= 4 << 10
