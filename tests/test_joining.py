"""Labels meet their predictions, in any order, and change exactly what they should."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from monitor.classes import Classes
from monitor.evaluate import Evaluator
from monitor.judgements import Judged, from_payload
from monitor.offline import make_baseline, replay
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import (
    CORRECTIONS,
    LABEL_JOINS,
    LABELS,
    SPOTCHECK_CORRECTION,
    SPOTCHECK_IMAGES,
    SPOTCHECK_INSTANCES,
    SPOTCHECK_IOU_BUCKET,
)
from monitor.windows import DAY_US
from tests.embedded import (
    HOUR_US,
    NOW_US,
    add_baseline,
    embedders,
    encode,
    feed,
    image_record,
    open_store,
    settings_of,
)
from tests.made_labels import after, label, seen, square
from tests.made_records import lines, predictions

EVENT_US = NOW_US - 2 * HOUR_US
CAR = ("car", 0.9, square(0))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


_topics = (f"topic-{number}" for number in itertools.count())


def put(store: Store, settings: Settings, *records: dict[str, Any]) -> None:
    """Records are read from a log of their own, then the leader judges."""
    feed(store, settings, [encode(record) for record in records], topic_id=next(_topics))
    finish(store, settings)


def finish(store: Store, settings: Settings) -> None:
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()


def judged(store: Store, version: str = "1") -> list[Judged]:
    return [from_payload(row.payload) for row in store.judged("street", version)]


def sums(one: Judged) -> dict[str, tuple[int, int]]:
    """Class to pixels of intersection and union, by the annotation that counts."""
    judgement = one.settled[0].instance_judgement()
    assert judgement is not None
    pairs = zip(one.classes, judgement.intersection.tolist(), judgement.union.tolist(), strict=True)
    return {name: (i, u) for name, i, u in pairs if u}


def tallies(store: Store, series: str) -> dict[tuple[str, int], int]:
    return {(k.label, k.bucket): v for k, v in store.read_tallies().items() if k.series == series and v}


class TestOrder:
    @pytest.mark.parametrize("first", ["prediction", "label"])
    def test_a_label_is_judged_whether_it_comes_before_or_after_its_prediction(
        self, store: Store, settings: Settings, first: str
    ) -> None:
        both = [seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", square(5)))]
        for record in both if first == "prediction" else both[::-1]:
            put(store, settings, record)
        (one,) = judged(store)
        assert sums(one) == {"car": (50, 150)}
        assert tallies(store, SPOTCHECK_IMAGES) == {("", 0): 1}
        assert tallies(store, LABEL_JOINS) == {("joined", 0): 1}

    def test_a_second_version_that_comes_later_is_judged_by_the_same_label(
        self, store: Store, settings: Settings
    ) -> None:
        add_baseline(store, "street", "2")
        put(store, settings, seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", square(5))))
        put(store, settings, seen(1, EVENT_US, ("car", 0.9, square(5)), version="2"))
        assert sums(judged(store, "1")[0]) == {"car": (50, 150)}
        assert sums(judged(store, "2")[0]) == {"car": (100, 100)}

    def test_a_label_of_one_version_is_kept_from_the_others(self, store: Store, settings: Settings) -> None:
        add_baseline(store, "street", "2")
        own = label(1, after(EVENT_US), ("car", square(5)), model={"name": "street", "version": "2"})
        put(store, settings, seen(1, EVENT_US, CAR), seen(1, EVENT_US, CAR, version="2"), own)
        assert (len(judged(store, "1")), len(judged(store, "2"))) == (0, 1)

    def test_the_same_label_twice_changes_nothing(self, store: Store, settings: Settings) -> None:
        put(store, settings, seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", square(0))))
        before = store.judged("street")
        put(store, settings, label(1, after(EVENT_US), ("car", square(9))))
        assert store.judged("street") == before
        assert tallies(store, LABELS) == {("accepted", 0): 1, ("duplicate", 0): 1}
        assert tallies(store, SPOTCHECK_IMAGES) == {("", 0): 1}


class TestVersions:
    def test_a_higher_annotation_version_replaces_and_a_lower_one_never_does(
        self, store: Store, settings: Settings
    ) -> None:
        newer = label(1, after(EVENT_US, 900), ("car", square(5)), annotation_version=2)
        older = label(1, after(EVENT_US, 1800), ("car", square(0)), annotation_version=1)
        put(store, settings, seen(1, EVENT_US, CAR), newer)
        put(store, settings, older)
        assert sums(judged(store)[0]) == {"car": (50, 150)}
        assert tallies(store, LABELS) == {("accepted", 0): 1, ("superseded", 0): 1}
        put(store, settings, label(1, after(EVENT_US, 999), ("car", square(0)), annotation_version=3))
        assert sums(judged(store)[0]) == {"car": (100, 100)}

    def test_a_correction_moves_only_the_counters_of_corrections(self, store: Store, settings: Settings) -> None:
        put(store, settings, seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", square(0))))
        first = [tallies(store, series) for series in (SPOTCHECK_INSTANCES, SPOTCHECK_IOU_BUCKET, SPOTCHECK_IMAGES)]
        assert first[0] == {("car", 0): 1}
        put(store, settings, label(1, after(EVENT_US, 900), ("car", square(20)), annotation_version=2))
        again = [tallies(store, series) for series in (SPOTCHECK_INSTANCES, SPOTCHECK_IOU_BUCKET, SPOTCHECK_IMAGES)]
        assert again == first
        # The hit has become an invention and a miss.
        found = {CORRECTIONS[bucket]: count for (_, bucket), count in tallies(store, SPOTCHECK_CORRECTION).items()}
        assert found == {("tp", "fp"): 1, ("none", "fn"): 1}

    def test_several_versions_in_one_chunk_end_as_one_by_one(self, store: Store, settings: Settings) -> None:
        all_of_them = [
            label(1, after(EVENT_US, 60 * version), ("car", square(version)), annotation_version=version)
            for version in (2, 1, 3, 3)
        ]
        put(store, settings, seen(1, EVENT_US, CAR), *all_of_them)
        assert sums(judged(store)[0]) == {"car": (70, 130)}
        counts = {"accepted": 1, "superseded": 1, "replaced": 1, "duplicate": 1}
        assert tallies(store, LABELS) == {(name, 0): count for name, count in counts.items()}

    def test_an_audit_settles_what_annotators_disagree_on(self, store: Store, settings: Settings) -> None:
        put(
            store,
            settings,
            seen(1, EVENT_US, CAR),
            label(1, after(EVENT_US), ("car", square(5))),
            label(1, after(EVENT_US), ("car", square(9)), annotator="bob"),
        )
        assert len(judged(store)[0].settled) == 2
        put(store, settings, label(1, after(EVENT_US, 999), ("car", square(0)), annotator="chief", purpose="audit"))
        (settled,) = judged(store)[0].settled
        assert settled.annotator == "chief"


class TestBadLabels:
    def test_a_class_that_the_baseline_does_not_have_goes_to_the_dead_letters_once(
        self, store: Store, settings: Settings
    ) -> None:
        add_baseline(store, "street", "2")
        wrong = label(1, after(EVENT_US), ("tram", square(0)))
        put(store, settings, seen(1, EVENT_US, CAR), seen(1, EVENT_US, CAR, version="2"), wrong)
        finish(store, settings)
        with store.claim_outbox(10) as letters:
            (letter,) = letters
        assert letter.value == encode(wrong)
        assert dict(letter.headers)["segwatch_reason"] == b"unknown_class"
        assert b"tram" in dict(letter.headers)["segwatch_detail"]
        assert not judged(store)[0].settled
        assert not tallies(store, SPOTCHECK_IMAGES)

    def test_a_mask_of_another_size_is_refused(self, store: Store, settings: Settings) -> None:
        small = {"size": [4, 4], "counts": [0, 16]}
        put(store, settings, seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", small)))
        (one,) = judged(store)
        assert [own.problem for own in one.labels] == ["label_mismatch"]

    def test_a_label_31_days_after_its_prediction_is_unjoinable_and_one_of_29_days_is_not(
        self, store: Store, settings: Settings
    ) -> None:
        event_us = NOW_US - 40 * DAY_US
        put(
            store,
            settings,
            seen(1, event_us, CAR),
            seen(2, event_us, CAR),
            label(1, event_us + 31 * DAY_US, ("car", square(0))),
            label(2, event_us + 29 * DAY_US, ("car", square(0))),
        )
        assert tallies(store, LABEL_JOINS) == {("unjoinable", 0): 1, ("joined", 0): 1}
        assert [len(one.settled) for one in judged(store)] == [0, 1]

    def test_a_label_of_an_unknown_model_goes_to_the_dead_letters(self, store: Store, settings: Settings) -> None:
        put(store, settings, label(1, after(EVENT_US), model={"name": "boat", "version": "1"}))
        assert tallies(store, LABELS) == {("dead_letter", 0): 1}


class TestForms:
    def test_polygons_and_both_forms_of_rle_say_the_same(self, store: Store, settings: Settings) -> None:
        mask = square(5)
        polygon = [[5, 5, 15, 5, 15, 15, 5, 15]]
        plain = {"size": [40, 40], "counts": [205, *([10, 30] * 9), 10, 1600 - 205 - 390 - 10 + 0]}
        plain["counts"][-1] = 1600 - sum(plain["counts"][:-1])
        for number, own in enumerate((mask, polygon, plain)):
            put(store, settings, seen(number, EVENT_US, CAR), label(number, after(EVENT_US), ("car", own)))
        assert [sums(one) for one in judged(store)] == [{"car": (50, 150)}] * 3

    def test_semantic_maps_are_judged_by_pixels(self, store: Store, settings: Settings) -> None:
        def png(values: np.ndarray[Any, Any]) -> str:
            return base64.b64encode(cv2.imencode(".png", values)[1].tobytes()).decode()

        predicted = np.zeros((8, 8), np.uint8)
        predicted[:, 4:] = 1
        truth = np.zeros((8, 8), np.uint8)
        truth[:, 2:] = 1
        record = seen(1, EVENT_US)
        record["semantic"] = {"classes_png": png(predicted)}
        del record["instances"]
        told = label(1, after(EVENT_US))
        told["semantic"] = {"classes_png": png(truth)}
        del told["instances"]
        put(store, settings, record, told)
        (one,) = judged(store)
        judgement = one.settled[0].semantic_judgement()
        assert judgement is not None
        assert judgement.intersection.tolist()[:2] == [16, 32]
        assert judgement.union.tolist()[:2] == [32, 48]
        assert tallies(store, SPOTCHECK_INSTANCES) == {("bus", 0): 1, ("car", 0): 1}


class TestSizes:
    """A label of another image than the prediction's is refused, not stretched until it fits."""

    @staticmethod
    def with_map(record: dict[str, Any], *size: int) -> dict[str, Any]:
        found = cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes()
        return {**record, "instances": None, "semantic": {"classes_png": base64.b64encode(found).decode()}}

    @pytest.mark.parametrize(
        ("predicted", "labelled", "problem"),
        [
            ((96, 128), (64, 96), "label_mismatch"),
            ((96, 128), (48, 64), ""),
            ((96, 128), (33, 43), ""),  # a third, rounded up
            ((96, 128), (128, 96), "label_mismatch"),
            ((64, 64), (96, 128), ""),  # a network's square of an image whose size nobody has told
            ((64, 64), (64, 64), ""),
        ],
    )
    def test_a_map_has_the_shape_of_what_the_model_saw(
        self, store: Store, settings: Settings, predicted: tuple[int, int], labelled: tuple[int, int], problem: str
    ) -> None:
        record = self.with_map(seen(1, EVENT_US), *predicted)
        put(store, settings, record, self.with_map(label(1, after(EVENT_US)), *labelled))
        assert [one.problem for one in judged(store)[0].labels] == [problem]

    def test_a_map_of_a_part_of_the_known_image_is_refused_and_one_like_the_predictions_is_not(
        self, store: Store, settings: Settings
    ) -> None:
        add_baseline(store, "yard")
        record = self.with_map(image_record(1, EVENT_US), 32, 32)
        image = cv2.imdecode(np.frombuffer(base64.b64decode(record["image"]["data"]), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None and image.shape[0] != image.shape[1]  # the network's square is not the image's shape
        told = {**label(1, after(EVENT_US)), "input_id": record["input_id"]}
        square_label = self.with_map(told, 32, 32)
        other = self.with_map({**told, "annotator": "bob"}, 16, 16)
        put(store, settings, record, square_label, other)
        (one,) = [from_payload(row.payload) for row in store.judged("yard")]
        assert [(label.annotator, label.problem) for label in one.labels] == [("ann", ""), ("bob", "label_mismatch")]

    def test_masks_of_another_size_than_the_known_image_are_refused_where_nothing_was_found(
        self, store: Store, settings: Settings
    ) -> None:
        add_baseline(store, "yard")
        record = {**image_record(1, EVENT_US), "instances": []}
        told = {**label(1, after(EVENT_US), ("dog", square(0))), "input_id": record["input_id"]}
        put(store, settings, record, told)
        assert [one.problem for one in from_payload(store.judged("yard")[0].payload).labels] == ["label_mismatch"]

    def test_a_replay_counts_the_labels_that_fit_nothing(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        small = {"size": [10, 12], "counts": [0, 120]}
        records = [
            *(seen(i, EVENT_US, CAR) for i in range(4)),
            label(0, after(EVENT_US), ("car", square(5))),
            label(1, after(EVENT_US), ("car", small)),
            label(2, after(EVENT_US), ("tram", square(5))),
        ]
        file = tmp_path / "records.jsonl"
        file.write_bytes(b"".join(encode(one) + b"\n" for one in records))
        named: list[tuple[int, str]] = []
        counts, _ = replay(
            settings,
            [file],
            store=store,
            embedders=embedders(),
            on_bad=lambda raw, bad: named.append((raw.offset, bad.reason)),
        )
        assert (counts.read, counts.outcomes["ok"], counts.outcomes["dead_letter"]) == (7, 4, 2)
        assert counts.reasons == {"label_mismatch": 1, "unknown_class": 1}
        assert sorted(named) == [(6, "label_mismatch"), (7, "unknown_class")]


class TestHostile:
    """What one record does must not stop the leader, now or at every restart."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"instances": [{"class": "car", "mask": [[0, 0, 39, 0, 39, 39, 0, 39] * 100_000]}]},
            {"image_size": [2_000_000_000, 2_000_000_000]},
            {"instances": [{"class": "car", "mask": square(i % 30)} for i in range(2100)]},
            {"selection_probability": 5e-324},
        ],
    )
    def test_a_label_made_to_hurt_is_refused_or_judged_and_the_next_one_counts(
        self, store: Store, settings: Settings, changes: dict[str, Any]
    ) -> None:
        many = [("car", 0.5, square(i % 30)) for i in range(2100)] if len(changes.get("instances", [])) > 9 else [CAR]
        polygons = "image_size" in changes
        flat = ("car", 0.9, [[0, 0, 10, 0, 10, 10, 0, 10]])
        put(store, settings, seen(1, EVENT_US, *([flat] if polygons else many)), seen(2, EVENT_US, CAR))
        own = [("car", flat[2])] if polygons else [("car", square(0))]
        put(store, settings, {**label(1, after(EVENT_US), *own), **changes})
        put(store, settings, label(2, after(EVENT_US), ("car", square(5))))
        assert sums(judged(store)[-1]) == {"car": (50, 150)}

    def test_a_prediction_made_to_hurt_is_refused(self, store: Store, settings: Settings) -> None:
        zigzag = [[value for i in range(3000) for value in (0.0 if i % 2 else 4000.0, float(i % 7))]]
        record = seen(1, EVENT_US, ("car", 0.9, zigzag), ("car", 0.9, square(0)))
        put(store, settings, record, label(1, after(EVENT_US), ("car", square(0))))
        assert [one.problem for one in judged(store)[0].labels] == ["label_mismatch"]


class TestOnceEach:
    def test_an_audit_that_comes_first_does_not_keep_a_spot_check_from_counting(
        self, store: Store, settings: Settings
    ) -> None:
        audit = label(1, after(EVENT_US), ("car", square(0)), annotator="chief", purpose="audit")
        put(store, settings, seen(1, EVENT_US, CAR), audit)
        assert not tallies(store, SPOTCHECK_IMAGES)
        put(store, settings, label(1, after(EVENT_US, 900), ("car", square(0))))
        assert tallies(store, SPOTCHECK_IMAGES) == {("", 0): 1}

    def test_a_label_that_fits_one_model_is_not_refused_because_of_another(
        self, store: Store, settings: Settings
    ) -> None:
        add_baseline(store, "yard")
        other = seen(1, EVENT_US, ("dog", 0.9, square(0)), model={"name": "yard", "version": "1"})
        other.pop("embedding")
        other["image"] = image_record(1, EVENT_US)["image"]
        put(store, settings, seen(1, EVENT_US, CAR), other, label(1, after(EVENT_US), ("dog", square(0))))
        for number, name in enumerate(("bob", "eve")):
            put(store, settings, label(1, after(EVENT_US, 900 + number), ("dog", square(0)), annotator=name))
        assert store.outbox_pending() == 0
        assert [len(from_payload(row.payload).settled) for row in store.judged("yard")] == [3]

    def test_labels_of_a_record_without_masks_are_unjoinable_once_each(self, tmp_path: Path) -> None:
        own = settings_of(tmp_path, windows={"lengths_seconds": [3600]}, quality={"keep_masks_days": 0})
        with open_store(own) as store:
            put(store, own, seen(1, EVENT_US, CAR))
            for name in ("ann", "bob", "eve"):
                put(store, own, label(1, after(EVENT_US), ("car", square(0)), annotator=name))
            assert tallies(store, LABEL_JOINS) == {("unjoinable", 0): 3}

    def test_a_baseline_with_other_classes_judges_its_labels_again(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
        feed(store, settings, [encode(seen(1, EVENT_US, CAR)), encode(label(1, after(EVENT_US), ("car", square(5))))])
        evaluator.finish()
        before = judged(store)[0]
        file = tmp_path / "more.jsonl"
        file.write_bytes(lines(predictions(60, EVENT_US - 50 * HOUR_US, 1, first=700_000)))
        more = Classes((*before.classes, "tram"), (0, 1, 2, 3))
        make_baseline(
            settings, store, [file], model="street", version="1", classes=more, activate=True, embedders=embedders()
        )
        evaluator.finish()
        evaluator.close()
        (row,) = store.judged("street")
        assert (row.revision, from_payload(row.payload).classes) == (1, [*before.classes, "tram"])
        assert sums(from_payload(row.payload)) == sums(before)

    @pytest.mark.parametrize("version", ["1", "2"])
    def test_a_label_of_an_unknown_class_counts_once_a_baseline_has_the_class(
        self, store: Store, settings: Settings, tmp_path: Path, version: str
    ) -> None:
        """``version`` "2" has no baseline of its own. Nobody leads when the new one becomes active."""
        trams = seen(1, EVENT_US, ("tram", 0.9, square(0)), version=version)
        put(store, settings, trams, seen(2, EVENT_US, CAR, version=version))
        put(
            store, settings, label(1, after(EVENT_US), ("tram", square(5))), label(2, after(EVENT_US), (CAR[0], CAR[2]))
        )
        before = judged(store, version)
        assert [[one.problem for one in each.labels] for each in before] == [["unknown_class"], [""]]
        file = tmp_path / "more.jsonl"
        file.write_bytes(lines(predictions(60, EVENT_US - 50 * HOUR_US, 1, first=700_000)))
        more = Classes((*before[0].classes, "tram"), (0, 1, 2, 3))
        make_baseline(
            settings, store, [file], model="street", version="1", classes=more, activate=True, embedders=embedders()
        )
        for _ in range(2):  # the second time there is nothing left to do
            finish(store, settings)
            assert [sums(one) for one in judged(store, version)] == [{"tram": (50, 150)}, {"car": (100, 100)}]
            assert tallies(store, SPOTCHECK_IMAGES) == {("", 0): 2}
            assert tallies(store, SPOTCHECK_INSTANCES) == {("car", 0): 1, ("tram", 1): 1, ("tram", 2): 1}
            assert tallies(store, LABEL_JOINS) == {("bad", 0): 1, ("joined", 0): 1}
        assert [row.revision for row in store.judged("street", version)] == [1, 1]
        assert [rows[0].state for rows in store.labels_of(["input-000001", "input-000002"]).values()] == ["judged"] * 2
        assert store.outbox_pending() == 1  # the dead letter from when it was refused


class TestNew:
    """A retraining waits for new labels: an input's label is new once."""

    def later(self, store: Store, settings: Settings, hours: int, *records: dict[str, Any]) -> int:
        """Read and judge so many hours later; how many labels are new since ``NOW_US``."""
        feed(store, settings, [encode(record) for record in records], topic_id=next(_topics))
        evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US + hours * HOUR_US)
        evaluator.finish()
        evaluator.close()
        return store.actions.labels_ready("street", NOW_US)

    def test_neither_a_second_annotator_nor_a_correction_nor_other_classes_make_it_new_again(
        self, store: Store, settings: Settings
    ) -> None:
        put(store, settings, seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", square(5))))
        assert self.later(store, settings, 1, label(1, after(EVENT_US), ("car", square(3)), annotator="bob")) == 0
        assert self.later(store, settings, 2, label(1, after(EVENT_US), ("car", square(1)), annotation_version=2)) == 0
        with store.try_lead() as leader:
            leader.judge_again("street", "1", "[]")
        assert self.later(store, settings, 3) == 0
        assert store.judged("street")[0].revision == 3
        assert store.actions.labels_ready("street", NOW_US - 1) == 1

    def test_a_label_that_fits_no_record_is_not_new_and_its_correction_is(
        self, store: Store, settings: Settings
    ) -> None:
        bad = label(1, after(EVENT_US), ("tram", square(0)))
        assert self.later(store, settings, 1, seen(1, EVENT_US, CAR), bad) == 0
        assert store.actions.labelled("street", NOW_US, 10) == []
        good = label(1, after(EVENT_US), ("car", square(0)), annotation_version=2)
        assert self.later(store, settings, 2, good) == 1
        assert [one.input_id for one in store.actions.labelled("street", NOW_US, 10)] == ["input-000001"]


class TestTooLate:
    def test_a_correction_that_comes_after_the_masks_are_gone_is_counted_and_changes_nothing(
        self, store: Store, settings: Settings
    ) -> None:
        put(store, settings, seen(1, EVENT_US, CAR), label(1, after(EVENT_US), ("car", square(5))))
        with store.try_lead() as leader:
            assert leader.forget_masks(NOW_US) == 1
        for _ in range(2):
            put(store, settings, label(1, after(EVENT_US, 900), ("car", square(0)), annotation_version=2))
            assert [sums(one) for one in judged(store)] == [{"car": (50, 150)}]
            assert tallies(store, LABEL_JOINS) == {("joined", 0): 1, ("uncorrectable", 0): 1}
        put(store, settings, label(1, after(EVENT_US, 950), ("car", square(0)), annotation_version=3))
        assert tallies(store, LABEL_JOINS) == {("joined", 0): 1, ("uncorrectable", 0): 2}

    def test_a_correction_beyond_the_join_days_leaves_what_was_said_before(
        self, store: Store, settings: Settings
    ) -> None:
        event_us = NOW_US - 40 * DAY_US
        put(store, settings, seen(1, event_us, CAR), label(1, event_us + DAY_US, ("car", square(5))))
        late = event_us + 31 * DAY_US
        put(store, settings, label(1, late, ("car", square(0)), annotation_version=2))
        # Another annotator's label has all of it judged again; what came too late stays out.
        put(store, settings, label(1, event_us + 2 * DAY_US, ("car", square(0)), annotator="bob"))
        (one,) = judged(store)
        assert [(each.annotator, each.annotation_version, each.problem) for each in one.labels] == [
            ("ann", 1, ""),
            ("bob", 1, ""),
        ]
        assert sums(one) == {"car": (50, 150)}
        assert tallies(store, LABEL_JOINS) == {("joined", 0): 2, ("uncorrectable", 0): 1}
        assert tallies(store, SPOTCHECK_IMAGES) == {("", 0): 1}
        assert not tallies(store, SPOTCHECK_CORRECTION)
