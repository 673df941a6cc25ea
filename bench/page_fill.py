"""A PostgreSQL with 1,000,000 samples and 1,000 hourly windows, for bench_pages.py.

The last hour comes through the real pipeline: a baseline of 2,000 records, 1,000 records of two versions with masks and
embeddings, labels, and a verdict on all windows and on the canary. The hours before are copies of its rows at their own
times and under their own ids, made in SQL: what lies in each column is what the service wrote.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pg8000.dbapi
import sqlalchemy

from bench.workload import MODEL, Fleet, ellipses, photographs
from monitor.evaluate import Evaluator
from monitor.images import name_of, open_images
from monitor.offline import make_baseline
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.tables import metadata
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import encode, feed, settings_of

STABLE, CANARY = "3", "4"
HOURS: Final = 1000
RECORDS: Final = 900
"""An hour of the stable version; the canary sees the first 100 of them, too: 1,000 samples an hour."""
SHARED: Final = 100
LABELLED: Final = 5
"""An hour: 5,000 labels in all, each judged for both versions; 120 a day are more than twice the default budget."""
DIMENSIONS: Final = 64
HOUR_US: Final = 3600 * SECOND_US
LAST_US: Final = time.time_ns() // 1000 // DAY_US * DAY_US - HOUR_US
"""Start of the last hour: the last whole one of yesterday, so that its day is closed, too."""
ACTIONS: Final = 2_000
AUDIT: Final = 200_000
CLOSED: Final = 50_000
"""Of the relabel queue."""
DEAD: Final = 10_000
"""Dead letters that wait."""

# Ids begin with their hour: that of the one which was really counted is replaced wherever it stands.
_AT: Final = f"'h{HOURS - 1:04d}', 'h' || lpad(({HOURS - 1} - k)::text, 4, '0')"
_BACK: Final = f"k::bigint * {HOUR_US}"
_TEXT: Final = "to_char(to_timestamp(({us}) / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"


def settings(folder: Path, url: str) -> Settings:
    """Of the filler and of the service: sites are slices, cameras are not."""
    return settings_of(
        folder,
        windows={"slice_keys": ["site"]},
        quality={"spot_checks_per_day": 120},
        canary={"watch": [f"{MODEL}:{STABLE}:{CANARY}"]},
        store={"url": url},
    )


def fill(folder: Path, url: str, hours: int = HOURS) -> None:
    """Everything; takes minutes."""
    own = settings(folder, url)
    with Store.open(own, write=True) as store:
        _count_the_last_hour(store, own)
        _keep_images(own)
    with closing(_connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in (*_copies(hours), *_others()):
            cursor.execute(statement)
        for table in ("sample", "judged", "label", "relabel", "pane", "window_score", "outbox", "audit"):
            cursor.execute(f"VACUUM ANALYZE {table}")


def _connect(url: str) -> Any:
    parts = sqlalchemy.make_url(url)
    return pg8000.dbapi.connect(
        parts.username, host=parts.host, port=parts.port, database=parts.database, ssl_context=False
    )


def _records(start_us: int, shift: float) -> Iterator[dict[str, Any]]:
    """An hour; every fifth record lies elsewhere in the embedding by ``shift``."""
    fleet = Fleet(7, dimensions=DIMENSIONS)
    for number in range(RECORDS):
        at_us = start_us + number * HOUR_US // RECORDS
        record = fleet.record(number, at_us)
        record["input_id"] = f"h{HOURS - 1:04d}-{number:03d}"
        if number % 5 == 0:
            record["embedding"] = [value + shift for value in record["embedding"]]
        for version in (STABLE, CANARY)[: 2 if number < SHARED else 1]:
            yield {**record, "model": {"name": MODEL, "version": version}}


def _labels() -> Iterator[dict[str, Any]]:
    masks = ellipses(40, 3)
    for number in range(LABELLED):
        yield {
            "type": "segwatch.label.v1",
            "input_id": f"h{HOURS - 1:04d}-{number:03d}",
            "annotator": "maria",
            "annotation_version": 1,
            "label_time": to_text(LAST_US + HOUR_US + 600 * SECOND_US),
            "instances": [
                {"class": ("bus", "car", "person")[place % 3], "mask": masks[(number + place) % 40]}
                for place in range(8)
            ],
        }


def _count_the_last_hour(store: Store, own: Settings) -> None:
    fleet = Fleet(1, dimensions=DIMENSIONS)
    records = [fleet.record(number, LAST_US - 40 * DAY_US + number * SECOND_US) for number in range(2_000)]
    for version in (STABLE, CANARY):
        with tempfile.NamedTemporaryFile("wb", suffix=".jsonl") as file:
            for number, one in enumerate(records):
                of = {"model": {"name": MODEL, "version": version}, "sequence": f"drive-{number // 4}"}
                file.write(encode({**one, **of}) + b"\n")
            file.flush()
            make_baseline(own, store, [Path(file.name)], model=MODEL, version=version, activate=True)
    now_us = LAST_US + 2 * HOUR_US
    feed(store, own, [encode(one) for one in (*_records(LAST_US, 1.5), *_labels())], timestamp_us=now_us)
    evaluator = Evaluator(store, own, wall_us=lambda: now_us)
    evaluator.finish()
    evaluator.close()


def _keep_images(own: Settings) -> None:
    images = open_images(own)
    for number, image in enumerate(photographs(20, 0)):
        at_us = LAST_US + number * HOUR_US // RECORDS
        for version in (STABLE, CANARY):
            images.put(name_of(MODEL, version, f"h{HOURS - 1:04d}-{number:03d}", at_us), image)


def _copies(hours: int) -> Iterator[str]:
    """Rows of the last hour at the hours before, in order of time, as they would have come."""
    series = f"generate_series({hours - 1}, 1, -1) AS k"
    for table, order in (("sample", "k DESC, event_time_us"), ("judged", "k DESC"), ("spot_check", "k DESC")):
        yield _copy(table, {"input_id": f"replace(input_id, {_AT})"}, series, ("event_time_us",), order=order)
    yield _copy("label", {"input_id": f"replace(input_id, {_AT})"}, series, ("label_time_us",))
    names = {name: f"replace({name}, {_AT})" for name in ("input_id", "cause")}
    yield _copy(
        "relabel", names, f"generate_series({min(hours, 100) - 1}, 1, -1) AS k", ("event_time_us", "created_us")
    )
    yield _copy("pane", {}, series, ("start_us",))
    yield _windows(HOUR_US, series)
    yield _windows(DAY_US, f"generate_series(24, {hours - 1}, 24) AS k")


def _copy(table: str, changed: dict[str, str], series: str, times: tuple[str, ...], order: str = "k DESC") -> str:
    columns = [column.name for column in metadata.tables[table].columns if column.name != "id"]
    told = {**changed, **{name: f"{name} - {_BACK}" for name in times}}
    values = ", ".join(told.get(name, f'"{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    return f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}, {series} ORDER BY {order}"


def _windows(length_us: int, series: str) -> str:
    payload = f"replace(convert_from(payload, 'UTF8'), {_AT})"
    for bound in ("start_us", "start_us + length_us"):
        payload = f"replace({payload}, {_TEXT.format(us=bound)}, {_TEXT.format(us=f'{bound} - {_BACK}')})"
    changed = {"payload": f"convert_to({payload}, 'UTF8')"}
    source = f"(SELECT * FROM window_score WHERE length_us = {length_us}) AS own"
    return _copy("window_score", changed, series, ("start_us", "scored_at_us")).replace(
        " FROM window_score, ", f" FROM {source}, "
    )


def _others() -> Iterator[str]:
    """Actions, dead letters, the queue's closed items, the audit log."""
    now_us = time.time_ns() // 1000
    span = {"start": to_text(LAST_US), "end": to_text(LAST_US + HOUR_US)}
    retrain = json.dumps(
        {
            "type": "segwatch.retrain_requested.v1",
            "model": {"name": MODEL, "version": STABLE},
            "kind": "drift",
            "evidence": {"window": span, "samples": [{"input_id": f"h0999-{n:03d}"} for n in range(20)]},
        }
    )
    columns = "(id, topic, key, value, headers, keep_sent, created_us, attempts, sent_us)"
    yield (
        f"INSERT INTO outbox {columns} SELECT 'action-' || k, 'segwatch.actions', '{MODEL}/{STABLE}'::bytea,"
        f" convert_to('{retrain}', 'UTF8'), '\\x90'::bytea, true, {now_us} - k::bigint * {HOUR_US // 2}, 0,"
        f" {now_us} - k::bigint * {HOUR_US // 2} + 1000000 FROM generate_series(1, {ACTIONS}) AS k"
    )
    yield (
        "INSERT INTO action_delivery (id, receiver, created_us, state, attempts, next_us, done_us, told, error)"
        " SELECT id, 'ci', created_us, 'delivered', 1, created_us, sent_us, '', '' FROM outbox WHERE keep_sent"
    )
    yield (
        f"INSERT INTO outbox {columns} SELECT 'dead-' || k, 'segwatch.dead-letter', NULL, decode(repeat('00', 2000),"
        f" 'hex'), '\\x90'::bytea, false, {now_us} - k::bigint * 1000000, 0, NULL"
        f" FROM generate_series(1, {DEAD}) AS k"
    )
    yield (
        "INSERT INTO relabel (input_id, model, version, cause, kind, stream, priority, reason, probability,"
        " event_time_us, created_us, state, closed_us, closed_by) SELECT input_id, model, version, 'by_hand', 'manual',"
        " 'manual', 500, 'looked odd', NULL, event_time_us, event_time_us, 'done', event_time_us, 'maria'"
        f" FROM sample LIMIT {CLOSED}"
    )
    yield (
        f"INSERT INTO audit (at_us, who, what, subject, detail) SELECT {now_us} - ({AUDIT} - k)::bigint * 1000000,"
        " 'http:maria', CASE k % 5 WHEN 0 THEN 'relabel.claim' WHEN 1 THEN 'relabel.done' WHEN 2 THEN 'web.sign_in'"
        " WHEN 3 THEN 'settings.reload' ELSE 'web.refused' END, 'street', '{\"items\": 3}'"
        f" FROM generate_series(1, {AUDIT}) AS k"
    )
