"""Inputs that were purged: what is deleted, and how what comes of them again is recognised without keeping their names.

A tombstone is a keyed hash of the input's id. Whoever stores something of an input asks first, in the same transaction,
whether there is one (`Tombstones`), and holds a shared lock until its end that a purge waits for. So a purge sees all
that was stored before it, and nothing that it has not seen can be stored after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, or_, select, update

from monitor.store import bulk, keys
from monitor.store.tables import (
    audit,
    judged,
    label,
    label_due,
    outbox,
    pane,
    pane_delta,
    purged,
    relabel,
    sample,
    spot_check,
    window_score,
)
from monitor.store.values import OutboxMessage, PurgedInput, PurgedSample
from monitor.windows import DAY_US

T = TypeVar("T")

KEY = "purged"
AT_ONCE = 200
SHARED = sqlalchemy.text("LOCK TABLE purged IN ROW SHARE MODE")
EXCLUSIVE = sqlalchemy.text("LOCK TABLE purged IN EXCLUSIVE MODE")
BY_INPUT: tuple[Table, ...] = (sample, judged, spot_check, relabel)
"""Tables with ``input_id`` and ``model``."""


class Tombstones:
    """Which inputs are purged, in one transaction that is going to store something of inputs.

    Two short statements where nothing was ever purged. On SQLite the transaction itself is the lock.
    """

    def __init__(self, connection: Connection, *, lock: bool = True) -> None:
        if lock:
            hold(connection)
        self._connection = connection
        self._key = keys.find(connection, KEY)

    def of(self, inputs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Of these (model, input) the purged ones. Model "" (a label of every one): purged of every model."""
        if self._key is None:
            return set()
        asked = list(dict.fromkeys(inputs))
        references = {input_id: reference(self._key, input_id) for _, input_id in asked}
        found: set[tuple[str, str]] = set()
        for some in bulk.portions(sorted(set(references.values())), AT_ONCE):
            query = select(purged.c.model, purged.c.reference).where(purged.c.reference.in_(some))
            found.update((row.model, row.reference) for row in self._connection.execute(query))
        if not found:
            return set()
        return {one for one in asked if not found.isdisjoint((name, references[one[1]]) for name in ("", one[0]))}

    def allowed(self, rows: Sequence[T], of: Callable[[T], tuple[str, str]]) -> Sequence[T]:
        """Those of ``rows`` whose (model, input), which ``of`` tells, is not purged."""
        gone = self.of(map(of, rows))
        return rows if not gone else [row for row in rows if of(row) not in gone]

    def message(self, message: OutboxMessage) -> OutboxMessage:
        """A message that is itself a record or label of a purged input without its value and key."""
        if self._key is None or message.value is None:
            return message
        tree = _tree(message.value)
        input_id = tree.get("input_id") if tree else None
        if tree is None or not isinstance(input_id, str):
            return message
        own = tree.get("model")
        name = own.get("name") if isinstance(own, dict) else ""
        gone = self.of([(name if isinstance(name, str) else "", input_id)])
        return replace(message, key=None, value=None) if gone else message

    def scrubbed(self, model: str, payload: bytes) -> bytes:
        """JSON without the entries that name a purged input."""
        if self._key is None or b'"input_id"' not in payload:
            return payload
        tree = msgspec.json.decode(payload)
        gone = {input_id for _, input_id in self.of((model, one) for one in _named(tree))}
        return msgspec.json.encode(_scrub(tree, gone)) if gone else payload


def hold(connection: Connection) -> None:
    """Keep purges waiting until the end of this transaction; its first lock, so that nobody waits in a circle."""
    if connection.dialect.name == "postgresql":
        connection.execute(SHARED)


def reference(key: bytes, input_id: str) -> str:
    """A purged input's name in the tombstones and in the audit log."""
    hashed = hashlib.blake2b(input_id.encode("utf-8", "surrogatepass"), key=key, digest_size=16)
    return hashed.hexdigest()


def purge(
    connection: Connection, input_id: str, model: str | None, now_us: int, without: Callable[[bytes, str], bytes]
) -> PurgedInput:
    """Delete all that is stored of an input (of one model, or of all), and leave a tombstone.

    ``without``: a pane's state without an input among its exemplars; the same bytes where it has none.

    Statistics stay: counts and sums in which no record can be told from another. Only the samples that windows name as
    examples go out of them.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(EXCLUSIVE)
    else:
        connection.exec_driver_sql("PRAGMA secure_delete = ON")  # else what was deleted stays in free pages
    name = reference(keys.get(connection, KEY), input_id)
    tombstone = {"reference": name, "model": model or "", "purged_at_us": now_us}
    is_new = bulk.upsert(connection, purged, [tombstone]) == 1
    stored = select(*(sample.c[column] for column in PurgedSample._fields)).where(_of(sample, input_id, model))
    seen = [PurgedSample._make(row) for row in connection.execute(stored)]
    removed = {
        "panes": _from_panes(connection, input_id, seen, without),
        "windows": _from_windows(connection, input_id, seen),
        "messages": _from_outbox(connection, input_id, model),
        "audit": _from_audit(connection, input_id, name),
    }
    for table in BY_INPUT:
        removed[table.name] = connection.execute(delete(table).where(_of(table, input_id, model))).rowcount
    labels = label.c.input_id == input_id
    if model is not None:
        labels &= label.c.model == model  # a label of every model still says something of the others
    removed["label"] = connection.execute(delete(label).where(labels)).rowcount
    if model is None:
        removed["label_due"] = connection.execute(delete(label_due).where(label_due.c.input_id == input_id)).rowcount
    return PurgedInput(name, is_new, {name: count for name, count in sorted(removed.items()) if count}, seen)


def _of(table: Table, input_id: str, model: str | None) -> ColumnElement[bool]:
    is_input = table.c.input_id == input_id
    return is_input if model is None else and_(is_input, table.c.model == model)


def _from_panes(
    connection: Connection, input_id: str, seen: Sequence[PurgedSample], without: Callable[[bytes, str], bytes]
) -> int:
    """Out of the exemplars of panes, waiting ones too; how many rows changed. A pane is a day long at most."""
    changed = 0
    for table in (pane, pane_delta):
        place = list(table.primary_key.columns)
        for one in seen:
            query = select(*place, table.c.state).where(
                table.c.model == one.model,
                table.c.version == one.version,
                table.c.slice == "",
                table.c.start_us <= one.event_time_us,
                table.c.start_us > one.event_time_us - DAY_US,
            )
            for found in connection.execute(query).all():
                key, data = found[:-1], found[-1]
                left = without(data, input_id)
                if left != data:
                    row = and_(*(column == value for column, value in zip(place, key, strict=True)))
                    connection.execute(update(table).where(row).values(state=left))
                    changed += 1
    return changed


def _from_windows(connection: Connection, input_id: str, seen: Sequence[PurgedSample]) -> int:
    """Out of the samples that verdicts name; how many verdicts changed."""
    changed = 0
    place = list(window_score.primary_key.columns)
    for one in seen:
        query = select(*place, window_score.c.payload).where(
            window_score.c.model == one.model,
            window_score.c.start_us <= one.event_time_us,
            window_score.c.start_us + window_score.c.length_us > one.event_time_us,
            _contains(connection, window_score.c.payload, input_id),
        )
        for found in connection.execute(query).all():
            key, data = found[:-1], found[-1]
            left = msgspec.json.encode(_scrub(msgspec.json.decode(data), {input_id}))
            if left != data:
                row = and_(*(column == value for column, value in zip(place, key, strict=True)))
                connection.execute(update(window_score).where(row).values(payload=left))
                changed += 1
    return changed


def _from_outbox(connection: Connection, input_id: str, model: str | None) -> int:
    """Out of messages, sent ones too; of a message that is the record itself nothing but its headers stays."""
    columns = outbox.c
    named = or_(_contains(connection, columns.value, input_id), columns.key == input_id.encode("utf-8", "replace"))
    changed = 0
    for row in connection.execute(select(columns.id, columns.key, columns.value).where(named)).all():
        left = scrubbed_message(row.value, input_id, model)
        key = None if row.key == input_id.encode("utf-8", "replace") and left != row.value else row.key
        if left != row.value or key != row.key:
            connection.execute(update(outbox).where(columns.id == row.id).values(value=left, key=key))
            changed += 1
    return changed


def _from_audit(connection: Connection, input_id: str, name: str) -> int:
    """The log's lines stay, but they do not name the input any more."""
    columns = audit.c
    changed = 0
    quoted = msgspec.json.encode(input_id).decode()
    named = or_(columns.subject == input_id, func.instr(columns.detail, quoted) > 0)
    if connection.dialect.name == "postgresql":
        named = or_(columns.subject == input_id, func.strpos(columns.detail, quoted) > 0)
    for row in connection.execute(select(columns.id, columns.subject, columns.detail).where(named)).all():
        detail = row.detail.replace(quoted, f'"{name}"')
        subject = name if row.subject == input_id else row.subject
        connection.execute(update(audit).where(columns.id == row.id).values(subject=subject, detail=detail))
        changed += 1
    return changed


def scrubbed_message(value: bytes | None, input_id: str, model: str | None) -> bytes | None:
    """A message without an input: entries of lists that name it go; a record of it goes as a whole (None).

    What cannot be read goes where the id is anywhere in it. ``model``: a record of another model stays.
    """
    if value is None or input_id.encode("utf-8", "replace") not in value:
        return value
    tree = _tree(value)
    if tree is None:
        return None
    if tree.get("input_id") == input_id:
        own = tree.get("model")
        other = model is not None and isinstance(own, dict) and own.get("name") != model
        return value if other else None
    left = _scrub(tree, {input_id})
    if left == tree:
        return value
    return msgspec.json.encode(left) if value.lstrip()[:1] == b"{" else msgspec.msgpack.encode(left)


def _tree(value: bytes) -> dict[str, Any] | None:
    """An object in JSON or MessagePack; None where it is neither."""
    try:
        tree = msgspec.json.decode(value) if value.lstrip()[:1] == b"{" else msgspec.msgpack.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return tree if isinstance(tree, dict) else None


def _scrub(tree: Any, gone: Collection[str]) -> Any:
    """Without the entries of lists that are objects of these inputs, or their ids; a lone field becomes null."""
    if isinstance(tree, dict):
        fields = ((name, name == "input_id" and _is(one, gone), one) for name, one in tree.items())
        return {name: None if named else _scrub(one, gone) for name, named, one in fields}
    if isinstance(tree, list):
        return [
            _scrub(one, gone) for one in tree if not _is(one.get("input_id") if isinstance(one, dict) else one, gone)
        ]
    return tree


def _is(value: Any, gone: Collection[str]) -> bool:
    return isinstance(value, str) and value in gone


def _named(tree: Any) -> Iterable[str]:
    if isinstance(tree, dict):
        for name, one in tree.items():
            if name == "input_id" and isinstance(one, str):
                yield one
            else:
                yield from _named(one)
    elif isinstance(tree, list):
        for one in tree:
            yield from _named(one)


def _contains(connection: Connection, column: ColumnElement[Any], input_id: str) -> ColumnElement[bool]:
    """Whether bytes may hold the id, as JSON or MessagePack writes it; a hit is looked at closely afterwards."""
    forms = sorted({input_id.encode("utf-8", "replace"), msgspec.json.encode(input_id)[1:-1]})
    if connection.dialect.name == "postgresql":
        return or_(*(func.strpos(func.encode(column, "hex"), form.hex()) > 0 for form in forms))
    return or_(*(func.instr(column, form) > 0 for form in forms))
