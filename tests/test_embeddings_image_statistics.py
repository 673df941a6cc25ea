"""A row of numbers an image: other people's answers, laws, and what a photograph goes through."""

from __future__ import annotations

import colorsys
import io
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from embeddings.image_statistics import COLUMNS, FLOOR, TILE, image_statistics
from embeddings.images import prepare, prepare_sized, probe

PHOTOS: list[NDArray[np.uint8]] = [cv2.resize(photo, (224, 224)) for photo in load_sample_images().images]
HUES = [name for name in COLUMNS if name.startswith("hue_")]


def row_of(image: NDArray[np.uint8], width: int = 640, height: int = 480) -> dict[str, float]:
    return dict(zip(COLUMNS, image_statistics(image, width, height).tolist(), strict=True))


def grey(plane: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.uint8]:
    return np.repeat(np.clip(np.rint(plane), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def luma_of(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (image.astype(np.int64) @ [77, 150, 29] + 128) >> 8


def drawn(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("photo", PHOTOS)
def test_light_is_that_of_opencvs_grey_image(photo: NDArray[np.uint8]) -> None:
    theirs = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(theirs)
    row = row_of(photo)
    assert row["brightness"] == pytest.approx(mean.item() / 255, abs=0.5 / 255)
    assert row["contrast"] == pytest.approx(deviation.item() / 255, abs=0.5 / 255)
    assert row["shadows"] == pytest.approx((theirs < 32).mean(), abs=0.01)
    assert row["highlights"] == pytest.approx((theirs >= 224).mean(), abs=0.01)


def test_saturation_and_hues_are_those_of_the_standard_librarys_hsv() -> None:
    image = drawn(1, 40, 50)
    ordered = np.sort(image.astype(int), axis=2)
    between = 2 * ordered[..., 1] == ordered[..., 0] + ordered[..., 2]  # exactly on the border of two sectors
    image[between] = (200, 30, 40)
    colours = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3).tolist()]
    total = sum(value for _, _, value in colours)
    row = row_of(image)
    assert row["saturation"] == pytest.approx(sum(s * v for _, s, v in colours) / total)
    for sector, name in enumerate(HUES):
        theirs = sum(s * v for h, s, v in colours if int(h * 6 + 0.5) % 6 == sector) / total
        assert row[name] == pytest.approx(theirs), name
    assert sum(row[name] for name in HUES) == pytest.approx(row["saturation"])


@pytest.mark.parametrize(
    ("hue", "colour"),
    [
        ("hue_red", (200, 10, 10)), ("hue_yellow", (200, 200, 10)), ("hue_green", (10, 200, 10)),
        ("hue_cyan", (10, 200, 200)), ("hue_blue", (10, 10, 200)), ("hue_magenta", (200, 10, 200)),
    ],
)  # fmt: skip
def test_a_picture_of_one_colour_is_all_in_that_colours_sector(hue: str, colour: tuple[int, int, int]) -> None:
    row = row_of(np.full((16, 16, 3), colour, dtype=np.uint8))
    assert [name for name in HUES if row[name] > 0] == [hue]
    assert row[hue] == row["saturation"] == 0.95


@pytest.mark.parametrize("photo", PHOTOS)
def test_sharpness_is_the_energy_of_opencvs_laplacian(photo: NDArray[np.uint8]) -> None:
    laplacian = cv2.Laplacian(luma_of(photo).astype(np.uint8), cv2.CV_64F, ksize=1)[1:-1, 1:-1]
    assert row_of(photo)["sharpness"] == pytest.approx(np.log2((laplacian**2).mean() + FLOOR), abs=1e-6)


@pytest.mark.parametrize("photo", PHOTOS)
def test_noise_is_immerkaers_mask_by_opencv_in_the_lower_quarter_of_tiles(photo: NDArray[np.uint8]) -> None:
    mask = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])
    found = np.abs(cv2.filter2D(luma_of(photo).astype(np.float64), -1, mask))[1:-1, 1:-1]
    side = len(found) // TILE
    tiles = found[: side * TILE, : side * TILE].reshape(side, TILE, side, TILE).mean(axis=(1, 3))
    deviation = np.quantile(tiles, 0.25, method="higher") * np.sqrt(np.pi / 2) / 6
    assert row_of(photo)["noise"] == pytest.approx(np.log2(deviation + FLOOR), abs=1e-6)


@pytest.mark.parametrize("deviation", [2.0, 5.0, 10.0, 20.0])
def test_noise_of_known_deviation_is_measured_on_a_ramp_and_under_stripes(deviation: float) -> None:
    rng = np.random.default_rng(3)
    ramp = np.linspace(80, 170, 226)[None, :] + deviation * rng.standard_normal((226, 226))
    stripes = ramp.copy()
    stripes[:100] += 60 * (np.arange(226) // 3 % 2)
    for plane in (ramp, stripes):
        assert 2 ** row_of(grey(plane))["noise"] - FLOOR == pytest.approx(deviation, rel=0.15)


def test_detail_is_a_ratio_of_mean_differences() -> None:
    def step(plane: NDArray[np.int64], lag: int) -> float:
        across, down = np.abs(plane[:, lag:] - plane[:, :-lag]), np.abs(plane[lag:] - plane[:-lag])
        return (across.sum() + down.sum()) / (across.size + down.size) + FLOOR

    photo = PHOTOS[0][:150]
    luma, colour = luma_of(photo), photo[..., 0].astype(np.int64) - photo[..., 1]
    row = row_of(photo)
    assert row["fine_detail"] == pytest.approx(np.log2(step(luma, 1) / step(luma, 2)), abs=1e-6)
    assert row["middle_detail"] == pytest.approx(np.log2(step(luma, 2) / step(luma, 4)), abs=1e-6)
    assert row["colour_detail"] == pytest.approx(np.log2(step(colour, 2) / step(colour, 4)), abs=1e-6)


def test_white_noise_has_no_scale_and_a_ramp_is_all_coarse() -> None:
    noise = row_of(grey(128 + 30 * np.random.default_rng(0).standard_normal((200, 200))))
    ramp = row_of(grey(np.add.outer(2 * np.arange(60), 2 * np.arange(60))))
    assert [noise[name] for name in ("fine_detail", "middle_detail")] == pytest.approx([0, 0], abs=0.02)
    assert [ramp[name] for name in ("fine_detail", "middle_detail")] == pytest.approx([-1, -1], abs=0.04)


def test_white_balance_is_the_logarithm_of_the_gains() -> None:
    dim = drawn(5, 64, 64) // 2
    plain, cast = row_of(dim), row_of(np.asarray(dim * np.array([2, 1, 1]), dtype=np.uint8))
    assert cast["red_green"] - plain["red_green"] == pytest.approx(1, abs=0.03)
    cast = row_of(np.asarray(dim * np.array([1, 1, 2]), dtype=np.uint8))
    assert cast["blue_yellow"] - plain["blue_yellow"] == pytest.approx(1, abs=0.03)
    assert cast["red_green"] == plain["red_green"]


def test_half_the_light_leaves_colour_and_detail_as_they_are() -> None:
    bright = PHOTOS[0] & 0xFE
    one, half = row_of(bright), row_of(bright // 2)
    assert half["brightness"] == pytest.approx(one["brightness"] / 2, abs=0.002)
    assert half["contrast"] == pytest.approx(one["contrast"] / 2, abs=0.002)
    assert half["saturation"] == one["saturation"]
    assert [half[name] for name in HUES] == [one[name] for name in HUES]
    for name in ("red_green", "blue_yellow", "fine_detail", "middle_detail", "colour_detail"):
        assert half[name] == pytest.approx(one[name], abs=0.03), name
    assert half["sharpness"] == pytest.approx(one["sharpness"] - 2, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_mirrored_or_turned_images_have_the_same_statistics(seed: int, rows: int, columns: int) -> None:
    image = drawn(seed, 2 + rows * TILE, 2 + columns * TILE)
    row = image_statistics(image, 300, 200)
    np.testing.assert_array_equal(image_statistics(image[:, ::-1], 300, 200), row)
    np.testing.assert_array_equal(image_statistics(image[::-1], 300, 200), row)
    turned = image_statistics(image.transpose(1, 0, 2), 200, 300)
    np.testing.assert_array_equal(turned[:-1], row[:-1])
    assert turned[-1] == -row[-1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(10, 50), width=st.integers(10, 50), top=st.integers(0, 255))
def test_every_value_is_finite_and_shares_lie_in_0_to_1(seed: int, height: int, width: int, top: int) -> None:
    image = np.minimum(drawn(seed, height, width), np.uint8(top))
    row = row_of(image)
    assert all(np.isfinite(value) for value in row.values())
    for name in ("brightness", "contrast", "shadows", "highlights", "saturation", *HUES):
        assert 0 <= row[name] <= 1, name


@pytest.mark.parametrize("level", [0, 255])
def test_an_image_without_anything_in_it_has_finite_values(level: int) -> None:
    row = row_of(np.full((32, 32, 3), level, dtype=np.uint8))
    assert (row["brightness"], row["shadows"], row["highlights"]) == (level / 255, level == 0, level == 255)
    zero = {*COLUMNS} - {"brightness", "shadows", "highlights", "sharpness", "noise", "pixels", "aspect"}
    assert all(row[name] == 0 for name in zero)
    assert row["sharpness"] == row["noise"] == np.log2(FLOOR)


def test_the_extremes_of_second_differences_do_not_overflow() -> None:
    board = 255 * (np.add.outer(np.arange(42), np.arange(42)) % 2)
    row = row_of(grey(board))
    assert row["sharpness"] == pytest.approx(np.log2((4 * 255 * 2 / 2) ** 2 + FLOOR), abs=1e-6)
    assert row["noise"] == pytest.approx(np.log2(8 * 255 * np.sqrt(np.pi / 2) / 6 + FLOOR), abs=1e-6)


def test_the_rows_of_many_threads_are_those_of_one() -> None:
    images = [drawn(seed, 64, 64) for seed in range(40)]
    alone = [image_statistics(image, 64, 64) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: image_statistics(image, 64, 64), images))
    np.testing.assert_array_equal(together, alone)


def test_an_image_is_left_as_it_was() -> None:
    image = PHOTOS[1].copy()
    image.setflags(write=False)
    row_of(image)
    np.testing.assert_array_equal(image, PHOTOS[1])


def test_logarithms_are_rounded_so_that_a_constant_is_the_same_on_every_machine() -> None:
    row = row_of(PHOTOS[0], 1920, 1080)
    for name in COLUMNS[-7:]:
        assert (row[name] * 2**20).is_integer(), name
    assert row["pixels"] == pytest.approx(np.log10(1920 * 1080), abs=1e-6)
    assert row["aspect"] == pytest.approx(np.log2(16 / 9), abs=1e-6)


def test_a_file_gives_its_own_size_and_shows_its_quality() -> None:
    def through(quality: int) -> dict[str, float]:
        file = io.BytesIO()
        Image.fromarray(load_sample_images().images[0]).save(file, "JPEG", quality=quality)
        pixels, width, height = prepare_sized(file.getvalue(), 224)
        np.testing.assert_array_equal(pixels, prepare(file.getvalue(), 224))
        assert (width, height) == probe(file.getvalue())[1:]
        return row_of(pixels, width, height)

    good, poor = through(95), through(5)
    assert good["pixels"] == poor["pixels"] == pytest.approx(np.log10(640 * 427), abs=1e-6)
    assert poor["noise"] < good["noise"] - 0.5
    assert poor["colour_detail"] < good["colour_detail"]


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 4)])
def test_what_has_not_three_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        image_statistics(np.zeros(shape, dtype=np.uint8), 64, 64)


@pytest.mark.parametrize("shape", [(9, 64, 3), (64, 9, 3), (32768, 10, 3)])
def test_sides_that_the_sums_cannot_hold_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected sides of 10 to 32767"):
        image_statistics(np.zeros(shape, dtype=np.uint8), 64, 64)


def test_the_largest_sums_do_not_overflow() -> None:
    row = row_of(np.full((32767, 10, 3), (255, 255, 255), dtype=np.uint8))
    assert (row["brightness"], row["contrast"], row["highlights"]) == (1, 0, 1)
    assert row_of(np.full((32767, 10, 3), (255, 0, 0), dtype=np.uint8))["hue_red"] == 1


def test_other_types_and_originals_without_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        image_statistics(np.zeros((64, 64, 3), dtype=np.float32), 64, 64)
    with pytest.raises(ValueError, match="an original of 0 x 5 pixels"):
        image_statistics(np.zeros((64, 64, 3), dtype=np.uint8), 0, 5)
