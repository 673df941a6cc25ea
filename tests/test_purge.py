"""Purging inputs: what goes, what stays, and what comes of them again. On PostgreSQL too, from ``tests/real``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy

from monitor.evaluate import Evaluator
from monitor.images import input_digest, open_images
from monitor.purge import PurgeRequest, purge_inputs
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.tables import metadata
from monitor.store.values import OutboxMessage
from monitor.tallies import LABELS
from tests.embedded import (
    HOUR_US,
    NOW_US,
    encode,
    feed,
    image_record,
    open_store,
    outcomes_of,
    records_in,
    settings_of,
    state_of,
)
from tests.made_labels import after, label, seen, square

EVENT_US = NOW_US - 2 * HOUR_US
VICTIM, OTHER = "frame-000001", "frame-000002"
WHO = "os:tester"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, quality={"spot_checks_per_day": 100_000})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings, ("street", "yard")) as opened:
        yield opened


def yard_label(number: int, **changes: Any) -> dict[str, Any]:
    return label(number, after(EVENT_US), ("dog", square(10)), input_id=f"frame-{number:06d}", **changes)


def fill(store: Store, settings: Settings) -> None:
    """Records of two versions with images, labels, spot checks, verdicts, and messages that name samples."""
    records = [image_record(n, EVENT_US, model={"name": "yard", "version": v}) for n in range(1, 6) for v in ("1", "2")]
    feed(store, settings, [encode(one) for one in [*records, *(yard_label(n) for n in range(1, 4))]])
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()
    action = {"type": "x", "samples": [{"input_id": VICTIM}, {"input_id": OTHER}], "ids": [VICTIM, OTHER]}
    with store.transaction() as tx:
        tx.add_outbox(
            [
                OutboxMessage("action", "segwatch.actions", b"yard", msgspec.json.encode(action)),
                OutboxMessage("bad", "segwatch.dead-letter", b"key", encode(records[0])[:-1] + b',"x":1}'),
                OutboxMessage("torn", "segwatch.dead-letter", VICTIM.encode(), encode(records[0])[:300]),
                OutboxMessage("packed", "segwatch.dead-letter", None, msgspec.msgpack.encode(records[0])),
                OutboxMessage("other", "segwatch.dead-letter", None, encode(records[2])),
            ]
        )
    store.audit(WHO, "relabel.claim", VICTIM, {"inputs": [VICTIM, OTHER]})


def purge(store: Store, settings: Settings, *inputs: str, model: str | None = None) -> dict[str, Any]:
    request = PurgeRequest(inputs or (VICTIM,), model, WHO, f"asked for {VICTIM}")
    return purge_inputs(store, open_images(settings), settings, request)


def everything(store: Store) -> bytes:
    """All rows of all tables, as bytes."""
    rows = []
    with store._database.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sqlalchemy.select(table)):
                found = (one if isinstance(one, bytes) else repr(one).encode() for one in row)
                rows += [table.name.encode() + b" " + one for one in found]
    return b"\n".join(rows)


def count(store: Store, table: str) -> int:
    with store._database.read() as connection:
        return connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(metadata.tables[table])) or 0


def names(settings: Settings) -> list[str]:
    images = open_images(settings)
    return [one.input for day in images.days() for one in images.names(day)]


class TestPurge:
    def test_afterwards_the_input_is_nowhere_and_the_others_are_everywhere(
        self, store: Store, settings: Settings
    ) -> None:
        fill(store, settings)
        assert VICTIM.encode() in everything(store)
        assert names(settings).count(input_digest(VICTIM)) == 2
        proof = purge(store, settings)
        left = everything(store)
        assert VICTIM.encode() not in left
        assert left.count(OTHER.encode()) > 5
        assert input_digest(VICTIM) not in names(settings)
        assert names(settings).count(input_digest(OTHER)) == 2
        (one,) = proof["inputs"]
        assert not one["purged_before"] and not one["nothing_left"]
        assert [each["version"] for each in one["records"]] == ["1", "2"]
        removed = one["removed"]
        assert (removed["sample"], removed["label"], removed["judged"], removed["images"]) == (2, 1, 2, 2)
        assert removed["spot_check"] >= 1 and removed["messages"] >= 4 and removed["audit"] == 1
        assert removed["panes"] == 2

    def test_statistics_stay(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        records, outcomes = records_in(store, "yard"), outcomes_of(store)
        tallies = state_of(store)[1]
        purge(store, settings)
        assert (records_in(store, "yard"), outcomes_of(store), state_of(store)[1]) == (records, outcomes, tallies)

    def test_messages_lose_the_input_and_keep_the_rest(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        purge(store, settings)
        with store.claim_outbox(100) as claimed:
            found = {message.id: message for message in claimed}
        assert json.loads(found["action"].value or b"") == {
            "type": "x",
            "samples": [{"input_id": OTHER}],
            "ids": [OTHER],
        }
        assert [found[name].value for name in ("bad", "torn", "packed")] == [None] * 3
        assert found["torn"].key is None
        assert OTHER.encode() in (found["other"].value or b"")

    def test_the_audit_log_has_it_without_the_name(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        proof = purge(store, settings)
        reference = proof["inputs"][0]["reference"]
        claim, line = store.read_audit()
        assert (claim.subject, claim.detail) == (reference, {"inputs": [reference, OTHER]})
        assert (line.who, line.what, line.subject) == (WHO, "purge", reference)
        assert line.detail["reason"] == f"asked for {reference}"

    def test_again_it_is_a_no_op_that_says_so(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        purge(store, settings)
        before = count(store, "sample"), names(settings)
        (again,) = purge(store, settings)["inputs"]
        assert again["purged_before"] and again["nothing_left"]
        assert again["removed"] == {"images": 0, "files": {}}
        assert (count(store, "sample"), names(settings)) == before

    def test_what_comes_again_is_a_duplicate_and_leaves_nothing(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        purge(store, settings)
        before, panes = outcomes_of(store), records_in(store, "yard")
        again = [
            image_record(1, EVENT_US),  # as it was
            image_record(1, EVENT_US + HOUR_US, model={"name": "yard", "version": "3"}),  # by a version of its own
            image_record(7, EVENT_US),
            image_record(1, EVENT_US),
        ]
        feed(store, settings, [encode(one) for one in again], topic_id="another log")
        after_it = outcomes_of(store)
        assert (after_it["duplicate"] - before["duplicate"], after_it["ok"] - before["ok"]) == (3, 1)
        assert records_in(store, "yard") == panes + 1
        assert VICTIM.encode() not in everything(store)
        assert input_digest(VICTIM) not in names(settings)
        assert input_digest("frame-000007") in names(settings)

    def test_a_late_delivery_is_a_duplicate_too(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        purge(store, settings)
        before = outcomes_of(store)
        days_later = EVENT_US + 20 * 24 * HOUR_US
        feed(store, settings, [encode(image_record(1, EVENT_US))], topic_id="late", timestamp_us=days_later)
        assert outcomes_of(store)["duplicate"] == before["duplicate"] + 1

    def test_labels_of_it_are_refused(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        purge(store, settings)
        new = [yard_label(1, annotation_version=2), yard_label(4), yard_label(1, annotator="another")]
        feed(store, settings, [encode(one) for one in new], topic_id="labels")
        told = {key.label: value for key, value in store.read_tallies().items() if key.series == LABELS}
        assert (told["purged"], told["accepted"]) == (2, 4)
        assert VICTIM.encode() not in everything(store)

    def test_of_one_model_it_leaves_the_others(self, store: Store, settings: Settings) -> None:
        fill(store, settings)
        street = seen(0, EVENT_US, ("car", 0.9, square(10)), input_id=VICTIM)
        feed(store, settings, [encode(street)], topic_id="street")
        proof = purge(store, settings, model="street")
        assert [one["model"] for one in proof["inputs"][0]["records"]] == ["street"]
        assert records_in(store, "yard") == 5 and names(settings).count(input_digest(VICTIM)) == 2
        # The label is of every model, so that it still says something of yard.
        assert count(store, "label") == 3
        feed(store, settings, [encode(street), encode(yard_label(1, annotation_version=9))], topic_id="street again")
        told = {key.label: value for key, value in store.read_tallies().items() if key.series == LABELS}
        assert told.get("purged", 0) == 0
        assert outcomes_of(store)["duplicate"] == 1

    def test_an_input_that_nobody_knows_is_purged_for_the_future(self, store: Store, settings: Settings) -> None:
        (one,) = purge(store, settings, "frame-000009")["inputs"]
        assert not one["purged_before"] and one["nothing_left"]
        feed(store, settings, [encode(image_record(9, EVENT_US))])
        assert outcomes_of(store)["duplicate"] == 1 and count(store, "sample") == 0

    def test_what_the_leader_read_before_is_not_stored_after(self, store: Store, settings: Settings) -> None:
        feed(store, settings, [encode(image_record(n, EVENT_US)) for n in (1, 2)])
        feed(store, settings, [encode(yard_label(n)) for n in (1, 2)], topic_id="labels")
        evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
        leader = store.try_lead()
        assert leader is not None
        read = leader.labelled

        def then_purged(limit: int, *, sweep: bool) -> Any:
            found = read(limit, sweep=sweep)
            if VICTIM in found.inputs:
                purge(store, settings)
            return found

        leader.labelled = then_purged  # type: ignore[method-assign]
        evaluator._leader = leader
        evaluator.finish()
        evaluator.close()
        assert count(store, "judged") == 1
        assert [row for row in everything(store).split(b"\n") if VICTIM.encode() in row] == []

    def test_the_proof_names_what_is_out_of_reach(self, store: Store, settings: Settings) -> None:
        kafka = msgspec.structs.replace(settings.kafka, bootstrap_servers="kafka:9092")
        proof = purge(store, msgspec.structs.replace(settings, kafka=kafka), "nobody")
        places = " ".join(one["place"] for one in proof["not_reached"])
        for place in ("segwatch.predictions", "segwatch.dead-letter", "annotation tools", "backups", "Prometheus"):
            assert place in places
        assert all(one["until"] for one in proof["not_reached"])


class TestFiles:
    def test_lines_of_an_embedded_service_are_overwritten_in_place(self, store: Store, settings: Settings) -> None:
        from monitor.app import file_sink

        record, other = encode(image_record(1, EVENT_US)), encode(image_record(2, EVENT_US))
        torn, packed = record[:200], msgspec.msgpack.encode(image_record(1, EVENT_US))
        action = msgspec.json.encode({"samples": [{"input_id": VICTIM}, {"input_id": OTHER}]})
        sink = file_sink(settings)
        for number, value in enumerate((record, other, torn, packed)):
            sink.add(OutboxMessage(f"dead-{number}", "segwatch.dead-letter", None, value))
        sink.add(OutboxMessage("action", "segwatch.actions", b"yard", action))
        sink.flush()
        folder = Path(settings.data_dir)
        sizes = {name: (folder / name).stat().st_size for name in ("dead-letter.jsonl", "actions.jsonl")}
        (one,) = purge(store, settings)["inputs"]
        assert one["removed"]["files"] == {"dead-letter.jsonl": 3, "actions.jsonl": 1}
        assert {name: (folder / name).stat().st_size for name in sizes} == sizes
        letters = [json.loads(line) for line in (folder / "dead-letter.jsonl").read_text().splitlines()]
        assert [letter.get("purged", False) for letter in letters] == [True, False, True, True]
        assert letters[1]["value"] == other.decode()
        assert json.loads((folder / "actions.jsonl").read_text())["data"] == {"samples": [{"input_id": OTHER}]}
        sink.add(OutboxMessage("more", "segwatch.dead-letter", None, b"after it"))  # the service went on meanwhile
        sink.flush()
        sink.close()
        assert json.loads((folder / "dead-letter.jsonl").read_text().splitlines()[-1])["value"] == "after it"


def test_sqlite_keeps_no_trace_in_its_files(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    name = "a-name-that-is-easy-to-find"
    with open_store(settings) as store:
        record = seen(0, EVENT_US, ("car", 0.9, square(10)), input_id=name)
        feed(store, settings, [encode(record)])
        purge(store, settings, name)
        for file in tmp_path.glob("segwatch.db*"):
            assert name.encode() not in file.read_bytes(), file.name
