"""Early detection: panes reach the sequential test once, in order of time, whoever feeds them in however many steps."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.layout import Layout
from detectors.sequential import SequentialDetector, exceeds_blocks
from detectors.statistic import PaneStatistic
from detectors.units import BaselineUnits
from monitor import early, early_feed
from monitor.drift import ScoredWindow
from monitor.early_feed import Feed
from monitor.errors import StoreError
from monitor.schemas import read_schema
from monitor.settings import Settings
from monitor.status import status
from monitor.store.leader import Leader
from monitor.store.store import Store
from monitor.store.values import EarlyReading
from monitor.windows import DAY_US, SECOND_US, to_text
from tests.embedded import HOUR_US, open_store, settings_of
from tests.test_evaluate import BEGAN_US, evaluating, payload, put_watermark, queued, read

PANE_US = 300 * SECOND_US
FRAMES = 10
COLUMNS = 6
Rows = Sequence[tuple[str, NDArray[np.float64]]]
"""Records of a pane: each one's sequence, and its values."""


@cache
def baseline() -> BaselineStatistic:
    """Records without a sequence and sequences of ten frames, half of either."""
    rng = np.random.default_rng(0)
    layout = Layout.stacked([("embedding", ["a", "b", "c", "d"]), ("input", ["e", "f"])])
    names = [f"s{index // FRAMES}" for index in range(1000)] + [""] * 1000
    return BaselineStatistic.fit(layout, rng.normal(size=(2000, COLUMNS)), names)


@cache
def units() -> BaselineUnits:
    return BaselineUnits(baseline())


def statistic(rows: Rows) -> PaneStatistic:
    made = PaneStatistic(COLUMNS, baseline().binning.bins)
    made.add(baseline().binning.codes(np.array([values for _, values in rows])), [name for name, _ in rows])
    return made


def traffic(panes: int, seed: int, shift: float = 0.0, since: int = 0) -> list[PaneStatistic]:
    """Twenty single records a pane, and sequences of which every second one goes on in the next pane."""
    rng = np.random.default_rng(seed)
    rows: list[list[tuple[str, NDArray[np.float64]]]] = [[] for _ in range(panes + 1)]
    for pane in range(panes):
        rows[pane] += [("", rng.normal(size=COLUMNS)) for _ in range(20)]
        for number in range(4):
            for frame in range(FRAMES):
                at = pane + (number % 2 and frame >= FRAMES // 2)
                rows[at].append((f"drive-{pane}-{number}", rng.normal(size=COLUMNS)))
    moved = [[(name, values + shift * (pane >= since)) for name, values in one] for pane, one in enumerate(rows)]
    return [statistic(one) for one in moved[:panes]]


def new_feed(exceeds: bool = True, budget: float = 1.0) -> Feed:
    return Feed(units(), PANE_US, budget, lambda _: exceeds)


def fed(panes: Sequence[PaneStatistic], feed: Feed | None = None) -> Feed:
    feed = feed or new_feed()
    for number, pane in enumerate(panes):
        feed.pane(number * PANE_US, pane)
    return feed


def seen(feed: Feed) -> tuple[bytes, list[Mapping[str, Any]]]:
    return feed.to_bytes(), [msgspec.json.decode(alarm.payload) for alarm in feed.alarms]


class TestFeeding:
    def test_the_order_in_which_a_pane_was_put_together_changes_nothing(self) -> None:
        panes = traffic(6, seed=1, shift=1.0, since=3)
        mixed = []
        for pane in panes:
            parts = []
            for group in pane.groups():
                rows = [np.repeat(np.arange(group.counts.shape[1]), column) for column in group.counts]
                for codes in np.array(rows, dtype=np.uint8).T:
                    part = PaneStatistic(COLUMNS, pane.bins)
                    part.add(codes[None], [group.sequence])
                    parts.append(part)
            random.Random(5).shuffle(parts)
            mixed.append(PaneStatistic.from_bytes(PaneStatistic.merged(parts).to_bytes()))
        assert seen(fed(mixed)) == seen(fed(panes))

    def test_a_sequence_across_panes_is_one_unit_once_it_is_whole(self) -> None:
        values = np.random.default_rng(2).normal(size=(30, COLUMNS))
        rows: Rows = [("long", one) for one in values]
        feed = fed([statistic(rows[:10]), statistic(rows[10:25]), statistic(rows[25:])])
        feed.close(4 * PANE_US - 1)
        assert feed.records == 0  # the pane that could go on with it has not closed yet
        feed.close(4 * PANE_US)
        alone = SequentialDetector(units(), feed.run_length)
        alone.add_group(statistic(rows).counts(), sequence=True)
        assert (feed.records, feed.evidence) == (30, alone.evidence)

    def test_a_sequence_that_comes_back_is_not_another_unit(self) -> None:
        rng = np.random.default_rng(3)
        one, other = ([(name, rng.normal(size=COLUMNS)) for _ in range(5)] for name in ("again", "other"))
        feed = fed([statistic(one), statistic(other), statistic(one), statistic([*one, *other])])
        feed.close(9 * PANE_US)
        assert feed.records == 10
        resumed = new_feed()
        resumed.restore(feed.to_bytes(), 4 * PANE_US)
        resumed.pane(20 * PANE_US, statistic(one))
        resumed.close(30 * PANE_US)
        assert resumed.records == 10

    def test_sequences_beyond_those_that_may_be_open_are_left_out_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(early_feed, "MOST_OPEN", 3)
        rng = np.random.default_rng(4)
        rows = [(f"s{number}", rng.normal(size=COLUMNS)) for number in range(5)]
        feed = fed([statistic(rows), statistic(rows)])
        feed.close(9 * PANE_US)
        assert feed.records == 6

    def test_of_the_sequences_that_were_fed_those_heard_of_last_are_remembered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(early_feed, "MOST_TOLD", 2)
        frame = np.zeros(COLUMNS)
        feed = new_feed()
        for number, name in enumerate("abac"):
            feed.pane(3 * number * PANE_US, statistic([(name, frame)]))
        feed.close(11 * PANE_US)
        assert feed.records == 3  # a, b and c
        for number, name in enumerate("ab"):
            feed.pane((20 + 3 * number) * PANE_US, statistic([(name, frame)]))
        feed.close(40 * PANE_US)
        assert feed.records == 4  # b had been forgotten

    @pytest.mark.parametrize("shift", [0.0, 1.0])
    def test_a_restart_after_every_pane_equals_an_uninterrupted_run(self, shift: float) -> None:
        panes = traffic(10, seed=4, shift=shift, since=5)
        whole = fed(panes)
        feed, alarms = new_feed(), []
        for number, pane in enumerate(panes):
            resumed = new_feed()
            if number:
                assert feed.fed_until_us is not None
                resumed.restore(feed.to_bytes(), feed.fed_until_us)
            resumed.pane(number * PANE_US, pane)
            alarms += resumed.alarms
            feed = resumed
        assert (feed.to_bytes(), alarms) == (whole.to_bytes(), whole.alarms)
        assert bool(alarms) == bool(shift)

    def test_how_often_it_is_said_how_late_it_is_changes_nothing(self) -> None:
        panes = traffic(8, seed=5, shift=1.0, since=4)
        whole, often = fed(panes), new_feed()
        for number, pane in enumerate(panes):
            often.pane(number * PANE_US, pane)
            for part in (1, 2, 3):
                often.close((number + 1) * PANE_US + part)
        assert seen(often) == seen(whole)

    def test_a_pane_of_the_past_is_refused(self) -> None:
        feed = fed(traffic(2, seed=6))
        with pytest.raises(ValueError, match="begins before"):
            feed.pane(0, traffic(1, seed=6)[0])

    @pytest.mark.parametrize("data", [b"", b"\x00", b"something else"])
    def test_damaged_state_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="damaged"):
            new_feed().restore(data, 0)
        whole = fed(traffic(2, seed=7)).to_bytes()
        with pytest.raises(ValueError, match="damaged"):
            new_feed().restore(whole[:-40] + data, 0)


class TestRunLength:
    def test_it_is_the_records_of_30_days_over_the_tests_share_of_the_budget(self) -> None:
        panes = traffic(2, seed=8)
        feed = fed([panes[0]] * 3, new_feed(budget=0.2))
        assert feed.run_length == pytest.approx(panes[0].records * 12 * 24 * 30 / 0.2)

    def test_silence_counts_and_the_distant_past_fades(self) -> None:
        (pane,) = traffic(1, seed=9)
        daily = pane.records * 30
        feed = new_feed()
        for day in range(0, 31, 2):
            feed.pane(day * DAY_US, pane)
        assert feed.run_length == pytest.approx(daily / 2, rel=0.1)
        for number in range(120):
            feed.pane(31 * DAY_US + number * DAY_US // 2, pane)
        assert feed.run_length == pytest.approx(2 * daily, rel=0.25)

    def test_a_crossing_that_is_no_larger_than_the_baselines_blocks_is_no_alarm_and_restarts(self) -> None:
        panes = traffic(8, seed=10, shift=1.0, since=2)
        loud, held_back = fed(panes), fed(panes, new_feed(exceeds=False))
        assert loud.alarms and not held_back.alarms
        assert held_back.to_bytes() == loud.to_bytes()

    def test_size_is_that_of_the_baselines_own_blocks(self) -> None:
        rng = np.random.default_rng(11)
        large = statistic([("", one) for one in rng.normal(size=(500, COLUMNS)) + 0.5]).counts()
        assert exceeds_blocks(baseline(), large)
        assert not exceeds_blocks(baseline(), baseline().counts)

    def test_an_alarm_says_when_why_and_by_how_much(self) -> None:
        feed = fed(traffic(8, seed=12, shift=1.0, since=4))
        first = msgspec.json.decode(feed.alarms[0].payload)
        assert 4 * PANE_US < feed.alarms[0].at_us <= 6 * PANE_US
        assert first["evidence"] >= first["run_length"] > first["records"]
        assert sum(one["share"] for one in first["attribution"]) == pytest.approx(1)

    def test_quiet_traffic_of_a_day_raises_none(self) -> None:
        assert fed(traffic(288, seed=13)).alarms == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600], "slice_keys": ["none"]})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def state(store: Store) -> tuple[EarlyReading, bytes]:
    """The one test's reading and state."""
    [reading] = store.early_readings()
    leader = store.try_lead()
    assert leader is not None
    with leader:
        stored = leader.early_state(reading.model, reading.version, reading.baseline_id)
    assert stored is not None
    return reading, stored.state


def requested(store: Store) -> list[dict[str, Any]]:
    """Requests to relabel that wait in the outbox."""
    found = [msgspec.json.decode(one.message.value or b"") for one in store.actions.queued("segwatch.actions")]
    return [one for one in found if one["type"] == "segwatch.relabel_requested.v1"]


def move_to(store: Store, hours: float) -> None:
    """The watermark closes all that ends up to then."""
    put_watermark(store, BEGAN_US + round(hours * HOUR_US) + 10 * SECOND_US)


class TestInTheService:
    def test_a_shift_is_seen_before_its_window_closes(self, store: Store, settings: Settings) -> None:
        scored: list[ScoredWindow] = []
        read(store, settings, 100, BEGAN_US)
        read(store, settings, 60, BEGAN_US + HOUR_US, first=1000, shift=2.0)
        with evaluating(store, settings, on_score=scored.append) as evaluator:
            move_to(store, 1)
            evaluator.tick()
            assert store.early_readings()[0].alarm_at_us is None
            assert len(scored) == 1
            move_to(store, 1.25)
            evaluator.tick()
            [reading] = store.early_readings()
            assert len(scored) == 1
            assert reading.alarm and reading.alarm_at_us is not None
            assert BEGAN_US + HOUR_US < reading.alarm_at_us <= BEGAN_US + 1.25 * HOUR_US
            assert queued(store) == []  # the window's verdict alarms, not the early one
            early_items = store.relabel.items()
            assert len(early_items) == 13  # half of what the day has for drift: the window is still to come
            assert {one.cause for one in early_items} == {f"drift: early {to_text(reading.alarm_at_us)}"}
            assert all(int(one.input_id.removeprefix("input-")) >= 1000 for one in early_items)
            evaluator.tick()
            assert store.relabel.items() == early_items
            [asked] = requested(store)
            assert {one["input_id"] for one in asked["evidence"]["samples"]} == {one.input_id for one in early_items}
            jsonschema.validate(asked, read_schema(asked["type"]))
        with evaluating(store, settings) as evaluator:  # another leader
            evaluator.tick()
            assert store.relabel.items() == early_items
        with evaluating(store, settings, on_score=scored.append) as evaluator:
            move_to(store, 2)
            evaluator.tick()
        every = store.relabel.items()
        assert len({one.input_id for one in every}) == len(every)  # of a shift no sample twice
        assert 13 < len(every) <= 25 and len(requested(store)) == 2
        assert [one.early is not None for one in scored] == [False, True]
        shown = payload(store.scores("street")[1])["early"]
        assert shown["evidence"] >= shown["run_length"]
        [model] = status(store, BEGAN_US)["models"]
        assert model["early"]["alarm"] and model["early"]["last_alarm"]["attribution"][0]["signal"] == "embedding"

    def test_a_shift_that_goes_on_alarms_again_and_asks_once(self, store: Store, settings: Settings) -> None:
        read(store, settings, 100, BEGAN_US)
        alarms, asked = [], []
        for hours in (1.0, 1.25, 1.5, 1.75, 2.0):
            read(store, settings, 60, BEGAN_US + round(hours * HOUR_US), first=round(10_000 * hours), shift=2.0)
            move_to(store, hours + 0.25)
            with evaluating(store, settings) as evaluator:  # whichever process leads
                evaluator.tick()
            alarms.append(store.early_readings()[0].alarm_at_us)
            asked.append((len(store.relabel.items()), len(requested(store))))
        assert len(set(alarms)) == 5
        with_window = asked[3]
        assert asked == [(13, 1)] * 3 + [with_window] * 2
        assert 13 < with_window[0] < 25 and with_window[1] == 2  # what the day has left is for its windows

    def test_an_alarm_ends_where_traffic_does(self, store: Store, settings: Settings) -> None:
        read(store, settings, 100, BEGAN_US)
        read(store, settings, 60, BEGAN_US + HOUR_US, first=1000, shift=2.0)
        with evaluating(store, settings) as evaluator:
            for hours, stands in ((1.25, True), (2, True), (2.5, False)):
                move_to(store, hours)
                evaluator.tick()
                [reading] = store.early_readings()
                assert reading.alarm == stands, hours
            assert reading.alarm_at_us is not None

    def test_a_sequence_is_whole_by_the_watermark_where_no_pane_follows(self, store: Store, settings: Settings) -> None:
        read(store, settings, 20, BEGAN_US, sequence="one")
        with evaluating(store, settings) as evaluator:
            for minutes, records in ((15, 0), (19, 0), (20, 20), (25, 20)):
                move_to(store, minutes / 60)
                evaluator.tick()
                assert store.early_readings()[0].records == records, minutes

    def test_quiet_traffic_raises_none(self, store: Store, settings: Settings) -> None:
        for hour in range(4):
            read(store, settings, 300, BEGAN_US + hour * HOUR_US, first=1000 * hour)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        [reading] = store.early_readings()
        assert reading.records == 1200
        assert (reading.alarm, reading.alarm_at_us, reading.last_alarm) == (False, None, None)
        assert all(payload(one)["early"] is None for one in store.scores("street"))

    def test_ticks_restarts_and_a_second_evaluator_end_where_one_replay_does(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        quarters = [0.0, 0.25, 0.5, 1.0]
        for number, hours in enumerate(quarters):
            read(store, settings, 40, BEGAN_US + round(hours * HOUR_US), first=1000 * number, shift=number / 2)
            with evaluating(store, settings) as one, evaluating(store, settings) as other:
                for step in range(3):
                    move_to(store, hours + step / 12)
                    one.tick()
                    other.tick()
                one.close()
                move_to(store, hours + 0.25)
                other.tick()
        move_to(store, 5)
        with evaluating(store, settings) as last:
            last.tick()
        own = settings_of(tmp_path / "replay", windows={"lengths_seconds": [3600], "slice_keys": ["none"]})
        with open_store(own) as at_once:
            for number, hours in reversed(list(enumerate(quarters))):
                read(at_once, own, 40, BEGAN_US + round(hours * HOUR_US), first=1000 * number, shift=number / 2)
            with evaluating(at_once, own) as evaluator:
                evaluator.finish()
            assert state(at_once) == state(store)
            assert state(at_once)[0].alarm_at_us is not None

    def test_a_feeding_that_is_cut_off_is_done_again_once(
        self, store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(early, "PORTION", 2)
        stores = [store, open_store(own := settings_of(tmp_path / "other", windows={"lengths_seconds": [3600]}))]
        saved = Leader.record_early
        for opened, used, cut in zip(stores, (settings, own), (True, False), strict=True):
            read(opened, used, 100, BEGAN_US, shift=1.0)
            calls = itertools.count()

            def record(self: Leader, *what: Any, cut: bool = cut, calls: Iterator[int] = calls) -> None:
                if next(calls) == 1 and cut:
                    raise StoreError("power cut")
                saved(self, *what)

            monkeypatch.setattr(Leader, "record_early", record)
            with evaluating(opened, used) as evaluator:
                if cut:
                    with pytest.raises(StoreError, match="power cut"):
                        evaluator.finish()
                evaluator.finish()
        assert state(stores[0]) == state(stores[1])
        stores[1].close()

    def test_what_comes_for_a_pane_that_was_fed_makes_a_revision_and_no_evidence(
        self, store: Store, settings: Settings
    ) -> None:
        read(store, settings, 60, BEGAN_US)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
            before = store.early_readings()
            read(store, settings, 60, BEGAN_US, first=500, shift=3.0)
            assert evaluator.finish() == 1
            assert store.early_readings() == before
            read(store, settings, 60, BEGAN_US + HOUR_US, first=1000)
            evaluator.finish()
        assert store.early_readings()[0].records == 120

    def test_a_long_history_is_fed_in_portions_between_which_windows_are_scored(
        self, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(early, "PORTION", 16)  # of 18 panes
        for hour in range(3):
            read(store, settings, 50, BEGAN_US + hour * HOUR_US, first=1000 * hour)
            read(store, settings, 50, BEGAN_US + round((hour + 0.5) * HOUR_US), first=1000 * hour + 500)
        move_to(store, 4)
        with evaluating(store, settings) as evaluator:
            assert evaluator.tick() == 3
            [reading] = store.early_readings()
            assert 0 < reading.records < 300
            assert evaluator.tick() == 0
            assert store.early_readings()[0].records == 300

    def test_a_new_baseline_starts_anew_and_the_old_one_goes_on_where_it_was(
        self, store: Store, settings: Settings
    ) -> None:
        with evaluating(store, settings) as evaluator:
            read(store, settings, 60, BEGAN_US)
            evaluator.finish()
            [first] = store.early_readings()
            meta = store.baselines()[0]
            other = store.add_baseline(
                "street", "1", format_version=1, meta={}, payload=store.baseline(meta.id).payload
            )
            store.activate(other)
            read(store, settings, 40, BEGAN_US + HOUR_US, first=1000)
            evaluator.finish()
            records = {one.baseline_id: one.records for one in store.early_readings()}
            assert records == {first.baseline_id: 60, other: 40}
            store.activate(meta.id)
            read(store, settings, 30, BEGAN_US + 2 * HOUR_US, first=2000)
            evaluator.finish()
        assert {one.baseline_id: one.records for one in store.early_readings()} == {first.baseline_id: 90, other: 40}

    def test_a_state_that_cannot_be_read_is_begun_anew_after_the_panes_it_was_fed(
        self, store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        with evaluating(store, settings) as evaluator:
            read(store, settings, 60, BEGAN_US)
            evaluator.finish()
            leader = evaluator._leader
            assert leader is not None
            [reading] = store.early_readings()
            stored = leader.early_state("street", "1", reading.baseline_id)
            assert stored is not None
            leader.record_early(replace(stored, state=b"?"))
            read(store, settings, 40, BEGAN_US + HOUR_US, first=1000)
            evaluator.finish()
        assert store.early_readings()[0].records == 40
        assert "begins anew" in caplog.text

    def test_the_baseline_of_a_version_that_is_silent_is_not_read(self, store: Store, settings: Settings) -> None:
        damaged = store.add_baseline("street", "2", format_version=1, meta={}, payload=b"not a baseline")
        store.activate(damaged)
        read(store, settings, 60, BEGAN_US)
        with evaluating(store, settings) as evaluator:
            assert evaluator.finish() == 1
        assert [one.version for one in store.early_readings()] == ["1"]

    def test_a_version_without_a_baseline_has_none(self, store: Store, settings: Settings) -> None:
        read(store, settings, 50, BEGAN_US, version="2", shift=5.0)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
        assert store.early_readings() == []

    def test_alarms_and_states_go_with_retention(self, store: Store, tmp_path: Path) -> None:
        windows = {"lengths_seconds": [3600], "allowed_lateness_seconds": 3600}
        settings = settings_of(tmp_path, store={"retention_days": 0.5}, windows=windows)
        read(store, settings, 100, BEGAN_US, shift=2.0)
        with evaluating(store, settings) as evaluator:
            evaluator.finish()
            [reading] = store.early_readings()
            span = {"after_us": BEGAN_US, "until_us": BEGAN_US + DAY_US}
            assert store.early_alarms("street", "1", reading.baseline_id, **span)
            evaluator.tick()  # wall clock: a day after the beginning
        assert store.early_readings() == []
        assert store.early_alarms("street", "1", reading.baseline_id, **span) == []
