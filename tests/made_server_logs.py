"""Logs of inference servers for tests, made by hand from their documented formats: one model, one image, one answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.made_png import png

REQUEST_TIME, RESPONSE_TIME = "2026-11-23T02:45:33.120Z", "2026-11-23T02:45:33.203Z"
IMAGE = png(np.arange(48, dtype=np.uint8).reshape(6, 8))
MASKS = np.zeros((2, 6, 8), np.bool_)
MASKS[0, 1:3, 2:5] = True
MASKS[1, :, 7] = True
CLASSES, SCORES = np.array([0, 2], np.int64), np.array([0.9375, 0.25], np.float32)
NAMES = ["car", "bus", "person"]

DATATYPES = {"bool": "BOOL", "uint8": "UINT8", "int64": "INT64", "float32": "FP32", "float16": "FP16"}


def tensor(name: str, values: NDArray[Any], **more: Any) -> dict[str, Any]:
    """V2, as JSON."""
    flat = values.reshape(-1).tolist()
    return {"name": name, "shape": list(values.shape), "datatype": DATATYPES[values.dtype.name], "data": flat, **more}


def texts(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "BYTES", "data": values}


def request(**more: Any) -> dict[str, Any]:
    image = base64.b64encode(IMAGE).decode()
    return {"id": "r-1", "parameters": {"camera": "7"}, "inputs": [texts("image", [image])], **more}


def response(**more: Any) -> dict[str, Any]:
    outputs = [tensor("labels", CLASSES), tensor("scores", SCORES), tensor("masks", MASKS)]
    return {"model_name": "street", "model_version": "3", "id": "r-1", "outputs": outputs, **more}


def binary(body: dict[str, Any], side: str, values: dict[str, NDArray[Any] | list[bytes]]) -> bytes:
    """V2 with Triton's binary extension: these tensors behind the JSON."""
    tail = b""
    entries = []
    for entry in body[side]:
        entry = dict(entry)
        if entry["name"] in values:
            given = values[entry["name"]]
            if isinstance(given, list):
                raw = b"".join(len(each).to_bytes(4, "little") + each for each in given)
            else:
                raw = given.tobytes()
            del entry["data"]
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        entries.append(entry)
    return json.dumps({**body, side: entries}).encode() + tail


def event(
    role: str, body: Any, id: str = "r-1", prefix: str = "org.kubeflow.serving.inference", **more: Any
) -> dict[str, Any]:
    """A structured CloudEvent of KServe's logger; ``body``: bytes, or what becomes JSON."""
    data = {"data_base64": base64.b64encode(body).decode()} if isinstance(body, bytes) else {"data": body}
    return {
        "specversion": "1.0",
        "type": f"{prefix}.{role}",
        "id": id,
        "source": "http://street-predictor",
        "time": REQUEST_TIME if role == "request" else RESPONSE_TIME,
        "inferenceservicename": "street",
        "namespace": "vision",
        "component": "predictor",
        "endpoint": "default",
        "metadata": json.dumps({"X-Site": ["berlin"]}),
        "datacontenttype": "application/json",
        **data,
        **more,
    }


def kafka_message(body: Any, headers: dict[str, str], key: str | None = None) -> dict[str, Any]:
    """As ``kcat -J`` writes it."""
    pairs = [word for pair in headers.items() for word in pair]
    return {
        "topic": "log", "partition": 0, "offset": 1, "tstype": "create", "ts": 1_795_401_933_120, "broker": 0,
        "headers": pairs, "key": key, "payload": json.dumps(body),
    }  # fmt: skip


def over_kafka(structured: dict[str, Any]) -> dict[str, Any]:
    """The same event in binary mode."""
    attributes = {name: value for name, value in structured.items() if name not in ("data", "datacontenttype")}
    headers = {f"ce_{name}": value for name, value in attributes.items()}
    return kafka_message(structured["data"], {**headers, "content-type": "application/json"})


def captured(request: Any, response: Any, **meta: Any) -> dict[str, Any]:
    """An entry of SageMaker's data capture; bytes go as BASE64."""

    def half(body: Any, mode: str) -> dict[str, Any]:
        if isinstance(body, bytes):
            data, encoding, content = base64.b64encode(body).decode(), "BASE64", "application/x-image"
        else:
            data, encoding, content = json.dumps(body), "JSON", "application/json"
        return {"observedContentType": content, "mode": mode, "data": data, "encoding": encoding}

    return {
        "captureData": {"endpointInput": half(request, "INPUT"), "endpointOutput": half(response, "OUTPUT")},
        "eventMetadata": {"eventId": "e-1", "inferenceTime": "2026-11-23T02:45:33Z", **meta},
        "eventVersion": "0",
    }
