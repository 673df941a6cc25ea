"""Logs of inference servers become the prediction records that a service would have written itself."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from monitor.adapters import ADAPTERS
from monitor.adapters.events import read_event
from monitor.adapters.mapping import From, Mapping, read_mapping
from monitor.adapters.pairing import Pairing
from monitor.adapters.protocol import EntryError, Part
from monitor.adapters.tensors import Body
from monitor.cli import cli
from monitor.commands.convert import convert as convert_command
from monitor.convert import Converted, convert
from monitor.errors import InputError
from monitor.masks import decode_rle
from monitor.records import Limits
from tests.made_server_logs import (
    CLASSES,
    IMAGE,
    MASKS,
    NAMES,
    SCORES,
    binary,
    captured,
    event,
    kafka_message,
    over_kafka,
    request,
    response,
    tensor,
    texts,
)

MAPPING: dict[str, Any] = {
    "image": {"tensor": "image"},
    "instances": {"classes": "labels", "scores": "scores", "masks": "masks"},
    "class_names": NAMES,
}
PAIR = [event("request", request()), event("response", response())]


class Done:
    def __init__(self, records: list[dict[str, Any]], done: Converted, said: list[str]) -> None:
        self.records, self.done, self.said = records, done, said

    @property
    def record(self) -> dict[str, Any]:
        assert self.said == []
        (record,) = self.records
        return record

    @property
    def refusal(self) -> str:
        assert self.records == []
        (line,) = self.said
        return line


Convert = Callable[..., Done]


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Lines, the adapter's name, and changes of the mapping, to what comes out."""

    def run(lines: list[Any], form: str = "kserve", **changes: Any) -> Done:
        log = tmp_path / "log.jsonl"
        log.write_bytes(b"".join((x if isinstance(x, bytes) else json.dumps(x).encode()) + b"\n" for x in lines))
        tree = {name: value for name, value in {**MAPPING, **changes}.items() if value is not None}
        mapping = tmp_path / "mapping.yaml"
        mapping.write_text(yaml.safe_dump(tree))
        out, said = io.BytesIO(), list[str]()
        limits = Limits(uri_prefixes=("s3://images/",))
        done = convert([log], form, read_mapping(mapping), limits, out, said.append)
        said = [line.replace(str(tmp_path) + "/", "") for line in said]
        return Done([json.loads(line) for line in out.getvalue().splitlines()], done, said)

    return run


def pixels(record: dict[str, Any]) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(record["image"]["data"]))))


def map_of(png: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def check_instances(record: dict[str, Any]) -> None:
    assert [one["class"] for one in record["instances"]] == [NAMES[i] for i in CLASSES]
    assert [one["score"] for one in record["instances"]] == SCORES.tolist()
    for one, mask in zip(record["instances"], MASKS, strict=True):
        assert (decode_rle(one["mask"]["size"], one["mask"]["counts"]) == mask).all()


class TestKServe:
    def test_request_and_response_become_one_record(self, converted: Convert) -> None:
        record = converted(PAIR).record
        assert record["input_id"] == "r-1"
        assert record["event_time"] == "2026-11-23T02:45:33.120000Z"
        assert record["model"] == {"name": "street", "version": "3"}
        assert base64.b64decode(record["image"]["data"]) == IMAGE
        assert record["image"]["media_type"] == "image/png"
        assert "latency_seconds" not in record and "sampling_probability" not in record
        check_instances(record)

    def test_their_order_and_what_lies_between_do_not_matter(self, converted: Convert) -> None:
        others = [event("request", request(), id=f"o-{i}") for i in range(5)]
        assert converted([PAIR[1], *others, PAIR[0]]).records == converted(PAIR).records

    def test_binary_mode_on_kafka_gives_the_same(self, converted: Convert) -> None:
        assert converted([over_kafka(one) for one in PAIR]).records == converted(PAIR).records

    def test_the_same_id_from_another_source_is_another_exchange(self, converted: Convert) -> None:
        done = converted([PAIR[0], {**PAIR[1], "source": "http://other"}])
        assert done.records == [] and done.done.left_out == {"request_alone": 1, "response_alone": 1}

    def test_fields_come_from_anywhere_in_the_log(self, converted: Convert) -> None:
        record = converted(
            PAIR,
            version={"from": "event.endpoint"},
            input_id={"from": "request.parameters.camera"},
            sequence="drive",
            slices={
                "camera": {"from": "request.parameters.camera"},
                "site": {"from": "event.metadata.x-site"},
                "zone": "eu",
            },
            sampling_probability=0.25,
            latency="events",
        ).record
        assert record["model"]["version"] == "default"
        assert record["input_id"] == "7" and record["sequence"] == "drive"
        assert record["slices"] == {"camera": "7", "site": "berlin", "zone": "eu"}
        assert record["sampling_probability"] == 0.25
        assert record["latency_seconds"] == pytest.approx(0.083)

    def test_a_request_that_nobody_answered_is_a_failed_inference_where_the_mapping_says_so(
        self, converted: Convert
    ) -> None:
        assert converted([PAIR[0]], version="3", model="street").done.left_out == {"request_alone": 1}
        done = converted([PAIR[0]], version="3", model="street", unanswered="error")
        assert done.record["status"] == "error" and "instances" not in done.record
        assert done.done.left_out == {}

    def test_other_events_and_components_are_left_out_and_counted(self, converted: Convert) -> None:
        done = converted([*PAIR, {**PAIR[0], "type": "x"}], where={"component": "transformer"})
        assert done.records == [] and done.said == [] and done.done.left_out == {"other_event": 2}

    def test_a_response_is_enough_where_nothing_of_the_request_is_asked_for(self, converted: Convert) -> None:
        answer = response()
        answer["outputs"].append(tensor("features", np.array([[0.5, -2.0]], np.float32)))
        record = converted([event("response", answer)], image=None, embedding="features").record
        assert record["embedding"] == [0.5, -2.0]

    @pytest.mark.parametrize(
        ("lines", "named"),
        [
            ([b"{"], "log.jsonl:1: not JSON"),
            ([b"[1]"], "log.jsonl:1: not a JSON object"),
            ([{"x": 1}], "log.jsonl:1: neither a CloudEvent"),
            ([{**PAIR[0], "source": ""}], "log.jsonl:1: source: missing"),
            ([{**PAIR[0], "time": "noon"}], "log.jsonl:1: time: 'noon'"),
            ([{**PAIR[0], "data_base64": "*"}], "log.jsonl:1: data_base64"),
            ([PAIR[0], event("response", b"\x80\x81")], "log.jsonl:2: response: its body is not JSON"),
            ([PAIR[0], event("response", response(outputs=[]))], "log.jsonl:2: response: no tensor"),
            ([PAIR[0], event("response", response(model_version=None))], "version: no text at response.model_version"),
            ([event("request", {"inputs": [texts("image", ["*"])]}), PAIR[1]], "request.image: not base64"),
            ([event("request", {"inputs": [texts("image", ["AAAA"])]}), PAIR[1]], "request.image: neither JPEG"),
            ([event("request", {"inputs": [texts("image", ["A", "B"])]}), PAIR[1]], "set batch: true"),
        ],
    )
    def test_a_bad_entry_is_named_with_line_and_field(self, converted: Convert, lines: list[Any], named: str) -> None:
        assert named in converted(lines).refusal

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"shape": [3]}, "response.scores: 2 values, its shape [3] has 3"),
            ({"shape": [-1]}, "response.scores.shape"),
            ({"shape": [2**39, 2**39, 2**39]}, "response.scores: 2 values"),
            ({"datatype": "BF16"}, "response.scores.datatype: 'BF16'"),
            ({"data": ["a", "b"]}, "response.scores.data: a value is no FP32"),
            ({"data": [0.5, 1.5]}, "out_of_bounds"),
            ({"data": [0.5, None]}, "response.scores.data"),
            ({"shape": [1], "data": [0.5]}, "2 classes, 1 scores, 2 masks"),
            ({"parameters": {"binary_data_size": 8}}, "response.scores: 8 bytes of binary data announced, 0 are there"),
            ({"parameters": {"binary_data_size": "x"}}, "bytes of binary data announced"),
        ],
    )
    def test_a_tensor_that_does_not_hold_is_refused(self, converted: Convert, change: Any, named: str) -> None:
        answer = response()
        answer["outputs"][1] |= change
        assert named in converted([PAIR[0], event("response", answer)]).refusal

    def test_a_bad_entry_stops_nobody_else(self, converted: Convert) -> None:
        done = converted([b"{", *PAIR])
        assert len(done.records) == 1 and done.done.refused == 1


class TestTensors:
    def test_binary_tensors_are_found_behind_the_json(self, converted: Convert) -> None:
        asked = binary(request(), "inputs", {"image": [IMAGE]})
        answer = binary(response(), "outputs", {"masks": MASKS, "scores": SCORES})
        assert converted([event("request", asked), event("response", answer)]).records == converted(PAIR).records

    @pytest.mark.parametrize("cut", [1, 30])
    def test_binary_tensors_that_are_cut_short_are_refused(self, converted: Convert, cut: int) -> None:
        answer = binary(response(), "outputs", {"masks": MASKS})
        assert "response.masks: 96 bytes" in converted([PAIR[0], event("response", answer[:-cut])]).refusal

    @pytest.mark.parametrize("layout", ["hwc", "chw"])
    def test_raw_pixels_become_a_png_of_the_same_pixels(self, converted: Convert, layout: str) -> None:
        image = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        sent = image if layout == "hwc" else np.moveaxis(image, -1, 0)
        asked = request(inputs=[tensor("image", np.ascontiguousarray(sent)[None])])
        record = converted([event("request", asked), PAIR[1]], image={"tensor": "image", "layout": layout}).record
        assert (pixels(record) == image).all()

    def test_normalized_pixels_are_brought_back(self, converted: Convert) -> None:
        image = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        sent = ((image / 255 - mean) / std).astype(np.float32)
        asked = request(inputs=[tensor("image", np.ascontiguousarray(np.moveaxis(sent, -1, 0)))])
        how = {"tensor": "image", "layout": "chw", "mean": mean, "std": std}
        assert (pixels(converted([event("request", asked), PAIR[1]], image=how).record) == image).all()

    def test_scores_below_the_threshold_go_and_soft_masks_are_cut(self, converted: Convert) -> None:
        answer = response()
        answer["outputs"][2] = tensor("masks", np.where(MASKS, 0.75, 0.25).astype(np.float32)[:, None])
        how = {**MAPPING["instances"], "score_threshold": 0.5}
        record = converted([PAIR[0], event("response", answer)], instances=how).record
        assert [one["class"] for one in record["instances"]] == ["car"]
        mask = record["instances"][0]["mask"]
        assert (decode_rle(mask["size"], mask["counts"]) == MASKS[0]).all()

    @pytest.mark.parametrize("whole", [True, False])
    def test_masks_as_texts_of_run_lengths(self, converted: Convert, whole: bool) -> None:
        plain = [one["mask"] for one in converted(PAIR).record["instances"]]
        answer = response()
        answer["outputs"][2] = texts("masks", [json.dumps(one) if whole else one["counts"] for one in plain])
        lines = [PAIR[0], event("response", answer)]
        how = {**MAPPING["instances"], "form": "coco"}
        if not whole:
            assert "set instances.mask_size" in converted(lines, instances=how).refusal
            how["mask_size"] = [6, 8]
        assert [one["mask"] for one in converted(lines, instances=how).record["instances"]] == plain

    def test_no_objects_is_an_answer(self, converted: Convert) -> None:
        empty = [tensor("labels", CLASSES[:0]), tensor("scores", SCORES[:0]), tensor("masks", MASKS[:0])]
        assert converted([PAIR[0], event("response", response(outputs=empty))]).record["instances"] == []

    def test_a_class_without_a_name_is_refused(self, converted: Convert) -> None:
        assert "class 2 has no name in class_names" in converted(PAIR, class_names=["car"]).refusal

    @pytest.mark.parametrize("values", ["logits", "probabilities"])
    def test_the_winner_of_a_map_and_how_sure_it_is(self, converted: Convert, values: str) -> None:
        logits = np.random.default_rng(4).normal(size=(5, 6, 8)).astype(np.float32)
        shares = np.exp(logits) / np.exp(logits).sum(axis=0)
        sent = logits if values == "logits" else shares.astype(np.float32)
        answer = response(outputs=[tensor("map", sent[None])])
        how = {"tensor": "map", "values": values}
        record = converted([PAIR[0], event("response", answer)], instances=None, semantic=how).record
        assert (map_of(record["semantic"]["classes_png"]) == logits.argmax(axis=0)).all()
        found = map_of(record["semantic"]["confidence_png"]).astype(float)
        assert np.abs(found - 255 * shares.max(axis=0)).max() <= 0.51

    @pytest.mark.parametrize("values", ["classes", "logits", "probabilities"])
    @pytest.mark.parametrize("shape", [(0, 6, 8), (3, 0, 8), (0, 2**39, 2**39), (2**39, 2**39, 0)])
    def test_a_map_of_no_size_is_refused(self, converted: Convert, values: str, shape: tuple[int, ...]) -> None:
        for as_bytes in (False, True):
            sent = {"name": "map", "datatype": "FP32", "shape": list(shape)}
            sent |= {"parameters": {"binary_data_size": 0}} if as_bytes else {"data": []}
            lines = [PAIR[0], event("response", response(outputs=[sent]))]
            done = converted(lines, instances=None, semantic={"tensor": "map", "values": values})
            assert "response.map" in done.refusal

    def test_a_map_of_classes_of_more_than_8_bits(self, converted: Convert) -> None:
        classes = np.arange(48, dtype=np.int64).reshape(6, 8) * 10
        sure = np.full((6, 8), 0.5, np.float32)
        answer = response(outputs=[tensor("map", classes), tensor("sure", sure)])
        how = {"tensor": "map", "confidence": "sure"}
        record = converted([PAIR[0], event("response", answer)], instances=None, semantic=how).record
        assert (map_of(record["semantic"]["classes_png"]) == classes).all()
        assert (map_of(record["semantic"]["confidence_png"]) == 128).all()

    def test_a_batch_gives_a_record_for_each_entry(self, converted: Convert) -> None:
        images = np.stack([np.full((6, 8, 3), value, np.uint8) for value in (10, 200)])
        outputs = [
            tensor("labels", np.stack([CLASSES, CLASSES[::-1]])),
            tensor("scores", np.stack([SCORES, SCORES])),
            tensor("masks", np.stack([MASKS, MASKS])),
        ]
        asked = event("request", request(inputs=[tensor("image", images)]))
        lines = [asked, event("response", response(outputs=outputs))]
        how = {"tensor": "image", "layout": "hwc"}
        assert "set batch: true" in converted(lines, image=how).refusal
        first, second = converted(lines, image=how, batch=True).records
        assert (first["input_id"], second["input_id"]) == ("r-1/0", "r-1/1")
        assert (pixels(first) == 10).all() and (pixels(second) == 200).all()
        assert [one["class"] for one in second["instances"]] == ["person", "car"]

    def test_a_batch_of_any_number_of_empty_tensors_is_refused(self, converted: Convert) -> None:
        empty = np.zeros((1_000_000_000, 0), np.uint8)
        outputs = [tensor(name, empty) for name in ("labels", "scores", "masks")]
        asked = event("request", request(inputs=[tensor("image", empty)]))
        lines = [asked, event("response", response(outputs=outputs))]
        done = converted(lines, image={"tensor": "image", "layout": "hwc"}, batch=True)
        assert "batch: 1000000000 entries, 1 to 1024 are read" in done.refusal

    def test_a_batch_of_none_is_said(self, converted: Convert) -> None:
        outputs = [tensor(name, np.zeros((0, 3), np.uint8)) for name in ("labels", "scores", "masks")]
        asked = event("request", request(inputs=[tensor("image", np.zeros((0, 6, 8, 3), np.uint8))]))
        done = converted([asked, event("response", response(outputs=outputs))], batch=True)
        assert "batch: 0 entries" in done.refusal

    def test_more_objects_than_a_record_may_have_are_refused_before_they_are_made(self, converted: Convert) -> None:
        many = np.zeros(300_000, np.uint8)
        outputs = [tensor("labels", many), tensor("scores", many), tensor("masks", np.zeros((300_000, 0, 0), np.uint8))]
        tracemalloc.start()
        try:
            done = converted([PAIR[0], event("response", response(outputs=outputs))])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert "response: 300000 instances, at most 10000 are read" in done.refusal
        assert peak < 30 * 2**20

    @pytest.mark.parametrize("form", ["pixels", "coco"])
    def test_masks_of_no_size_are_as_many_as_there_are_objects_or_refused(self, converted: Convert, form: str) -> None:
        endless = np.zeros((1_000_000_000, 0), np.uint8)
        outputs = [tensor("labels", CLASSES), tensor("scores", SCORES), tensor("masks", endless)]
        lines = [PAIR[0], event("response", response(outputs=outputs))]
        done = converted(lines, instances={**MAPPING["instances"], "form": form})
        assert "2 classes, 2 scores, 0 masks" in done.refusal

    def test_entries_of_a_batch_that_differ_in_number_are_refused(self, converted: Convert) -> None:
        assert "batch: first dimensions differ" in converted(PAIR, batch=True).refusal

    @pytest.mark.parametrize("size", [0, 1, 17])
    def test_any_cut_of_a_body_is_refused_by_name(self, size: int) -> None:
        body = Body("response", Part("f:1", json.dumps(response()).encode()[:size]))
        with pytest.raises(EntryError, match="response: its body is not JSON"):
            body.tensor("labels")


class TestSeldon:
    PREFIX = "io.seldon.serving.inference"

    def seldon(self, role: str, body: Any, **more: Any) -> dict[str, Any]:
        own = {"specversion": "0.3", "requestid": "r-9", "modelid": "seg", **more}
        return event(role, body, id=f"{role}-uuid", prefix=self.PREFIX, **own)

    def test_halves_are_joined_by_the_requests_id(self, converted: Convert) -> None:
        record = converted([self.seldon("request", request()), self.seldon("response", response())], "seldon").record
        assert record["input_id"] == "r-9"
        check_instances(record)

    def test_models_of_one_graph_are_kept_apart(self, converted: Convert) -> None:
        lines = [
            self.seldon("request", request()),
            self.seldon("response", response(), modelid="other"),
        ]
        assert converted(lines, "seldon").done.left_out == {"request_alone": 1, "response_alone": 1}

    def test_feedback_and_outliers_are_other_events(self, converted: Convert) -> None:
        lines = [event("feedback", {}, prefix="io.seldon.serving"), event("outlier", {}, prefix=self.PREFIX)]
        assert converted(lines, "seldon").done.left_out == {"other_event": 2}


class TestMLServer:
    def test_topics_of_inputs_and_outputs_are_joined_by_key(self, converted: Convert) -> None:
        asked = kafka_message(request(id="body"), {"mlserver-model": "street", "mlserver-version": "v0.1"}, key="key-1")
        answer = kafka_message(response(model_version=None), {"Ce-Id": "key-1"}, key="key-1")
        record = converted([asked, answer], "mlserver", version={"from": "event.mlserver-version"}).record
        assert record["input_id"] == "key-1" and record["model"] == {"name": "street", "version": "v0.1"}
        check_instances(record)

    @pytest.mark.parametrize(
        ("message", "named"),
        [
            (kafka_message(request(), {}, key="k"), "header mlserver-model: missing"),
            (kafka_message(response(id=None), {}), "response.id: missing"),
            (kafka_message([1], {}), "not a JSON object"),
        ],
    )
    def test_what_cannot_be_joined_is_named(self, converted: Convert, message: Any, named: str) -> None:
        assert named in converted([message], "mlserver").refusal


class TestSageMaker:
    PLAIN: ClassVar[dict[str, Any]] = {
        "model": "street",
        "version": "3",
        "image": {"body": True},
        "instances": {"classes": "predictions.0.names", "scores": "predictions.0.scores",
                      "masks": "predictions.0.polygons", "form": "coco"},
    }  # fmt: skip
    ANSWER: ClassVar[dict[str, Any]] = {
        "predictions": [{"names": ["car"], "scores": [0.5], "polygons": [[[1, 1, 5, 1, 5, 4]]]}],
    }

    def test_a_container_with_its_own_json(self, converted: Convert) -> None:
        record = converted([captured(IMAGE, self.ANSWER)], "sagemaker", **self.PLAIN).record
        assert record["input_id"] == "e-1" and record["event_time"] == "2026-11-23T02:45:33Z"
        assert base64.b64decode(record["image"]["data"]) == IMAGE
        assert record["instances"] == [{"class": "car", "score": 0.5, "mask": [[1, 1, 5, 1, 5, 4]]}]

    def test_the_callers_id_wins(self, converted: Convert) -> None:
        line = captured(IMAGE, self.ANSWER, inferenceId="mine")
        assert converted([line], "sagemaker", **self.PLAIN).record["input_id"] == "mine"

    def test_triton_behind_sagemaker(self, converted: Convert) -> None:
        answer = binary(response(), "outputs", {"masks": MASKS})
        record = converted([captured(binary(request(), "inputs", {"image": [IMAGE]}), answer)], "sagemaker").record
        check_instances(record)

    def test_an_image_by_reference(self, converted: Convert) -> None:
        asked = {"image_uri": "s3://images/7.jpg"}
        how = {**self.PLAIN, "image": {"uri": {"from": "request.image_uri"}}}
        assert converted([captured(asked, self.ANSWER)], "sagemaker", **how).record["image"] == {
            "uri": "s3://images/7.jpg"
        }
        assert (
            "uri_refused"
            in converted([captured({"image_uri": "s3://else/7.jpg"}, self.ANSWER)], "sagemaker", **how).refusal
        )

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"captureData": None}, "captureData: missing"),
            ({"eventMetadata": {"inferenceTime": "2026-11-23T02:45:33Z"}}, "eventMetadata.eventId: missing"),
            ({"eventMetadata": {"eventId": "e"}}, "eventMetadata.inferenceTime"),
            ({"captureData": {"endpointOutput": {"data": "x", "encoding": "XML"}}}, "endpointOutput.encoding: 'XML'"),
            ({"captureData": {"endpointOutput": {"data": "*", "encoding": "BASE64"}}}, "endpointOutput.data"),
        ],
    )
    def test_what_is_wrong_is_named(self, converted: Convert, change: Any, named: str) -> None:
        assert named in converted([captured(IMAGE, self.ANSWER) | change], "sagemaker", **self.PLAIN).refusal

    def test_captures_of_one_side_are_counted(self, converted: Convert) -> None:
        line = captured(IMAGE, self.ANSWER)
        del line["captureData"]["endpointInput"]
        assert converted([line], "sagemaker", **self.PLAIN).done.left_out == {"response_alone": 1}


JUNK = [None, True, -1, 2**70, 0.5, "", "x", [], {}, [None], [[1, 2], [3]], {"a": 1}, [{}], ["x", 1], 1e308]


def mutated(tree: Any, rng: random.Random) -> Any:
    """With one value, somewhere, replaced by junk or taken away."""
    places = [(tree, key) for key in (tree if isinstance(tree, dict) else range(len(tree)))]
    for holder, key in places:  # grows while it is walked
        inner = holder[key]
        if isinstance(inner, (dict, list)) and inner:
            places += [(inner, below) for below in (inner if isinstance(inner, dict) else range(min(3, len(inner))))]
    holder, key = rng.choice(places)
    if isinstance(holder, dict) and rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = rng.choice(JUNK)
    return tree


@pytest.mark.parametrize("form", ["kserve", "sagemaker", "mlserver"])
def test_nothing_in_a_log_ends_the_conversion(converted: Convert, form: str) -> None:
    rng = random.Random(8)
    for i in range(300):
        asked, answer = copy.deepcopy(request()), copy.deepcopy(response())
        asked, answer = (mutated(asked, rng), answer) if i % 3 == 0 else (asked, mutated(answer, rng))
        if form == "sagemaker":
            lines = [mutated(captured(asked, answer), rng) if i % 5 == 0 else captured(asked, answer)]
        elif form == "mlserver":
            lines = [kafka_message(asked, {"mlserver-model": "street"}, key="k"), kafka_message(answer, {}, key="k")]
        else:
            lines = [event("request", asked), event("response", answer)]
            if i % 5 == 0:
                lines[i % 2] = mutated(lines[i % 2], rng)
        done = converted(lines, form)
        assert len(done.records) + done.done.refused + sum(done.done.left_out.values()) >= 1


def test_every_file_with_an_adapter_is_in_the_table(checkout: Path) -> None:
    files = (checkout / "monitor" / "adapters").glob("*.py")
    found = {path.stem for path in files if "Implements ``Adapter``" in path.read_text(encoding="utf-8")}
    assert found == set(ADAPTERS)


class TestPairing:
    def test_memory_is_bounded_in_number_and_bytes(self) -> None:
        for bounds in ({"max_waiting": 10}, {"max_bytes": 1000}):
            pairing = Pairing(True, **bounds)
            for i in range(500):
                assert list(pairing.add(i, "request", str(i), Part("f:1", b"x" * 100), {})) == []
            assert pairing.counts == {"request_alone": 490}
            assert len(list(pairing.add(499, "response", "499", Part("f:2", b""), {}))) == 1
            assert len(list(pairing.rest())) == 9 and pairing.counts == {"request_alone": 499}

    def test_a_half_that_comes_again_changes_nothing(self) -> None:
        pairing = Pairing(True)
        for body in (b"first", b"second"):
            assert list(pairing.add("k", "request", "k", Part("f:1", body), {})) == []
        (exchange,) = pairing.add("k", "response", "k", Part("f:2", b""), {})
        assert exchange.request is not None and exchange.request.body == b"first"
        assert pairing.counts == {"repeated": 1}


class TestMapping:
    @pytest.mark.parametrize(
        ("tree", "named"),
        [
            ({"instances": None}, "neither instances nor semantic"),
            ({"image": None}, "neither image nor embedding"),
            ({"image": {"tensor": "x", "body": True}}, "image: give one of"),
            ({"imagge": {}}, "imagge"),
            ({"instances": {"classes": "x"}}, "instances"),
            ({"version": 1.10}, "version"),
            ({"version": {"from": "somewhere.else"}}, "version"),
            ({"sampling_probability": 0}, "sampling_probability"),
            ({"image": {"body": True}, "batch": True}, "batch"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, tree: dict[str, Any], named: str) -> None:
        path = tmp_path / "m.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in {**MAPPING, **tree}.items() if v is not None}))
        with pytest.raises(InputError, match=f"m.yaml: .*{named}"):
            read_mapping(path)

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read"):
            read_mapping(tmp_path / "none.yaml")
        (tmp_path / "bad.yaml").write_text("a: [")
        with pytest.raises(InputError, match="neither YAML nor JSON"):
            read_mapping(tmp_path / "bad.yaml")

    def test_requests_are_needed_for_what_they_alone_hold(self) -> None:
        base = msgspec.convert({**MAPPING, "image": None, "embedding": "e"}, Mapping)
        assert not base.needs_request
        for changes in ({"sequence": From("request.id")}, {"latency": "events"}, {"unanswered": "error"}):
            assert msgspec.structs.replace(base, **changes).needs_request
        assert msgspec.convert(MAPPING, Mapping).needs_request

    def test_the_one_in_the_docs_is_one(self, tmp_path: Path, checkout: Path, converted: Convert) -> None:
        page = (checkout / "docs" / "ways-in.md").read_text(encoding="utf-8")
        (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
        record = converted(PAIR, **yaml.safe_load(text)).record
        assert record["slices"] == {"camera": "7", "site": "berlin"}
        assert [one["class"] for one in record["instances"]] == ["car"]
        keys = re.findall(r"^\| (`[a-z_`, ]+`) \|", page, re.MULTILINE)
        named = {key.strip("` ") for cell in keys for key in cell.split(",")}
        assert set(Mapping.__struct_fields__) <= named


class TestCommand:
    def test_the_choices_are_the_adapters(self) -> None:
        (option,) = [one for one in convert_command.params if one.name == "form"]
        assert set(option.type.choices) == set(ADAPTERS)  # type: ignore[attr-defined]

    def test_records_in_a_file_and_a_bad_one_on_stderr(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log, mapping, out = tmp_path / "log.jsonl", tmp_path / "m.yaml", tmp_path / "out.jsonl"
        log.write_text("\n".join(json.dumps(one) for one in PAIR) + "\n{\n")
        mapping.write_text(yaml.safe_dump(MAPPING))
        arguments = ["convert", str(log), "--from", "kserve", "--mapping", str(mapping)]
        monkeypatch.chdir(tmp_path)
        ended = CliRunner().invoke(cli, [*arguments, "--out", str(out)])
        shown = CliRunner().invoke(cli, arguments)
        assert "1 entries could not be converted" in str(ended.exception)
        assert f"{log}:3: not JSON" in ended.stderr and "1 records, 1 refused" in ended.stderr
        assert shown.stdout_bytes == out.read_bytes() and len(out.read_bytes().splitlines()) == 1
        assert list(tmp_path.glob("*.part")) == []


def test_kafka_headers_as_kcat_writes_them_either_way() -> None:
    message = kafka_message({}, {"ce_id": "1", "X-Other": "y"})
    as_map = {**message, "headers": {"ce_id": ["1"], "X-Other": ["y"]}}
    for each in (message, as_map):
        found = read_event(json.dumps(each).encode())
        assert found.attributes == {"id": "1"} and found.headers == {"x-other": "y"}
        assert found.time_us == 1_795_401_933_120_000
