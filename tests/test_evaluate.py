"""The evaluator: windows close with the watermark, what comes later is a revision, an alarm asks for one action."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import msgspec
import pytest

from monitor.drift import ScoredWindow
from monitor.errors import NotLeader, StoreError
from monitor.evaluate import Evaluator
from monitor.offline import replay
from monitor.schemas import read_schema
from monitor.settings import Settings
from monitor.sources.files import FileSource
from monitor.store.database import DatabaseError
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import Advance, StoredScore
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import (
    HOUR_US,
    NOW_US,
    add_baseline,
    embedders,
    eventually,
    ingest_of,
    open_store,
    partition,
    records_in,
    run,
    settings_of,
)
from tests.made_records import lines, predictions

BEGAN_US = NOW_US - NOW_US % DAY_US
"""A midnight: windows of an hour and of a day begin here."""
DELAY_US = 10 * SECOND_US


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@contextmanager
def evaluating(store: Store, settings: Settings, **more: Any) -> Iterator[Evaluator]:
    evaluator = Evaluator(store, settings, wall_us=lambda: BEGAN_US + DAY_US, **more)
    try:
        yield evaluator
    finally:
        evaluator.close()


def read(store: Store, settings: Settings, count: int, at_us: int, **more: Any) -> None:
    """Records of a quarter of an hour from ``at_us`` on are read, from a file: no partition, no watermark."""
    file = Path(settings.data_dir) / "records.jsonl"
    file.write_bytes(lines(predictions(count, at_us, 0.25, **more)))
    run(ingest_of(store, settings), FileSource([file], 1 << 20))


def put_watermark(store: Store, time_us: int | None, number: int = 0) -> None:
    """Partition ``number`` lags at this event time (None: it has not been read)."""
    where = partition(number, "clock")
    with store.transaction() as tx:
        tx.advance(Advance(where, store.load_offset(where), number, 100, time_us, None))


def revisions(store: Store, **more: Any) -> list[tuple[int, int, int]]:
    """(start in hours since the beginning, revision, records) of each window of all records."""
    return [
        ((score.start_us - BEGAN_US) // HOUR_US, score.revision, score.records)
        for score in store.scores("street", **more)
    ]


def payload(score: StoredScore) -> Mapping[str, Any]:
    return msgspec.json.decode(score.payload)


def queued(store: Store) -> list[tuple[str, dict[str, str], Mapping[str, Any]]]:
    """(topic, headers, content) of the alerts that wait; what they ask to be labelled is another test's."""
    with store.claim_outbox(1000) as claimed:
        for message in claimed:
            claimed.keep(message.id)
        return [
            (
                message.topic,
                {name: value.decode() for name, value in message.headers},
                msgspec.json.decode(message.value or b""),
            )
            for message in claimed
            if ("ce_type", b"segwatch.alert.v1") in message.headers
        ]


class TestClosing:
    def test_a_window_closes_when_the_watermark_passes_its_end_and_the_delay(
        self, store: Store, settings: Settings
    ) -> None:
        read(store, settings, 20, BEGAN_US)
        with evaluating(store, settings) as evaluator:
            assert evaluator.tick() == 0  # no partition says what time it is
            put_watermark(store, BEGAN_US + HOUR_US + DELAY_US - 1)
            assert evaluator.tick() == 0
            put_watermark(store, BEGAN_US + HOUR_US + DELAY_US)
            assert evaluator.tick() == 4  # all records and three cameras
            assert evaluator.tick() == 0
        assert revisions(store) == [(0, 0, 20)]

    def test_a_replay_beside_a_service_closes_what_the_watermark_has_passed(self, tmp_path: Path) -> None:
        settings = settings_of(
            tmp_path,
            windows={"lengths_seconds": [3600]},
            store={"retention_days": 36_500},  # by the wall clock, not the test's
        )
        file = tmp_path / "hours.jsonl"
        file.write_bytes(lines(predictions(40, BEGAN_US, 2)))
        with open_store(settings) as store:
            put_watermark(store, BEGAN_US + HOUR_US + DELAY_US)
            replay(settings, [file], store=store, embedders=embedders())
            assert revisions(store) == [(0, 0, 20)]
            put_watermark(store, BEGAN_US + 2 * HOUR_US + DELAY_US)
            with evaluating(store, settings) as evaluator:
                evaluator.tick()
            assert revisions(store) == [(0, 0, 20), (1, 0, 20)]

    def test_a_lagging_partition_holds_all_windows_and_one_that_was_never_read_too(
        self, store: Store, settings: Settings
    ) -> None:
        read(store, settings, 20, BEGAN_US)
        put_watermark(store, BEGAN_US + 5 * HOUR_US, number=0)
        put_watermark(store, None, number=1)
        with evaluating(store, settings) as evaluator:
            assert evaluator.tick() == 0
            put_watermark(store, BEGAN_US + HOUR_US // 2, number=1)
            assert evaluator.tick() == 0
            put_watermark(store, BEGAN_US + 2 * HOUR_US, number=1)
            assert evaluator.tick() == 4

    def test_an_idle_partition_holds_nothing_up(self, store: Store, settings: Settings) -> None:
        read(store, settings, 20, BEGAN_US)
        with store.transaction() as tx:
            tx.advance(Advance(partition(), None, 7, 7, BEGAN_US, BEGAN_US + 2 * HOUR_US))
        with evaluating(store, settings) as evaluator:
            assert evaluator.tick() == 4

    def test_the_end_of_a_replay_closes_everything(self, store: Store, settings: Settings) -> None:
        for hour in (0, 3, 12):
            read(store, settings, 20, BEGAN_US + hour * HOUR_US, first=1000 * hour)
        with evaluating(store, settings) as evaluator:
            assert evaluator.finish() == 12
        assert revisions(store) == [(0, 0, 20), (3, 0, 20), (12, 0, 20)]

    def test_two_lengths_are_scored_each_when_its_own_window_ends(self, store: Store, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, windows={"lengths_seconds": [3600, 7200], "slice_keys": ["none"]})
        read(store, settings, 20, BEGAN_US)
        with evaluating(store, settings) as evaluator:
            put_watermark(store, BEGAN_US + HOUR_US + DELAY_US)
            assert evaluator.tick() == 1
            read(store, settings, 10, BEGAN_US + HOUR_US, first=100)
            put_watermark(store, BEGAN_US + 2 * HOUR_US + DELAY_US)
            assert evaluator.tick() == 2
        assert revisions(store, length_us=HOUR_US) == [(0, 0, 20), (1, 0, 10)]
        assert revisions(store, length_us=2 * HOUR_US) == [(0, 0, 30)]


class TestRevisions:
    def test_records_that_come_after_the_close_make_the_next_revision(self, store: Store, settings: Settings) -> None:
        read(store, settings, 20, BEGAN_US)
        put_watermark(store, BEGAN_US + 3 * HOUR_US)
        with evaluating(store, settings) as evaluator:
            evaluator.tick()
            read(store, settings, 5, BEGAN_US + HOUR_US // 2, first=100)
            evaluator.tick()
            assert revisions(store) == [(0, 1, 25)]
            evaluator.tick()
            evaluator.finish()
        assert revisions(store) == [(0, 1, 25)]

    def test_duplicates_make_no_revision(self, store: Store, settings: Settings) -> None:
        scored: list[ScoredWindow] = []
        read(store, settings, 20, BEGAN_US)
        put_watermark(store, BEGAN_US + 3 * HOUR_US)
        with evaluating(store, settings, on_score=scored.append) as evaluator:
            evaluator.tick()
            read(store, settings, 20, BEGAN_US)
            evaluator.tick()
        assert revisions(store) == [(0, 0, 20)]
        assert len(scored) == 4

    def test_a_revision_equals_the_score_of_a_window_that_was_whole_from_the_beginning(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        for first, hour_share in ((0, 0.0), (100, 0.25), (200, 0.5)):
            read(store, settings, 20, BEGAN_US + round(hour_share * HOUR_US), first=first, shift=0.7)
            with evaluating(store, settings) as evaluator:
                evaluator.finish()
        other = settings_of(tmp_path / "at-once", windows={"lengths_seconds": [3600]})
        with open_store(other) as whole:
            for first, hour_share in ((200, 0.5), (0, 0.0), (100, 0.25)):
                read(whole, other, 20, BEGAN_US + round(hour_share * HOUR_US), first=first, shift=0.7)
            with evaluating(whole, other) as evaluator:
                evaluator.finish()
            [at_once] = whole.scores("street")
        [revised] = store.scores("street")
        assert (revised.revision, at_once.revision) == (2, 0)
        assert payload(revised) == payload(at_once)


class TestVerdicts:
    def test_a_slice_is_scored_on_its_own_records(self, store: Store, settings: Settings) -> None:
        read(store, settings, 60, BEGAN_US, shift=2.0, slices={"camera": "1"})
        read(store, settings, 60, BEGAN_US, first=1000, slices={"camera": "2"})
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        alarms = {
            slice_key: [score.alarm for score in store.scores("street", slice=slice_key)]
            for slice_key in ("", "camera=1", "camera=2")
        }
        assert alarms == {"": [True], "camera=1": [True], "camera=2": [False]}
        [whole], [part] = store.scores("street"), store.scores("street", slice="camera=1")
        assert payload(part)["slice"] == "camera=1"
        assert payload(whole)["slices"][0]["slice"] == "camera=1"
        assert payload(whole)["slices"][0]["share"] > 0.9

    def test_a_slice_alarms_on_its_own_only_where_all_records_do_not(self, store: Store, settings: Settings) -> None:
        read(store, settings, 40, BEGAN_US, shift=1.0, slices={"camera": "1"})
        read(store, settings, 2000, BEGAN_US, first=10_000, slices={"camera": "2"})
        read(store, settings, 60, BEGAN_US + HOUR_US, first=20_000, shift=2.0, slices={"camera": "1"})
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        assert [score.alarm for score in store.scores("street")] == [False, True]
        assert [score.alarm for score in store.scores("street", slice="camera=1")] == [True, True]
        windows = [content["evidence"]["window"] for _, _, content in queued(store)]
        assert sorted((window["start"], window["slice"]) for window in windows) == [
            (to_text(BEGAN_US), "camera=1"),
            (to_text(BEGAN_US + HOUR_US), None),
        ]

    def test_a_slice_that_the_baseline_does_not_know_is_counted_and_never_scored(
        self, store: Store, settings: Settings
    ) -> None:
        read(store, settings, 60, BEGAN_US, shift=2.0, slices={"camera": "7"})
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        [score] = store.scores("street", slice="camera=7")
        shown = payload(score)
        assert (score.records, score.alarm) == (60, None)
        assert shown["status"] == "unknown_slice" and shown["scores"] == []

    def test_a_version_without_a_baseline_is_counted_and_never_scored(self, store: Store, settings: Settings) -> None:
        read(store, settings, 50, BEGAN_US, version="2", shift=5.0)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        [score] = store.scores("street")
        shown = payload(score)
        assert (score.version, score.records, score.alarm) == ("2", 50, None)
        assert shown["status"] == "no_baseline"
        assert shown["scores"] == [] and shown["alarm"] is False and shown["alpha"] is None
        assert queued(store) == []

    def test_too_few_records_are_said_so(self, store: Store, settings: Settings) -> None:
        read(store, settings, 3, BEGAN_US, shift=9.0)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        [score] = store.scores("street")
        assert payload(score)["status"] == "too_few_records"
        assert all(one["p_value"] is None and not one["alarm"] for one in payload(score)["scores"])

    def test_panes_of_another_baseline_are_scored_apart(self, store: Store, settings: Settings) -> None:
        read(store, settings, 20, BEGAN_US, version="2")
        identity = add_baseline(store, "street", "2")
        read(store, settings, 30, BEGAN_US, version="2", first=100)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        found = {score.baseline_id: score.records for score in store.scores("street", "2")}
        assert found == {"": 20, identity: 30}


class TestActions:
    def alarm(self, store: Store, settings: Settings, count: int = 60, first: int = 0) -> None:
        read(store, settings, count, BEGAN_US, first=first, shift=2.0)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()

    def test_an_alarm_asks_for_one_action_whatever_slices_and_revisions_there_are(
        self, store: Store, settings: Settings
    ) -> None:
        self.alarm(store, settings)
        [(topic, headers, content)] = queued(store)
        self.alarm(store, settings, first=1000)
        assert revisions(store) == [(0, 1, 120)]
        assert [(one, also["ce_id"]) for one, also, _ in queued(store)] == [(topic, headers["ce_id"])]
        assert topic == "segwatch.actions"
        assert headers["ce_type"] == content["type"] == "segwatch.alert.v1"
        assert headers["ce_id"] == content["id"]
        assert (headers["ce_source"], headers["ce_specversion"]) == ("/segwatch", "1.0")
        jsonschema.validate(content, read_schema("segwatch.alert.v1"))
        evidence = content["evidence"]
        assert evidence["window"]["records"] == 60
        assert evidence["attribution"][0]["signal"] == "embedding"
        assert any(one["alarm"] and one["js"] > one["threshold"] for one in evidence["scores"])
        assert {one["selection_probability"] for one in evidence["samples"]} == {None}

    def test_an_action_that_was_delivered_is_not_asked_for_again(self, store: Store, settings: Settings) -> None:
        self.alarm(store, settings)
        with store.claim_outbox(10) as claimed:
            assert len(claimed) == 2  # the alert, and the request to label samples of it
        self.alarm(store, settings, first=1000)
        assert revisions(store) == [(0, 1, 120)]
        assert queued(store) == []

    def test_the_same_cause_has_the_same_id_in_another_store(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        self.alarm(store, settings)
        other = settings_of(tmp_path / "other", windows={"lengths_seconds": [3600]})
        with open_store(other) as second:
            self.alarm(second, other)
            assert queued(second)[0][1]["ce_id"] == queued(store)[0][1]["ce_id"]

    def test_no_alarm_no_action(self, store: Store, settings: Settings) -> None:
        read(store, settings, 60, BEGAN_US)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        assert [score.alarm for score in store.scores("street")] == [False]
        assert queued(store) == []

    def test_the_link_leads_to_the_page_of_models_and_says_which_window(
        self, store: Store, settings: Settings
    ) -> None:
        self.alarm(store, settings)
        link = urlsplit(queued(store)[0][2]["link"])
        assert (link.scheme, link.netloc, link.path) == ("http", "127.0.0.1:8600", "/")
        asked = {"model": ["street"], "version": ["1"], "window": [to_text(BEGAN_US)]}
        assert parse_qs(link.query) == asked


class TestLeading:
    def test_one_of_two_evaluators_leads_and_the_other_takes_over(self, store: Store, settings: Settings) -> None:
        read(store, settings, 20, BEGAN_US)
        with evaluating(store, settings) as first, evaluating(store, settings) as second:
            assert first.finish() == 4
            assert (first.leading, second.leading) == (True, False)
            read(store, settings, 20, BEGAN_US + HOUR_US, first=100)
            assert second.finish() == 0
            first.close()
            assert second.finish() == 4
            assert second.leading

    @pytest.mark.parametrize("error", [DatabaseError("away", retriable=True), NotLeader("the lock is lost")])
    def test_an_evaluator_leads_again_after_the_database_was_away(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: StoreError
    ) -> None:
        monkeypatch.setattr("monitor.evaluate.TICK_S", 0.01)
        read(store, settings, 20, BEGAN_US)
        put_watermark(store, BEGAN_US + 3 * HOUR_US)
        failures = 2

        class Away(Evaluator):
            def tick(self) -> int:
                nonlocal failures
                if self.leading and failures:
                    failures -= 1
                    if isinstance(error, NotLeader):
                        assert self._leader is not None
                        self._leader.release()
                    raise error
                return super().tick()

        stop = threading.Event()
        evaluator = Away(store, settings, wall_us=lambda: BEGAN_US + DAY_US)
        thread = threading.Thread(target=evaluator.run, args=(stop,))
        thread.start()
        try:
            eventually("scored", lambda: failures == 0 and revisions(store))
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()
        assert store.try_lead() is not None  # it let go

    def test_a_scoring_that_is_cut_off_is_done_again(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read(store, settings, 60, BEGAN_US, shift=2.0)
        with evaluating(store, settings) as evaluator:
            with monkeypatch.context() as patch:
                patch.setattr(Leader, "record_score", lambda *_: (_ for _ in ()).throw(StoreError("power cut")))
                with pytest.raises(StoreError, match="power cut"):
                    evaluator.finish()
            assert evaluator.finish() == 4
            assert evaluator.finish() == 0
        assert revisions(store) == [(0, 0, 60)]
        assert len(queued(store)) == 1


SHORT_MEMORY = {"lengths_seconds": [3600], "allowed_lateness_seconds": 3600}


class TestRetention:
    def test_old_panes_scores_and_identities_go_and_new_ones_stay(self, store: Store, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, store={"retention_days": 1.5}, windows=SHORT_MEMORY)
        read(store, settings, 20, BEGAN_US - DAY_US)
        read(store, settings, 30, BEGAN_US, first=100)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
            assert records_in(store) == 50
            evaluator.tick()  # wall clock: a day after the beginning
        assert records_in(store) == 30
        assert revisions(store) == [(0, 0, 30)]

    def test_totals_outlive_retention(self, store: Store, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, store={"retention_days": 0.1}, windows=SHORT_MEMORY)
        read(store, settings, 20, BEGAN_US)
        before = store.read_tallies()
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
            evaluator.tick()
        assert records_in(store) == 0
        assert store.read_tallies() == before

    def test_a_due_window_whose_panes_are_gone_is_cleared(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read(store, settings, 20, BEGAN_US)
        put_watermark(store, BEGAN_US + 3 * HOUR_US)
        with evaluating(store, settings) as evaluator:
            monkeypatch.setattr(Store, "read_panes", lambda *_, **__: [])
            assert evaluator.tick() == 4
            monkeypatch.undo()
            assert evaluator.tick() == 0
        assert queued(store) == []
