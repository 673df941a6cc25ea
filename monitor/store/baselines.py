"""Baselines: immutable, named by their content, and which of them is active."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from monitor.errors import BaselineError
from monitor.store import bulk
from monitor.store.tables import baseline, baseline_active
from monitor.store.values import ActiveBaseline, BaselineMeta, StoredBaseline

META = [baseline.c[name] for name in ("id", "model", "version", "created_us", "format_version", "meta")]


def newest_by_model(active: Mapping[tuple[str, str], ActiveBaseline]) -> dict[str, ActiveBaseline]:
    """Of each model's active baselines the one that was activated last, by whose classes the model's other versions
    go. ``active``: by (model, version)."""
    found: dict[str, ActiveBaseline] = {}
    for (model, _), one in active.items():
        found[model] = max(found.get(model, one), one, key=lambda each: (each.activated_us, each.meta.id))
    return found


def content_id(model: str, version: str, format_version: int, payload: bytes) -> str:
    """Hex SHA-256 over what a baseline is; when it was made and what is told about it do not belong to it."""
    head = msgspec.msgpack.encode((model, version, format_version))
    return hashlib.sha256(head + payload).hexdigest()


def add(
    connection: Connection,
    model: str,
    version: str,
    format_version: int,
    meta: Mapping[str, object],
    payload: bytes,
    now_us: int,
) -> str:
    """Store a baseline, unless the same content is there already. Returns its id."""
    identity = content_id(model, version, format_version, payload)
    row = {
        "id": identity,
        "model": model,
        "version": version,
        "created_us": now_us,
        "format_version": format_version,
        "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True),
        "payload": payload,
    }
    bulk.upsert(connection, baseline, [row])
    return identity


def load(connection: Connection, identity: str) -> StoredBaseline:
    """A baseline by its id, or by the beginning of an id that no other shares.

    Raises BaselineError when there is none, when several begin so, and when the payload is not what the id says.
    """
    meta = find(connection, identity)
    payload: bytes = connection.execute(select(baseline.c.payload).where(baseline.c.id == meta.id)).scalar_one()
    if content_id(meta.model, meta.version, meta.format_version, payload) != meta.id:
        raise BaselineError(f"baseline {meta.id[:12]} of {meta.model} {meta.version} is damaged in the store")
    return StoredBaseline(meta, payload)


def find(connection: Connection, identity: str) -> BaselineMeta:
    """As ``load``, without the payload."""
    rows = connection.execute(
        select(*META).where(baseline.c.id.startswith(identity, autoescape=True)).order_by(baseline.c.id).limit(2)
    ).all()
    if not identity or not rows:
        raise BaselineError(f"no baseline has the id {identity!r} (see `segwatch baseline list`)")
    if len(rows) > 1:
        raise BaselineError(f"several baselines' ids begin with {identity!r}")
    return _meta(rows[0])


def listing(connection: Connection, model: str | None) -> list[BaselineMeta]:
    """All baselines, or a model's, the oldest first."""
    query = select(*META).order_by(baseline.c.created_us, baseline.c.id)
    if model is not None:
        query = query.where(baseline.c.model == model)
    return [_meta(row) for row in connection.execute(query)]


def activate(connection: Connection, identity: str, now_us: int) -> BaselineMeta:
    """Make a baseline the one that its model version is scored against."""
    meta = find(connection, identity)
    row = {"model": meta.model, "version": meta.version, "baseline_id": meta.id, "activated_us": now_us}
    bulk.upsert(connection, baseline_active, [row], {"baseline_id": "replace", "activated_us": "replace"})
    return meta


def active(connection: Connection) -> dict[tuple[str, str], ActiveBaseline]:
    """The active baseline of each (model, version) that has one, the latest activated last."""
    rows = connection.execute(
        select(*META, baseline_active.c.activated_us)
        .join(baseline_active, baseline_active.c.baseline_id == baseline.c.id)
        .order_by(baseline_active.c.activated_us, baseline.c.model, baseline.c.version)
    )
    return {(row.model, row.version): ActiveBaseline(_meta(row), row.activated_us) for row in rows}


def _meta(row: Row[Any]) -> BaselineMeta:
    return BaselineMeta(row.id, row.model, row.version, row.created_us, row.format_version, json.loads(row.meta))
