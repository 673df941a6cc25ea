"""JSON Schemas (2020-12) of everything that travels over Kafka, as files; published in docs/records.md.

They say what a record looks like. What a schema cannot say, such as that a mask's counts add up, stands there too.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

SCHEMAS: dict[str, str] = {
    "segwatch.prediction.v1": "prediction.v1.json",
    "segwatch.label.v1": "label.v1.json",
    "segwatch.relabel_requested.v1": "action.v1.json",
    "segwatch.retrain_requested.v1": "action.v1.json",
    "segwatch.rollback_requested.v1": "action.v1.json",
    "segwatch.promote_requested.v1": "action.v1.json",
    "segwatch.alert.v1": "action.v1.json",
}
"""Type of a record or action, and the file of its schema in this folder."""


def read_schema(type: str) -> dict[str, Any]:
    """The schema of a type, as JSON says it. Raises KeyError for an unknown type.

    >>> read_schema("segwatch.label.v1")["properties"]["annotator"]
    {'$ref': '#/$defs/name'}
    """
    schema: dict[str, Any] = json.loads(files(__package__).joinpath(SCHEMAS[type]).read_text(encoding="utf-8"))
    return schema
