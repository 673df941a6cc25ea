"""Building a baseline: the same records give the same one, bad ones are named, memory does not grow with them."""

from __future__ import annotations

import base64
import gzip
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from detectors.baseline import BaselineStatistic
from detectors.moments_baseline import MomentsBaseline
from detectors.signals import SIGNALS
from monitor.baseline import Baseline
from monitor.baseline_build import BuildCounts, build_baseline
from monitor.classes import Classes
from monitor.errors import BadRecord, BaselineError, InputError, WriterExists
from monitor.offline import make_baseline, spec_of
from monitor.settings import Settings
from monitor.sources.memory import MemorySource
from monitor.sources.protocol import RawRecord
from monitor.store.store import Store
from monitor.windows import SECOND_US
from tests.embedded import HOUR_US, NOW_US, embedders, encode, image_record, partition, picture, settings_of
from tests.made_png import png
from tests.made_records import DIMENSIONS, prediction, predictions

AT_US = NOW_US - 100 * HOUR_US


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, write=True) as opened:
        yield opened


def build(values: Iterable[bytes], model: str = "street", **more: Any) -> tuple[Baseline, BuildCounts]:
    """A baseline from a memory log."""
    settings = more.pop("settings", settings_of(Path("unused")))
    source = MemorySource()
    for value in values:
        source.append(partition(), value)
    options = {"version": "1", "now_us": NOW_US, **more}
    return build_baseline(source, settings, lambda: spec_of(settings), embedders().of, model=model, **options)


def street(count: int, **more: Any) -> list[bytes]:
    return [encode(record) for record in predictions(count, AT_US, 20, **more)]


def yard(count: int) -> list[bytes]:
    return [encode(image_record(i, AT_US + i * SECOND_US)) for i in range(count)]


class TestTheSameRecords:
    @given(order=st.permutations(range(60)))
    @hypothesis_settings(max_examples=8)
    def test_give_the_same_bytes_in_any_order(self, order: list[int]) -> None:
        values = street(60)
        assert build([values[i] for i in order])[0].to_bytes() == build(values)[0].to_bytes()

    def test_give_the_same_bytes_in_any_order_when_all_have_one_time(self) -> None:
        # As the records of a training set may: no camera, no clock.
        values = [encode(prediction(i, AT_US)) for i in range(300)]
        shuffled = [values[i] for i in np.random.default_rng(3).permutation(300)]
        assert build(shuffled)[0].to_bytes() == build(values)[0].to_bytes()

    def test_give_the_same_bytes_in_any_order_when_they_have_images(self) -> None:
        values = yard(30)
        shuffled = [values[i] for i in np.random.default_rng(3).permutation(30)]
        assert build(shuffled, "yard")[0].to_bytes() == build(values, "yard")[0].to_bytes()

    def test_have_the_same_id_however_they_are_spread_over_files(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        values = street(90)
        layouts = [[values], [values[60:], values[:60]], [values[::2], values[1::2], values[:10]]]
        identities = set()
        for number, layout in enumerate(layouts):
            files = []
            for part, share in enumerate(layout):
                file = tmp_path / f"{number}-{part}.jsonl.gz"
                file.write_bytes(gzip.compress(b"\n".join(share)))
                files.append(file)
            identity, _, _ = make_baseline(settings, store, files, model="street", version="1", embedders=embedders())
            identities.add(identity)
        assert len(identities) == 1
        assert len(store.baselines()) == 1

    def test_count_once_each_and_a_bad_one_leaves_no_identity(self) -> None:
        whole = image_record(3, AT_US)
        broken = {**whole, "image": {"data": base64.b64encode(picture(3)[:100]).decode()}}
        others = yard(12)[4:]
        first, counts = build([encode(broken), encode(whole), *others, encode(whole)], "yard")
        assert (counts.used, counts.bad, counts.duplicate) == (9, 1, 1)
        second, _ = build([encode(whole), *others, encode(broken)], "yard")
        assert first.to_bytes() == second.to_bytes()

    def test_survive_a_round_trip(self) -> None:
        baseline, _ = build(street(50))
        assert Baseline.from_bytes(baseline.to_bytes()).to_bytes() == baseline.to_bytes()


class TestWhichRecordsAreTaken:
    def test_only_those_of_the_model_the_version_and_the_slice_that_went_well(self) -> None:
        values = [
            *street(30, slices={"camera": "1", "site": "north"}),
            *street(5, first=100, slices={"camera": "2"}),
            *street(5, first=200, version="2", slices={"camera": "1"}),
            encode(prediction(300, AT_US, model={"name": "other", "version": "1"})),
            encode(prediction(301, AT_US, status="oom", embedding=None, slices={"camera": "1"})),
            encode(prediction(302, AT_US)) + b"}",
        ]
        baseline, counts = build(values, slice_key="camera=1")
        assert counts == BuildCounts(used=30, bad=1, duplicate=0, not_ok=1, other=11)
        assert (baseline.slice, baseline.statistic.records) == ("camera=1", 30)
        assert build(values)[1] == BuildCounts(used=35, bad=1, duplicate=0, not_ok=1, other=6)

    def test_none_is_an_error_that_names_the_model_and_says_what_there_was(self) -> None:
        with pytest.raises(BaselineError, match=r"'street'.*'7'.*1 bad.*1 not ok.*2 of other"):
            build(
                [
                    b"{",
                    encode(prediction(1, AT_US, version="7", status="error", embedding=None)),
                    *street(2),
                ],
                version="7",
            )

    def test_an_empty_source_is_an_error(self) -> None:
        with pytest.raises(BaselineError, match="no usable record"):
            build([])

    def test_bad_ones_are_handed_over_with_their_place(self, tmp_path: Path, store: Store, settings: Settings) -> None:
        file = tmp_path / "records.jsonl"
        values = street(20)
        file.write_bytes(b"\n".join([*values[:7], b"[]", b"", *values[7:], b'{"type":']))
        told: list[tuple[str, int, str]] = []

        def tell(raw: RawRecord, bad: BadRecord) -> None:
            told.append((raw.partition.topic, raw.offset, bad.reason))

        make_baseline(settings, store, [file], model="street", version="1", on_bad=tell, embedders=embedders())
        assert told == [(str(file), 8, "wrong_type"), (str(file), 23, "not_json")]

    def test_labels_among_them_are_left_out(self) -> None:
        label = {
            "type": "segwatch.label.v1",
            "input_id": "input-000001",
            "annotator": "ann",
            "annotation_version": 1,
            "label_time": "2026-01-01T00:00:00Z",
            "instances": [],
        }
        assert build([*street(10), encode(label)])[1] == BuildCounts(used=10, other=1)


class TestEmbeddings:
    @pytest.mark.parametrize("odd_first", [True, False])
    @pytest.mark.parametrize(
        "odd",
        [
            prediction(999, AT_US, embedding=[0.5] * (DIMENSIONS + 1)),
            image_record(999, AT_US, model={"name": "street", "version": "1"}),
        ],
        ids=["other length", "image alone"],
    )
    def test_records_that_are_embedded_in_different_ways_are_an_error_that_names_the_place(
        self, odd: Mapping[str, Any], odd_first: bool
    ) -> None:
        values = [encode(odd), *street(20)] if odd_first else [*street(20), encode(odd)]
        with pytest.raises(BaselineError, match=rf"segwatch.predictions:{1 if odd_first else 20}: .*in the way of"):
            build(values)

    def test_an_embedding_is_taken_as_it_is_when_there_is_an_image_too(self) -> None:
        both = [{**prediction(i, AT_US), "image": image_record(i, AT_US)["image"]} for i in range(20)]
        assert (
            build([encode(one) for one in both])[0].to_bytes()
            == build([encode(prediction(i, AT_US)) for i in range(20)])[0].to_bytes()
        )

    def test_values_that_are_not_finite_are_counted_in_their_own_bin(self) -> None:
        values = [encode(record) for record in predictions(40, AT_US, 10)]
        odd = prediction(99, AT_US, embedding=[1e300] + [0.0] * (DIMENSIONS - 1))  # infinite in float32
        baseline, counts = build([*values, encode(odd)])
        assert counts.used == 41
        columns = baseline.statistic.layout.signals[0]
        assert (baseline.statistic.counts[columns.start : columns.stop, -1] == 1).all()

    @pytest.mark.parametrize(("count", "message"), [(1, "at least 2"), (30, "constant")])
    def test_those_without_any_direction_are_an_error_that_names_the_model(self, count: int, message: str) -> None:
        values = [encode(prediction(i, AT_US, embedding=[0.25] * DIMENSIONS)) for i in range(count)]
        with pytest.raises(BaselineError, match=f"'street'.*'1'.*{message}"):
            build(values)

    def test_few_records_give_few_components(self) -> None:
        baseline, _ = build(street(5))
        assert baseline.projection.components == 4
        assert baseline.statistic.records == 5

    def test_the_backbone_is_named_with_its_weights_and_size(self) -> None:
        baseline, _ = build(yard(12), "yard")
        assert baseline.backbone is not None
        assert (baseline.backbone.name, baseline.backbone.input_size) == ("segmenter", 64)
        assert baseline.backbone.weights is None  # it comes with the project
        assert not baseline.plan.given
        assert build(street(12))[0].backbone is None


class TestClasses:
    MAP = np.array([[0, 1], [1, 11]], dtype=np.uint8).repeat(4, 0).repeat(4, 1)

    def semantic(self, count: int) -> list[bytes]:
        values = []
        for i in range(count):
            record = prediction(i, AT_US + i, semantic={"classes_png": base64.b64encode(png(self.MAP)).decode()})
            del record["instances"]
            values.append(encode(record))
        return values

    def test_those_that_are_seen_are_taken_in_alphabetic_order(self) -> None:
        assert build(street(60))[0].classes.names == ("bus", "car", "person")

    def test_values_of_maps_are_their_own_names(self) -> None:
        assert build(self.semantic(20))[0].classes == Classes(("0", "1", "11"), (0, 1, 11))

    def test_a_classes_file_names_them_and_void_pixels_count_as_nothing(self) -> None:
        known = Classes(("sky", "building", "tree"), (0, 1, 2), ignore=(11,), critical=(("tree", 0.5),))
        baseline, _ = build(self.semantic(20), classes=known)
        assert baseline.classes == known
        [mix] = [one for one in baseline.statistic.layout.signals if one.signal == "class_mix"]
        assert mix.dimensions[:3] == ("sky", "building", "tree")
        # A third of the pixels that count is sky, two thirds are building; none is tree or of an unknown class.
        values = baseline.statistic.sample.codes[:, mix.start : mix.stop]
        assert (values == values[0]).all()
        assert (baseline.statistic.counts[mix.start : mix.stop, -1] == 0).all()

    def test_a_map_of_void_alone_has_no_mix(self) -> None:
        known = Classes(("sky",), (0,), ignore=(1, 11))
        void = np.full((8, 8), 11, dtype=np.uint8)
        values = []
        for i in range(20):
            record = prediction(i, AT_US, semantic={"classes_png": base64.b64encode(png(void)).decode()})
            del record["instances"]
            values.append(encode(record))
        baseline, _ = build(values, classes=known)
        assert not baseline.statistic.layout.has("class_mix")

    def test_only_signals_that_some_record_has_a_value_of_are_watched(self) -> None:
        given, _ = build(street(60))
        names = {part.signal for part in given.statistic.layout.signals}
        assert names == set(SIGNALS) - {"input"}


class TestStoring:
    def test_it_is_active_only_where_asked(self, store: Store, settings: Settings, tmp_path: Path) -> None:
        file = tmp_path / "records.jsonl"
        file.write_bytes(b"\n".join(street(20)))
        options: dict[str, Any] = {"model": "street", "version": "1", "embedders": embedders()}
        identity, _, _ = make_baseline(settings, store, [file], **options)
        assert store.active_baselines() == {}
        make_baseline(settings, store, [file], activate=True, **options)
        assert store.active_baselines()["street", "1"].meta.id == identity

    def test_a_handful_of_records_makes_one_and_it_is_said_how_little_it_can_tell(
        self, store: Store, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "few.jsonl"
        for count, said in ((3, True), (50, False)):
            file.write_bytes(b"\n".join(street(count)))
            caplog.clear()
            make_baseline(settings, store, [file], model="street", version="1", embedders=embedders())
            assert ("a baseline of 3 records hardly tells" in caplog.text) == said

    def test_a_second_writer_is_refused(self, store: Store, settings: Settings) -> None:
        with pytest.raises(WriterExists, match="one writing process"):
            Store.open(settings, write=True)
        Store.open(settings, write=False).close()

    def test_a_file_that_is_missing_is_named(self, store: Store, settings: Settings, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="nowhere.jsonl"):
            make_baseline(
                settings, store, [tmp_path / "nowhere.jsonl"], model="street", version="1", embedders=embedders()
            )

    def test_a_file_that_was_cut_off_makes_no_baseline(self, store: Store, settings: Settings, tmp_path: Path) -> None:
        file = tmp_path / "cut.jsonl.gz"
        file.write_bytes(gzip.compress(b"\n".join(street(200)))[:-2000])
        with pytest.raises(InputError, match="cut.jsonl.gz.*after line"):
            make_baseline(settings, store, [file], model="street", version="1", embedders=embedders())
        assert store.baselines() == []


class TestMemory:
    @staticmethod
    def peak(count: int) -> int:
        """Peak bytes of Python's and numpy's own memory while a baseline of ``count`` records is built."""

        class Made(MemorySource):
            """Makes its records as they are read."""

            number = 0

            def poll(self, timeout_s: float, max_records: int) -> Any:
                for _ in range(min(max_records, count - self.number)):
                    self.append(partition(), msgspec.json.encode(prediction(self.number, AT_US + self.number)))
                    self.number += 1
                polled = super().poll(timeout_s, max_records)
                self.retain(partition(), self.number)
                return polled

            @property
            def exhausted(self) -> bool:
                return self.number >= count

        settings = settings_of(Path("unused"))
        tracemalloc.start()
        try:
            build_baseline(
                Made(), settings, lambda: spec_of(settings), embedders().of, model="street", version="1", now_us=NOW_US
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_images_of_one_piece_are_as_many_as_memory_should_hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        class Watched(MemorySource):
            def poll(self, timeout_s: float, max_records: int) -> Any:
                asked.append(max_records)
                return super().poll(timeout_s, max_records)

        settings = settings_of(Path("unused"))
        batch, side = settings.embedding.batch_size, settings.embedding.input_size
        monkeypatch.setattr("monitor.extract.IMAGE_BYTES", 2 * batch * 3 * side * side)
        for values, most in ((yard(5 * batch), {2 * batch}), (street(5 * batch), {2 * batch, 256})):
            source = Watched()
            for value in values:
                source.append(partition(), value)
            model = msgspec.json.decode(values[0])["model"]["name"]
            build_baseline(
                source, settings, lambda: spec_of(settings), embedders().of, model=model, version="1", now_us=NOW_US
            )
            assert set(asked) == most
            asked.clear()

    @pytest.mark.slow
    def test_it_hardly_grows_with_the_number_of_records(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Pieces as small as the test's counts, so that nothing can hide below them.
        monkeypatch.setattr("detectors.baseline.READ_ROWS", 500)
        monkeypatch.setattr("monitor.baseline_build.READ_ROWS", 500)
        monkeypatch.setattr("monitor.baseline_build.SLICE_SAMPLE_ROWS", 500)
        monkeypatch.setattr("detectors.clusters.SAMPLE_ROWS", 500)
        monkeypatch.setattr("detectors.moments_baseline.READ_ROWS", 500)
        monkeypatch.setattr("detectors.rhythm.READ_ROWS", 500)
        for fit in (BaselineStatistic.fit, MomentsBaseline.fit):
            monkeypatch.setitem(fit.__func__.__kwdefaults__, "sample_rows", 500)  # type: ignore[attr-defined]
        self.peak(100)  # what is imported or compiled at first use counts for none
        small, large = self.peak(1000), self.peak(8000)
        # What stays is a time, a key and a sequence; the values and the embedding, 27 and 16 numbers, would take more.
        assert (large - small) / 7000 < 250
