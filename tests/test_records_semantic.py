"""Semantic maps: index PNGs of every kind that tools write, read as the specification says, and bombs defused."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from monitor.errors import BadRecord
from monitor.records import Semantic, decode_semantic, semantic_summary
from monitor.records.png import read_samples
from tests.made_png import SIGNATURE, assembled, chunk, filtered_png, header, interlaced_png, png

sides = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)
maps = hnp.arrays(np.uint8, sides)
wide_maps = hnp.arrays(np.uint16, sides)


def read(data: bytes, max_pixels: int = 1_000_000) -> NDArray[Any]:
    return read_samples(data, "semantic.classes_png", max_pixels)


def refused(data: bytes, max_pixels: int = 1_000_000) -> BadRecord:
    with pytest.raises(BadRecord) as caught:
        read(data, max_pixels)
    return caught.value


@given(maps, st.integers(0, 9))
def test_greyscale_by_pillow_comes_back(samples: NDArray[np.uint8], level: int) -> None:
    assert np.array_equal(read(png(samples, compress_level=level)), samples)


@given(wide_maps)
def test_16_bits_by_pillow_come_back(samples: NDArray[np.uint16]) -> None:
    found = read(png(samples))
    assert found.dtype == np.uint16
    assert np.array_equal(found, samples)


@pytest.mark.parametrize(
    "samples", [np.arange(35, dtype=np.uint8).reshape(5, 7), np.arange(35, dtype=np.uint16).reshape(5, 7) * 999]
)
def test_files_by_opencv_come_back(samples: NDArray[Any]) -> None:
    done, data = cv2.imencode(".png", samples)
    assert done
    assert np.array_equal(read(data.tobytes()), samples)


@given(maps, st.integers(1, 256))
def test_palette_indices_stay_indices_whatever_the_colours_and_the_depth(
    samples: NDArray[np.uint8], colours: int
) -> None:
    samples = (samples % colours).astype(np.uint8)
    assert np.array_equal(read(png(samples, colours)), samples)


@pytest.mark.parametrize(("colours", "bits"), [(2, 1), (4, 2), (16, 4), (256, 8)])
def test_narrow_palettes_are_really_among_what_pillow_writes(colours: int, bits: int) -> None:
    samples = (np.arange(77) % colours).astype(np.uint8).reshape(7, 11)
    data = png(samples, colours)
    assert data[24] == bits
    assert np.array_equal(read(data), samples)


@given(maps | wide_maps, st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_every_scanline_filter_is_undone(samples: NDArray[Any], kinds: list[int]) -> None:
    assert np.array_equal(read(filtered_png(samples, kinds)), samples)


@given(maps, st.booleans())
def test_interlaced_files_come_back(samples: NDArray[np.uint8], palette: bool) -> None:
    assert np.array_equal(read(interlaced_png(samples, palette)), samples)


@given(maps | wide_maps)
def test_the_summary_counts_as_numpy_counts(samples: NDArray[Any]) -> None:
    shares, confidence = semantic_summary(samples, None)
    values, counts = np.unique(samples, return_counts=True)
    assert shares == {int(value): count / samples.size for value, count in zip(values, counts, strict=True)}
    assert confidence is None


@given(maps)
def test_the_mean_confidence_is_the_mean_of_its_pixels(samples: NDArray[np.uint8]) -> None:
    _, confidence = semantic_summary(samples, samples)
    assert confidence == pytest.approx(np.mean(samples / 255), abs=1e-12)


def test_both_maps_of_a_record_are_decoded_each_in_its_size() -> None:
    classes, sure = np.full((6, 8), 3, np.uint8), np.full((3, 4), 51, np.uint8)
    indices, confidence = decode_semantic(Semantic(png(classes), png(sure)))
    assert semantic_summary(indices, confidence) == ({3: 1.0}, 0.2)
    assert confidence is not None
    assert confidence.shape == (3, 4)
    assert decode_semantic(Semantic(png(classes)))[1] is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a PNG"),
        (b"\xff\xd8\xff\xe0", "not a PNG"),
        (SIGNATURE, "cut short"),
        (SIGNATURE + header(4, 4)[:20], "cut short"),
        (SIGNATURE + header(4, 4)[:-1] + b"x", "checksum"),
        (SIGNATURE + header(4, 4), "cut short"),
        (SIGNATURE + header(0, 4), "impossible size"),
        (SIGNATURE + header(4, 2**31), "impossible size"),
        (SIGNATURE + header(4, 4, bits=8, colour=2), "8-bit colour"),
        (SIGNATURE + header(4, 4, bits=8, colour=4), "greyscale with alpha"),
        (SIGNATURE + header(4, 4, bits=1), "1-bit greyscale"),
        (SIGNATURE + header(4, 4, bits=16, colour=3), "16-bit palette"),
        (SIGNATURE + header(4, 4, bits=8, colour=9), "colour type 9"),
        (assembled(header(4, 4), bytes(19)), "19 bytes of samples, 20 expected"),
        (assembled(header(4, 4), bytes(21)), "21 bytes of samples, 20 expected"),
        (assembled(header(4, 4), b"\x05" + bytes(19)), "unknown scanline filter"),
        (SIGNATURE + header(4, 4) + chunk(b"IDAT", b"no zlib") + chunk(b"IEND", b""), "damaged"),
        (SIGNATURE + header(4, 4) + chunk(b"IDAT", zlib.compress(bytes(20))[:-2]) + chunk(b"IEND", b""), "cut short"),
        (png(np.zeros((4, 4), np.uint8))[:-12], "cut short"),
        (SIGNATURE + header(4, 4) + b"\xff\xff\xff\xffIDAT", "cut short"),
        (interlaced_png(np.ones((9, 9), np.uint8))[:-40], "semantic.classes_png"),
        (assembled(header(4, 4, interlace=1), b"\x09" * 30), "semantic.classes_png"),
    ],
)
def test_a_file_that_is_no_index_map_is_refused_by_name(data: bytes, words: str) -> None:
    bad = refused(data)
    assert bad.reason == "bad_semantic"
    assert words in bad.detail


@pytest.mark.parametrize("cut", range(40, 100, 7))
def test_a_file_cut_anywhere_is_refused(cut: int) -> None:
    data = png(np.random.default_rng(0).integers(0, 9, (40, 40)).astype(np.uint8))
    assert refused(data[: len(data) * cut // 100]).reason == "bad_semantic"


def test_colour_confidence_is_refused() -> None:
    grey = np.zeros((4, 4), np.uint8)
    for other in (png(grey, 3), png(grey.astype(np.uint16))):
        with pytest.raises(BadRecord, match="bad_semantic: semantic.confidence_png: not an 8-bit greyscale PNG"):
            decode_semantic(Semantic(png(grey), other))


def test_claimed_pixels_are_refused_before_anything_is_allocated() -> None:
    bomb = SIGNATURE + header(100_000, 100_000) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    tracemalloc.start()
    try:
        assert refused(bomb, max_pixels=50_000_000).reason == "semantic_too_large"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_decompression_bomb_is_inflated_no_further_than_its_own_header_says() -> None:
    bomb = assembled(header(100, 100), bytes(200_000_000))
    read(png(np.zeros((4, 4), np.uint8)))
    tracemalloc.start()
    try:
        started = time.perf_counter()
        assert refused(bomb).reason == "bad_semantic"
        taken_s = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(bomb)
    assert taken_s < 1


def test_very_many_tiny_chunks_are_walked_in_bounded_time() -> None:
    tiny = SIGNATURE + header(4, 4) + chunk(b"IDAT", b"") * 300_000 + chunk(b"IEND", b"")
    started = time.perf_counter()
    assert refused(tiny).reason == "bad_semantic"
    assert time.perf_counter() - started < 3
