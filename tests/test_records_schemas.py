"""The published schemas and the decoder agree: what the one accepts, the other accepts.

Two kinds of difference are meant to be. A schema cannot say that counts add up, that 30 February is no day, or what a
PNG holds: generated records have good ones there. And JSON Schema takes 3.0 for an integer, the decoder does not:
generated numbers are either whole or not.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import BadRecord
from monitor.records import LABEL_TYPE, PREDICTION_TYPE, REASONS, Limits, decode
from monitor.schemas import SCHEMAS, read_schema
from monitor.sources.protocol import Partition, RawRecord
from tests.made_png import png

MISSING = object()
PNG = base64.b64encode(png(np.zeros((4, 4), np.uint8))).decode()
LIMITS = Limits(uri_prefixes=("file:/data/",))

name = st.sampled_from(["a", "x" * 256, "Straße 7", "\u2028", "1"])
odd_name = st.sampled_from(["", "x" * 257, "a\0", 7, None, True, ["a"], {}])
time = st.sampled_from(["2026-11-23T02:45:33Z", "2026-11-23t02:45:33.123456789+05:30", "2000-01-02T00:00:00-00:00"])
odd_time = st.sampled_from(
    ["2026-11-23T02:45:33", "2026-11-23", "", "x", 0, None, "2026-11-23T02:45Z", "1999-01-01T00:00:00Z"]
)
probability = st.sampled_from([1, 0.5, 1e-300, 1.0])
odd_probability = st.sampled_from([0, -0.5, 1.5, "1", True, []])
amount = st.sampled_from([0, 0.25, 1e300, 7, None])
odd_amount = st.sampled_from([-1, -0.001, "1", False, {}])
mask = st.sampled_from(
    [
        {"size": [4, 4], "counts": [3, 4, 9]}, {"size": [4, 4], "counts": "349"}, {"size": [1, 1], "counts": [0, 1]},
        [[0, 0, 4, 0, 0, 3.5]], [[0, 0, 4, 0, 0, 3]] * 3, {"size": [4, 4], "counts": [16], "extra": 1},
    ]
)  # fmt: skip
odd_mask = st.sampled_from(
    [
        [], [[]], [[1, 2, 3, 4]], [1, 2, 3, 4, 5, 6], [["a"] * 6], [[1e8, 0, 0, 0, 0, 1]], {}, None, "349", 5,
        {"size": [4], "counts": "349"}, {"size": [4, 0], "counts": "0"}, {"size": [4, 4, 1], "counts": "349"},
        {"size": [4, 4]}, {"counts": "349"}, {"size": [4, 4], "counts": None}, {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 4], "counts": [0.5, 15.5]}, {"size": [4, 4], "counts": "3 9"}, {"size": [2**31, 1], "counts": "0"},
        {"size": ["4", 4], "counts": "349"}, {"size": [4, 4], "counts": ["16"]},
    ]
)  # fmt: skip


def fields(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose fields are drawn from (good, odd) pairs, mostly good; MISSING ones are left out."""

    def of(good: Any, odd: Any, may_be_missing: bool) -> st.SearchStrategy[Any]:
        choices = [*[good] * 30, odd, st.just(MISSING)] + [st.just(MISSING)] * (10 if may_be_missing else 0)
        return st.integers(0, len(choices) - 1).flatmap(choices.__getitem__)

    drawn = {key: of(*pair, False) for key, pair in required.items()} | {k: of(*p, True) for k, p in optional.items()}
    return st.fixed_dictionaries(drawn).map(lambda tree: {k: v for k, v in tree.items() if v is not MISSING})


good_model = st.fixed_dictionaries({"name": name, "version": name})
model = (
    good_model,
    fields({"name": (name, odd_name), "version": (name, odd_name)}, {}) | st.sampled_from(["m", None, []]),
)
image = (
    st.sampled_from(
        [
            {"data": "AAAA"}, {"data": "AA=="}, {"uri": "file:/data/1.jpg"}, {"data": "AAAA", "uri": None},
            {"data": "AAA=", "media_type": "image/png"}, {"data": None, "uri": "file:/data/1.jpg", "media_type": None},
        ]
    ),
    st.sampled_from(
        [
            {}, {"data": ""}, {"data": "A"}, {"data": "A-_A"}, {"data": 5}, {"uri": 5}, {"data": None}, {"uri": ""},
            {"data": "AAAA", "uri": "file:/data/1.jpg"}, {"uri": "file:/data/" + "x" * 4096},
            {"data": "AAAA", "media_type": 5}, "AAAA", [], None,
        ]
    ),
)  # fmt: skip
semantic = (
    st.sampled_from([{"classes_png": PNG} | more for more in ({}, {"confidence_png": PNG}, {"confidence_png": None})]),
    st.sampled_from(
        [
            {}, {"classes_png": None}, {"classes_png": 5}, {"confidence_png": PNG}, "x", [], None,
            {"classes_png": PNG, "confidence_png": 5},
        ]
    ),
)  # fmt: skip
embedding = (
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53), min_size=1, max_size=5),
    st.sampled_from([[], ["a"], [None], [True], 5, "x", {}, None, [[1.0]]]),
)
slices = (
    st.dictionaries(
        st.sampled_from(["camera", "site", "ä", "k" * 256]), st.sampled_from(["", "7", "v" * 256]), max_size=3
    ),
    st.sampled_from(
        [
            {"": "x"}, {"a=b": "c"}, {"a": 1}, {"a": "v" * 257}, {"k" * 257: "v"}, {"a\0": "b"}, {"a": "\0"}, [], None,
            {str(i): "" for i in range(17)}, {str(i): "" for i in range(16)},
        ]
    ),
)  # fmt: skip


def instances(scored: bool) -> tuple[Any, Any]:
    score = {"score": (st.sampled_from([0, 1, 0.5]), st.sampled_from([-1, 2, "1", None, True]))} if scored else {}
    one = {"class": (name, odd_name), "mask": (mask.filter(small), odd_mask)} | score
    return st.lists(fields(one, {}), max_size=2), st.sampled_from([{}, "x", None, [None], [[]], 5])


def small(form: Any) -> bool:
    """Masks of one record have one size."""
    return isinstance(form, list) or form["size"] == [4, 4]


predictions = fields(
    {
        "type": (st.just(PREDICTION_TYPE), st.sampled_from(["x", 5, None])),
        "input_id": (name, odd_name),
        "event_time": (time, odd_time),
        "model": model,
        "image": image,
        "instances": instances(scored=True),
    },
    {
        "slices": slices,
        "sequence": (name | st.none(), odd_name.filter(lambda value: value is not None)),
        "sampling_probability": (probability, odd_probability | st.none()),
        "status": (st.sampled_from(["ok", "ok", "error", "timeout", "oom"]), st.sampled_from(["", "OK", None, 5])),
        "latency_seconds": (amount, odd_amount),
        "cost_usd": (amount, odd_amount),
        "embedding": embedding,
        "semantic": semantic,
        "unknown": (st.none(), st.just({"deep": [1]})),
    },
)
labels = fields(
    {
        "type": (st.just(LABEL_TYPE), st.sampled_from(["x", 5, None])),
        "input_id": (name, odd_name),
        "annotator": (name, odd_name),
        "annotation_version": (st.sampled_from([0, 1, 2**63 - 1]), st.sampled_from([-1, 2**63, 0.5, "1", None, True])),
        "label_time": (time, odd_time),
        "instances": instances(scored=False),
    },
    {
        "semantic": semantic,
        "model": (good_model | st.none(), model[1]),
        "purpose": (st.sampled_from(["spot_check", "relabel", "audit"]), st.sampled_from(["", None, 5])),
        "selection_probability": (probability | st.none(), odd_probability),
    },
)

VALIDATORS = {type: jsonschema.Draft202012Validator(read_schema(type)) for type in SCHEMAS}


def verdict(record: dict[str, Any]) -> str:
    raw = RawRecord(Partition("t", "t", "t", 0), 0, json.dumps(record).encode(), None, (), 1_900_000_000_000_000)
    try:
        decode(raw, LIMITS)
    except BadRecord as bad:
        return str(bad)
    return "ok"


def agree(record: dict[str, Any], type: str) -> None:
    found = verdict(record)
    errors = [error.message[:200] for error in VALIDATORS[type].iter_errors(record)]
    assert (found == "ok") == (not errors), (record, found, errors)


@given(predictions)
@settings(max_examples=300)
def test_schema_and_decoder_agree_on_predictions(record: dict[str, Any]) -> None:
    agree(record, PREDICTION_TYPE)


@given(labels)
@settings(max_examples=150)
def test_schema_and_decoder_agree_on_labels(record: dict[str, Any]) -> None:
    agree(record, LABEL_TYPE)


@pytest.mark.parametrize("type", SCHEMAS)
def test_each_schema_is_valid_2020_12(type: str) -> None:
    schema = read_schema(type)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_no_schema_is_left_out_of_the_table(checkout: Path) -> None:
    assert {file.name for file in (checkout / "monitor" / "schemas").glob("*.json")} == set(SCHEMAS.values())


def test_an_action_has_its_cause_and_its_page() -> None:
    action = {
        "type": "segwatch.relabel_requested.v1",
        "id": "relabel-street-3-2026-11-23T02",
        "time": "2026-11-23T03:00:10Z",
        "model": {"name": "street", "version": "3"},
        "evidence": {
            "window": {"start": "2026-11-23T02:00:00Z", "end": "2026-11-23T03:00:00Z", "slice": None, "revision": 0},
            "scores": [
                {"signal": "embedding", "js": 0.21, "kl_nats": 0.4, "p_value": 0.001, "threshold": 0.05, "alarm": True}
            ],
            "classes": ["car"],
            "slices": ["camera=7"],
            "samples": [{"input_id": "cam7-000123", "selection_probability": 0.02}],
        },
        "link": "http://127.0.0.1:8600/models/street/3",
    }
    validator = VALIDATORS["segwatch.relabel_requested.v1"]
    validator.validate(action)
    for missing in ("id", "evidence", "link"):
        assert not validator.is_valid({key: value for key, value in action.items() if key != missing})


def test_the_docs_list_every_field_reason_and_schema(checkout: Path) -> None:
    text = (checkout / "docs" / "records.md").read_text(encoding="utf-8")
    for type, file in SCHEMAS.items():
        assert f"`{type}`" in text
        assert f"../monitor/schemas/{file}" in text
    for type in (PREDICTION_TYPE, LABEL_TYPE):
        for field in read_schema(type)["properties"]:
            assert f"`{field}`" in text, field
    for reason, sentence in REASONS.items():
        assert f"| `{reason}` | {sentence} |" in text, reason


def test_the_examples_in_the_docs_are_taken(checkout: Path) -> None:
    text = (checkout / "docs" / "records.md").read_text(encoding="utf-8")
    examples = [block.partition("```")[0] for block in text.split("```json\n")[1:]]
    assert len(examples) >= 2
    for example in examples:
        record = msgspec.json.decode(example)
        VALIDATORS[record["type"]].validate(record)
        if record["type"] in (PREDICTION_TYPE, LABEL_TYPE):
            assert verdict(record) == "ok"
