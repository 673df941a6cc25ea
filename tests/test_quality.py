"""Quality per class from labels: figures that follow from known masks, windows, weights, and what is missing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from monitor.baseline import Baseline
from monitor.classes import Classes
from monitor.cli import cli
from monitor.evaluate import Evaluator
from monitor.exposition import Writer
from monitor.harm_by_labels import harm_by_labels
from monitor.judging import judge
from monitor.kept_masks import KeptMasks
from monitor.metrics import families
from monitor.offline import make_baseline
from monitor.records import Label, Limits, decode
from monitor.settings import Settings
from monitor.snapshot import snapshot
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.store import Store
from monitor.windows import SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, embedders, encode, feed, open_store, settings_of
from tests.made_labels import after, label, seen, square

START_US = NOW_US - 24 * HOUR_US
WIDTH = 10


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def traffic(count: int, *, step_s: int = 60, first: int = 0) -> tuple[list[dict[str, Any]], list[int]]:
    """Records with one car each, and by how many pixels each mask is off."""
    rng = np.random.default_rng(first + 7)
    off = rng.integers(0, 6, count).tolist()
    records = [
        seen(first + i, START_US + i * step_s * SECOND_US, ("car", 0.9, square(10)), sequence=None)
        for i in range(count)
    ]
    return records, off


def labels_of(off: Sequence[int], chosen: Sequence[int], *, step_s: int = 60, **changes: Any) -> list[dict[str, Any]]:
    return [label(i, after(START_US + i * step_s * SECOND_US), ("car", square(10 + off[i])), **changes) for i in chosen]


def iou_of(off: Sequence[int]) -> float:
    """Pooled over squares of 10 x 10 that are so many pixels off."""
    return sum(10 * (WIDTH - each) for each in off) / sum(10 * (WIDTH + each) for each in off)


def put(store: Store, settings: Settings, records: Sequence[dict[str, Any]], topic: str = "log") -> None:
    feed(store, settings, [encode(record) for record in records], topic_id=topic)
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()


def ask(settings: Settings, *arguments: str) -> dict[str, Any]:
    """``segwatch quality --json``."""
    config = Path(settings.data_dir) / "segwatch.yaml"
    config.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(settings)))
    command = ["--config", str(config), "quality", "--model", "street", "--json", *arguments]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def of(
    window: dict[str, Any], class_name: str | None, metric: str = "iou", estimator: str = "spotcheck"
) -> dict[str, Any]:
    wanted = (class_name, metric, estimator)
    (one,) = [one for one in window["classes"] if (one["class"], one["metric"], one["estimator"]) == wanted]
    return one


class TestFigures:
    def test_with_every_record_labelled_the_value_is_exact_and_the_interval_has_no_width(
        self, store: Store, settings: Settings
    ) -> None:
        records, off = traffic(60)
        put(store, settings, [*records, *labels_of(off, range(60))])
        (window,) = ask(settings, "--window", "all")["windows"]
        car = of(window, "car")
        assert car["point"] == pytest.approx(iou_of(off), abs=1e-12)
        assert car["lower"] == car["upper"] == pytest.approx(car["point"], abs=1e-9)
        assert (car["labels"], window["records"], window["labelled"]) == (60, 60, 60)
        assert of(window, "car", "precision")["point"] == pytest.approx(np.mean([each <= 3 for each in off]))
        assert of(window, "bus")["status"] == "absent"

    def test_a_part_of_the_records_gives_an_interval_that_holds_the_whole(
        self, store: Store, settings: Settings
    ) -> None:
        records, off = traffic(400)
        chosen = np.random.default_rng(3).choice(400, 60, replace=False).tolist()
        put(store, settings, [*records, *labels_of(off, chosen)])
        (window,) = ask(settings, "--window", "all")["windows"]
        car = of(window, "car")
        assert car["lower"] < iou_of(off) < car["upper"]
        assert car["point"] == pytest.approx(iou_of([off[i] for i in chosen]), abs=1e-12)
        assert 0.01 < car["upper"] - car["lower"] < 0.12
        assert window["assumed_uniform"] == 60
        wider = of(ask(settings, "--window", "all", "--population", "process")["windows"][0], "car")
        assert wider["upper"] - wider["lower"] > car["upper"] - car["lower"]

    def test_bad_looking_records_that_are_labelled_more_often_do_not_bias_the_figure(
        self, store: Store, settings: Settings
    ) -> None:
        records, off = traffic(1200, step_s=30)
        probability = [0.25 if each >= 4 else 0.05 for each in off]
        rng = np.random.default_rng(5)
        chosen = [i for i in range(1200) if rng.random() < probability[i]]
        labels = [
            one
            for i in chosen
            for one in labels_of(off, [i], step_s=30, selection_probability=probability[i], purpose="relabel")
        ]
        put(store, settings, [*records, *labels])
        car = of(ask(settings, "--window", "all")["windows"][0], "car")
        assert iou_of([off[i] for i in chosen]) < iou_of(off) - 0.08  # unweighted it would be far too low
        assert car["lower"] < iou_of(off) < car["upper"]

    def test_relabelled_records_of_unknown_probability_stay_out_and_are_counted(
        self, store: Store, settings: Settings
    ) -> None:
        records, off = traffic(50)
        put(store, settings, [*records, *labels_of(off, range(20), purpose="relabel"), *labels_of(off, range(20, 45))])
        (window,) = ask(settings, "--window", "all")["windows"]
        assert (window["left_out"], window["labelled"]) == (20, 25)

    def test_two_annotators_count_as_the_mean_of_their_sums(self, store: Store, settings: Settings) -> None:
        records, off = traffic(30)
        other = [0] * 30
        put(
            store,
            settings,
            [*records, *labels_of(off, range(30)), *labels_of(other, range(30), annotator="bob")],
        )
        car = of(ask(settings, "--window", "all")["windows"][0], "car")
        intersection = sum((WIDTH - each + WIDTH) / 2 for each in off)
        union = sum((WIDTH + each + WIDTH) / 2 for each in off)
        assert car["point"] == pytest.approx(intersection / union, abs=1e-12)
        assert car["labels"] == 30


class TestDetails:
    def test_confusion_and_calibration_are_of_the_windows_records(self, store: Store, settings: Settings) -> None:
        records, off = traffic(60)
        put(store, settings, [*records, *labels_of(off, range(0, 60, 2))])
        (window,) = ask(settings, "--window", "all")["windows"]
        table = window["confusion"]
        car = table["labelled"].index("car")
        hits = sum(each <= 3 for each in off[::2])
        row = dict(zip(table["predicted"], table["counts"][car], strict=True))
        assert row["car"] == pytest.approx(2 * hits)  # every second record stands for two
        assert row["<missed>"] == pytest.approx(2 * (30 - hits))
        (one,) = window["calibration"]
        assert one["ece"] == pytest.approx(abs(0.9 - hits / 30))
        assert one["curve"] == [{"confidence": pytest.approx(0.9), "accuracy": pytest.approx(hits / 30), "weight": 60}]
        assert window["label_times"] == [to_text(after(START_US)), to_text(after(START_US + 58 * 60 * SECOND_US))]

    def test_records_with_lists_and_maps_have_panoptic_quality(self, store: Store, settings: Settings) -> None:
        def png(values: np.ndarray[Any, Any]) -> str:
            return base64.b64encode(cv2.imencode(".png", values)[1].tobytes()).decode()

        ground = np.zeros((40, 40), np.uint8)  # the baseline's first class, bus, all over: stuff here
        records, labels = [], []
        for i in range(20):
            one = seen(i, START_US + i * SECOND_US, ("car", 0.9, square(10)), sequence=None)
            told = label(i, after(START_US), ("car", square(12)))
            records.append({**one, "semantic": {"classes_png": png(ground)}})
            labels.append({**told, "semantic": {"classes_png": png(ground)}})
        put(store, settings, [*records, *labels])
        (window,) = ask(settings, "--window", "all")["windows"]
        assert of(window, "car", "panoptic_quality")["point"] == pytest.approx(8 / 12, abs=1e-9)
        around = 1600 - 120  # pixels of the ground that either leaves free, both: all but the cars' union
        assert of(window, "bus", "panoptic_quality")["point"] == pytest.approx(around / (1600 - 80), abs=1e-9)

    def test_a_thing_is_one_in_records_without_an_instance_of_it_too(self) -> None:
        ground = np.zeros((40, 40), np.uint8)
        ground[:20] = 1
        data = cv2.imencode(".png", ground)[1].tobytes()
        record = {**label(1, NOW_US), "semantic": {"classes_png": base64.b64encode(data).decode()}}
        told = decode(RawRecord(Partition("file", "", "", 0), 0, encode(record), None, (), None), Limits())
        assert isinstance(told, Label)
        found = KeptMasks(40, 40, [], told.semantic)
        for things, expected in ((None, [1, 1]), (("car",), [1, 0])):
            judged = judge(found, told, Classes(("road", "car"), (0, 1), things=things), 10_000).panoptic
            assert judged is not None and judged.true_positives.tolist() == expected


class TestWindows:
    def test_a_label_lands_in_the_window_of_its_event_however_late_it_is(
        self, store: Store, settings: Settings
    ) -> None:
        records, off = traffic(120)
        put(store, settings, records)
        before = ask(settings, "--window", "1h")["windows"]
        assert [window["labelled"] for window in before] == [0, 0]
        late = [{**one, "label_time": to_text(NOW_US - HOUR_US)} for one in labels_of(off, range(10, 30))]
        put(store, settings, late, "late")
        after_it = ask(settings, "--window", "1h")["windows"]
        assert [window["labelled"] for window in after_it] == [20, 0]
        assert [window["start"] for window in after_it] == [to_text(START_US), to_text(START_US + HOUR_US)]

    def test_a_correction_changes_its_own_window_alone(self, store: Store, settings: Settings) -> None:
        records, off = traffic(120)
        put(store, settings, [*records, *labels_of(off, range(120))])
        before = [of(window, "car")["point"] for window in ask(settings, "--window", "1h")["windows"]]
        put(store, settings, labels_of([0] * 120, [70], annotation_version=2), "correction")
        now = [of(window, "car")["point"] for window in ask(settings, "--window", "1h")["windows"]]
        fixed = [*off[60:70], 0, *off[71:]]
        assert now[0] == before[0]
        assert now[1] == pytest.approx(iou_of(fixed), abs=1e-12)

    def test_a_slice_has_its_own_figures(self, store: Store, settings: Settings) -> None:
        records, off = traffic(60)
        put(store, settings, [*records, *labels_of(off, range(60))])
        (window,) = ask(settings, "--window", "all", "--slice", "camera=1")["windows"]
        assert (window["slice"], window["records"]) == ("camera=1", 20)
        assert of(window, "car")["point"] == pytest.approx(iou_of(off[1::3]), abs=1e-12)


class TestTooFew:
    def test_without_labels_each_class_says_what_is_missing(self, store: Store, settings: Settings) -> None:
        records, _ = traffic(30)
        put(store, settings, records)
        (window,) = ask(settings, "--window", "all")["windows"]
        assert {one["class"] for one in window["classes"]} == {"bus", "car", "person"}
        assert all(one["status"] == "too_few_labels" and one["point"] is None for one in window["classes"])
        assert all(one["needed"] >= 1 for one in window["classes"])

    def test_a_plan_without_labels_asks_for_as_many_as_have_the_class_by_the_models_own_account(
        self, store: Store, settings: Settings
    ) -> None:
        records, off = traffic(200)
        bus = {"class": "bus", "score": 0.8, "mask": square(25)}
        put(
            store, settings, [{**r, "instances": r["instances"] + [bus] * (i % 10 == 0)} for i, r in enumerate(records)]
        )
        (window,) = ask(settings, "--window", "all", "--plan")["windows"]
        wanted = {one["class"]: (one["labels"], one["with_class"]) for one in window["plan"]}
        # A bus in every tenth record, and less than one person in the 200: that may take all of them.
        assert wanted == {"bus": (20, 2), "car": (2, 2), "person": (200, 0)}
        put(store, settings, labels_of(off, range(0, 40, 2)), "labels")
        (window,) = ask(settings, "--window", "all", "--plan")["windows"]
        wanted = {one["class"]: one["labels"] for one in window["plan"]}
        assert wanted["bus"] >= 20 and wanted["car"] < 200

    def test_a_plan_looks_at_no_masks_where_each_class_has_a_label(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records, _ = traffic(30)
        told = [("car", square(14)), ("bus", square(25)), ("person", square(2))]
        put(store, settings, [*records, *(label(i, after(START_US), *told) for i in range(6))])
        monkeypatch.setattr("monitor.presence.presence_of", lambda *given: pytest.fail("thousands of masks"))
        (window,) = ask(settings, "--window", "all", "--plan")["windows"]
        assert {one["class"] for one in window["plan"]} == {"bus", "car", "person"}

    def test_one_label_is_no_number(self, store: Store, settings: Settings) -> None:
        records, off = traffic(30)
        put(store, settings, [*records, *labels_of(off, [3])])
        (window,) = ask(settings, "--window", "all")["windows"]
        assert of(window, "car")["point"] is None

    def test_an_unknown_model_is_an_error(self, store: Store, settings: Settings) -> None:
        config = Path(settings.data_dir) / "own.yaml"
        config.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(settings)))
        result = CliRunner().invoke(cli, ["--config", str(config), "quality", "--model", "boat"])
        assert result.exit_code != 0
        assert "boat" in str(result.exception)


class TestMetrics:
    def test_the_page_has_spot_checks_and_iou_with_its_bounds(self, store: Store, settings: Settings) -> None:
        records, off = traffic(200)
        put(store, settings, [*records, *labels_of(off, range(0, 200, 2))])
        totals = snapshot(store, HOUR_US, NOW_US, 100)
        page = Writer().render(families(totals, 10_000)).openmetrics.decode()
        lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        version = 'model="street",version="1"'
        hits = sum(each <= 3 for each in off[::2])
        assert int(lines[f"segwatch_spotcheck_images_total{{{version}}}"]) == 100
        assert int(lines[f'segwatch_spotcheck_instances_total{{{version},class="car",verdict="tp"}}']) == hits
        assert int(lines[f'segwatch_spotcheck_instances_total{{{version},class="car",verdict="fn"}}']) == 100 - hits
        assert int(lines[f'segwatch_spotcheck_instances_total{{{version},class="bus",verdict="tp"}}']) == 0
        assert int(lines[f'segwatch_spotcheck_iou_ratio_count{{{version},class="car"}}']) == 100
        bounds = [
            float(lines[f'segwatch_iou_ratio{{{version},class="car",estimator="spotcheck",bound="{bound}"}}'])
            for bound in ("lower", "point", "upper")
        ]
        assert bounds == sorted(bounds)
        assert bounds[0] < iou_of(off) < bounds[2]
        assert f'segwatch_iou_ratio{{{version},class="bus",estimator="spotcheck",bound="point"}}' not in lines


class TestAgainstTheBaseline:
    """A baseline with labels: quality in training, a drop since, and what confidence alone says."""

    @pytest.fixture
    def trained(self, tmp_path: Path) -> Iterator[tuple[Store, Settings]]:
        own = settings_of(tmp_path / "own", windows={"lengths_seconds": [3600]})
        (tmp_path / "own").mkdir()
        records, labels = [], []
        rng = np.random.default_rng(11)
        for i in range(400):
            off = int(rng.integers(0, 4))
            at = START_US - 48 * HOUR_US + i * 60 * SECOND_US
            split = "train" if i % 2 else "validation"
            score = float(np.clip(1 - off / 10 + rng.normal(0, 0.05), 0.05, 0.99))
            records.append(seen(100_000 + i, at, ("car", score, square(10)), sequence=None, slices={"split": split}))
            worse = off if split == "train" else off + 1
            labels.append(label(100_000 + i, after(at), ("car", square(10 + worse))))
        paths = []
        for name, rows in (
            ("records", records),
            (
                "labels",
                [*labels, {**labels[0], "annotator": "bad", "instances": [{"class": "tram", "mask": square(0)}]}],
            ),
        ):
            paths.append(tmp_path / f"{name}.jsonl")
            paths[-1].write_bytes(b"".join(encode(one) + b"\n" for one in rows))
        with Store.open(own, write=True) as store:
            bad: list[str] = []
            _, baseline, counts = make_baseline(
                own,
                store,
                [paths[0]],
                model="street",
                version="1",
                labels=[paths[1]],
                activate=True,
                embedders=embedders(),
                on_bad=lambda _raw, error: bad.append(error.reason),
            )
            assert (counts.labelled, counts.bad_labels, bad) == (400, 1, ["unknown_class"])
            assert Baseline.from_bytes(baseline.to_bytes()).to_bytes() == baseline.to_bytes()
            yield store, own

    def production(self, count: int, worse: int, *, surer: float = 0.0) -> tuple[list[dict[str, Any]], list[int]]:
        rng = np.random.default_rng(12)
        off = [int(each) + worse for each in rng.integers(0, 4, count)]
        records = [
            seen(
                i,
                START_US + i * 60 * SECOND_US,
                ("car", float(np.clip(1 - (each - worse) / 10 + surer + rng.normal(0, 0.05), 0.05, 0.99)), square(10)),
                sequence=None,
            )
            for i, each in enumerate(off)
        ]
        return records, off

    def test_training_and_validation_stand_beside_production_and_a_drop_is_found(
        self, trained: tuple[Store, Settings]
    ) -> None:
        store, own = trained
        records, off = self.production(600, worse=2)
        put(store, own, [*records, *labels_of(off, range(0, 600, 6))])
        car = of(ask(own, "--window", "all")["windows"][0], "car")
        assert car["reference"]["labels"] == 400
        assert car["splits"]["split=train"]["point"] > car["splits"]["split=validation"]["point"] + 0.05
        assert car["drop"]["found"]
        assert car["drop"]["lower"] < car["reference"]["point"] - iou_of(off) < car["drop"]["upper"]

    def test_without_a_change_no_drop_is_found(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        half = [each + i % 2 for i, each in enumerate(off)]
        put(store, own, [*records, *labels_of(half, range(0, 600, 5))])
        assert not of(ask(own, "--window", "all")["windows"][0], "car")["drop"]["found"]

    def test_confidence_alone_gives_an_estimate_without_any_label(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        put(store, own, records)
        found = of(ask(own, "--window", "all")["windows"][0], "car", estimator="labelfree")
        truth = iou_of([each + i % 2 for i, each in enumerate(off)])
        assert found["lower"] < truth < found["upper"]
        assert found["point"] == pytest.approx(truth, abs=0.03)

    def test_it_is_withdrawn_where_spot_checks_say_otherwise(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(600, worse=3)  # as sure as ever, and wrong
        put(store, own, [*records, *labels_of(off, range(0, 600, 6))])
        found = of(ask(own, "--window", "all")["windows"][0], "car", estimator="labelfree")
        assert (found["status"], found["point"]) == ("withdrawn", None)
        assert "spot checks say" in found["reason"]

    def test_the_mean_over_classes_is_told_by_each_estimator(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        put(store, own, records)
        (window,) = ask(own, "--window", "all")["windows"]
        car, mean = (of(window, *which, estimator="labelfree") for which in (("car",), (None, "mean_iou")))
        assert [mean[side] for side in ("point", "lower", "upper")] == pytest.approx(
            [car[side] for side in ("point", "lower", "upper")]
        )
        put(store, own, labels_of(off, range(0, 600, 12)), "spot checks")
        (window,) = ask(own, "--window", "all")["windows"]
        found = {name: of(window, None, "mean_iou", name) for name in ("spotcheck", "assisted")}
        for one in found.values():
            assert one["lower"] < iou_of(off) < one["upper"]
        plain, helped = (one["upper"] - one["lower"] for one in found.values())
        assert helped < 0.7 * plain
        assert found["assisted"]["point"] == pytest.approx(of(window, "car", estimator="assisted")["point"], abs=0.005)

    def test_a_mean_of_which_a_class_is_withdrawn_is_withdrawn(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(600, worse=3)
        put(store, own, [*records, *labels_of(off, range(0, 600, 6))])
        mean = of(ask(own, "--window", "all")["windows"][0], None, "mean_iou", "labelfree")
        assert (mean["status"], mean["point"], mean["lower"]) == ("withdrawn", None, None)
        assert mean["reason"].startswith("car: spot checks say")

    def test_it_is_withdrawn_for_a_class_that_is_hardly_found_any_more(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, _ = self.production(600, worse=0)
        gone = [record if i % 6 == 0 else {**record, "instances": []} for i, record in enumerate(records)]
        put(store, own, gone)
        found = of(ask(own, "--window", "all")["windows"][0], "car", estimator="labelfree")
        assert (found["status"], found["point"]) == ("withdrawn", None)
        assert "17%" in found["reason"] or "drift" in found["reason"]

    def test_a_class_that_is_not_found_at_all_any_more_is_withdrawn_and_the_mean_with_it(
        self, trained: tuple[Store, Settings]
    ) -> None:
        store, own = trained
        records, _ = self.production(600, worse=0)
        put(store, own, [{**record, "instances": []} for record in records])
        (window,) = ask(own, "--window", "all")["windows"]
        car, mean = (of(window, *which, estimator="labelfree") for which in (("car",), (None, "mean_iou")))
        assert (car["status"], car["point"], mean["status"], mean["point"]) == ("withdrawn", None, "withdrawn", None)
        assert "finds nothing of the class" in car["reason"]
        assert mean["reason"].startswith("car: the model finds nothing")
        others = {one["class"] for one in window["classes"] if one["estimator"] == "labelfree"}
        assert others == {"car", None}  # of what the baseline never had nothing is missed

    def test_what_knows_nothing_of_unequal_sampling_says_so_and_gives_no_number(
        self, trained: tuple[Store, Settings]
    ) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        unsure = [
            {**one, "sampling_probability": 0.05} if each >= 3 else one for one, each in zip(records, off, strict=True)
        ]
        put(store, own, unsure)
        (window,) = ask(own, "--window", "all")["windows"]
        # Only records that were all kept are labelled: that others were not is known from these alone.
        put(store, own, labels_of(off, [i for i in range(600) if off[i] < 3][::6]), "labels")
        (labelled,) = ask(own, "--window", "all")["windows"]
        told = [of(window, "car", estimator="labelfree"), of(window, None, "mean_iou", "labelfree")]
        told += [of(labelled, "car", estimator=name) for name in ("labelfree", "assisted")]
        told += [of(labelled, None, "mean_iou", name) for name in ("labelfree", "assisted")]
        for one in told:
            assert (one["status"], one["point"], one["lower"]) == ("withdrawn", None, None)
            assert "sampled with probabilities from 0.05 to 1" in one["reason"]
        assert of(labelled, "car")["status"] == "ok"

    def test_equal_sampling_of_all_records_takes_nothing_away(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, _ = self.production(600, worse=0)
        put(store, own, [{**one, "sampling_probability": 0.05} for one in records])
        assert of(ask(own, "--window", "all")["windows"][0], "car", estimator="labelfree")["status"] == "ok"

    def test_what_the_model_expects_makes_the_interval_narrower(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(900, worse=0)
        put(store, own, [*records, *labels_of(off, range(0, 900, 12))])
        (window,) = ask(own, "--window", "all")["windows"]
        plain, helped = of(window, "car"), of(window, "car", estimator="assisted")
        assert helped["lower"] < iou_of(off) < helped["upper"]
        assert helped["upper"] - helped["lower"] < 0.7 * (plain["upper"] - plain["lower"])

    def test_a_drop_by_one_annotators_habit_is_told_from_one_of_the_model(
        self, trained: tuple[Store, Settings]
    ) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        good = labels_of([max(0, each - 1) for each in off], range(0, 600, 3), annotator="ann")
        sloppy = labels_of([each + 4 for each in off], range(1, 600, 3), annotator="new")
        put(store, own, [*records, *good, *sloppy])
        (window,) = ask(own, "--window", "all")["windows"]
        assert [one["annotator"] for one in window["annotators"]] == ["ann", "new"]
        assert window["drop_cause"] == "annotators"
        worse = labels_of([each + 4 for each in off], range(0, 600, 3), annotator="ann", annotation_version=2)
        put(store, own, worse, "worse")
        assert ask(own, "--window", "all")["windows"][0]["drop_cause"] == "model"

    def test_a_new_habit_is_not_called_a_drop_of_the_model_where_others_are_merely_unsure(
        self, trained: tuple[Store, Settings]
    ) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        near = labels_of([each + i % 2 for i, each in enumerate(off)], range(0, 600, 15), annotator="ann")
        sloppy = labels_of([each + 4 for each in off], range(1, 600, 6), annotator="new")
        put(store, own, [*records, *near, *sloppy])
        (window,) = ask(own, "--window", "all")["windows"]
        ann, new = window["annotators"]
        assert not ann["drop"]["found"] and ann["drop"]["upper"] > 0.05  # nobody is proved innocent
        assert new["drop"]["found"]
        (difference,) = window["annotator_differences"]
        assert (difference["annotator"], difference["other"], difference["shared"]) == ("new", "ann", 0)
        assert difference["upper"] < 0 and difference["found"]
        assert window["drop_cause"] == "annotators"

    def test_what_both_labelled_decides_where_there_is_enough_of_it(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        shared = labels_of(off, range(1, 600, 50), annotator="ann")
        sloppy = labels_of([each + 4 for each in off], range(1, 600, 10), annotator="new")
        put(store, own, [*records, *shared, *sloppy])
        (window,) = ask(own, "--window", "all")["windows"]
        (difference,) = window["annotator_differences"]
        assert (difference["shared"], difference["found"]) == (12, True)
        expected = iou_of([off[i] + 4 for i in range(1, 600, 50)]) - iou_of([off[i] for i in range(1, 600, 50)])
        assert difference["point"] == pytest.approx(expected, abs=1e-9)
        assert window["drop_cause"] == "annotators"

    @pytest.mark.parametrize(("annotator", "cause"), [("ann", "model"), ("new", "unknown")])
    def test_alone_an_annotator_speaks_of_the_model_only_where_the_baseline_knows_the_habit(
        self, trained: tuple[Store, Settings], annotator: str, cause: str
    ) -> None:
        store, own = trained
        records, off = self.production(600, worse=3)
        put(store, own, [*records, *labels_of(off, range(0, 600, 6), annotator=annotator)])
        (window,) = ask(own, "--window", "all")["windows"]
        assert window["annotators"][0]["drop"]["found"]
        assert (window["drop_cause"], window["annotator_differences"]) == (cause, [])

    def test_a_drop_in_some_labels_that_no_difference_of_annotators_explains_has_no_known_cause(
        self, trained: tuple[Store, Settings]
    ) -> None:
        store, own = trained
        records, off = self.production(600, worse=0)
        same = [each + i % 2 for i, each in enumerate(off)]
        # Both label alike what both see; the records that "new" alone has labelled are the bad ones.
        both = [one for name in ("ann", "new") for one in labels_of(same, range(0, 300, 6), annotator=name)]
        bad = labels_of([each + 6 for each in off], range(301, 600, 6), annotator="new")
        put(store, own, [*records, *both, *bad])
        (window,) = ask(own, "--window", "all")["windows"]
        assert [one["drop"]["found"] for one in window["annotators"]] == [False, True]
        assert (window["annotator_differences"][0]["shared"], window["drop_cause"]) == (50, "unknown")

    def test_labels_overrule_what_confidence_says_of_harm(self, trained: tuple[Store, Settings]) -> None:
        store, own = trained
        baseline = Baseline.from_bytes(store.baseline(next(iter(store.active_baselines().values())).meta.id).payload)
        records, off = self.production(600, worse=3)
        put(store, own, [*records, *labels_of(off, range(0, 600, 6))])
        rows = store.judged("street")
        assert harm_by_labels(rows, 600, baseline.reference, "") == "likely"
        assert harm_by_labels(rows, 600, None, "") is None
        assert harm_by_labels(rows[:1], 600, baseline.reference, "") is None
        same, off = self.production(600, worse=0)
        better = [replace_id(one) for one in same]
        told = [{**one, "input_id": f"other-{one['input_id']}"} for one in labels_of([0] * 600, range(0, 600, 2))]
        put(store, own, [*better, *told], "better")
        others = [row for row in store.judged("street") if row.input_id.startswith("other-")]
        assert harm_by_labels(others, 600, baseline.reference, "") == "unlikely"


def replace_id(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "input_id": f"other-{record['input_id']}"}
