"""The demo's records: contract-true, repeatable, and labelled exactly."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco

from monitor.demo.scenes import SIZE_PX
from monitor.demo.traffic import CAMERAS, TrafficPlan, labels, traffic, write_jsonl

START = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
PLAN = TrafficPlan(start=START, hours=2, records_per_hour=120, seed=5)


@dataclass(frozen=True)
class Found:
    class_index: int
    score: float
    mask: NDArray[np.bool_]


# pycocotools 2.0.11 is older than NumPy 2's copy keyword; the warning is about its inside.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def decoded(mask: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(coco.decode({"size": mask["size"], "counts": mask["counts"].encode()}), dtype=np.uint8)


def brightest(images: NDArray[np.uint8]) -> Sequence[Sequence[Found]]:
    """A model that can be checked by hand: one instance, the pixels brighter than the image's mean."""
    grey = images.mean(axis=3)
    return [[Found(3, 0.5, image > image.mean())] for image in grey]


def moment(record: dict[str, Any], field: str = "event_time") -> datetime:
    return datetime.fromisoformat(record[field])


def picture(record: dict[str, Any]) -> NDArray[np.uint8]:
    data = np.frombuffer(base64.b64decode(record["image"]["data"]), dtype=np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return list(traffic(brightest, PLAN))


def test_the_plan_gives_as_many_records_as_it_says_in_order_of_time(records: list[dict[str, Any]]) -> None:
    assert len(records) == PLAN.records == 240
    times = [moment(record) for record in records]
    assert times == sorted(times)
    assert times[0] >= START and times[-1] < START + timedelta(hours=2)
    assert Counter(time.hour for time in times) == {2: 120, 3: 120}


def test_records_carry_what_the_contract_requires(records: list[dict[str, Any]]) -> None:
    assert len({record["input_id"] for record in records}) == len(records)
    for record in records:
        assert record["type"] == "segwatch.prediction.v1"
        assert record["model"] == {"name": "digits", "version": "1"}
        assert record["event_time"].endswith("Z")
        assert record["latency_seconds"] > 0 and record["cost_usd"] > 0
        assert picture(record).shape == (SIZE_PX, SIZE_PX, 3)
    assert json.loads(json.dumps(records[0])) == records[0]


def test_the_record_holds_the_mask_of_its_own_image(records: list[dict[str, Any]]) -> None:
    # What the stand-in model says can be found again from the JPEG, but for its losses.
    for record in records[::12]:
        (instance,) = record["instances"]
        grey = picture(record).astype(float).mean(axis=2)
        assert (decoded(instance["mask"]) == (grey > grey.mean())).mean() > 0.95
        assert instance["class"] == "3" and instance["score"] == 0.5


def test_cameras_take_equal_turns_and_a_sequence_is_one_camera_in_one_minute(records: list[dict[str, Any]]) -> None:
    assert Counter(record["slices"]["camera"] for record in records) == dict.fromkeys(CAMERAS, 60)
    runs = defaultdict(list)
    for record in records:
        runs[record["sequence"]].append(record)
    assert len(runs) == 60
    for run in runs.values():
        assert len({record["slices"]["camera"] for record in run}) == 1
        assert len({record["slices"]["site"] for record in run}) == 1
        assert len({moment(record).replace(second=0, microsecond=0) for record in run}) == 1


def test_a_high_rate_still_gives_a_camera_one_sequence_a_minute() -> None:
    plan = TrafficPlan(start=START, hours=0.1, records_per_hour=3000)
    records = list(traffic(brightest, plan))
    assert len(records) == plan.records == 300
    assert len({record["input_id"] for record in records}) == 300
    assert len({record["sequence"] for record in records}) == 6 * len(CAMERAS)


def test_the_same_plan_gives_the_same_records_and_another_seed_gives_others(records: list[dict[str, Any]]) -> None:
    assert list(traffic(brightest, PLAN)) == records
    others = list(traffic(brightest, replace(PLAN, seed=6)))
    assert all(a["image"] != b["image"] for a, b in zip(records, others, strict=True))


def test_the_number_of_workers_changes_nothing(records: list[dict[str, Any]]) -> None:
    assert list(traffic(brightest, PLAN, workers=3)) == records


def test_a_model_that_fails_ends_the_traffic_with_its_own_error() -> None:
    def broken(images: NDArray[np.uint8]) -> Sequence[Sequence[Found]]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(traffic(broken, PLAN, workers=2))


def test_the_shift_sets_in_at_its_moment_on_its_cameras_and_nowhere_else(records: list[dict[str, Any]]) -> None:
    shift_at = START + timedelta(hours=1)
    plan = replace(PLAN, shift_at=shift_at, corruption="darkness", strength=3, shifted_cameras=("2",))
    shifted = {record["input_id"]: record for record in traffic(brightest, plan)}
    assert shifted.keys() == {record["input_id"] for record in records}
    for record in records:
        hit = moment(record) >= shift_at and record["slices"]["camera"] == "2"
        before, after = picture(record).mean(), picture(shifted[record["input_id"]]).mean()
        assert (after < before / 2) if hit else (after == before)


def test_labels_have_the_masks_of_the_very_scene_that_the_record_shows() -> None:
    # A digit is written in one colour: inside its own mask the picture hardly varies, inside another scene's it does.
    plan = TrafficPlan(start=START, hours=0.5, records_per_hour=120, seed=9)
    seen: dict[str, dict[str, Any]] = {record["input_id"]: record for record in traffic(brightest, plan)}
    exact = {label["input_id"]: label for label in labels(plan)}
    assert exact.keys() == seen.keys()

    def spread(input_id: str, label: dict[str, Any]) -> float:
        image = picture(seen[input_id]).astype(float)
        cores = [cv2.erode(decoded(instance["mask"]), np.ones((3, 3), np.uint8)) > 0 for instance in label["instances"]]
        return float(np.mean([image[core].std(axis=0).mean() for core in cores if core.any()]))

    own = [spread(input_id, label) for input_id, label in exact.items()]
    others = [spread(input_id, label) for input_id, label in zip(exact, list(exact.values())[::-1], strict=True)]
    assert np.mean(own) < 8 < 16 < np.mean(others)
    for input_id, label in exact.items():
        assert label["type"] == "segwatch.label.v1" and label["selection_probability"] == 1.0
        assert moment(label, "label_time") - moment(seen[input_id]) == timedelta(hours=1)
        assert np.sum([decoded(instance["mask"]) for instance in label["instances"]], axis=0).max() == 1


def test_a_share_of_labels_is_drawn_uniformly_and_says_so() -> None:
    plan = TrafficPlan(start=START, hours=4, records_per_hour=200, seed=2)
    drawn = list(labels(plan, share=0.25))
    assert {label["selection_probability"] for label in drawn} == {0.25}
    assert abs(len(drawn) - 0.25 * plan.records) < 5 * np.sqrt(plan.records * 0.25 * 0.75)


def test_a_new_class_is_labelled_by_its_letter() -> None:
    plan = TrafficPlan(start=START, hours=0.5, records_per_hour=120, shift_at=START, corruption="new_class", strength=3)
    names = {instance["class"] for label in labels(plan) for instance in label["instances"]}
    assert "A" in names and names - {"A"} <= set("0123456789")


def test_a_file_holds_one_record_a_line(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "records.jsonl"
    assert write_jsonl(path, iter(records)) == 240
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == records


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"corruption": "fog"}, "corruption: 'fog' is none of blur, noise"),
        ({"strength": 5}, "strength: 5 is none of 1, 2, 3"),
        ({"shifted_cameras": ("1", "9")}, "there is no camera 9"),
        ({"start": datetime(2026, 11, 23)}, "aware"),
        ({"hours": 0.001}, "hours must hold a minute"),
    ],
)
def test_a_wrong_plan_is_refused_when_it_is_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **wrong)
