"""JSON Schema (2020-12) of SLO files, for editors; from the same table as the parser."""

from __future__ import annotations

from typing import Any

from alerts.slo.parse import COMMON, KINDS, OPTIONAL, WINDOW_FIELDS, Field


def _property(field: Field) -> dict[str, Any]:
    return {**field.schema, "description": field.help}


def schema() -> dict[str, Any]:
    """The schema of one document of an SLO file.

    >>> schema()["$defs"]["latency"]["required"]
    ['name', 'kind', 'objective', 'seconds']
    """
    window = {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in WINDOW_FIELDS if name != "critical_budget"],
        "properties": {name: _property(field) for name, field in WINDOW_FIELDS.items()},
    }
    defs: dict[str, Any] = {"window": window}
    for kind, (_, own, _) in KINDS.items():
        properties = {name: _property(field) for name, field in {**COMMON, **own}.items()}
        properties["kind"] = {"const": kind}
        properties["windows"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/window"}}
        defs[kind] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "kind", *(name for name in own if name not in OPTIONAL)],
            "properties": properties,
        }
    slo = {"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in KINDS]}
    many = {
        "type": "object",
        "additionalProperties": False,
        "required": ["slos"],
        "properties": {"slos": {"type": "array", "minItems": 1, "items": slo}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "segwatch SLO file",
        "oneOf": [many, *slo["oneOf"]],
        "$defs": defs,
    }
