"""Kept images: names that no record can bend, two places, what is chosen, what is redacted, what expires."""

from __future__ import annotations

import base64
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from monitor.classes import Classes
from monitor.errors import BadRecord, SettingsError
from monitor.images import ImageName, ImageStore, ImageStoreError, input_digest, name_of, open_images
from monitor.images.expiry import expire_images
from monitor.images.keeping import ImageKeeper
from monitor.images.local_files import LocalImages
from monitor.images.redaction import obscured, region_of
from monitor.ingest import Ingest
from monitor.masks import encode_rle
from monitor.records import Limits, Prediction, decode
from monitor.settings import SampleSettings, Settings
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.store import Store
from monitor.windows import DAY_US
from tests.embedded import (
    HOUR_US,
    NOW_US,
    encode,
    feed,
    image_record,
    ingest_of,
    log_of,
    open_store,
    outcomes_of,
    partition,
    picture,
    run,
    settings_of,
)
from tests.made_records import prediction

EVENT_US = NOW_US - 2 * HOUR_US
HOSTILE = ["../../etc/passwd", "/etc/passwd", "a/../b", "..", ".", "", "a\0b", "C:\\x", "x" * 256, "\u202e", "%2e%2e/"]


def record(number: int = 1, **changes: Any) -> Prediction:
    raw = RawRecord(Partition("c", "t", "t", 0), 0, encode(image_record(number, EVENT_US, **changes)), None, [], None)
    found = decode(raw, Limits())
    assert isinstance(found, Prediction)
    return found


class TestNames:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_nothing_that_a_record_says_is_in_a_name(self, text: str, tmp_path: Path) -> None:
        name = name_of(text, text, text, EVENT_US)
        assert ImageName.parse(str(name)) == name
        images = LocalImages(tmp_path / "images")
        assert images.put(name, b"picture")
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path.relative_to(tmp_path / "images").as_posix() for path in files] == [str(name)]

    @given(st.text(max_size=256), st.integers(0, 10**16))
    def test_every_name_can_be_read_back(self, text: str, time_us: int) -> None:
        name = name_of(text, "1", text, time_us, "webp")
        assert ImageName.parse(str(name)) == name
        assert name.input == input_digest(text)

    def test_identities_have_names_of_their_own(self) -> None:
        parts = [("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"), ("a", "c", "b")]
        assert len({str(name_of(*one, EVENT_US)) for one in parts}) == len(parts)

    @pytest.mark.parametrize("text", ["../x", "2026-11-23/../../x", "", "2026-11-23/" + "0" * 16])
    def test_no_other_name_reaches_the_file_system(self, text: str, tmp_path: Path) -> None:
        assert ImageName.parse(text) is None
        images = LocalImages(tmp_path)
        forged = ImageName("2026-11-23", "..", "..", "0" * 16, text, "jpg")
        for call in (images.get, images.has, lambda name: images.put(name, b""), lambda name: images.delete([name])):
            with pytest.raises(ValueError, match="not the name of an image"):
                call(forged)
        assert list(images.names("../..")) == []


class TestLocalFiles:
    @pytest.fixture
    def images(self, tmp_path: Path) -> LocalImages:
        return LocalImages(tmp_path / "images")

    def test_what_was_put_is_there_until_it_is_deleted(self, images: LocalImages, tmp_path: Path) -> None:
        one, other = (name_of("m", "1", text, EVENT_US) for text in ("a", "b"))
        assert not images.has(one) and images.get(one) is None and images.days() == []
        assert images.put(one, b"first") and images.put(other, b"other")
        assert not images.put(one, b"second"), "what is there stays"
        assert images.get(one) == b"first"
        assert [str(name) for name in images.names(one.day)] == sorted([str(one), str(other)])
        assert images.delete([one, other, one]) == 2
        assert images.days() == []
        assert [path for path in (tmp_path / "images").rglob("*") if path.is_dir()] == []

    def test_files_are_their_owners_alone(self, images: LocalImages, tmp_path: Path) -> None:
        name = name_of("m", "1", "a", EVENT_US)
        images.put(name, b"x")
        assert (tmp_path / "images" / str(name)).stat().st_mode & 0o777 == 0o600

    def test_half_a_file_is_never_seen_and_goes_in_time(self, images: LocalImages, tmp_path: Path) -> None:
        name = name_of("m", "1", "a", EVENT_US)
        images.put(name, b"x")
        torn = (tmp_path / "images" / str(name)).with_name(".tmp-0123")
        torn.write_bytes(b"half")
        assert list(images.names(name.day)) == [name] and torn.exists()
        os.utime(torn, (0, 0))
        assert list(images.names(name.day)) == [name] and not torn.exists()

    def test_writers_of_the_same_image_do_not_mix(self, images: LocalImages) -> None:
        name = name_of("m", "1", "a", EVENT_US)
        contents = [bytes([i]) * 100_000 for i in range(8)]
        done: list[bool] = []
        threads = [threading.Thread(target=lambda each=each: done.append(images.put(name, each))) for each in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == [False] * 7 + [True] and images.get(name) in contents

    def test_a_folder_that_cannot_be_written_is_an_error_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(ImageStoreError, match="Not a directory"):
            LocalImages(tmp_path / "file").put(name_of("m", "1", "a", EVENT_US), b"x")


@pytest.mark.parametrize("url", ["https://x/y", "s3://", "s3://key:secret@bucket/x"])
def test_an_unknown_place_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="samples.url") as caught:
        open_images(settings_of(tmp_path, samples={"url": url}))
    assert "secret" not in str(caught.value)


class Memory:
    """An image store in memory."""

    def __init__(self) -> None:
        self.files: dict[ImageName, bytes] = {}
        self.down = False

    def describe(self) -> str:
        return "memory"

    def put(self, name: ImageName, data: bytes) -> bool:
        if self.down:
            raise ImageStoreError("memory: away")
        return self.files.setdefault(name, data) is data

    def get(self, name: ImageName) -> bytes | None:
        return self.files.get(name)

    def has(self, name: ImageName) -> bool:
        return name in self.files

    def delete(self, names: Any) -> int:
        return sum(self.files.pop(name, None) is not None for name in list(names))

    def days(self) -> list[str]:
        return sorted({name.day for name in self.files})

    def names(self, day: str) -> Iterator[ImageName]:
        return iter(sorted(name for name in self.files if name.day == day))


CLASSES = Classes(("cat", "dog"), (0, 1))


def keeper_of(images: ImageStore, clock: Any = lambda: 0.0, **sections: Any) -> ImageKeeper:
    return ImageKeeper(images, msgspec.convert(sections, Settings), clock=clock)


class TestKeeping:
    def keep(self, keeper: ImageKeeper, number: int, **changes: Any) -> None:
        keeper.keep(record(number, **changes), lambda: picture(number), CLASSES)

    def test_any_order_and_any_number_of_workers_end_with_the_same_images(self) -> None:
        numbers, most = range(300), 20
        ends = []
        for seed, workers in ((0, 1), (1, 3)):
            images = Memory()
            keepers = [keeper_of(images, samples={"max_per_day": most}) for _ in range(workers)]
            for number in np.random.default_rng(seed).permutation(numbers).tolist():
                self.keep(keepers[number % workers], number)
            # k (1 + ln(N / k)) = 74 are expected of one worker.
            assert most <= keepers[0].counts["kept"] <= 100
            expire_images(images, SampleSettings(max_per_day=most), NOW_US)
            ends.append(set(images.files))
        assert ends[0] == ends[1]
        assert ends[0] == set(sorted(name_of("yard", "1", f"frame-{n:06d}", EVENT_US) for n in numbers)[:most])

    def test_a_share_is_drawn_by_the_record(self) -> None:
        images = Memory()
        keepers = [keeper_of(images, samples={"share": 0.3}) for _ in range(2)]
        for number, keeper in itertools.product(range(200), keepers):
            self.keep(keeper, number)
        assert keepers[0].counts["kept"] == keepers[1].counts["there"] == len(images.files)
        assert 40 <= len(images.files) <= 80  # 60, and three standard deviations of 6.5

    def test_it_is_small_and_without_metadata(self) -> None:
        images = Memory()
        big = np.random.default_rng(1).integers(0, 256, (300, 200, 3), np.uint8)
        done, data = cv2.imencode(".jpg", big)
        assert done
        with_exif = data.tobytes()[:2] + b"\xff\xe1\x00\x10Exif\0\0SECRETGP" + data.tobytes()[2:]
        keeper_of(images, samples={"max_side": 96}).keep(record(), lambda: with_exif, CLASSES)
        (kept,) = images.files.values()
        assert simplejpeg.decode_jpeg(kept, "RGB").shape == (96, 64, 3)
        assert b"SECRET" not in kept

    def test_a_small_one_is_not_enlarged_and_looks_alike(self) -> None:
        for form, suffix in (("jpeg", "jpg"), ("webp", "webp")):
            images = Memory()
            self.keep(keeper_of(images, samples={"format": form, "quality": 95}), 1)
            ((name, kept),) = images.files.items()
            assert name.suffix == suffix
            decoded = cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_COLOR)
            assert decoded is not None
            shown = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
            original = simplejpeg.decode_jpeg(picture(1), "RGB")
            assert shown.shape == original.shape
            assert np.abs(shown.astype(int) - original).mean() < 8

    def test_a_place_that_is_away_costs_no_record_and_is_left_alone_for_a_while(self) -> None:
        images, now = Memory(), [0.0]
        images.down = True
        keeper = keeper_of(images, clock=lambda: now[0])
        loads: list[int] = []

        def load() -> bytes:
            loads.append(1)
            return picture(1)

        for number in range(5):
            keeper.keep(record(number), load, CLASSES)
        assert keeper.counts == {"failed": 5} and loads == [1]
        images.down, now[0] = False, 31.0
        self.keep(keeper, 6)
        assert keeper.counts["kept"] == 1

    def test_what_cannot_be_decoded_is_no_reason_to_stop(self) -> None:
        keeper = keeper_of(Memory())
        keeper.keep(record(), lambda: b"\xff\xd8 no picture", CLASSES)
        assert keeper.counts == {"unredactable": 1}


class TestRedaction:
    SIZE = (80, 96)

    def instance(self, name: str, mask: Any) -> dict[str, Any]:
        return {"class": name, "score": 0.01, "mask": mask}

    def box(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        mask = np.zeros(self.SIZE, np.bool_)
        mask[20:50, 30:60] = True
        return mask

    def masks(self) -> list[Any]:
        rle = encode_rle(self.box())
        return [rle, [[30, 20, 60, 20, 60, 50, 30, 50]], {"size": [80, 96], "counts": self.counts()}]

    def counts(self) -> list[int]:
        flat = self.box().T.reshape(-1).astype(np.int8)
        edges = np.flatnonzero(np.diff(flat)) + 1
        return [int(one) for one in np.diff([0, *edges.tolist(), flat.size])]

    @pytest.mark.parametrize("form", [0, 1, 2])
    def test_an_object_of_a_set_class_is_gone_and_the_rest_is_there(self, form: int) -> None:
        one = record(1, instances=[self.instance("dog", self.masks()[form])])
        region = region_of(one, CLASSES, {"dog"}, self.SIZE, self.SIZE, 10**6)
        assert np.count_nonzero(region ^ self.box()) <= 61  # a polygon's own edge
        pixels = np.random.default_rng(0).integers(0, 256, (*self.SIZE, 3), np.uint8)
        methods: tuple[Literal["blur", "fill"], ...] = ("blur", "fill")
        for method in methods:
            hidden = obscured(pixels, region, method, 0.0)
            np.testing.assert_array_equal(hidden[~region], pixels[~region])
            inside = hidden[self.box()]
            assert inside.std() < pixels[self.box()].std() / 4
            # Of the original's pattern hardly anything is left: the share of its variance that is still explained.
            pattern = pixels[self.box()].astype(float)
            pattern -= pattern.mean(0)
            shared = (inside * pattern).sum() / (pattern**2).sum()
            assert abs(shared) < 0.05

    def test_the_margin_reaches_beyond_the_mask(self) -> None:
        pixels = np.full((*self.SIZE, 3), 200, np.uint8)
        hidden = obscured(pixels, self.box(), "fill", 0.05)
        rows = np.flatnonzero((hidden == 127).any((1, 2)))
        assert (rows[0], rows[-1]) == (20 - 5, 49 + 5)

    def test_a_map_counts_too(self) -> None:
        done, png = cv2.imencode(".png", cv2.resize(self.box().astype(np.uint8), (48, 40)))
        assert done
        one = record(1, instances=None, semantic={"classes_png": base64.b64encode(png.tobytes()).decode()})
        region = region_of(one, CLASSES, {"dog"}, self.SIZE, self.SIZE, 10**6)
        assert np.count_nonzero(region ^ self.box()) <= 130

    def test_thin_objects_survive_the_shrinking(self) -> None:
        line = np.zeros((1000, 1000), np.bool_)
        line[:, 500] = True
        one = record(1, instances=[self.instance("dog", encode_rle(line))])
        region = region_of(one, CLASSES, {"dog"}, (1000, 1000), (64, 64), 10**7)
        assert region.any(1).all()

    @pytest.mark.parametrize("place", range(7))
    def test_small_and_thin_objects_of_a_map_survive_it_wherever_they_lie(self, place: int) -> None:
        indices = np.zeros((300, 410), np.uint8)
        indices[200, 100 + place] = 1  # a single pixel
        indices[:150, 300 + place : 302 + place] = 1
        done, png = cv2.imencode(".png", indices)
        assert done
        one = record(1, instances=None, semantic={"classes_png": base64.b64encode(png.tobytes()).decode()})
        region = region_of(one, CLASSES, {"dog"}, (300, 410), (43, 59), 10**6)
        wanted = np.zeros((43, 59), np.bool_)
        for row, column in np.argwhere(indices).tolist():  # every pixel of the result that it reaches into
            rows = slice(row * 43 // 300, -(-(row + 1) * 43 // 300))
            wanted[rows, column * 59 // 410 : -(-(column + 1) * 59 // 410)] = True
        np.testing.assert_array_equal(region, wanted)

    def test_other_classes_stay(self) -> None:
        one = record(1, instances=[self.instance("cat", self.masks()[0])])
        assert not region_of(one, CLASSES, {"dog"}, self.SIZE, self.SIZE, 10**6).any()

    def test_a_mask_that_cannot_be_painted_means_no_image(self) -> None:
        one = record(1, instances=[self.instance("dog", encode_rle(self.box()))])
        with pytest.raises(BadRecord):
            region_of(one, CLASSES, {"dog"}, self.SIZE, self.SIZE, 10)
        settings = msgspec.convert({"redact": {"blur_classes": ["dog"]}, "images": {"max_pixels": 10}}, Settings)
        keeper = ImageKeeper(Memory(), settings)
        keeper.keep(one, lambda: picture(1), CLASSES)
        assert keeper.counts == {"unredactable": 1}

    def test_of_a_model_that_knows_none_of_the_classes_nothing_is_kept(self) -> None:
        images = Memory()
        keeper = keeper_of(images, redact={"blur_classes": ["face"]})
        keeper.keep(record(), lambda: picture(1), CLASSES)
        assert not images.files and keeper.counts == {"unredactable": 1}

    def test_what_is_written_is_redacted(self) -> None:
        images = Memory()
        keeper = keeper_of(images, redact={"blur_classes": ["dog"], "method": "fill"}, samples={"quality": 95})
        keeper.keep(record(1, instances=[self.instance("dog", self.masks()[0])]), lambda: picture(1), CLASSES)
        (kept,) = images.files.values()
        assert np.abs(simplejpeg.decode_jpeg(kept, "RGB")[25:45, 35:55].astype(int) - 127).max() <= 4


class TestExpiry:
    def fill(self, images: Memory) -> None:
        for day, number in itertools.product(range(10), range(3)):
            images.put(name_of("m", "1", f"{number}", NOW_US - day * DAY_US), b"x")

    def test_whole_days_go(self) -> None:
        images = Memory()
        self.fill(images)
        assert expire_images(images, SampleSettings(keep_images_days=7, max_per_day=0), NOW_US) == 6
        assert len(images.days()) == 8  # today and seven whole ones
        assert expire_images(images, SampleSettings(keep_images_days=7, max_per_day=0), NOW_US) == 0

    def test_zero_days_keep_none(self) -> None:
        images = Memory()
        self.fill(images)
        expire_images(images, SampleSettings(keep_images_days=0), NOW_US)
        assert not images.files

    def test_beyond_the_bound_the_smallest_draws_of_each_version_stay(self) -> None:
        images = Memory()
        names = [name_of("m", version, f"{n}", NOW_US) for n in range(40) for version in ("1", "2")]
        for name in names:
            images.put(name, b"x")
        assert expire_images(images, SampleSettings(max_per_day=15), NOW_US) == 50
        for version in {name.version for name in names}:
            own = sorted(name for name in names if name.version == version)
            assert sorted(name for name in images.files if name.version == version) == own[:15]


class TestIngest:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return settings_of(tmp_path)

    @pytest.fixture
    def store(self, settings: Settings) -> Iterator[Store]:
        with open_store(settings, ("street", "yard")) as opened:
            yield opened

    def kept(self, settings: Settings) -> list[ImageName]:
        images = open_images(settings)
        return [name for day in images.days() for name in images.names(day)]

    def test_good_records_leave_their_images_and_others_none(self, store: Store, settings: Settings) -> None:
        good = image_record(1, EVENT_US)
        torn = image_record(2, EVENT_US, image={"data": "/9j/"})
        failed = {**image_record(3, EVENT_US), "status": "error"}
        plain = prediction(4, EVENT_US)
        both = prediction(5, EVENT_US, image=good["image"])
        feed(store, settings, [encode(one) for one in (good, torn, failed, plain, both, good)])
        expected = {name_of("yard", "1", "frame-000001", EVENT_US), name_of("street", "1", "input-000005", EVENT_US)}
        assert set(self.kept(settings)) == expected
        assert outcomes_of(store) == {"ok": 3, "dead_letter": 1, "failed": 1, "duplicate": 1}

    def test_zero_days_keep_none(self, store: Store, settings: Settings, tmp_path: Path) -> None:
        off = msgspec.structs.replace(settings, samples=SampleSettings(keep_images_days=0))
        feed(store, off, [encode(image_record(1, EVENT_US))])
        assert not (tmp_path / "images").exists()

    def test_a_crash_before_the_commit_leaves_an_image_at_most(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def crash(*_: object) -> Any:
            raise KeyboardInterrupt

        values = [encode(image_record(n, EVENT_US)) for n in range(4)]
        with monkeypatch.context() as patch:
            patch.setattr(Ingest, "_write", crash)
            ingest = ingest_of(store, settings)
            with pytest.raises(KeyboardInterrupt):
                run(ingest, log_of(values, ingest))
        assert store.load_offset(partition()) is None
        orphans = {str(name): open_images(settings).get(name) for name in self.kept(settings)}
        assert len(orphans) == 4
        feed(store, settings, values)
        assert {str(name): open_images(settings).get(name) for name in self.kept(settings)} == orphans
        assert outcomes_of(store) == {"ok": 4}

    def test_every_record_that_is_stored_has_its_image_when_it_is_stored(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = Ingest._write
        there: list[bool] = []

        def look(ingest: Ingest, tx: Any, chunk: Any, work: Any) -> Any:
            images = open_images(settings)
            for records in chunk.counted:
                there.extend(images.has(name_of("yard", "1", one.input_id, EVENT_US)) for one in records.predictions)
            return write(ingest, tx, chunk, work)

        monkeypatch.setattr(Ingest, "_write", look)
        feed(store, settings, [encode(image_record(n, EVENT_US)) for n in range(10)])
        assert there == [True] * 10
