"""What segwatch queues to be labelled, why, how much a day, and what is asked of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import sqlalchemy

from monitor.alert_actions import AlertActions, parse_group
from monitor.class_need import needs_in
from monitor.drift import Baselines
from monitor.evaluate import Evaluator, to_message
from monitor.quality_evidence import evidence_of
from monitor.relabel_fill import RelabelFill
from monitor.schemas import read_schema
from monitor.settings import Settings
from monitor.store import outbox
from monitor.store.relabel import RelabelItem
from monitor.store.store import Store
from monitor.store.values import StoredQuality
from monitor.tallies import SPOTCHECK_IMAGES
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, add_baseline, encode, feed, open_store, settings_of
from tests.made_labels import after, label, seen, square
from tests.made_records import predictions
from tests.test_alert_actions import alert, grouped

BEGAN_US = NOW_US - NOW_US % DAY_US
OFF = {"drift_share": 0.0, "quality_share": 0.0, "disagreement_share": 0.0}


class Wall:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_us = BEGAN_US + 9 * HOUR_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def wall() -> Wall:
    return Wall()


def settings_with(folder: Path, **relabel: Any) -> Settings:
    return settings_of(folder, windows={"lengths_seconds": [3600]}, relabel=relabel)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def evaluate(store: Store, settings: Settings, wall: Wall) -> None:
    evaluator = Evaluator(store, settings, wall_us=wall)
    try:
        evaluator.finish()
    finally:
        evaluator.close()


def put(store: Store, settings: Settings, records: Sequence[dict[str, Any]], topic: str) -> None:
    feed(store, settings, [encode(record) for record in records], topic_id=topic)


def shifted(store: Store, settings: Settings, wall: Wall, hour: int = 0, first: int = 0, **more: Any) -> None:
    """Sixty records of an hour, far from the baseline's; evaluated."""
    records = list(predictions(60, BEGAN_US + hour * HOUR_US, 0.25, first=first, shift=2.0, **more))
    put(store, settings, records, f"hour-{hour}-{first}")
    evaluate(store, settings, wall)


def items(store: Store, kind: Any = None) -> list[RelabelItem]:
    return store.relabel.items(kind=kind)


def requests(store: Store) -> list[dict[str, Any]]:
    """Requests to relabel that wait in the outbox; each as its schema has it."""
    found = []
    with store.claim_outbox(1000) as claimed:
        for message in claimed:
            claimed.keep(message.id)
            if ("ce_type", b"segwatch.relabel_requested.v1") in message.headers:
                content = msgspec.json.decode(message.value or b"")
                jsonschema.validate(content, read_schema("segwatch.relabel_requested.v1"))
                assert content["id"] == message.id
                found.append(content)
    return found


class TestDrift:
    def test_an_alarm_queues_what_is_typical_of_it_and_asks_for_it_once(
        self, store: Store, settings: Settings, wall: Wall
    ) -> None:
        shifted(store, settings, wall)
        queued = items(store)
        assert len(queued) == 20
        assert {(one.kind, one.probability, one.state) for one in queued} == {("drift", None, "open")}
        assert [one.priority for one in queued] == sorted((one.priority for one in queued), reverse=True)
        assert all(one.reason.startswith("typical of the shift of embedding") for one in queued)
        [asked] = requests(store)
        assert [one["input_id"] for one in asked["evidence"]["samples"]] == [one.input_id for one in queued]
        assert asked["evidence"]["window"]["start"] == to_text(BEGAN_US)
        assert any(one["alarm"] for one in asked["evidence"]["scores"])
        assert asked["evidence"]["thresholds"]["embedding"] > 0
        evaluate(store, settings, wall)
        assert items(store) == queued and len(requests(store)) == 1

    def test_another_store_gives_the_same_id(
        self, store: Store, settings: Settings, wall: Wall, tmp_path: Path
    ) -> None:
        shifted(store, settings, wall)
        other = settings_with(tmp_path / "other")
        with open_store(other) as second:
            shifted(second, other, wall)
            assert requests(second)[0]["id"] == requests(store)[0]["id"]

    def test_a_revision_adds_what_the_budget_leaves_and_names_it_in_a_request_of_its_own(
        self, store: Store, settings: Settings, wall: Wall
    ) -> None:
        shifted(store, settings, wall)
        shifted(store, settings, wall, first=1000)
        queued = {one.input_id for one in items(store)}
        assert len(queued) == len(items(store)) == 25
        assert len({one.cause for one in items(store)}) == 1
        asked = requests(store)
        assert len({one["id"] for one in asked}) == 2
        assert sorted(one["evidence"]["window"]["revision"] for one in asked) == [0, 1]
        named = [sample["input_id"] for one in asked for sample in one["evidence"]["samples"]]
        assert len(named) == 25 and set(named) == queued
        shifted(store, settings, wall, first=2000)  # the budget is spent: nothing is queued, nothing is asked
        assert len(items(store)) == 25 and len(requests(store)) == 2

    def test_the_budget_is_of_a_day_of_the_clock(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, budget_per_day=6)
        with open_store(settings) as store:
            shifted(store, settings, wall)
            shifted(store, settings, wall, hour=1, first=1000)
            assert len(items(store)) == 3  # half of the budget is for drift
            wall.now_us += DAY_US
            shifted(store, settings, wall, hour=2, first=2000)
            assert len(items(store)) == 6

    def test_without_a_budget_or_kept_masks_nothing_is_queued(self, tmp_path: Path, wall: Wall) -> None:
        for name, settings in (
            ("budget", settings_with(tmp_path / "budget", budget_per_day=0)),
            (
                "masks",
                settings_of(tmp_path / "masks", windows={"lengths_seconds": [3600]}, quality={"keep_masks_days": 0}),
            ),
        ):
            (tmp_path / name).mkdir()
            with open_store(settings) as store:
                shifted(store, settings, wall)
                assert items(store) == [] and requests(store) == []

    def test_what_has_a_label_is_not_asked_for(self, store: Store, settings: Settings, wall: Wall) -> None:
        labelled = [label(i, after(BEGAN_US)) for i in range(0, 60, 2)]
        put(store, settings, labelled, "labels")
        shifted(store, settings, wall)
        assert items(store)
        assert all(int(one.input_id.removeprefix("input-")) % 2 for one in items(store))

    def test_of_a_slice_that_shifts_alone_only_its_own_records(
        self, store: Store, settings: Settings, wall: Wall
    ) -> None:
        put(store, settings, list(predictions(40, BEGAN_US, 0.25, shift=1.0, slices={"camera": "1"})), "one")
        put(store, settings, list(predictions(2000, BEGAN_US, 0.25, first=10_000, slices={"camera": "2"})), "two")
        evaluate(store, settings, wall)
        queued = items(store)
        assert len(queued) == 25
        assert all(int(one.input_id.removeprefix("input-")) < 40 for one in queued)
        assert requests(store)[0]["evidence"]["window"]["slice"] == "camera=1"

    def test_an_evaluator_that_is_cut_off_leaves_verdict_queue_and_request_for_the_next_one(
        self, store: Store, settings: Settings, wall: Wall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut_off(*_: object) -> None:
            raise RuntimeError("cut off")

        put(store, settings, list(predictions(60, BEGAN_US, 0.25, shift=2.0)), "log")
        with monkeypatch.context() as patch:
            patch.setattr(outbox, "queue", cut_off)
            with pytest.raises(RuntimeError, match="cut off"):
                evaluate(store, settings, wall)
        assert items(store) == [] and store.scores("street") == []
        evaluate(store, settings, wall)
        assert len(items(store)) == 20 and len(requests(store)) == 1


class TestAlerts:
    """Alerts whose action is to relabel queue what they ask for."""

    def take(self, store: Store, settings: Settings, name: str, **labels: str) -> dict[str, Any]:
        labels = {"alertname": name, "action": "relabel", "model": "street", "version": "1", **labels}
        one = alert(None, fingerprint=name, labels=labels)
        [identity] = AlertActions(store, lambda: settings).take(parse_group(encode(grouped(one))), "test").new
        [action] = [asked for asked in requests(store) if asked["id"] == identity]
        return action

    def test_about_a_class_it_queues_records_that_have_it(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, drift_share=0.0)
        with Store.open(settings, write=True, clock=wall) as store:
            add_baseline(store, "street")
            put(store, settings, hour_of(200), "log")
            evaluate(store, settings, wall)
            action = self.take(store, settings, "SegwatchQualityBurnFast", **{"class": "bus"})
            queued = items(store)
            assert len(queued) == 15 and {one.kind for one in queued} == {"quality"}  # 30 % of 50
            assert all(int(one.input_id.removeprefix("input-")) % 10 == 0 for one in queued)
            named = action["evidence"]["samples"]
            assert [one["input_id"] for one in named] == [one.input_id for one in queued]
            assert len(store.relabel.claim(20, "eve", HOUR_US).items) == 15
            put(store, settings, [label(0, wall.now_us + 1, input_id=one.input_id) for one in queued], "labels")
            evaluate(store, settings, wall)
            assert items(store) == []
            evidence = evidence_of(store.judged("street"), 200)
            assert (len(evidence.inputs), evidence.left_out) == (0, 15)

    def test_the_newest_records_are_found_without_reading_a_day(
        self, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = settings_with(tmp_path)
        with Store.open(settings, write=True, clock=wall) as store:
            add_baseline(store, "street")
            put(store, settings, hour_of(200), "log")
            since_us, until_us = BEGAN_US + HOUR_US - DAY_US, BEGAN_US + HOUR_US
            read: list[Any] = []
            sqlalchemy.event.listen(
                store._database.engine, "before_cursor_execute", lambda *about: read.append(about[3])
            )

            def found(count: int) -> list[str]:
                read.clear()
                return [one.input_id for one in store.candidates.candidates("street", "1", since_us, until_us, count)]

            every = found(300)
            assert every == [f"input-{n:06d}" for n in reversed(range(200))]
            assert any(since_us in parameters for parameters in read)
            assert found(100) == every[:100]
            assert not any(since_us in parameters for parameters in read)
            monkeypatch.delattr(Store, "pane_extent")  # which adds up all panes that are kept
            assert self.take(store, settings, "SegwatchQualityBurnFast", **{"class": "bus"})["evidence"]["samples"]

    def test_about_a_shift_it_names_what_waits_already_and_queues_the_rest(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, drift_share=0.1)
        with Store.open(settings, write=True, clock=wall) as store:
            add_baseline(store, "street")
            shifted(store, settings, wall)
            before = {one.input_id for one in items(store)}
            assert len(before) == 5
            more = settings_with(tmp_path, drift_share=0.4)
            action = self.take(store, more, "SegwatchDrift")
            queued = {one.input_id for one in items(store)}
            assert len(queued) == 20
            named = [one["input_id"] for one in action["evidence"]["samples"]]
            assert len(named) == len(set(named)) == 20 and set(named) == queued
            again = self.take(store, more, "SegwatchDriftAgain")
            assert {one["input_id"] for one in again["evidence"]["samples"]} == queued
            assert len(items(store)) == 20  # what waits is not queued for a second alert

    def test_what_has_been_labelled_is_neither_named_nor_queued(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path)
        with Store.open(settings, write=True, clock=wall) as store:
            add_baseline(store, "street")
            shifted(store, settings, wall)
            put(store, settings, [label(i, after(BEGAN_US)) for i in range(60)], "labels")
            action = self.take(store, settings, "SegwatchDrift")
            assert action["evidence"]["samples"] == [] and items(store) == []


class TestLabelsOfSuspects:
    def test_they_stay_out_of_estimates_and_counters_whatever_they_say(
        self, store: Store, settings: Settings, wall: Wall
    ) -> None:
        shifted(store, settings, wall)
        suspects = [int(one.input_id.removeprefix("input-")) for one in items(store)]
        others = [i for i in range(60) if i not in suspects]
        assert len(store.relabel.claim(20, "eve", HOUR_US).items) == 20
        put(store, settings, [label(i, after(BEGAN_US)) for i in suspects], "labels")
        evaluate(store, settings, wall)
        assert items(store) == []
        evidence = evidence_of(store.judged("street"), 60)
        assert (len(evidence.inputs), evidence.left_out) == (0, 20)
        assert not [key for key, value in store.read_tallies().items() if key.series == SPOTCHECK_IMAGES and value]
        put(store, settings, [label(i, after(BEGAN_US)) for i in others], "more labels")
        evaluate(store, settings, wall)
        evidence = evidence_of(store.judged("street"), 60)
        assert (len(evidence.inputs), evidence.left_out) == (40, 20)

    def test_a_label_made_after_the_request_was_made_for_it(self, store: Store, settings: Settings, wall: Wall) -> None:
        shifted(store, settings, wall)
        suspects = {one.input_id for one in items(store)}
        put(store, settings, [label(i, wall.now_us + HOUR_US) for i in range(60)], "labels")
        evaluate(store, settings, wall)
        evidence = evidence_of(store.judged("street"), 60)
        assert (len(evidence.inputs), evidence.left_out) == (40, 20)
        assert not suspects & set(evidence.inputs)

    def test_a_label_made_before_the_request_was_drawn_by_the_annotators_themselves(
        self, store: Store, settings: Settings, wall: Wall
    ) -> None:
        shifted(store, settings, wall)
        assert len(items(store)) == 20
        put(store, settings, [label(i, after(BEGAN_US)) for i in range(60)], "labels")
        evaluate(store, settings, wall)
        evidence = evidence_of(store.judged("street"), 60)
        assert (len(evidence.inputs), evidence.left_out) == (60, 0)

    def test_a_probability_of_their_own_counts(self, store: Store, settings: Settings, wall: Wall) -> None:
        shifted(store, settings, wall)
        number = int(items(store)[0].input_id.removeprefix("input-"))
        put(store, settings, [label(number, after(BEGAN_US), selection_probability=0.5)], "labels")
        evaluate(store, settings, wall)
        assert evidence_of(store.judged("street"), 60).probability.tolist() == [0.5]


def hour_of(count: int, **more: Any) -> list[dict[str, Any]]:
    """One record in ten has a bus, all others a car."""
    return [
        seen(i, BEGAN_US + i * 3600 * SECOND_US // count, ("bus" if i % 10 == 0 else "car", 0.9, square(10)), **more)
        for i in range(count)
    ]


class TestQuality:
    def test_a_class_that_is_known_too_loosely_gets_records_that_have_it(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, drift_share=0.0)
        with open_store(settings) as store:
            records = hour_of(200)
            put(store, settings, records, "log")
            told = [0, 10, *range(1, 9), *range(11, 80)]
            labels = [label(i, after(BEGAN_US), ("bus" if i % 10 == 0 else "car", square(10 + i % 3))) for i in told]
            put(store, settings, labels, "labels")
            evaluate(store, settings, wall)
            queued = items(store)
            assert 0 < len(queued) <= 15  # 30 % of 50
            causes = {one.cause for one in queued}
            assert causes == {f"quality: bus loose {to_text(BEGAN_US + HOUR_US)[:10]}"}
            assert all(int(one.input_id.removeprefix("input-")) % 10 == 0 for one in queued)
            assert not {one.input_id for one in queued} & {f"input-{i:06d}" for i in told}
            [asked] = requests(store)
            assert asked["evidence"]["classes"] == ["bus"]
            assert asked["evidence"]["quality"][0]["class"] == "bus"
            assert [one["selection_probability"] for one in asked["evidence"]["samples"]] == [None] * len(queued)
            put(store, settings, [label(91, after(BEGAN_US), ("car", square(10)))], "one more")
            evaluate(store, settings, wall)
            assert items(store) == queued and len(requests(store)) == 1  # the same day, the same cause

    def test_without_any_label_nobody_is_asked(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, drift_share=0.0)
        with open_store(settings) as store:
            put(store, settings, hour_of(100), "log")
            evaluate(store, settings, wall)
            assert items(store) == []

    @pytest.mark.parametrize(
        ("figures", "expected"),
        [
            ({"point": 0.5, "lower": 0.45, "upper": 0.55}, None),
            ({"point": 0.5, "lower": 0.3, "upper": 0.7}, ("loose", 1.0)),
            ({"point": 0.5, "lower": 0.4, "upper": 0.65}, ("loose", 0.25)),
            ({"point": None, "lower": None, "upper": None, "status": "too_few_labels", "labels": 3}, ("loose", 1.0)),
            ({"point": None, "lower": None, "upper": None, "status": "too_few_labels", "labels": 0}, None),
            ({"point": None, "lower": None, "upper": None, "status": "absent"}, None),
            (
                {"point": 0.5, "lower": 0.49, "upper": 0.51,
                 "drop": {"point": 0.2, "lower": 0.1, "upper": 0.3, "found": True}},
                ("dropped", 1.0),
            ),
        ],
    )  # fmt: skip
    def test_need_follows_from_what_was_estimated(self, figures: dict[str, Any], expected: Any) -> None:
        one = {"class": "bus", "metric": "iou", "estimator": "spotcheck", "labels": 40, "status": "ok", **figures}
        others = [{**one, "class": None}, {**one, "estimator": "labelfree"}, {**one, "metric": "precision"}]
        stored = StoredQuality("street", "3", 0, 1, 2, msgspec.json.encode({"classes": [one, *others]}))
        found = [(need.why, pytest.approx(need.need)) for need in needs_in(stored, 0.2)]
        assert found == ([] if expected is None else [expected])


class TestDisagreement:
    def test_between_annotators_what_no_audit_has_settled(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, drift_share=0.0, quality_share=0.0)
        with open_store(settings) as store:
            put(store, settings, hour_of(40), "log")
            # From the 30th on the two are eight pixels of ten apart: IoU 2 / 18.
            labels = [label(i, after(BEGAN_US), ("car", square(10)), annotator="ann") for i in range(40)]
            labels += [
                label(i, after(BEGAN_US), ("car", square(18 if i >= 30 else 11)), annotator="bob") for i in range(40)
            ]
            labels += [label(39, after(BEGAN_US), ("car", square(10)), annotator="eve", purpose="audit")]
            put(store, settings, labels, "labels")
            evaluate(store, settings, wall)
            queued = items(store)
            assert {one.input_id for one in queued} == {f"input-{i:06d}" for i in range(30, 39)}
            assert {(one.kind, one.cause) for one in queued} == {("disagreement", "annotators")}
            assert {one.reason for one in queued} == {"ann and bob disagree on car: IoU 0.11"}
            put(store, settings, [label(30, after(BEGAN_US), ("car", square(10)), annotator="eve")], "audit")
            evaluate(store, settings, wall)
            assert {one.input_id for one in items(store)} == {f"input-{i:06d}" for i in range(31, 39)}

    def test_between_versions_on_the_same_input(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, drift_share=0.0, quality_share=0.0, budget_per_day=20)
        with open_store(settings) as store:
            put(store, settings, hour_of(40), "stable")
            canary = [
                seen(i, BEGAN_US + i * 90 * SECOND_US, ("bus" if i % 10 == 0 else "car", 0.9, square(10 + i // 4)),
                     version="2")
                for i in range(40)
            ]  # fmt: skip
            put(store, settings, canary, "canary")
            evaluate(store, settings, wall)
            queued = items(store)
            assert len(queued) == 4  # a fifth of the budget
            assert [one.input_id for one in queued] == [f"input-{i:06d}" for i in (36, 37, 38, 39)]
            assert {(one.version, one.cause) for one in queued} == {("2", "versions: 1 and 2")}
            assert queued[0].reason == "versions 1 and 2 disagree on car: IoU 0.05"
            assert requests(store) == []


class TestActiveLearning:
    def unsure(self, count: int) -> list[dict[str, Any]]:
        """One record in eight is of low score; embeddings in four heaps, of which one is small."""
        records = []
        for i in range(count):
            at = [0.0] * 16
            at[i % 3 if i % 16 else 3] = 3.0
            score = 0.2 if i % 8 == 0 else 0.95
            instance = ("car", score, square(10))
            records.append(seen(i, BEGAN_US + i * 3600 * SECOND_US // count, instance, embedding=at))
        return records

    def test_by_chance_its_labels_count_weighed_by_the_probability(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, active_share=1.0, budget_per_day=480, **OFF)
        with open_store(settings) as store:
            put(store, settings, self.unsure(400), "log")
            evaluate(store, settings, wall)
            queued = items(store, "training")
            assert len(queued) == pytest.approx(20, abs=1)  # a twenty-fourth of the day's
            rows = {row.input_id: row for row in store.open_spot_checks()}
            assert {one.input_id: one.probability for one in queued} == {
                name: row.probability for name, row in rows.items()
            }
            assert {row.stream for row in rows.values()} == {"training"}
            low = [one for one in queued if int(one.input_id.removeprefix("input-")) % 8 == 0]
            assert len(low) >= 12
            assert low[0].reason == "unsure (0.20)"
            told = [
                label(int(one.input_id.removeprefix("input-")), after(BEGAN_US), ("car", square(10))) for one in queued
            ]
            put(store, settings, told, "labels")
            evaluate(store, settings, wall)
            evidence = evidence_of(store.judged("street"), 400)
            assert evidence.left_out == 0
            expected = {one.input_id: one.probability for one in queued}
            assert dict(zip(evidence.inputs, evidence.probability.tolist(), strict=True)) == pytest.approx(expected)
            assert not [key for key, value in store.read_tallies().items() if key.series == SPOTCHECK_IMAGES and value]

    def test_greedily_it_takes_unsure_ones_from_every_heap_and_has_no_probability(
        self, tmp_path: Path, wall: Wall
    ) -> None:
        settings = settings_with(tmp_path, active_share=1.0, budget_per_day=8, strategy="greedy", **OFF)
        with open_store(settings) as store:
            put(store, settings, self.unsure(400), "log")
            evaluate(store, settings, wall)
            queued = items(store)
            assert len(queued) == 8
            assert {(one.kind, one.stream, one.probability) for one in queued} == {("training", "greedy", None)}
            numbers = [int(one.input_id.removeprefix("input-")) for one in queued]
            assert {i % 3 if i % 16 else 3 for i in numbers} == {0, 1, 2, 3}
            assert sum(i % 8 == 0 for i in numbers) >= 4
            evaluate(store, settings, wall)
            assert items(store) == queued

    def test_greedily_an_hour_has_its_part_whoever_leads(self, tmp_path: Path, wall: Wall) -> None:
        settings = settings_with(tmp_path, active_share=1.0, budget_per_day=48, strategy="greedy", **OFF)
        with open_store(settings) as store:
            put(store, settings, self.unsure(400), "log")
            evaluate(store, settings_with(tmp_path, **OFF), wall)
            for hour in (1, 1, 1, 2):  # each by a leader that knows nothing of those before
                fill = RelabelFill(
                    store,
                    settings,
                    Baselines(store),
                    wall,
                    lambda action: to_message(action, "segwatch.actions", wall.now_us),
                    lambda *_: "http://127.0.0.1/",
                )
                leader = store.try_lead()
                assert leader is not None
                with leader:
                    fill.step(leader, BEGAN_US + hour * HOUR_US, ())
                assert len(items(store)) == 2 * hour
