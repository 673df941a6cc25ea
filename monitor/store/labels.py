"""Labels as they came, what they say of records, what was asked for, and how good the models are.

Workers insert labels and append their inputs to ``label_due``; everything else here is the leader's. A label may come
before its prediction: then nothing is found for it at first, and `unjudged` finds the two later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Table, and_, delete, exists, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from monitor.store import bulk
from monitor.store.tables import (
    judged,
    judged_classes,
    label,
    label_due,
    quality,
    sample,
    spot_check,
    spot_check_progress,
)
from monitor.store.values import (
    JudgedRow,
    LabelKey,
    LabelledSample,
    LabelOutcome,
    LabelRow,
    LabelState,
    SpotCheckRow,
    StoredQuality,
)

T = TypeVar("T")

KEY = ("input_id", "annotator", "model", "version")
IDENTITY = ("input_id", "model", "version")
KEYS_AT_ONCE = 200
REPLACED = tuple(name for name in LabelRow._fields if name not in KEY)


def insert(connection: Connection, rows: Sequence[LabelRow]) -> list[LabelOutcome]:
    """Insert annotations in the order given; what became of each.

    Of one annotator's annotations of an input the highest version stays, whatever came first; of two with one version
    the first. New keys are locked in ascending order, then those that were there, in ascending order.
    """
    return replace_older(connection, rows, insert_new(connection, rows)) if rows else []


def insert_new(connection: Connection, rows: Sequence[LabelRow]) -> set[LabelKey]:
    """Insert the first annotation of each key that is free; which ones they are."""
    if not rows:
        return set()
    first = {row.key: row for row in reversed(rows)}
    return _insert_free(connection, [first[key] for key in sorted(first)])


def replace_older(connection: Connection, rows: Sequence[LabelRow], new: set[LabelKey]) -> list[LabelOutcome]:
    """Let newer annotations replace older ones; what became of each. ``new`` keys were inserted just now, for the
    first of their rows, and are taken out of the set."""
    first = {row.key for row in rows}
    versions = _versions(connection, sorted(first))
    outcomes: list[LabelOutcome] = []
    newest: dict[LabelKey, LabelRow] = {}
    for row in rows:
        key = row.key
        if key in new:
            outcomes.append("accepted")
            new.remove(key)
        elif row.annotation_version > versions[key]:
            outcomes.append("replaced")
            versions[key], newest[key] = row.annotation_version, row
        else:
            outcomes.append("duplicate" if row.annotation_version == versions[key] else "superseded")
    for key in sorted(newest):
        values = {name: getattr(newest[key], name) for name in REPLACED}
        connection.execute(update(label).where(_is(label, KEY, key)).values(**values))
    counted = ("accepted", "replaced")
    changed = sorted({row.input_id for row, outcome in zip(rows, outcomes, strict=True) if outcome in counted})
    bulk.append(connection, label_due, ["input_id"], [[name] for name in changed])
    return outcomes


def _insert_free(connection: Connection, rows: Sequence[LabelRow]) -> set[LabelKey]:
    """Insert those whose key is free, in their order; which ones they were."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(label).on_conflict_do_nothing(index_elements=list(KEY))
    keys = [label.c[name] for name in KEY]
    return {_as_key(row) for row in connection.execute(statement.returning(*keys), [row._asdict() for row in rows])}


def _versions(connection: Connection, keys: Sequence[LabelKey]) -> dict[LabelKey, int]:
    """The stored version of each key; the rows stay locked."""
    found: dict[LabelKey, int] = {}
    columns = [label.c[name] for name in KEY]
    for some in bulk.portions(keys, KEYS_AT_ONCE):
        query = select(*columns, label.c.annotation_version).where(sqlalchemy.tuple_(*columns).in_(some))
        for row in connection.execute(query.order_by(*columns).with_for_update()):
            found[_as_key(row)] = row.annotation_version
    return found


def _as_key(row: sqlalchemy.Row[Any]) -> LabelKey:
    return row.input_id, row.annotator, row.model, row.version


def due(connection: Connection, limit: int) -> tuple[list[int], list[str]]:
    """``(ids of marks, their inputs without repeats)``, the oldest first."""
    rows = connection.execute(select(label_due.c.id, label_due.c.input_id).order_by(label_due.c.id).limit(limit)).all()
    return [row.id for row in rows], list(dict.fromkeys(row.input_id for row in rows))


def mark_judged(connection: Connection, model: str, version: str) -> None:
    """Every input of a model version that has been judged is due again."""
    columns = judged.c
    inputs = select(columns.input_id).where(columns.model == model, columns.version == version)
    connection.execute(label_due.insert().from_select(["input_id"], inputs))


def classes_judged_by(connection: Connection) -> dict[tuple[str, str], str]:
    """By which classes, as JSON, the labels of each (model, version) were judged last."""
    columns = judged_classes.c
    rows = connection.execute(select(columns.model, columns.version, columns.classes))
    return {(row.model, row.version): row.classes for row in rows}


def save_classes(connection: Connection, model: str, version: str, classes: str) -> None:
    """Remember by which classes a version's labels are judged."""
    row = {"model": model, "version": version, "classes": classes}
    bulk.upsert(connection, judged_classes, [row], {"classes": "replace"})


def unjudged(connection: Connection, limit: int) -> list[str]:
    """Inputs that have a label and a record of which nothing was said yet: the record came after its label.

    Each label costs a look at two indexes.
    """
    ours = or_(label.c.model == "", and_(label.c.model == sample.c.model, label.c.version == sample.c.version))
    told = exists().where(*(judged.c[name] == sample.c[name] for name in IDENTITY))
    query = (
        select(sample.c.input_id)
        .join_from(label, sample, and_(label.c.input_id == sample.c.input_id, ours))
        .where(sample.c.masks.is_not(None), ~told)
        .distinct()
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def of_inputs(connection: Connection, inputs: Sequence[str]) -> dict[str, list[LabelRow]]:
    """All annotations of each input, in the order of their keys."""
    found: dict[str, list[LabelRow]] = defaultdict(list)
    for some in bulk.portions(inputs, KEYS_AT_ONCE):
        query = select(*(label.c[name] for name in LabelRow._fields)).where(label.c.input_id.in_(some))
        for row in connection.execute(query.order_by(*(label.c[name] for name in KEY))):
            found[row.input_id].append(LabelRow._make(row))
    return found


def samples_of(connection: Connection, inputs: Sequence[str]) -> dict[str, list[LabelledSample]]:
    """The successful records of each input, in the order of their versions."""
    found: dict[str, list[LabelledSample]] = defaultdict(list)
    for some in bulk.portions(inputs, KEYS_AT_ONCE):
        query = (
            select(*(sample.c[name] for name in LabelledSample._fields))
            .where(sample.c.input_id.in_(some), sample.c.status == "ok")
            .order_by(sample.c.input_id, sample.c.model, sample.c.version)
        )
        for row in connection.execute(query):
            found[row.input_id].append(LabelledSample._make(row))
    return found


def judged_of(connection: Connection, inputs: Sequence[str]) -> dict[tuple[str, str, str], JudgedRow]:
    """What was said of these inputs' records before, by (input, model, version)."""
    found: dict[tuple[str, str, str], JudgedRow] = {}
    for some in bulk.portions(inputs, KEYS_AT_ONCE):
        query = select(*(judged.c[name] for name in JudgedRow._fields)).where(judged.c.input_id.in_(some))
        for row in connection.execute(query):
            one = JudgedRow._make(row)
            found[one.input_id, one.model, one.version] = one
    return found


def save_judged(connection: Connection, rows: Sequence[JudgedRow]) -> None:
    """Replace what was said of records, but not when they were judged first."""
    changed = {name: "replace" for name in JudgedRow._fields if name not in IDENTITY}
    changed["first_judged_at_us"] = "first"
    bulk.upsert(connection, judged, [row._asdict() for row in rows], changed)


def set_states(connection: Connection, states: Mapping[LabelKey, tuple[int, LabelState]]) -> None:
    """Say what became of annotations; one that was replaced meanwhile (another version) keeps its own state."""
    for key in sorted(states):
        version, state = states[key]
        same = (label.c.annotation_version == version, label.c.state != state)
        connection.execute(update(label).where(_is(label, KEY, key), *same).values(state=state))


def clear_due(connection: Connection, ids: Sequence[int]) -> None:
    for some in bulk.portions(ids, KEYS_AT_ONCE):
        connection.execute(delete(label_due).where(label_due.c.id.in_(some)))


def asked_until(connection: Connection, model: str, version: str) -> int | None:
    """Up to which event time records were looked at for spot checks."""
    columns = spot_check_progress.c
    until: int | None = connection.execute(
        select(columns.until_us).where(columns.model == model, columns.version == version)
    ).scalar_one_or_none()
    return until


def save_choice(connection: Connection, model: str, version: str, until_us: int, rows: Sequence[SpotCheckRow]) -> None:
    """Add what was chosen, and how far records have been looked at."""
    bulk.upsert(connection, spot_check, [row._asdict() for row in rows])
    progress = {"model": model, "version": version, "until_us": until_us}
    bulk.upsert(connection, spot_check_progress, [progress], {"until_us": "larger"})


def candidates(
    connection: Connection, model: str, version: str, since_us: int, until_us: int
) -> list[tuple[str, int, float | None, bytes, bytes | None]]:
    """``(input, event time, confidence, masks, sketch)`` of records in [since, until) that can be judged, by input."""
    columns = sample.c
    query = (
        select(columns.input_id, columns.event_time_us, columns.confidence, columns.masks, columns.sketch)
        .where(columns.model == model, columns.version == version)
        .where(columns.event_time_us >= since_us, columns.event_time_us < until_us, columns.masks.is_not(None))
        .order_by(columns.input_id)
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in connection.execute(query)]


def open_checks(connection: Connection, model: str | None, limit: int) -> list[SpotCheckRow]:
    """What was asked for and has no label yet, the newest choice first."""
    told = exists().where(label.c.input_id == spot_check.c.input_id)
    columns = spot_check.c
    query = select(*(columns[name] for name in SpotCheckRow._fields)).where(~told)
    if model is not None:
        query = query.where(columns.model == model)
    ordered = query.order_by(columns.chosen_at_us.desc(), columns.model, columns.version, columns.input_id)
    return [SpotCheckRow._make(row) for row in connection.execute(ordered.limit(limit))]


def save_quality(connection: Connection, estimated: StoredQuality) -> None:
    """Replace what was estimated of a version."""
    changed = {name: "replace" for name in StoredQuality._fields if name not in ("model", "version")}
    bulk.upsert(connection, quality, [estimated._asdict()], changed)


def read_judged(
    connection: Connection, model: str, version: str | None, since_us: int | None, until_us: int | None
) -> list[JudgedRow]:
    """Judged records with event times in [since_us, until_us), in order of version, time and input."""
    columns = judged.c
    query = select(*(columns[name] for name in JudgedRow._fields)).where(columns.model == model)
    if version is not None:
        query = query.where(columns.version == version)
    if since_us is not None:
        query = query.where(columns.event_time_us >= since_us)
    if until_us is not None:
        query = query.where(columns.event_time_us < until_us)
    ordered = query.order_by(columns.version, columns.event_time_us, columns.input_id)
    return [JudgedRow._make(row) for row in connection.execute(ordered)]


def chosen(connection: Connection, inputs: Sequence[str]) -> dict[tuple[str, str, str], SpotCheckRow]:
    """What was asked for of these inputs, by (input, model, version)."""
    found: dict[tuple[str, str, str], SpotCheckRow] = {}
    for some in bulk.portions(inputs, KEYS_AT_ONCE):
        query = select(*(spot_check.c[name] for name in SpotCheckRow._fields)).where(spot_check.c.input_id.in_(some))
        for row in connection.execute(query):
            one = SpotCheckRow._make(row)
            found[one.input_id, one.model, one.version] = one
    return found


def keep_quality(connection: Connection, model: str, versions: Collection[str]) -> None:
    """Forget what was estimated of a model's other versions."""
    gone = quality.c.version.not_in(list(versions))
    connection.execute(delete(quality).where(quality.c.model == model, gone))


def read_quality(connection: Connection) -> list[StoredQuality]:
    """What was estimated last of every version."""
    query = select(*(quality.c[name] for name in StoredQuality._fields)).order_by(quality.c.model, quality.c.version)
    return [StoredQuality._make(row) for row in connection.execute(query)]


def _is(table: Table, names: Sequence[str], values: Sequence[object]) -> sqlalchemy.ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in zip(names, values, strict=True)))
