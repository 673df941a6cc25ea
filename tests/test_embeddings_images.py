"""Images in, pixels out: the same as Pillow's, and nothing hostile gets far."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from embeddings.images import ImageError, ImageLimits, prepare, probe

PHOTO: NDArray[np.uint8] = load_sample_images().images[0][:400, :600]


def encoded(pixels: NDArray[np.uint8], kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, raw: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    filtering = cv2.INTER_AREA if max(pixels.shape[:2]) >= 2 * size else cv2.INTER_LINEAR_EXACT
    return cv2.resize(pixels, (size, size), interpolation=filtering).astype(np.int64)


def reason(data: bytes, limits: ImageLimits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        prepare(data, 224, limits or ImageLimits())
    assert caught.value.reason in str(caught.value) and "\n" not in str(caught.value)
    return caught.value.reason


KINDS = {
    "JPEG": ("image/jpeg", encoded(PHOTO, "JPEG", quality=90)),
    "progressive JPEG": ("image/jpeg", encoded(PHOTO, "JPEG", progressive=True)),
    "grey JPEG": ("image/jpeg", encoded(PHOTO, "JPEG", mode="L")),
    "CMYK JPEG": ("image/jpeg", encoded(PHOTO, "JPEG", mode="CMYK")),
    "PNG": ("image/png", encoded(PHOTO, "PNG")),
    "grey PNG": ("image/png", encoded(PHOTO, "PNG", mode="L")),
    "palette PNG": ("image/png", encoded(PHOTO, "PNG", mode="P")),
    "PNG of one bit": ("image/png", encoded(PHOTO, "PNG", mode="1")),
    "PNG with alpha": ("image/png", encoded(PHOTO, "PNG", mode="RGBA")),
    "grey PNG with alpha": ("image/png", encoded(PHOTO, "PNG", mode="LA")),
    "WebP": ("image/webp", encoded(PHOTO, "WEBP", quality=80)),
    "lossless WebP": ("image/webp", encoded(PHOTO, "WEBP", lossless=True)),
    "WebP with alpha": ("image/webp", encoded(PHOTO, "WEBP", mode="RGBA")),
    "BMP": ("image/bmp", encoded(PHOTO, "BMP")),
    "palette BMP": ("image/bmp", encoded(PHOTO, "BMP", mode="P")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_probe_agrees_with_pillow_on_every_kind_of_image(kind: str) -> None:
    media_type, data = KINDS[kind]
    assert probe(data) == (media_type, *Image.open(io.BytesIO(data)).size) == (media_type, 600, 400)


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_pixels_are_those_of_pillow(kind: str) -> None:
    data = KINDS[kind][1]
    pixels = prepare(data, 224)
    assert pixels.shape == (224, 224, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    difference = np.abs(pixels.astype(int) - resized(whole, 224))
    # JPEG is decoded at a smaller scale, and lossy WebP's chroma is enlarged by another filter; the rest is the same.
    assert difference.mean() < (2.5 if kind.endswith(("JPEG", "WebP")) else 0.01)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "JPEG" in kind])
def test_a_jpeg_that_cannot_be_decoded_at_half_the_size_has_the_pixels_of_pillow(kind: str) -> None:
    data = KINDS[kind][1]
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    # libjpeg-turbo converts CMYK in another order of rounding than Pillow.
    assert np.abs(prepare(data, 400).astype(int) - resized(whole, 400)).mean() < (1.0 if "CMYK" in kind else 0.01)


def test_resizing_averages_every_pixel_of_the_area() -> None:
    square = PHOTO[:384, :384]
    means = square.reshape(64, 6, 64, 6, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(prepare(encoded(square, "PNG"), 64) - means).max() <= 0.51


def test_sixteen_bits_a_channel_are_cut_to_the_upper_eight() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pixels = prepare(png(64, 64, 16, 0, raw), 64)
    assert np.array_equal(pixels, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    square = PHOTO[:224, :224]
    assert np.array_equal(prepare(encoded(square, "PNG"), 224), square)


def test_a_jpeg_is_decoded_at_no_less_than_the_asked_size_and_averages_like_a_full_decode() -> None:
    large = cv2.resize(PHOTO, (2400, 1600), interpolation=cv2.INTER_CUBIC)
    data = encoded(np.asarray(large, dtype=np.uint8), "JPEG", quality=95)
    whole = cv2.resize(np.asarray(Image.open(io.BytesIO(data))), (224, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(prepare(data, 224).astype(int) - whole).mean() < 1.0


def test_the_two_filters_agree_on_smooth_images() -> None:
    smooth = cv2.GaussianBlur(np.asarray(PHOTO[:400, :400]), (0, 0), 6)
    area = cv2.resize(smooth, (224, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(prepare(encoded(np.asarray(smooth, np.uint8), "PNG"), 224).astype(int) - area).mean() < 0.5


def test_a_small_image_is_enlarged() -> None:
    assert prepare(encoded(PHOTO[:20, :30], "JPEG"), 224).shape == (224, 224, 3)


def test_an_orientation_tag_is_ignored_because_masks_lie_on_the_stored_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP"):
        turned, plain = encoded(PHOTO, kind, exif=exif), encoded(PHOTO, kind)
        assert np.array_equal(prepare(turned, 64), prepare(plain, 64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_cut_file_is_refused(kind: str, share: float) -> None:
    data = KINDS[kind][1]
    assert reason(data[: int(len(data) * share)]) in ("image_truncated", "image_undecodable")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_in_its_middle_is_called_truncated(kind: str) -> None:
    data = KINDS[kind][1]
    assert reason(data[: len(data) // 2]) == "image_truncated"


def test_a_png_without_its_end_is_truncated_and_one_with_a_wrong_checksum_undecodable() -> None:
    data = KINDS["PNG"][1]
    assert reason(data[:-12]) == "image_truncated"
    assert reason(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]) == "image_undecodable"


def test_a_png_whose_compressed_data_ends_early_is_refused() -> None:
    assert reason(png(64, 64, 8, 2, b"\0" * 1000)) == "image_undecodable"


def test_what_is_no_image_is_named_so() -> None:
    for data in (b"", b"hello", b"GIF89a" + bytes(100), b"%PDF-1.7", b"<svg/>"):
        assert reason(data) == "image_format"


def test_a_decompression_bomb_is_refused_at_once() -> None:
    bomb = png(100_000, 100_000, 8, 2, bytes(10_000))
    vp8x = b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" * 2
    bmp = b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 100_000, 100_000, 1, 24, 0) + bytes(40)
    jpeg = b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 65_535, 65_535) + bytes(100)
    started = time.perf_counter()
    for data in (bomb, vp8x + bytes(100), bmp, jpeg):
        assert reason(data) == "image_too_large"
    assert time.perf_counter() - started < 0.5


def test_limits_are_inclusive() -> None:
    data = KINDS["PNG"][1]
    prepare(data, 32, ImageLimits(max_pixels=600 * 400, max_bytes=len(data)))
    assert reason(data, ImageLimits(max_pixels=600 * 400 - 1)) == "image_too_large"
    assert reason(data, ImageLimits(max_bytes=len(data) - 1)) == "image_too_large"


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = KINDS["progressive JPEG"][1]
    assert reason(data[:-2] + b"\xff\xda\x00\x08" * 1000 + data[-2:]) == "image_undecodable"


def test_empty_sides_are_refused() -> None:
    assert reason(png(0, 5, 8, 2, b"")) == "image_undecodable"
    assert reason(b"\xff\xd8\xff\xc0\x00\x11\x08" + bytes(100)) == "image_undecodable"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damaged_files_give_pixels_or_an_image_error_and_never_anything_else(kind: str, draw: st.DataObject) -> None:
    data = bytearray(KINDS[kind][1][:20_000])
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, min(len(data) - 1, 400)))] = draw.draw(st.integers(0, 255))
    try:
        assert prepare(bytes(data), 32).shape == (32, 32, 3)
    except ImageError as error:
        assert error.reason in ("image_format", "image_truncated", "image_too_large", "image_undecodable")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF....WEBP"]))
def test_random_bytes_never_pass_for_an_image(noise: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        prepare(start + noise, 32)


def test_many_threads_get_the_same_pixels_as_one() -> None:
    expected = {kind: prepare(data, 96) for kind, (_, data) in KINDS.items()}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            wrong.extend(k for k, (_, data) in KINDS.items() if not np.array_equal(prepare(data, 96), expected[k]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
