"""Files as a source: every whole line once, in order, and a clear word about what cannot be read."""

from __future__ import annotations

import gzip
import io
import random
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import InputError
from monitor.sources.files import FileSource
from monitor.sources.protocol import RawRecord

LIMIT = 1000


def read(source: FileSource, per_poll: int = 7) -> list[RawRecord]:
    records: list[RawRecord] = []
    while not source.exhausted:
        records += source.poll(0.0, per_poll).records
    source.close()
    return records


def values(source: FileSource) -> list[bytes | None]:
    return [record.value for record in read(source)]


@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line and b"\r" not in line)),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    last_has_end=st.booleans(),
    zipped=st.booleans(),
    per_poll=st.integers(1, 5),
)
def test_reading_gives_what_splitting_the_bytes_gives(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    line_end: bytes,
    last_has_end: bool,
    zipped: bool,
    per_poll: int,
) -> None:
    data = line_end.join(lines) + (line_end if last_has_end and lines else b"")
    if data.startswith((b"\x1f\x8b", b"\xef\xbb\xbf")):
        return  # looks like gzip or carries a byte order mark: other tests
    path = tmp_path_factory.mktemp("lines") / ("a.jsonl.gz" if zipped else "a.jsonl")
    path.write_bytes(gzip.compress(data) if zipped else data)
    records = read(FileSource([path], LIMIT), per_poll)
    assert [(record.offset, record.value) for record in records] == [
        (number, line) for number, line in enumerate(lines, start=1) if line.strip()
    ]


def test_the_offset_is_the_line_number_and_the_partition_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n   \n{"a": 2}')
    first, second = read(FileSource([path], LIMIT))
    assert (first.offset, second.offset) == (1, 4)
    assert str(second.partition) == f"{path}[0]" and second.partition.cluster == "file"
    assert second.timestamp_us is None


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')
    assert values(FileSource([path], LIMIT)) == [b'{"a": 1}', b'{"a": 2}']


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b""])
def test_a_line_of_just_the_limit_is_read_and_one_byte_more_is_too_large(tmp_path: Path, line_end: bytes) -> None:
    path = tmp_path / "a.jsonl"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b"x" * LIMIT + line_end)
        assert values(FileSource([path], LIMIT)) == [b"x" * LIMIT]
        path.write_bytes(mark + b"x" * (LIMIT + 1) + line_end)
        (record,) = read(FileSource([path], LIMIT))
        assert (record.value, record.problem) == (None, "too_large")


def test_a_line_far_beyond_the_limit_costs_no_memory_and_the_next_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"a\n")
        for _ in range(64):
            file.write(bytes(1024 * 1024))
        file.write(b"\nb\n")
    source = FileSource([path], LIMIT)
    tracemalloc.start()
    records = read(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(record.offset, record.value, record.problem) for record in records] == [
        (1, b"a", None),
        (2, None, "too_large"),
        (3, b"b", None),
    ]
    assert peak < 8 * 1024 * 1024


def test_several_files_follow_each_other_and_progress_is_by_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    paths[0].write_bytes(b"1\n" * 300)
    paths[1].write_bytes(b"2\n" * 100)
    source = FileSource(paths, LIMIT)
    assert source.fraction == 0.0
    got = source.poll(0.0, 301).records
    assert [record.value for record in got[-2:]] == [b"1", b"2"]
    assert not source.exhausted
    first, second = source.progress()
    assert (first.position, first.end_offset) == (301, 301) and first.caught_up_at_us is not None
    assert second.position == 2 and second.caught_up_at_us is None
    read(source)
    assert source.fraction == 1.0


def test_a_paused_source_gives_nothing_and_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2\n")
    source = FileSource([path], LIMIT)
    assert [record.value for record in source.poll(0.0, 1).records] == [b"1"]
    source.pause()
    assert not source.poll(0.0, 1).records and not source.exhausted
    source.resume()
    assert values(source) == [b"2"]


def test_a_gzip_file_that_was_cut_off_gives_its_whole_lines_and_then_says_so(tmp_path: Path) -> None:
    noise = random.Random(7)
    lines = [f'{{"number": {number}, "noise": "{noise.random()}"}}'.encode() for number in range(2000)]
    data = gzip.compress(b"\n".join(lines) + b"\n")
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    source = FileSource([path], LIMIT)
    got: list[bytes | None] = []
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: the gzip stream is cut off after line (\d+)$") as caught:
        while True:
            got += [record.value for record in source.poll(0.0, 50).records]
    assert 100 < len(got) < 2000
    assert got == lines[: len(got)]
    assert str(caught.value).endswith(f"after line {len(got)}")
    assert source.exhausted


def test_a_gzip_file_that_was_damaged_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    data = bytearray(gzip.compress(b"x\n" * 1000))
    data[-6] ^= 0xFF  # the checksum
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: the gzip stream is damaged"):
        read(FileSource([path], LIMIT))


def test_what_is_no_readable_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    good = tmp_path / "good.jsonl"
    good.write_bytes(b"1\n")
    with pytest.raises(InputError, match=r"missing\.jsonl: no such file$"):
        FileSource([good, tmp_path / "missing.jsonl"], LIMIT)
    with pytest.raises(InputError, match=r": is a directory$"):
        FileSource([good, tmp_path], LIMIT)
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b"{}\n")
    with pytest.raises(InputError, match=r"plain\.jsonl\.gz: not a gzip file$"):
        FileSource([good, plain], LIMIT)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    data = b"1\n2\n"
    buffer = io.BufferedReader(io.BytesIO(gzip.compress(data) if zipped else data))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
    source = FileSource(["-"], LIMIT)
    assert source.fraction is None
    assert values(source) == [b"1", b"2"]


def test_one_poll_holds_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes((b"x" * (1024 * 1024 - 1) + b"\n") * 40)
    source = FileSource([path], 8 * 1024 * 1024)
    assert len(source.poll(0.0, 1000).records) < 40
    assert len(read(source)) > 0
