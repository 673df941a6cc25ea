"""``segwatch labels``: exports in, all or nothing, and how far annotators agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from monitor import judging, label_fit, label_import, label_spool
from monitor.cli import cli
from monitor.errors import InputError
from monitor.label_spool import LabelSpool
from monitor.masks import encode_rle
from monitor.offline import replay
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.values import LabelRow
from monitor.windows import SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, add_baseline, encode, feed, open_store, settings_of
from tests.made_labels import after, label, seen, square

START_US = NOW_US - 24 * HOUR_US
AT = ("--label-time", to_text(NOW_US))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    # Retention goes by the clock of the machine, and these records are of a fixed day.
    quality = {"keep_masks_days": 36_500}
    return settings_of(tmp_path / "data", windows={"lengths_seconds": [3600]}, quality=quality)


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """Twenty records with a car each, in a store that nobody holds."""
    Path(settings.data_dir).mkdir()
    with open_store(settings) as store:
        feed(store, settings, [encode(seen(i, START_US + i, ("car", 0.9, square(10)))) for i in range(20)])
    return settings


def segwatch(settings: Settings, *arguments: str) -> Result:
    config = Path(settings.data_dir) / "segwatch.yaml"
    config.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(settings)))
    return CliRunner().invoke(cli, ["--config", str(config), *arguments])


def coco(off: int, count: int = 20) -> dict[str, Any]:
    """An export that has each car ``off`` pixels to the right."""
    return {
        "images": [
            {"id": i, "file_name": f"frames/input-{i:06d}.jpg", "height": 40, "width": 40} for i in range(count)
        ],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 3, "iscrowd": 0, "area": 100, "segmentation": square(10 + off)}
            for i in range(count)
        ],
    }


def iou(settings: Settings) -> float | None:
    shown = json.loads(segwatch(settings, "quality", "--model", "street", "--window", "all", "--json").stdout)
    wanted = ("car", "iou", "spotcheck")
    (one,) = [
        one for one in shown["windows"][0]["classes"] if (one["class"], one["metric"], one["estimator"]) == wanted
    ]
    point: float | None = one["point"]
    return point


class TestImport:
    def test_a_coco_export_and_label_records_give_the_same_figures(self, filled: Settings, tmp_path: Path) -> None:
        file = tmp_path / "export.json"
        file.write_text(json.dumps(coco(4)))
        done = segwatch(filled, "labels", "import", str(file), *AT, "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["outcomes"]["accepted"] == 20
        assert json.loads(done.stdout)["judged"] == 20
        first = iou(filled)
        assert first == pytest.approx(6 / 14)
        lines = tmp_path / "labels.jsonl"
        records = [label(i, after(START_US, 9e4), ("car", square(14)), annotator="lines") for i in range(20)]
        lines.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        assert segwatch(filled, "labels", "import", str(lines)).exit_code == 0
        assert iou(filled) == first

    def test_the_same_export_again_changes_nothing_and_a_newer_version_replaces(
        self, filled: Settings, tmp_path: Path
    ) -> None:
        file = tmp_path / "export.json"
        file.write_text(json.dumps(coco(4)))
        for expected in ("accepted", "duplicate"):
            shown = json.loads(segwatch(filled, "labels", "import", str(file), *AT, "--json").stdout)
            assert shown["outcomes"][expected] == 20
        file.write_text(json.dumps(coco(0)))
        newer = segwatch(filled, "labels", "import", str(file), *AT, "--annotation-version", "2", "--json")
        assert json.loads(newer.stdout)["outcomes"]["replaced"] == 20
        assert iou(filled) == 1.0

    @pytest.mark.parametrize(
        ("damage", "named"),
        [
            (lambda export: export["categories"].__setitem__(0, {"id": 3, "name": "tram"}), "tram"),
            (lambda export: export["annotations"][17].__setitem__("image_id", 99), "annotations[17]"),
            (lambda export: export["annotations"][5]["segmentation"].__setitem__("size", [9, 9]), "annotations[5]"),
        ],
    )
    def test_a_bad_entry_is_named_and_nothing_is_imported(
        self, filled: Settings, tmp_path: Path, damage: Any, named: str
    ) -> None:
        export = coco(4)
        damage(export)
        file = tmp_path / "export.json"
        file.write_text(json.dumps(export))
        done = segwatch(filled, "labels", "import", str(file), *AT)
        assert isinstance(done.exception, InputError)
        assert "export.json" in str(done.exception)
        assert named in str(done.exception)
        assert iou(filled) is None

    def test_an_export_of_long_ago_says_that_its_labels_come_too_late(self, filled: Settings, tmp_path: Path) -> None:
        file = tmp_path / "export.json"
        file.write_text(json.dumps(coco(4)))
        late = to_text(NOW_US + 40 * 24 * HOUR_US)
        done = segwatch(filled, "labels", "import", str(file), "--label-time", late, "--json")
        assert (json.loads(done.stdout)["judged"], json.loads(done.stdout)["unjoinable"]) == (0, 20)

    def test_what_it_causes_to_be_asked_for_goes_out_with_it(self, settings: Settings, tmp_path: Path) -> None:
        rules = {"retrain_after_labels": 20, "retrain_min_labels": 1}
        settings = settings_of(Path(settings.data_dir), quality={"keep_masks_days": 36_500}, actions=rules)
        Path(settings.data_dir).mkdir()
        records = tmp_path / "day.jsonl"
        seen_once = [encode(seen(i, START_US + i, ("car", 0.9, square(10)))) for i in range(20)]
        records.write_bytes(b"\n".join(seen_once))
        with open_store(settings) as store:
            replay(settings, [records], store=store)
        file = tmp_path / "export.json"
        file.write_text(json.dumps(coco(4)))
        actions = Path(settings.data_dir) / "actions.jsonl"
        actions.unlink()
        actions.mkdir()  # nothing can be written there
        done = segwatch(settings, "labels", "import", str(file), *AT)
        assert (done.exit_code, done.stdout[:9]) == (0, "20 labels")
        assert "actions wait in the store for segwatch run" in done.stderr
        actions.rmdir()
        again = segwatch(settings, "labels", "import", str(file), *AT)
        assert again.exit_code == 0 and "wait in the store" not in again.stderr
        asked = [json.loads(line)["type"] for line in actions.read_text().splitlines()]
        assert asked.count("segwatch.retrain_requested.v1") == 1

    def test_a_bad_line_among_label_records_is_named_and_nothing_is_imported(
        self, filled: Settings, tmp_path: Path
    ) -> None:
        lines = tmp_path / "labels.jsonl"
        good = [encode(label(i, after(START_US), ("car", square(14)))) for i in range(3)]
        lines.write_bytes(b"\n".join([*good, b'{"type": "segwatch.label.v1"}']))
        done = segwatch(filled, "labels", "import", str(lines))
        assert "labels.jsonl: line 4" in str(done.exception)
        assert iou(filled) is None

    @pytest.mark.parametrize("form", ["lines", "coco"])
    def test_a_label_of_another_size_than_its_prediction_is_named_and_nothing_is_imported(
        self, filled: Settings, tmp_path: Path, form: str
    ) -> None:
        small = encode_rle(np.ones((10, 12), np.bool_))
        if form == "lines":
            file, entry = tmp_path / "labels.jsonl", "line 8"
            records = [label(i, after(START_US), ("car", small if i == 7 else square(14))) for i in range(20)]
            file.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        else:
            file, entry = tmp_path / "export.json", "label 8"
            export = coco(4)
            export["images"][7] |= {"height": 10, "width": 12}
            export["annotations"][7]["segmentation"] = small
            file.write_text(json.dumps(export))
        done = segwatch(filled, "labels", "import", str(file), *AT)
        assert isinstance(done.exception, InputError)
        told = str(done.exception)
        assert f"{file.name}: {entry}: input_id 'input-000007': label_mismatch" in told
        assert "10 x 12" in told and "40 x 40" in told
        assert iou(filled) is None
        with Store.open(filled, write=False) as store:
            assert store.labels_of([f"input-{i:06d}" for i in range(20)]) == {}

    def test_a_label_whose_prediction_comes_later_is_counted_when_it_turns_out_not_to_fit(
        self, filled: Settings, tmp_path: Path
    ) -> None:
        file = tmp_path / "labels.jsonl"
        small = encode_rle(np.ones((10, 12), np.bool_))
        file.write_bytes(encode(label(30, after(START_US), ("car", small))) + b"\n")
        first = json.loads(segwatch(filled, "labels", "import", str(file), "--json").stdout)
        assert (first["outcomes"]["accepted"], first["refused"]) == (1, 0)
        with Store.open(filled, write=True) as store:
            feed(store, filled, [encode(seen(30, START_US, ("car", 0.9, square(10))))], topic_id="later")
        file.write_bytes(encode(label(1, after(START_US), ("car", square(14)))) + b"\n")
        second = segwatch(filled, "labels", "import", str(file), "--json")
        assert (json.loads(second.stdout)["judged"], json.loads(second.stdout)["refused"]) == (1, 1)
        assert "labels.jsonl:1: label_mismatch" in second.stderr

    @pytest.mark.parametrize("form", ["lines", "coco"])
    def test_a_label_from_the_future_is_refused(
        self, filled: Settings, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(label_import, "_now_us", lambda: NOW_US)
        soon, late = NOW_US + 60 * SECOND_US, NOW_US + 9 * HOUR_US
        if form == "lines":
            file, entry = tmp_path / "labels.jsonl", "line 2"
            records = [label(i, at, ("car", square(14))) for i, at in enumerate((soon, late))]
            file.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        else:
            file, entry = tmp_path / "export.json", "label 1"
            file.write_text(json.dumps(coco(4)))
        done = segwatch(filled, "labels", "import", str(file), "--label-time", to_text(late))
        assert isinstance(done.exception, InputError)
        assert f"{file.name}: {entry}: future_time: label_time" in str(done.exception)
        assert iou(filled) is None

    def test_two_different_labels_of_one_annotation_in_a_file_contradict_each_other(
        self, filled: Settings, tmp_path: Path
    ) -> None:
        file = tmp_path / "labels.jsonl"
        one, other = (label(1, after(START_US), ("car", square(left))) for left in (14, 15))
        turned = dict(reversed(one.items()))  # the same, said in another order
        file.write_bytes(b"".join(encode(each) + b"\n" for each in (one, turned)))
        assert json.loads(segwatch(filled, "labels", "import", str(file), "--json").stdout)["outcomes"]["accepted"] == 1
        file.write_bytes(b"".join(encode(each) + b"\n" for each in (one, label(2, after(START_US)), other)))
        done = segwatch(filled, "labels", "import", str(file))
        assert isinstance(done.exception, InputError)
        assert "line 3: input_id 'input-000001': another label by 'ann'" in str(done.exception)
        assert "than in line 1" in str(done.exception)

    def test_a_label_of_all_versions_is_held_against_no_more_of_them_than_it_takes(
        self, filled: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Store.open(filled, write=True) as store:
            small = [("car", 0.9, encode_rle(np.ones((10, 12), np.bool_)))]
            both = [seen(i, START_US + i, *small * (i < 2), version="0") for i in range(20)]
            feed(store, filled, [encode(one) for one in both], topic_id="other")
        looked_at = []

        def check(*given: Any) -> None:
            looked_at.append(given)
            judging.check_fit(*given)

        monkeypatch.setattr(label_fit, "check_fit", check)
        file = tmp_path / "export.json"
        file.write_text(json.dumps(coco(4)))
        done = segwatch(filled, "labels", "import", str(file), *AT, "--json")
        assert json.loads(done.stdout)["outcomes"]["accepted"] == 20
        assert len(looked_at) == 22  # two fit the second version alone

    @pytest.mark.parametrize("own", [b'"caf\xe9"', b"1e999"])
    def test_what_a_user_has_added_to_a_label_record_is_not_read(
        self, filled: Settings, tmp_path: Path, own: bytes
    ) -> None:
        file = tmp_path / "labels.jsonl"
        line = encode(label(1, after(START_US), ("car", square(14))))[:-1] + b',"own":' + own + b"}\n"
        file.write_bytes(2 * line)
        done = json.loads(segwatch(filled, "labels", "import", str(file), "--json").stdout)
        assert (done["outcomes"]["accepted"], done["judged"]) == (1, 1)

    def test_with_several_models_one_has_to_be_named(self, filled: Settings, tmp_path: Path) -> None:
        with Store.open(filled, write=True) as store:
            add_baseline(store, "yard")
        file = tmp_path / "export.json"
        file.write_text(json.dumps(coco(4)))
        done = segwatch(filled, "labels", "import", str(file), *AT)
        assert "--model" in str(done.exception)
        assert segwatch(filled, "labels", "import", str(file), *AT, "--model", "street").exit_code == 0


class TestLvis:
    @pytest.fixture
    def store(self, settings: Settings) -> Iterator[Store]:
        Path(settings.data_dir).mkdir(exist_ok=True)
        with open_store(settings) as opened:
            yield opened

    def test_a_class_that_nobody_looked_for_counts_neither_way(self, filled: Settings, tmp_path: Path) -> None:
        with Store.open(filled, write=True) as store:
            both = [seen(i, START_US + i, ("car", 0.9, square(10)), ("bus", 0.9, square(25))) for i in range(30, 50)]
            feed(store, filled, [encode(one) for one in both], topic_id="more")
        lines = tmp_path / "labels.jsonl"
        records = [label(i, after(START_US), ("car", square(10)), judged_classes=["car"]) for i in range(30, 50)]
        lines.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        assert segwatch(filled, "labels", "import", str(lines)).exit_code == 0
        shown = json.loads(segwatch(filled, "quality", "--model", "street", "--window", "all", "--json").stdout)
        found = {
            one["class"]: one
            for one in shown["windows"][0]["classes"]
            if (one["metric"], one["estimator"]) == ("iou", "spotcheck")
        }
        assert found["car"]["point"] == 1.0
        assert found["bus"]["point"] is None

    def test_what_a_label_may_have_left_out_is_no_false_positive(self, filled: Settings, tmp_path: Path) -> None:
        with Store.open(filled, write=True) as store:
            two = [seen(i, START_US + i, ("car", 0.9, square(0)), ("car", 0.8, square(25))) for i in range(30, 50)]
            feed(store, filled, [encode(one) for one in two], topic_id="more")
        lines = tmp_path / "labels.jsonl"
        records = [
            label(i, after(START_US), ("car", square(0)), not_exhaustive=["car"] if i % 2 else None)
            for i in range(30, 50)
        ]
        lines.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        assert segwatch(filled, "labels", "import", str(lines)).exit_code == 0
        shown = json.loads(segwatch(filled, "quality", "--model", "street", "--window", "all", "--json").stdout)
        found = {one["metric"]: one for one in shown["windows"][0]["classes"] if one["class"] == "car"}
        assert found["precision"]["point"] == pytest.approx(20 / 30)


class TestAgreement:
    def test_pairs_show_iou_habit_and_the_records_they_differ_on_most(self, filled: Settings, tmp_path: Path) -> None:
        lines = tmp_path / "labels.jsonl"
        records = []
        for i in range(20):
            records.append(label(i, after(START_US), ("car", square(10)), annotator="ann"))
            wide = 16 if i == 7 else 12
            records.append(label(i, after(START_US), ("car", square(10, wide)), annotator="bob"))
        lines.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        assert segwatch(filled, "labels", "import", str(lines)).exit_code == 0
        done = segwatch(filled, "labels", "agreement", "--model", "street", "--json")
        (pair,) = json.loads(done.stdout)["pairs"]
        assert (pair["annotators"], pair["records"]) == (["ann", "bob"], 20)
        (car,) = pair["classes"]
        wide = np.array([120] * 19 + [160])
        assert car["iou"] == pytest.approx(2000 / wide.sum())
        assert car["surplus"] == pytest.approx((2000 - wide.sum()) / wide.sum())
        assert pair["disagreements"][0]["input_id"] == "input-000007"
        assert "bob" in segwatch(filled, "labels", "agreement", "--model", "street").output


def test_spooled_labels_come_back_by_key_and_those_of_one_key_as_they_were_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_spool, "AT_ONCE", 3)
    keys = [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5)]
    rows = [
        LabelRow(name, "ann", "", "", version, 7, "spot_check", None, "waiting", "import", "x", 0, i, b"\0v", b"\x90")
        for i, (name, version) in enumerate(keys)
    ]
    with (tmp_path / "spool").open("w+b") as file:
        spool = LabelSpool(file)
        spool.add(rows[:2])
        spool.add(rows[2:])
        for _ in range(2):
            portions = list(spool.portions())
            assert [len(portion) for portion in portions] == [3, 2]
            assert [row for portion in portions for row in portion] == [rows[i] for i in (1, 4, 0, 2, 3)]
