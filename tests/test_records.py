"""Records: what is taken, what is refused, and in which words."""

from __future__ import annotations

import base64
import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.cloudevents import binary_headers
from monitor.errors import BadRecord
from monitor.masks import Rle, encode_rle
from monitor.records import (
    REASONS,
    Label,
    Limits,
    Prediction,
    Record,
    check_map_size,
    decode,
    decode_chunk,
)
from monitor.records.embedding import read_embedding, read_embeddings
from monitor.records.types import to_us
from monitor.settings import load_settings
from monitor.sources.protocol import Partition, RawRecord
from tests.made_png import header, png

PARTITION = Partition("test", "id", "segwatch.predictions", 0)
EVENT_US = 1_795_401_933_120_000
MASK = {"size": [4, 4], "counts": [3, 4, 9]}
INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3


def prediction(**changes: Any) -> dict[str, Any]:
    """A valid record; a change to ``...`` leaves the field out."""
    record = {
        "type": "segwatch.prediction.v1",
        "input_id": "cam7-000123",
        "event_time": "2026-11-23T02:45:33.120Z",
        "model": {"name": "street", "version": "3"},
        "slices": {"camera": "7", "site": "berlin"},
        "sequence": "cam7-2026-11-23T02",
        "sampling_probability": 0.05,
        "status": "ok",
        "latency_seconds": 0.083,
        "cost_usd": 0.00021,
        "image": {"media_type": "image/jpeg", "data": b"\xff\xd8jpeg"},
        "instances": [{"class": "car", "score": 0.93, "mask": MASK}],
        "semantic": {"classes_png": png(INDICES)},
    }
    return {key: value for key, value in (record | changes).items() if value is not ...}


def label(**changes: Any) -> dict[str, Any]:
    record = {
        "type": "segwatch.label.v1",
        "input_id": "cam7-000123",
        "annotator": "ann",
        "annotation_version": 1,
        "label_time": "2026-11-23T03:00:00+01:00",
        "instances": [{"class": "car", "mask": MASK}],
    }
    return {key: value for key, value in (record | changes).items() if value is not ...}


def instance(**changes: Any) -> list[dict[str, Any]]:
    one = {"class": "car", "score": 0.5, "mask": MASK} | changes
    return [{key: value for key, value in one.items() if value is not ...}]


def raw(value: Any, packed: bool = False, timestamp_us: int | None = EVENT_US, **headers: str) -> RawRecord:
    """``value`` as a message: encoded unless it is bytes already. ``content_type`` is the header ``content-type``."""
    if not isinstance(value, bytes) and value is not None:
        value = msgspec.msgpack.encode(value) if packed else msgspec.json.encode(value)
    named = [(n if n.startswith("ce_") else n.replace("_", "-"), text.encode()) for n, text in headers.items()]
    return RawRecord(PARTITION, 7, value, None, named, timestamp_us)


def take(value: Any, packed: bool = False, limits: Limits | None = None, **headers: str) -> Record:
    return decode(raw(value, packed, **headers), limits or Limits())


def refuse(value: Any, packed: bool = False, limits: Limits | None = None, **headers: str) -> BadRecord:
    with pytest.raises(BadRecord) as caught:
        take(value, packed, limits, **headers)
    assert caught.value.reason in REASONS
    assert caught.value.detail.isprintable()
    return caught.value


def plain(record: Record) -> Any:
    return msgspec.to_builtins(msgspec.structs.asdict(record) | {"embedding_wire": None}, builtin_types=(bytes,))


class TestTaking:
    @pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
    def test_a_prediction_has_what_was_sent(self, packed: bool) -> None:
        record = take(prediction(embedding=[1.5, -2, 0.25]), packed)
        assert isinstance(record, Prediction)
        assert (record.model.name, record.model.version, record.input_id) == ("street", "3", "cam7-000123")
        assert record.event_time_us == EVENT_US
        assert record.slices == {"camera": "7", "site": "berlin"}
        assert record.sequence == "cam7-2026-11-23T02"
        assert (record.sampling_probability, record.status) == (0.05, "ok")
        assert (record.latency_seconds, record.cost_usd) == (0.083, 0.00021)
        assert record.image is not None
        assert record.image.data == b"\xff\xd8jpeg"
        assert record.instances is not None
        [one] = record.instances
        assert (one.class_name, one.score, one.mask) == ("car", 0.93, Rle((4, 4), [3, 4, 9]))
        assert record.semantic is not None
        assert record.semantic.classes_png == png(INDICES)
        assert record.embedding is not None
        assert record.embedding.tolist() == [1.5, -2, 0.25]
        assert record.masks.area.tolist() == [4]

    @pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
    def test_a_label_has_what_was_sent(self, packed: bool) -> None:
        record = take(label(purpose="audit", selection_probability=0.25, model={"name": "m", "version": "1"}), packed)
        assert isinstance(record, Label)
        assert (record.annotator, record.annotation_version, record.purpose) == ("ann", 1, "audit")
        assert record.label_time_us == to_us(datetime(2026, 11, 23, 2, tzinfo=UTC))
        assert record.selection_probability == 0.25
        assert record.model is not None
        assert record.model.version == "1"
        assert record.instances is not None
        assert record.instances[0].class_name == "car"
        assert record.masks.area.tolist() == [4]

    def test_what_is_left_out_has_its_default(self) -> None:
        required = prediction(
            slices=...,
            sequence=...,
            sampling_probability=...,
            status=...,
            latency_seconds=...,
            cost_usd=...,
            semantic=...,
        )
        record = take(required)
        assert isinstance(record, Prediction)
        assert (record.slices, record.sequence, record.sampling_probability, record.status) == ({}, None, 1.0, "ok")
        assert (record.latency_seconds, record.cost_usd, record.semantic, record.embedding) == (None, None, None, None)

    def test_unknown_fields_are_ignored_at_every_depth(self) -> None:
        model = {"name": "street", "version": "3", "commit": {"deep": [1, [2]]}}
        record = take(prediction(model=model, mine=[{"x": None}], instances=instance(track=9)))
        assert plain(record) == plain(take(prediction(instances=instance())))

    def test_null_in_an_optional_field_means_that_it_is_left_out(self) -> None:
        fields = dict.fromkeys(("sequence", "latency_seconds", "cost_usd", "embedding", "semantic"))
        assert plain(take(prediction(**fields))) == plain(take(prediction(**dict.fromkeys(fields, ...))))

    def test_both_encodings_give_the_same_record(self) -> None:
        assert plain(take(prediction(), packed=True)) == plain(take(prediction()))

    @pytest.mark.parametrize("status", ["error", "timeout", "oom"])
    def test_a_failed_inference_needs_only_its_operational_fields(self, status: str) -> None:
        record = take(prediction(status=status, image=..., instances=..., semantic=...))
        assert isinstance(record, Prediction)
        assert record.status == status
        take(prediction(status=status, image={}, instances=instance(mask={"size": [9, 9], "counts": "1"})))

    def test_no_instances_are_a_valid_answer(self) -> None:
        record = take(prediction(instances=[], semantic=...))
        assert isinstance(record, Prediction)
        assert record.instances == []
        assert len(record.masks) == 0

    def test_all_three_mask_forms_may_stand_in_one_record(self) -> None:
        mask = np.zeros((4, 4), np.bool_)
        mask[1:3, 1:3] = True
        forms = [encode_rle(mask), MASK, [[0.0, 0.0, 4.0, 0.0, 0.0, 3.0]]]
        record = take(prediction(instances=[one for form in forms for one in instance(mask=form)]))
        assert record.masks.area.tolist() == [4, 4, 6]

    def test_compressed_counts_may_be_bytes_in_messagepack_as_pycocotools_gives_them(self) -> None:
        mask = encode_rle(np.eye(4, dtype=np.bool_))
        packed = {"size": [4, 4], "counts": mask["counts"].encode()}
        for make in (prediction, label):
            record = take(make(instances=[*instance(mask=packed), *instance(mask=MASK)]), packed=True)
            assert plain(record) == plain(take(make(instances=[*instance(mask=mask), *instance(mask=MASK)])))
        assert (
            refuse(prediction(instances=instance(mask=packed | {"counts": b"\xff"})), packed=True).reason == "bad_mask"
        )

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ([0.5, 1.0, -3.25], np.float64),
            ([1, 2.5, -7], np.float64),
            ([1, 2, 3], np.float64),
            ([0.1] * 20, np.float64),
            ([0.1] * 70_000, None),
            ([math.nan, math.inf, 1.0], np.float64),
        ],
        ids=["doubles", "mixed", "integers", "long", "too long", "not finite"],
    )
    def test_an_embedding_in_messagepack_is_read_as_msgspec_reads_it(self, value: list[float], kind: Any) -> None:
        if kind is None:
            assert refuse(prediction(embedding=value), packed=True).reason == "out_of_bounds"
            return
        record = take(prediction(embedding=value), packed=True)
        assert isinstance(record, Prediction)
        assert record.embedding is not None
        assert record.embedding.dtype == kind
        assert np.array_equal(record.embedding, np.array(value, np.float64), equal_nan=True)

    @given(
        st.lists(
            st.sampled_from(
                [
                    [0.5, -1.25],
                    [2.0, 3.5],
                    [math.nan, math.inf],
                    [1, 2.5],
                    [1.0, 2],
                    list(range(16)),
                    [0.25] * 16,
                    [0.75] * 16,
                    [1, "x"],
                    [],
                    {},
                    "text",
                    None,
                ]
            ),
            max_size=12,
        ),
        st.sampled_from([msgspec.msgpack.encode, msgspec.json.encode]),
    )
    def test_embeddings_of_a_chunk_are_read_as_each_is_alone(self, values: list[Any], encode: Any) -> None:
        wires = [msgspec.Raw(encode(value)) for value in values]
        for wire, found in zip(wires, read_embeddings(wires), strict=True):
            try:
                alone = read_embedding(wire)
            except msgspec.ValidationError as error:
                assert str(found) == str(error)
                continue
            assert type(found) is type(alone)
            if isinstance(found, np.ndarray) and alone is not None:
                assert found.dtype == alone.dtype
                assert np.array_equal(found, alone, equal_nan=True)

    def test_an_embedding_that_is_wrong_is_named_before_what_else_is(self) -> None:
        bad = refuse(prediction(embedding={}, instances=..., image=...), packed=True)
        assert (bad.reason, "embedding" in bad.detail) == ("wrong_type", True)

    def test_an_embedding_of_single_precision_stays_so(self) -> None:
        sent = np.array([0.1, -2.5, 1e30] * 10, np.float32)
        wire = b"\xdc\x00\x1e" + b"".join(struct.pack(">Bf", 0xCA, number) for number in sent)
        head = msgspec.msgpack.encode(prediction())
        record = take(bytes([head[0] + 1]) + head[1:] + b"\xa9embedding" + wire)
        assert isinstance(record, Prediction)
        assert record.embedding is not None
        assert record.embedding.dtype == np.float32
        assert record.embedding.tolist() == sent.tolist()

    @given(st.lists(st.floats(width=64) | st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=40))
    def test_any_list_of_numbers_is_an_embedding(self, numbers: list[float]) -> None:
        record = take(prediction(embedding=numbers), packed=True)
        assert isinstance(record, Prediction)
        assert record.embedding is not None
        assert np.array_equal(record.embedding, np.array([float(n) for n in numbers]), equal_nan=True)


class TestTime:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-11-23T02:45:33Z", datetime(2026, 11, 23, 2, 45, 33)),
            ("2026-11-23t02:45:33z", datetime(2026, 11, 23, 2, 45, 33)),
            ("2026-11-23T02:45:33.000001Z", datetime(2026, 11, 23, 2, 45, 33, 1)),
            ("2026-11-23T04:45:33.5+02:00", datetime(2026, 11, 23, 2, 45, 33, 500_000)),
            ("2026-11-22T21:15:33-05:30", datetime(2026, 11, 23, 2, 45, 33)),
            ("2000-01-01T00:00:00Z", datetime(2000, 1, 1)),
        ],
    )
    def test_an_rfc_3339_time_becomes_microseconds(self, text: str, expected: datetime) -> None:
        record = take(prediction(event_time=text))
        assert isinstance(record, Prediction)
        assert record.event_time_us == int(expected.replace(tzinfo=UTC).timestamp()) * 1_000_000 + expected.microsecond

    def test_messagepack_may_carry_its_own_timestamp(self) -> None:
        record = take(prediction(event_time=datetime(2026, 11, 23, 2, 45, 33, 120_000, tzinfo=UTC)), packed=True)
        assert isinstance(record, Prediction)
        assert record.event_time_us == EVENT_US

    @pytest.mark.parametrize(
        "text",
        [
            "2026-11-23T02:45:33", "2026-11-23", "yesterday", "", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z",
            "1999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "2026-11-23T24:00:00Z", "2026-11-23T02:45:33+24:00",
            1_795_401_933, None, [],
        ],
    )  # fmt: skip
    def test_a_naive_absurd_or_broken_time_is_bad(self, text: Any) -> None:
        bad = refuse(prediction(event_time=text))
        assert bad.reason == "bad_time"
        assert bad.detail.startswith("event_time")

    def test_the_future_begins_at_the_tolerance_after_the_brokers_clock(self) -> None:
        limits = Limits(future_tolerance_us=60_000_000)
        value = prediction()
        decode(raw(value, timestamp_us=EVENT_US - 60_000_000), limits)
        with pytest.raises(BadRecord, match=r"future_time: event_time is 1 s beyond"):
            decode(raw(value, timestamp_us=EVENT_US - 61_000_000), limits)
        with pytest.raises(BadRecord, match=r"future_time: label_time"):
            decode(raw(label(), timestamp_us=0), limits)

    def test_in_a_file_the_clock_passed_in_says_what_is_future(self) -> None:
        value = raw(prediction(), timestamp_us=None)
        decode(value, Limits(), now_us=EVENT_US)
        decode(value, Limits())
        with pytest.raises(BadRecord, match="future_time"):
            decode(value, Limits(), now_us=EVENT_US - 400_000_000)

    def test_the_brokers_clock_counts_where_there_is_one(self) -> None:
        decode(raw(prediction(), timestamp_us=EVENT_US), Limits(), now_us=0)

    @given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))
    def test_microseconds_are_exact_for_every_time_and_offset(self, naive: datetime, minutes: int) -> None:
        time = naive.replace(tzinfo=UTC) - timedelta(minutes=minutes)
        assert to_us(time) == (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


BAD: list[tuple[str, Any, str, str]] = [
    ("no model", prediction(model=...), "missing_field", "model is missing"),
    ("no model name", prediction(model={"version": "1"}), "missing_field", "model.name is missing"),
    ("no input_id", prediction(input_id=...), "missing_field", "input_id is missing"),
    ("no event_time", prediction(event_time=...), "missing_field", "event_time is missing"),
    ("no type", prediction(type=...), "missing_field", "type is missing"),
    ("no image", prediction(image=...), "missing_field", "neither image nor embedding"),
    ("null image", prediction(image=None), "missing_field", "neither image nor embedding"),
    ("no outcome", prediction(instances=..., semantic=...), "missing_field", "neither instances nor semantic"),
    ("empty image", prediction(image={}), "missing_field", "image has neither data nor uri"),
    ("no score", prediction(instances=instance(score=...)), "missing_field", "instances[0].score is missing"),
    ("no mask", prediction(instances=instance(mask=...)), "missing_field", "instances[0].mask is missing"),
    ("no class", prediction(instances=instance(**{"class": ...})), "missing_field", "instances[0].class is missing"),
    ("no annotator", label(annotator=...), "missing_field", "annotator is missing"),
    ("no label outcome", label(instances=...), "missing_field", "neither instances nor semantic"),
    ("other type", prediction(type="segwatch.prediction.v2"), "unknown_type", "segwatch.prediction.v2"),
    ("number as type", prediction(type=3), "unknown_type", "type"),
    ("list of records", [prediction()], "wrong_type", "the record: Expected object, got array"),
    ("number as id", prediction(input_id=5), "wrong_type", "input_id: Expected str, got int, value 5"),
    ("text as score",
     prediction(instances=instance(score="0.5")), "wrong_type", "instances[0].score: Expected float, got"),
    ("true as score", prediction(instances=instance(score=True)), "wrong_type", "got bool, value True"),
    ("number as slice", prediction(slices={"camera": 7}), "wrong_type", "slices"),
    ("object as embedding", prediction(embedding={}), "wrong_type", "embedding"),
    ("text in embedding",
     prediction(embedding=[1, "x"]), "wrong_type", "embedding[1]: Expected float, got str, value 'x'"),
    ("data and uri", prediction(image={"data": b"x", "uri": "file:/x"}), "wrong_type", "image has both data and uri"),
    ("text as version", label(annotation_version="1"), "wrong_type", "annotation_version"),
    ("half a version", label(annotation_version=1.5), "wrong_type", "annotation_version"),
    ("empty id", prediction(input_id=""), "out_of_bounds", "input_id: Expected str of length >= 1"),
    ("long id", prediction(input_id="x" * 257), "out_of_bounds", "length <= 256"),
    ("empty model", prediction(model={"name": "", "version": "1"}), "out_of_bounds", "model.name"),
    ("empty version", prediction(model={"name": "m", "version": ""}), "out_of_bounds", "model.version"),
    ("empty sequence", prediction(sequence=""), "out_of_bounds", "sequence"),
    ("empty class", prediction(instances=instance(**{"class": ""})), "out_of_bounds", "instances[0].class"),
    ("score above 1", prediction(instances=instance(score=1.2)), "out_of_bounds", "<= 1.0, value 1.2"),
    ("negative score", prediction(instances=instance(score=-0.1)), "out_of_bounds", ">= 0.0, value -0.1"),
    ("probability 0", prediction(sampling_probability=0), "out_of_bounds", "sampling_probability"),
    ("probability 2", prediction(sampling_probability=2), "out_of_bounds", "sampling_probability"),
    ("negative latency", prediction(latency_seconds=-1), "out_of_bounds", "latency_seconds"),
    ("negative cost", prediction(cost_usd=-1e-9), "out_of_bounds", "cost_usd"),
    ("unknown status", prediction(status="fine"), "out_of_bounds", "status"),
    ("17 slices", prediction(slices={str(i): "x" for i in range(17)}), "out_of_bounds", "slices"),
    ("empty slice key", prediction(slices={"": "x"}), "out_of_bounds", "a key of slices"),
    ("long slice value", prediction(slices={"a": "x" * 257}), "out_of_bounds", "slices"),
    ("empty embedding", prediction(embedding=[]), "out_of_bounds", "embedding"),
    ("10,001 instances", prediction(instances=instance() * 10_001), "out_of_bounds", "instances"),
    ("unknown purpose", label(purpose="fun"), "out_of_bounds", "purpose"),
    ("negative version", label(annotation_version=-1), "out_of_bounds", "annotation_version"),
    ("huge version", label(annotation_version=2**63), "out_of_bounds", "annotation_version"),
    ("selection 0", label(selection_probability=0), "out_of_bounds", "selection_probability"),
    ("NUL in id", prediction(input_id="a\0b"), "bad_text", "input_id: 'a\\x00b' contains"),
    ("NUL in model", prediction(model={"name": "a\0", "version": "1"}), "bad_text", "model.name"),
    ("NUL in version", prediction(model={"name": "a", "version": "\0"}), "bad_text", "model.version"),
    ("NUL in sequence", prediction(sequence="\0"), "bad_text", "sequence"),
    ("NUL in slice value", prediction(slices={"a": "\0"}), "bad_text", "slices['a']"),
    ("NUL in slice key", prediction(slices={"\0": "a"}), "bad_text", "a key of slices"),
    ("= in slice key", prediction(slices={"a=b": "c"}), "bad_text", "slices: key 'a=b'"),
    ("NUL in class", prediction(instances=instance(**{"class": "a\0"})), "bad_text", "instances[0].class"),
    ("NUL in annotator", label(annotator="a\0"), "bad_text", "annotator"),
    ("NUL in label's class", label(instances=instance(**{"class": "a\0"})), "bad_text", "instances[0].class"),
    ("empty data", prediction(image={"data": b""}), "image_truncated", "image.data is empty"),
    ("uri", prediction(image={"uri": "file:///etc/passwd"}), "uri_refused", "images.uri_prefixes allows none"),
    ("mask of text", prediction(instances=instance(mask="x")), "bad_mask", "instances[0].mask"),
    ("mask without size",
     prediction(instances=instance(mask={"counts": "1"})),
     "bad_mask", "instances[0].mask: Object missing required field size"),
    ("size of three", prediction(instances=instance(mask=MASK | {"size": [4, 4, 1]})), "bad_mask", "size"),
    ("negative size", prediction(instances=instance(mask=MASK | {"size": [-4, -4]})), "bad_mask", "size[0]"),
    ("negative count", prediction(instances=instance(mask=MASK | {"counts": [17, -1]})), "bad_mask", "counts[1]"),
    ("wrong sum",
     prediction(instances=instance(mask=MASK | {"counts": [3, 4]})), "bad_mask", "counts 2 numbers that add up to 7"),
    ("bad string",
     prediction(instances=instance(mask=MASK | {"counts": "zz"})), "bad_mask", "instances[0].mask: counts has"),
    ("two points", prediction(instances=instance(mask=[[1, 2, 3, 4]])), "bad_mask", "instances[0].mask[0]"),
    ("odd polygon", prediction(instances=instance(mask=[[1, 2, 3, 4, 5, 6, 7]])), "bad_mask", "even number"),
    ("no polygon", prediction(instances=instance(mask=[])), "bad_mask", "no polygon"),
    ("label's mask", label(instances=instance(mask=MASK | {"counts": [1]})), "bad_mask", "instances[0].mask"),
    ("10^12 pixels",
     prediction(instances=instance(mask={"size": [10**6, 10**6], "counts": [10**12]})), "mask_too_large", "pixels"),
    ("10^36 pixels",
     prediction(instances=instance(mask={"size": [10**18, 10**18], "counts": "1"})), "mask_too_large", "size[0]"),
    ("no PNG", prediction(semantic={"classes_png": b"GIF89a"}), "bad_semantic", "not a PNG file (6 bytes)"),
    ("100,000 x 100,000",
     prediction(semantic={"classes_png": b"\x89PNG\r\n\x1a\n" + header(100_000, 100_000)}),
     "semantic_too_large", "pixels"),
    ("colour confidence",
     prediction(semantic={"classes_png": png(INDICES), "confidence_png": png(INDICES, 3)}),
     "bad_semantic", "confidence_png"),
]  # fmt: skip


class TestRefusing:
    @pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
    @pytest.mark.parametrize(("value", "reason", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
    def test_a_bad_record_is_refused_by_name(self, value: Any, reason: str, words: str, packed: bool) -> None:
        bad = refuse(value, packed)
        assert bad.reason == reason, bad
        assert words in bad.detail

    @pytest.mark.parametrize("field", ["latency_seconds", "cost_usd", "sampling_probability"])
    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_numbers_that_are_not_finite_are_refused(self, field: str, number: float) -> None:
        assert refuse(prediction(**{field: number}), packed=True).reason == "out_of_bounds"

    @pytest.mark.parametrize("number", [math.nan, math.inf])
    def test_a_score_that_is_not_finite_is_refused(self, number: float) -> None:
        assert refuse(prediction(instances=instance(score=number)), packed=True).reason == "out_of_bounds"
        text = msgspec.json.encode(prediction(instances=instance(score=0.125))).replace(b"0.125", b"NaN")
        assert refuse(text).reason == "not_json"

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "empty"), (b"", "empty"), (b"{", "not_json"), (b"hello", "not_json"), (b"\x00\x01", "not_json"),
            (b"\xff\xfe{}", "not_json"), (b'{"type":"segwatch.label.v1","input_id":"\xff"}', "not_json"),
            (b"\x81", "not_msgpack"), (b"\x81\xa1a\xc1", "not_msgpack"), (b"[" * 100_000, "wrong_type"),
            (b'{"a":' + b"[" * 100_000, "not_json"), (b"\x81\xa1a" + b"\x91" * 100_000, "not_msgpack"),
            (msgspec.json.encode(label()) + b" {}", "not_json"), (b"null", "wrong_type"), (b"\x80", "missing_field"),
        ],
    )  # fmt: skip
    def test_what_is_no_record_at_all_is_refused(self, value: bytes | None, reason: str) -> None:
        assert refuse(value).reason == reason

    def test_a_lone_surrogate_is_refused(self) -> None:
        text = msgspec.json.encode(prediction(input_id="XX")).replace(b'"XX"', b'"\\ud800 and some more text"')
        assert refuse(text).reason == "not_json"
        packed = msgspec.msgpack.encode(prediction(input_id="XXX")).replace(b"XXX", b"\xed\xa0\x80")
        assert refuse(packed).reason == "not_msgpack"

    @pytest.mark.parametrize("text", ["AAA", "AA-_", "AAAA\n", "=", "AA==AA==", "A A A A"])
    def test_loose_base64_is_refused(self, text: str) -> None:
        bad = refuse(prediction(image={"data": text}))
        assert bad.reason == "bad_base64"
        assert text not in bad.detail

    def test_the_last_of_two_equal_keys_counts(self) -> None:
        text = msgspec.json.encode(prediction())[:-1] + b',"input_id":"other"}'
        assert take(text).input_id == "other"

    def test_a_value_beyond_the_limit_is_not_even_read(self) -> None:
        assert refuse(b"[" * 1001, limits=Limits(max_value_bytes=1000)).reason == "too_large"

    def test_an_image_beyond_the_limit_is_refused(self) -> None:
        bad = refuse(prediction(image={"data": b"x" * 1001}), limits=Limits(max_image_bytes=1000))
        assert bad.reason == "image_too_large"

    def test_masks_of_two_sizes_in_one_record_are_refused(self) -> None:
        other = {"size": [2, 8], "counts": [16]}
        bad = refuse(prediction(instances=[*instance(), *instance(), *instance(mask=other)]))
        assert bad.reason == "bad_mask"
        assert bad.detail == "instances[2].mask.size is [2, 8], an instance before it has [4, 4]"

    def test_a_map_has_the_images_size_or_is_smaller(self) -> None:
        check_map_size((3, 4), (3, 4))
        check_map_size((2, 2), (3, 4))
        for image in ((2, 4), (3, 3)):
            with pytest.raises(
                BadRecord,
                match=f"bad_semantic: semantic.classes_png is 3 x 4, larger than the image's {image[0]} x {image[1]}",
            ):
                check_map_size((3, 4), image)

    def test_no_detail_shows_an_image_or_a_novel(self) -> None:
        secret = b"secret picture" * 100
        bad = refuse(prediction(image={"data": [base64.b64encode(secret).decode()]}))
        assert "got array" in bad.detail
        assert base64.b64encode(secret)[:20].decode() not in bad.detail
        bad = refuse(prediction(input_id=["x" * 10_000]))
        assert len(bad.detail) < 200
        bad = refuse(prediction(type="\n\x1b[31m" + "x" * 10_000))
        assert len(bad.detail) < 300


class TestChunks:
    def test_bad_records_stand_in_their_places_and_harm_no_other(self) -> None:
        values: list[Any] = [
            prediction(),
            b"{",
            prediction(instances=[*instance(), *instance(mask=MASK | {"counts": [1]})]),
            label(),
            None,
            prediction(instances=[]),
            prediction(
                instances=[*instance(mask={"size": [2, 2], "counts": "04"}), *instance(mask=[[0, 0, 4, 0, 0, 3]])]
            ),
        ]
        out = decode_chunk([raw(value) for value in values], Limits())
        reasons = [record.reason if isinstance(record, BadRecord) else "ok" for record in out]
        assert reasons == ["ok", "not_json", "bad_mask", "ok", "empty", "ok", "ok"]
        areas = [None if isinstance(record, BadRecord) else record.masks.area.tolist() for record in out]
        assert areas == [[4], None, None, [4], None, [], [4, 6]]

    @given(st.lists(st.sampled_from([case[1] for case in BAD] + [prediction(), label()]), max_size=8))
    def test_a_chunk_is_the_same_as_its_records_one_by_one(self, values: list[Any]) -> None:
        raws = [raw(value) for value in values]
        for one, record in zip(raws, decode_chunk(raws, Limits()), strict=True):
            if isinstance(record, BadRecord):
                with pytest.raises(BadRecord) as caught:
                    decode(one, Limits())
                assert str(caught.value) == str(record)
            else:
                assert plain(decode(one, Limits())) == plain(record)

    @pytest.mark.parametrize(
        "value", [prediction(model=...), prediction(instances=instance(mask=[]))], ids=["type", "mask"]
    )
    def test_an_error_that_is_kept_does_not_keep_the_frames_it_went_through(self, value: Any) -> None:
        [bad] = decode_chunk([raw(value)], Limits())
        assert isinstance(bad, BadRecord)
        assert bad.__traceback__ is None
        assert bad.__context__ is None


class TestCloudEvents:
    @pytest.mark.parametrize(
        ("content_type", "packed"),
        [
            ("application/json", False), ("application/json; charset=utf-8", False), ("APPLICATION/JSON", False),
            ("application/msgpack", True), ("application/x-msgpack", True), ("application/vnd.msgpack", True),
            ("application/octet-stream", False), ("application/octet-stream", True), ("", True), ("text/plain", False),
        ],
    )  # fmt: skip
    def test_the_content_type_or_else_the_first_byte_tells_the_encoding(self, content_type: str, packed: bool) -> None:
        assert isinstance(take(prediction(), packed, content_type=content_type), Prediction)

    def test_a_content_type_that_lies_is_bad(self) -> None:
        assert refuse(prediction(), packed=True, content_type="application/json").reason == "not_json"
        assert refuse(prediction(), content_type="application/msgpack").reason == "wrong_type"

    def test_headers_that_segwatch_writes_are_understood(self) -> None:
        headers = binary_headers(
            id="cam7-000123",
            type="segwatch.prediction.v1",
            source="/cam7",
            time="2026-11-23T02:45:33Z",
            extensions={"partitionkey": "cam7"},
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        assert {name for name, _ in headers} == {
            "ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_partitionkey",
            "content-type", "traceparent",
        }  # fmt: skip
        record = RawRecord(PARTITION, 0, msgspec.json.encode(prediction()), None, headers, EVENT_US)
        assert isinstance(decode(record, Limits()), Prediction)

    def test_a_type_that_contradicts_the_record_is_bad(self) -> None:
        bad = refuse(prediction(), ce_type="segwatch.label.v1")
        assert bad.reason == "type_mismatch"
        assert "segwatch.label.v1" in bad.detail

    def test_the_records_own_time_wins_so_that_a_replayed_file_agrees(self) -> None:
        record = take(prediction(), ce_time="2020-01-01T00:00:00Z")
        assert isinstance(record, Prediction)
        assert record.event_time_us == EVENT_US

    @pytest.mark.parametrize("content_type", ["application/cloudevents+json; charset=utf-8", "Application/CloudEvents"])
    def test_a_structured_event_is_opened(self, content_type: str) -> None:
        envelope = {"specversion": "1.0", "id": "1", "source": "/x", "type": "segwatch.prediction.v1"}
        whole = plain(take(prediction()))
        assert plain(take(envelope | {"data": prediction()}, content_type=content_type)) == whole
        inner = {"data_base64": base64.b64encode(msgspec.msgpack.encode(prediction())).decode(), "data": None}
        assert plain(take(envelope | inner, content_type=content_type)) == whole
        named = inner | {"datacontenttype": "application/msgpack"}
        assert plain(take(envelope | named, content_type=content_type)) == whole
        packed = envelope | {"data": prediction()}
        assert plain(take(packed, packed=True, content_type="application/cloudevents+msgpack")) == whole

    @pytest.mark.parametrize(
        ("envelope", "reason"),
        [
            ({"type": "segwatch.prediction.v1"}, "bad_envelope"),
            ({"data": {}}, "bad_envelope"),
            ({"type": "segwatch.prediction.v1", "data": None}, "bad_envelope"),
            ({"type": "segwatch.prediction.v1", "data_base64": "?"}, "bad_envelope"),
            ({"type": "segwatch.prediction.v1", "data": {}, "data_base64": "AAAA"}, "bad_envelope"),
            ({"type": "segwatch.prediction.v1", "data": {}}, "missing_field"),
            ({"type": "segwatch.label.v1", "data": prediction()}, "type_mismatch"),
            ({"type": "segwatch.label.v1", "data_base64": ""}, "not_json"),
        ],
    )
    def test_an_envelope_that_cannot_be_opened_is_bad(self, envelope: Any, reason: str) -> None:
        assert refuse(envelope, content_type="application/cloudevents+json").reason == reason

    def test_the_header_must_agree_with_the_envelope(self) -> None:
        envelope = {"type": "segwatch.prediction.v1", "data": prediction()}
        bad = refuse(envelope, content_type="application/cloudevents+json", ce_type="segwatch.label.v1")
        assert bad.reason == "type_mismatch"


def test_limits_come_from_the_settings() -> None:
    variables = {"SEGWATCH_IMAGES_URI_PREFIXES": "file:/data/", "SEGWATCH_WINDOWS_FUTURE_TOLERANCE_SECONDS": "1.5"}
    limits = Limits.from_settings(load_settings(environ=variables))
    assert limits.uri_prefixes == ("file:/data/",)
    assert limits.future_tolerance_us == 1_500_000
    assert limits.max_pixels == 50_000_000
