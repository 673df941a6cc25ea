"""Spot checks: who is asked for, with which probability, and that labels weigh by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.quality.selection import chances
from monitor.evaluate import Evaluator
from monitor.quality_evidence import evidence_of
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import SPOTCHECK_IMAGES
from monitor.windows import SECOND_US
from tests.embedded import HOUR_US, NOW_US, encode, feed, open_store, settings_of
from tests.made_labels import after, label, seen, square

START_US = NOW_US - 24 * HOUR_US


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, quality={"spot_checks_per_day": 480})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def evaluate(store: Store, settings: Settings) -> None:
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()


def put(store: Store, settings: Settings, records: Sequence[dict[str, Any]], topic: str = "log") -> None:
    feed(store, settings, [encode(record) for record in records], topic_id=topic)
    evaluate(store, settings)


def hour(count: int) -> list[dict[str, Any]]:
    """One record in fifty has a bus, all others a car."""
    return [
        seen(i, START_US + i * 3600 * SECOND_US // count, ("bus" if i % 50 == 0 else "car", 0.9, square(10)))
        for i in range(count)
    ]


class TestChoice:
    def test_a_rare_class_gets_as_many_checks_as_a_common_one(self, store: Store, settings: Settings) -> None:
        put(store, settings, hour(1000))
        rows = store.open_spot_checks()
        found = Counter(row.reason for row in rows)
        assert len(rows) == pytest.approx(20, abs=9)  # 480 a day
        assert found["bus"] == pytest.approx(5, abs=4)  # a quarter: half of the half that classes share
        assert {row.stream for row in rows} == {"uniform", "stratified"}
        probability = {row.reason: row.probability for row in rows}
        assert probability["bus"] == pytest.approx(0.01 + 5 / 20)
        assert probability["car"] == pytest.approx(0.01 + 5 / 980)

    def test_the_choice_does_not_depend_on_when_or_how_often_it_is_made(self, tmp_path: Path) -> None:
        chosen = []
        for name in ("one", "two"):
            own = settings_of(
                tmp_path / name, windows={"lengths_seconds": [3600]}, quality={"spot_checks_per_day": 480}
            )
            (tmp_path / name).mkdir()
            with open_store(own) as store:
                records = hour(600)
                put(store, own, records if name == "one" else records[::-1])
                evaluate(store, own)
                chosen.append(sorted((row.input_id, row.probability) for row in store.open_spot_checks()))
        assert chosen[0] == chosen[1]
        assert chosen[0]

    def test_what_has_a_label_is_no_longer_open(self, store: Store, settings: Settings) -> None:
        put(store, settings, hour(1000))
        before = store.open_spot_checks()
        told = before[0]
        number = int(told.input_id.removeprefix("input-"))
        put(store, settings, [label(number, after(told.event_time_us), ("car", square(10)))], "labels")
        assert [row.input_id for row in store.open_spot_checks()] == [row.input_id for row in before[1:]]


class TestLabelsOfWhatWasAsked:
    def test_they_weigh_by_the_ledgers_probability(self, store: Store, settings: Settings) -> None:
        put(store, settings, hour(1000))
        asked = store.open_spot_checks()
        labels = [
            label(int(row.input_id.removeprefix("input-")), after(row.event_time_us), ("car", square(10)))
            for row in asked
        ]
        put(store, settings, labels, "labels")
        evidence = evidence_of(store.judged("street"), 1000)
        expected = {row.input_id: row.probability for row in asked}
        assert dict(zip(evidence.inputs, evidence.probability.tolist(), strict=True)) == pytest.approx(expected)
        assert evidence.assumed == 0

    def test_what_was_chosen_for_training_feeds_no_slo_counter(self, tmp_path: Path) -> None:
        settings = settings_of(
            tmp_path,
            windows={"lengths_seconds": [3600]},
            quality={"spot_checks_per_day": 480, "training_share": 1.0},
        )
        with open_store(settings) as store:
            put(store, settings, hour(600))
            asked = store.open_spot_checks()
            assert {row.stream for row in asked} == {"training"}
            row = asked[0]
            number = int(row.input_id.removeprefix("input-"))
            put(store, settings, [label(number, after(row.event_time_us), ("car", square(10)))], "labels")
            assert len(store.judged("street")) == 1
            assert not [key for key, value in store.read_tallies().items() if key.series == SPOTCHECK_IMAGES and value]

    def test_records_unlike_the_baseline_are_chosen_for_training_however_sure_the_model_is(
        self, tmp_path: Path
    ) -> None:
        settings = settings_of(
            tmp_path,
            windows={"lengths_seconds": [3600]},
            quality={"spot_checks_per_day": 480, "training_share": 1.0},
        )
        with open_store(settings) as store:
            far = [
                seen(1000 + i, START_US + i * 60 * SECOND_US, ("car", 0.9, square(10)), shift=4.0) for i in range(60)
            ]
            put(store, settings, [*hour(540), *far])
            asked = store.open_spot_checks()
        novel = [row for row in asked if row.input_id >= "input-001000"]
        assert len(novel) > len(asked) / 3  # they are a tenth of the records
        assert all("unlike the baseline" in row.reason for row in novel)
        assert sum("unlike the baseline" in row.reason for row in asked) < 1.2 * len(novel)


@given(
    names=st.lists(st.frozensets(st.sampled_from("abcd")), min_size=1, max_size=60),
    checks=st.floats(0, 100),
    training=st.floats(0, 100),
    seed=st.integers(0, 9),
)
def test_every_chance_is_a_probability_with_a_floor_and_their_sum_is_what_was_asked_for(
    names: list[frozenset[str]], checks: float, training: float, seed: int
) -> None:
    confidence = np.random.default_rng(seed).random(len(names))
    found = chances(names, confidence, checks, training)
    for each in (found.uniform, found.training, found.either):
        assert ((each >= 0) & (each <= 1)).all()
    assert (found.uniform >= found.floor - 1e-12).all()
    assert (found.floor >= min(1.0, checks / len(names) / 2) - 1e-12).all()
    assert len(set(found.floor.tolist())) == 1
    assert found.uniform.sum() <= checks + 1e-9
    assert (found.either >= np.maximum(found.uniform, found.training) - 1e-12).all()
    if found.uniform.max() < 1:
        assert found.uniform.sum() == pytest.approx(checks)
