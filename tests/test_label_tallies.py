"""What labels add to the totals once: their delay, and how far annotators agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.label_tallies import MOST_OTHERS, new_pairs
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import AGREEMENTS, ANNOTATOR_PAIRS, DELAY_BUCKETS, LABEL_DELAY_BUCKET, LABEL_DELAY_SUM_US
from tests.embedded import open_store, settings_of
from tests.made_labels import after, label, seen, square
from tests.test_joining import EVENT_US, put

CAR, PERSON = ("car", square(0)), ("person", square(20))
RECORD = seen(1, EVENT_US, ("car", 0.9, square(0)))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def pairs(store: Store) -> dict[str, dict[str, int]]:
    """Class to verdict to instances."""
    found: dict[str, dict[str, int]] = {}
    for key, value in store.read_tallies().items():
        if key.series == ANNOTATOR_PAIRS:
            found.setdefault(key.label, {})[AGREEMENTS[key.bucket]] = value
    return found


def delays(store: Store) -> tuple[dict[int, int], int]:
    """Labels by bucket, and the sum in microseconds."""
    tallies = store.read_tallies()
    total = sum(value for key, value in tallies.items() if key.series == LABEL_DELAY_SUM_US)
    return {key.bucket: value for key, value in tallies.items() if key.series == LABEL_DELAY_BUCKET}, total


def by(name: str, *instances: tuple[str, Any], seconds: float = 600.0, **more: Any) -> dict[str, Any]:
    return label(1, after(EVENT_US, seconds), *instances, annotator=name, **more)


class TestDelay:
    def test_each_annotators_first_label_counts_once_in_its_bucket(self, store: Store, settings: Settings) -> None:
        put(store, settings, RECORD, by("ann", CAR, seconds=30), by("bob", CAR, seconds=5000))
        assert delays(store) == ({0: 1, DELAY_BUCKETS.index(21_600.0): 1}, 5030 * 10**6)
        put(store, settings, by("ann", PERSON, seconds=7000, annotation_version=2), by("bob", CAR, seconds=5000))
        assert delays(store)[1] == 5030 * 10**6

    def test_a_label_before_its_record_counts_when_it_is_joined(self, store: Store, settings: Settings) -> None:
        put(store, settings, by("ann", CAR, seconds=30))
        assert delays(store) == ({}, 0)
        put(store, settings, RECORD)
        assert delays(store) == ({0: 1}, 30 * 10**6)

    def test_what_cannot_be_joined_has_no_delay(self, store: Store, settings: Settings) -> None:
        put(store, settings, RECORD, by("ann", ("zebra", square(0))), by("bob", CAR, seconds=40 * 86_400))
        assert delays(store) == ({}, 0)


class TestAgreement:
    def test_two_annotators_agree_on_what_both_found(self, store: Store, settings: Settings) -> None:
        put(store, settings, RECORD, by("ann", CAR, PERSON))
        assert pairs(store) == {}
        put(store, settings, by("bob", CAR, ("person", square(28))))
        # The second person overlaps by 2 of 18 columns: each has found one that the other has not.
        assert pairs(store) == {"car": {"agree": 1}, "person": {"disagree": 2}}

    def test_a_pair_counts_once_however_often_it_is_judged(self, store: Store, settings: Settings) -> None:
        put(store, settings, RECORD, by("ann", CAR), by("bob", CAR))
        put(store, settings, by("ann", PERSON, annotation_version=2), by("bob", CAR))
        assert pairs(store) == {"car": {"agree": 1}}
        put(store, settings, by("eve", PERSON))
        # With ann, whose label is a person by now, and with bob.
        assert pairs(store) == {"car": {"agree": 1, "disagree": 1}, "person": {"agree": 1, "disagree": 1}}

    def test_classes_that_one_did_not_look_for_say_nothing(self, store: Store, settings: Settings) -> None:
        put(store, settings, RECORD, by("ann", CAR, judged_classes=["car"]), by("bob", CAR, PERSON))
        assert pairs(store) == {"car": {"agree": 1}}
        put(store, settings, by("eve", PERSON, not_exhaustive=["car"]))
        assert pairs(store) == {"car": {"agree": 1}, "person": {"agree": 1}}

    def test_a_single_annotator_and_a_bad_label_make_no_pair(self, store: Store, settings: Settings) -> None:
        put(store, settings, RECORD, by("ann", CAR), by("bob", ("zebra", square(0))))
        assert pairs(store) == {}


def test_a_crowd_of_annotators_makes_few_pairs_for_each() -> None:
    made = new_pairs([f"a{number:02}" for number in range(100)], [])
    assert len(made) <= MOST_OTHERS * 100
    assert len(set(made)) == len(made)
    assert new_pairs([], ["a", "b"]) == []
