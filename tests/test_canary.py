"""Canaries end to end on SQLite: pairs, split traffic, verdicts, classes that differ, the leader's request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from monitor import canary_sample
from monitor.canary import Asked, compare
from monitor.canary_watch import newest_versions
from monitor.cli import cli
from monitor.drift import Baselines
from monitor.errors import InputError
from monitor.evaluate import Evaluator
from monitor.exposition import Writer
from monitor.labels.index_png import base64_text, index_png
from monitor.live_settings import LiveSettings
from monitor.metrics import families
from monitor.schemas import read_schema
from monitor.settings import Settings
from monitor.snapshot import snapshot
from monitor.store.canary import Canaries, Seen
from monitor.store.store import Store
from monitor.store.values import PaneExtent
from monitor.web import create_app
from monitor.web_canary import CanaryState, canary_router
from monitor.web_state import StoreState
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, add_baseline, encode, feed, open_store, settings_of
from tests.made_canary import START_US, WIDTH, at, both, labels, offsets, pooled, prediction
from tests.made_labels import label, square

GOOD = offsets(300, 2.0, 1)
WORSE = offsets(300, 2.7, 2)
PANE_US = 300 * SECOND_US
ASKED = Asked("street", "1", "2")
WATCH = {"watch": ["street:1:2"]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, canary=WATCH)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def put(store: Store, settings: Settings, records: list[dict[str, Any]], topic: str = "log") -> None:
    feed(store, settings, [encode(record) for record in records], topic_id=topic)
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()


def told(store: Store, settings: Settings, asked: Asked = ASKED) -> dict[str, Any]:
    return compare(store, settings, asked, Baselines(store))


def of(shown: dict[str, Any], class_name: str | None, metric: str = "iou") -> dict[str, Any]:
    (found,) = [one for one in shown["classes"] if (one["class"], one["metric"]) == (class_name, metric)]
    assert isinstance(found, dict)
    return found


def requests(store: Store) -> list[dict[str, Any]]:
    with store.claim_outbox(100) as claimed:
        found = [json.loads(one.value or b"") for one in claimed if one.topic == "segwatch.actions"]
        for one in claimed:
            claimed.keep(one.id)
    return [one for one in found if one["type"] == "segwatch.rollback_requested.v1"]


class TestPairs:
    def test_the_difference_is_that_of_pooled_ious_and_its_interval_holds_it(
        self, store: Store, settings: Settings
    ) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(300))])
        shown = told(store, settings)
        car = of(shown, "car")
        assert car["stable"] == pytest.approx(pooled(GOOD), abs=1e-12)
        assert car["canary"] == pytest.approx(pooled(WORSE), abs=1e-12)
        assert car["difference"] == pytest.approx(pooled(WORSE) - pooled(GOOD), abs=1e-12)
        assert car["lower"] < car["difference"] < car["upper"] < 0
        assert (shown["pairs"], shown["shared_inputs"], car["method"], car["labels"]) == (300, 300, "paired", 300)
        mean = of(shown, None, "mean_iou")
        assert (mean["difference"], mean["lower"]) == (pytest.approx(car["difference"]), pytest.approx(car["lower"]))
        assert of(shown, "car", "recall")["stable"] == pytest.approx(np.mean([3 * off <= WIDTH for off in GOOD]))

    def test_a_worse_canary_is_rolled_back_and_the_worst_pairs_are_named(
        self, store: Store, settings: Settings
    ) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(300))])
        shown = told(store, settings)
        assert (shown["verdict"], shown["rollback"], shown["promote"], shown["score"]) == ("roll back", True, False, -1)
        assert "car: worse by" in shown["reasons"][0]
        assert shown["sequential"]["evidence"] >= shown["sequential"]["enough"] == 200
        assert shown["sequential"]["crossed_after_pairs"] < 300
        worst = int(shown["worst"][0]["input_id"].removeprefix("input-"))
        lost = [pooled([new]) - pooled([old]) for old, new in zip(GOOD, WORSE, strict=True)]
        assert shown["worst"][0]["difference"] == pytest.approx(min(lost), abs=1e-6)
        assert lost[worst] == min(lost)

    def test_the_same_canary_is_never_rolled_back_and_promoted_at_last(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD * 3, GOOD * 3), *labels(range(100))])
        early = told(store, settings)
        assert (early["verdict"], of(early, "car")["difference"]) == ("continue", 0.0)
        assert any("not refuted yet" in one for one in early["missing"])
        put(store, settings, labels(range(100, 900)), "later")
        late = told(store, settings)
        assert (late["verdict"], late["score"]) == ("promote", 1)
        assert of(late, "car")["lower"] < 0 < of(late, "car")["upper"]
        assert requests(store) == []

    def test_too_few_pairs_say_what_is_missing_and_give_no_numbers(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD[:5], WORSE[:5]), *labels([0])])
        shown = told(store, settings)
        assert (shown["verdict"], shown["pairs"]) == ("continue", 1)
        assert of(shown, "car")["difference"] is of(shown, "car")["lower"] is None
        assert shown["missing"]

    def test_without_labels_there_is_agreement_alone(self, store: Store, settings: Settings) -> None:
        put(store, settings, both(GOOD[:50], WORSE[:50]))
        shown = told(store, settings)
        assert (shown["verdict"], shown["pairs"], shown["classes"]) == ("continue", 0, [])
        (car,) = shown["agreement"]["classes"]
        wanted = [(WIDTH - abs(a - b), WIDTH + abs(a - b)) for a, b in zip(GOOD[:50], WORSE[:50], strict=True)]
        assert car["class"] == "car"
        assert car["iou"]["point"] == pytest.approx(sum(one for one, _ in wanted) / sum(one for _, one in wanted))
        assert car["iou"]["lower"] < car["iou"]["point"] < car["iou"]["upper"]
        assert car["instances"]["point"] == pytest.approx(np.mean([2 * one >= other for one, other in wanted]))

    def test_sequences_are_the_units(self, store: Store, settings: Settings) -> None:
        worse = [2 + i // 10 % 3 for i in range(100)]  # all frames of a drive alike
        records = both(GOOD[:100], worse)
        put(store, settings, [*records, *labels(range(100))])
        alone = of(told(store, settings), "car")
        for number, record in enumerate(records):
            record["sequence"] = f"drive-{number // 20}"
        with Store.open(settings_of(Path(settings.data_dir) / "other"), write=True) as other:
            add_baseline(other, "street")
            put(other, settings, [*records, *labels(range(100))])
            shown = told(other, settings)
        car = of(shown, "car")
        assert (shown["sequences"], car["sequences"], car["labels"], alone["sequences"]) == (10, 10, 100, 100)
        assert car["difference"] == pytest.approx(alone["difference"])
        assert car["upper"] - car["lower"] > alone["upper"] - alone["lower"]

    def test_of_the_stable_version_only_what_it_did_since_the_canary_came_is_compared(
        self, store: Store, settings: Settings
    ) -> None:
        early = [prediction(i, "1", 15, event_time=to_text(at(i) - 48 * HOUR_US)) for i in range(1000, 1050)]
        put(store, settings, [*early, *both(GOOD[:60], WORSE[:60]), *labels([*range(60), *range(1000, 1050)])])
        shown = told(store, settings)
        assert (shown["pairs"], shown["labels"]) == (60, {"stable": 60, "canary": 60})

    def test_beyond_a_bound_the_labels_that_were_made_first_count_and_that_is_said(
        self, store: Store, settings: Settings
    ) -> None:
        few = msgspec.structs.replace(settings, canary=msgspec.structs.replace(settings.canary, most_pairs=20))
        more = [prediction(i, "1", 15) for i in range(300, 420)]  # of the stable version alone, and labelled first
        late = [label(i, START_US + 10 * HOUR_US + i, ("car", square(0, WIDTH))) for i in range(300)]
        put(store, settings, [*both(GOOD, WORSE), *more, *labels(range(300, 420)), *late])
        shown = told(store, few)
        assert of(shown, "car")["canary"] == pytest.approx(pooled(WORSE[:100]))
        assert (shown["pairs"], shown["labels"]) == (100, {"stable": 200, "canary": 100})
        assert "only the labelled records whose labels were made first: 200 of 420 and 100 of 300" in shown["notes"]
        assert not any("made first" in note for note in told(store, settings)["notes"])

    def test_a_slice_and_a_range_of_time_choose_records(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(300))])
        shown = told(store, settings, Asked("street", "1", "2", slice_key="camera=1"))
        mine = [i for i in range(300) if i % 3 == 1]
        assert of(shown, "car")["canary"] == pytest.approx(pooled([WORSE[i] for i in mine]))
        assert (shown["pairs"], shown["shared_inputs"], shown["slice"]) == (100, 100, "camera=1")
        assert told(store, settings, Asked("street", "1", "2", slice_key="Camera=1"))["shared_inputs"] == 0
        part = told(store, settings, Asked("street", "1", "2", at(10), at(50)))
        assert (part["pairs"], part["shared_inputs"], part["agreement"]["compared"]) == (40, 40, 40)


class TestManyInputs:
    """A canary that has seen more than can be looked at: nothing that is read grows with it."""

    def test_the_records_of_some_panes_are_looked_at_the_same_ones_whoever_asks(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(store, settings, both(GOOD, WORSE))
        whole = canary_sample.chosen_inputs(store, Seen("street", ("1", "2")), PANE_US, DAY_US * 30)
        assert [one.input_id for one in whole] == [f"input-{i:06d}" for i in range(300)]
        monkeypatch.setattr(canary_sample, "MOST_LOOKED_AT", 50)
        first, second = (
            canary_sample.chosen_inputs(store, Seen("street", ("1", "2")), PANE_US, DAY_US * 30) for _ in range(2)
        )
        assert first == second and 50 <= len(first) < 60
        panes = {one.event_time_us // PANE_US for one in first}
        assert len(panes) >= 10  # of five inputs each, from all over the five hours
        assert max(panes) - min(panes) > 30
        shown = told(store, settings)
        assert (shown["shared_inputs"], shown["agreement"]["compared"]) == (300, len(first))

    def test_where_the_canary_sees_little_of_the_traffic_not_all_of_it_is_passed(self) -> None:
        stable = dict.fromkeys(range(0, 10_000, 10), 10_000)
        own = dict.fromkeys(stable, 1)
        assert len(canary_sample.spans(stable, own, 10)) == 10
        assert canary_sample.spans({}, {}, 10) == []

    def test_panes_whose_masks_have_gone_are_not_looked_at(self, store: Store, settings: Settings) -> None:
        put(store, settings, both(GOOD, WORSE))
        found = canary_sample.chosen_inputs(store, Seen("street", ("1", "2")), PANE_US, HOUR_US)
        assert len(found) in range(60, 71)
        assert found[-1].input_id == "input-000299"

    def test_the_leader_and_the_gates_count_no_inputs(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> int:
            raise AssertionError("all inputs are counted")

        monkeypatch.setattr(Canaries, "count_shared", refuse)
        put(store, settings, [*both(GOOD, WORSE), *labels(range(250))])
        (stored,) = store.canaries.verdicts()
        assert json.loads(stored.payload)["shared_inputs"] is None


class TestSplitTraffic:
    def test_versions_on_different_inputs_are_compared_without_pairs(self, store: Store, settings: Settings) -> None:
        old, new = offsets(400, 2.0, 5), offsets(400, 4.0, 6)
        records = [prediction(i, "1", old[i]) if i % 2 else prediction(i, "2", new[i]) for i in range(400)]
        put(store, settings, [*records, *labels(range(400))])
        shown = told(store, settings)
        car = of(shown, "car")
        assert (car["method"], shown["method"], shown["pairs"]) == ("unpaired", "unpaired", 0)
        assert car["stable"] == pytest.approx(pooled(old[1::2]))
        assert car["canary"] == pytest.approx(pooled(new[0::2]))
        assert car["lower"] < car["difference"] < car["upper"] < 0
        assert shown["verdict"] == "roll back"
        assert any("split at random" in note for note in shown["notes"])


class TestMaps:
    def test_semantic_maps_are_compared_by_class_and_agree_by_pixels(self, store: Store, settings: Settings) -> None:
        def map_of(first_column: int) -> dict[str, str]:
            indices = np.zeros((10, 10), np.uint16)  # bus, and from the column on car
            indices[:, first_column:] = 1
            return {"classes_png": base64_text(index_png(indices))}

        records: list[dict[str, Any]] = []
        for number in range(40):
            for version, column in (("1", 5), ("2", 5 + number % 2)):
                record = prediction(number, version, 0, semantic=map_of(column))
                del record["instances"]
                records.append(record)
        told_maps = [one | {"semantic": map_of(4)} for one in labels(range(40))]
        for one in told_maps:
            del one["instances"]
        put(store, settings, [*records, *told_maps])
        shown = told(store, settings)
        car = of(shown, "car")  # 6 columns labelled, 5 found by version 1, 4 or 5 by version 2
        assert (car["stable"], car["canary"]) == (pytest.approx(5 / 6), pytest.approx(4.5 / 6))
        assert of(shown, None, "pixel_accuracy")["difference"] == pytest.approx(-0.05)
        assert of(shown, "bus", "pixel_recall")["difference"] == 0
        agreed = {one["class"]: one["iou"]["point"] for one in shown["agreement"]["classes"]}
        assert agreed == {"bus": pytest.approx(5 / 5.5), "car": pytest.approx(4.5 / 5)}


class TestClasses:
    def test_a_renamed_class_is_refused_by_name_until_it_is_mapped(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD[:60], GOOD[:60], "vehicle"), *labels(range(60))])
        with pytest.raises(InputError, match="only the canary knows 'vehicle'.*--map OLD=NEW"):
            told(store, settings)
        mapped = told(store, settings, Asked("street", "1", "2", renamed=(("car", "vehicle"),)))
        car = of(mapped, "car")
        assert (car["stable"], car["canary"]) == (pytest.approx(pooled(GOOD[:60])),) * 2
        assert mapped["mapping"] == {"renamed": {"car": "vehicle"}, "left_out": []}
        assert mapped["agreement"]["classes"][0]["iou"]["point"] == 1

    def test_a_class_that_is_left_out_counts_for_neither(self, store: Store, settings: Settings) -> None:
        records = both(GOOD[:60], GOOD[:60])
        for record in records:
            if record["model"]["version"] == "2":
                record["instances"].append({"class": "tram", "score": 0.9, "mask": square(10, 5)})
        put(store, settings, [*records, *labels(range(60))])
        with pytest.raises(InputError, match="tram"):
            told(store, settings)
        shown = told(store, settings, Asked("street", "1", "2", renamed=(("", "tram"),)))
        assert of(shown, "car")["difference"] == 0
        assert shown["mapping"]["left_out"] == ["tram"]

    def test_a_mapping_of_classes_that_are_not_there_is_refused(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD[:5], GOOD[:5]), *labels(range(5))])
        with pytest.raises(InputError, match="'lorry' is no class of the stable version"):
            told(store, settings, Asked("street", "1", "2", renamed=(("lorry", "car"),)))

    def test_versions_that_were_never_seen_are_refused(self, store: Store, settings: Settings) -> None:
        put(store, settings, both(GOOD[:5], GOOD[:5]))
        for asked in (Asked("street", "1", "9"), Asked("nobody", "1", "2"), Asked("street", "1", "1")):
            with pytest.raises(InputError):
                told(store, settings, asked)


class TestRequest:
    def test_the_leader_requests_a_rollback_once_with_its_evidence(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(250))])
        (request,) = requests(store)
        jsonschema.validate(request, read_schema("segwatch.rollback_requested.v1"))
        assert (request["model"], request["stable"]) == ({"name": "street", "version": "2"}, "1")
        evidence = request["evidence"]
        assert evidence["sequential"] >= evidence["thresholds"]["sequential"]
        assert evidence["classes"] == ["car"]
        assert evidence["samples"][0]["selection_probability"] == pytest.approx(250 / 300)
        assert request["request"]["seconds_from_first_pair"] == pytest.approx(24 * 3600)
        assert 0 < request["request"]["pairs"] <= 250
        put(store, settings, labels(range(250, 300)), "later")
        assert [one["id"] for one in requests(store)] == [request["id"]]
        assert told(store, settings)["request"]["pairs"] == request["request"]["pairs"]
        (stored,) = store.canaries.verdicts()
        assert stored.requested_at_us == NOW_US

    def test_metrics_show_watched_canaries(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(300))])
        page = Writer().render(families(snapshot(store, HOUR_US, NOW_US, 10), 5000)).openmetrics.decode()
        assert 'segwatch_canary_score{model="street",version="2",stable="1"} -1' in page

    def test_classes_that_differ_are_said_and_nothing_is_requested(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD[:60], GOOD[:60], "vehicle"), *labels(range(60))])
        (stored,) = store.canaries.verdicts()
        assert "vehicle" in json.loads(stored.payload)["reasons"][0]
        assert requests(store) == []

    def test_the_newest_version_beside_the_active_one_is_found(self) -> None:
        def extent(version: str, first: int, last: int) -> PaneExtent:
            return PaneExtent("street", version, "", "", first * HOUR_US, last * HOUR_US, 10)

        active = {("street", "1"): 5, ("street", "2"): 9}
        extents = [extent("1", 0, 100), extent("2", 10, 100), extent("3", 90, 100), extent("0", 0, 50)]
        assert newest_versions(extents, active) == [("street", "2", "3")]
        assert newest_versions([extent("1", 0, 100), extent("0", 0, 50)], active) == []


class TestOutside:
    def test_the_command_prints_what_the_read_model_says(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(300))])
        config = Path(settings.data_dir) / "segwatch.yaml"
        config.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(settings)))
        command = ["--config", str(config), "canary", "compare", "--model", "street", "--stable", "1", "--canary", "2"]
        result = CliRunner().invoke(cli, [*command, "--json"], catch_exceptions=False)
        assert json.loads(result.stdout) == json.loads(json.dumps(told(store, settings)))
        text = CliRunner().invoke(cli, command, catch_exceptions=False).stdout
        assert "ROLL BACK" in text
        assert "300 labelled pairs" in text

    def test_controllers_get_json_and_status_codes(self, store: Store, settings: Settings) -> None:
        put(store, settings, [*both(GOOD, WORSE), *labels(range(300))])
        live = LiveSettings(settings, lambda: settings)
        router = canary_router(CanaryState(store, live))
        client = TestClient(create_app(StoreState(store, live), "127.0.0.1", [router]), base_url="http://127.0.0.1")
        names = {"model": "street", "stable": "1", "canary": "2"}
        shown = client.get("/api/v1/canary", params=names).json()
        assert (shown["rollback"], shown["promote"], shown["score"], shown["agreement"]) == (True, False, -1, None)
        gates = {hook: client.post(f"/api/v1/canary/gate/{hook}", params=names) for hook in ("rollout", "rollback")}
        assert (gates["rollout"].status_code, gates["rollback"].status_code) == (403, 200)
        assert gates["rollout"].json()["verdict"] == "roll back"
        assert client.post("/api/v1/canary/gate/confirm-promotion", params=names).status_code == 403
        assert client.get("/api/v1/canary", params={**names, "canary": "9"}).status_code == 400
