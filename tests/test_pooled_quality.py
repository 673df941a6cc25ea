"""Figures of whole windows for the timeline: right, kept, and made anew where labels have changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards.addresses import model_path
from dashboards.judged_records import pooled_iou
from dashboards.pooled_quality import Pooled, PooledQuality
from monitor.evaluate import Evaluator
from monitor.store.store import Store
from monitor.store.values import JudgedRow, StoredScore
from monitor.store.views import Views
from monitor.windows import SECOND_US
from tests.embedded import NOW_US, encode, eventually, feed
from tests.made_labels import after, label, square
from tests.page_store import EVENT_US, HOSTILE, LENGTH_S, MODEL, VERSION, Site, site


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as found:
        yield found


def scores(store: Store, slice_key: str = "") -> list[StoredScore]:
    return store.views.recent(MODEL, VERSION, slice_key, LENGTH_S * SECOND_US, None, 10)


def rows(store: Store) -> list[JudgedRow]:
    return store.judged(MODEL, VERSION, since_us=EVENT_US, until_us=EVENT_US + LENGTH_S * SECOND_US)


def test_a_window_has_the_figure_of_its_judged_records(filled: Site) -> None:
    (score,) = scores(filled.store)
    (found,) = PooledQuality().of(filled.store, [score])
    assert found.labelled == len(rows(filled.store)) == 9
    assert found.estimate == pooled_iou(rows(filled.store), score.records)


def test_a_slice_has_its_own_records_alone(filled: Site) -> None:
    camera = f"camera={HOSTILE['html']}"
    (score,) = scores(filled.store, camera)
    (found,) = PooledQuality().of(filled.store, [score])
    assert found.labelled == 9
    other = StoredScore(**{**{name: getattr(score, name) for name in score.__slots__}, "slice": "camera=none"})
    assert PooledQuality().of(filled.store, [other])[0].labelled == 0


def test_labels_are_brought_in_once_and_again_when_they_change(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    judged = Store.judged
    monkeypatch.setattr(Store, "judged", lambda *args, **more: read.append("") or judged(*args, **more))
    pooled = PooledQuality()
    (before,) = pooled.of(filled.store, scores(filled.store))
    assert pooled.of(filled.store, scores(filled.store)) == [before]
    assert len(read) == 1
    better = label(1, after(EVENT_US, 900), ("dog", square(5)), input_id="frame-000001", annotator="maria")
    feed(filled.store, filled.settings, [encode({**better, "annotation_version": 2})], topic_id="more")
    evaluator = Evaluator(filled.store, filled.settings, wall_us=lambda: NOW_US + SECOND_US)
    evaluator.finish()
    evaluator.close()
    read.clear()
    (now,) = pooled.of(filled.store, scores(filled.store))
    assert now != before
    assert now.estimate == pooled_iou(rows(filled.store), scores(filled.store)[0].records)


def test_what_was_not_asked_for_for_longest_is_forgotten(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = PooledQuality(most=1)
    one, other = scores(filled.store), scores(filled.store, f"camera={HOSTILE['html']}")
    pooled.of(filled.store, one)
    pooled.of(filled.store, other)
    read: list[str] = []
    judged = Store.judged
    monkeypatch.setattr(Store, "judged", lambda *args, **more: read.append("") or judged(*args, **more))
    pooled.of(filled.store, other)
    assert not read
    pooled.of(filled.store, one)
    assert len(read) == 1


def test_more_labels_than_somebody_waits_for_are_brought_in_behind_the_page(filled: Site) -> None:
    pooled = PooledQuality(at_once=8)
    (early,) = pooled.of(filled.store, scores(filled.store))
    assert early == (9, None, True)
    eventually("figured out", lambda: not pooled.of(filled.store, scores(filled.store))[0].pending)
    assert pooled.of(filled.store, scores(filled.store)) == PooledQuality().of(filled.store, scores(filled.store))


def test_the_newest_windows_come_first(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four windows of 15 minutes instead of one of an hour, with 2 labels each but for the newest."""
    (hour,) = scores(filled.store)
    length_us = hour.length_us // 4
    starts = [hour.start_us + length_us * place for place in range(4)]
    four = [replace(hour, start_us=start, length_us=length_us) for start in starts]
    marks = dict.fromkeys(starts[:3], (2, 0, 0))
    monkeypatch.setattr(Views, "label_marks", lambda *_: marks)
    known, read = rows(filled.store), list[tuple[int, int]]()
    monkeypatch.setattr(Store, "judged", lambda *_, since_us, until_us: read.append((since_us, until_us)) or known)
    pooled = PooledQuality(at_once=4)
    early = pooled.of(filled.store, four)
    assert [one.pending for one in early] == [True, False, False, False]
    assert early[3] == (0, None, False), "without a label"
    eventually("figured out", lambda: len(read) == 2)
    assert read == [(starts[1], starts[2] + length_us), (starts[0], starts[0] + length_us)]


def test_what_lies_between_windows_whose_labels_have_changed_is_not_read_again(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hour,) = scores(filled.store)
    length_us = hour.length_us // 4
    starts = [hour.start_us + length_us * place for place in range(4)]
    four = [replace(hour, start_us=start, length_us=length_us) for start in starts]
    marks = {start: (2, 0, 0) for start in starts if start != starts[1]}
    monkeypatch.setattr(Views, "label_marks", lambda *_: dict(marks))
    read = list[tuple[int, int]]()
    monkeypatch.setattr(Store, "judged", lambda *_, since_us, until_us: read.append((since_us, until_us)) or [])
    pooled = PooledQuality()
    pooled.of(filled.store, four)
    assert read == [(starts[0], starts[3] + length_us)], "at once, though one window has no label"
    read.clear()
    marks[starts[0]] = marks[starts[3]] = (3, 1, 1)
    pooled.of(filled.store, four)
    eventually("figured out", lambda: len(read) == 2)
    assert read == [(starts[3], starts[3] + length_us), (starts[0], starts[0] + length_us)]


def test_the_page_says_of_how_many_windows_the_quality_is_still_to_come(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{model_path(MODEL, VERSION)}?length={LENGTH_S}"
    assert "still being figured out" not in filled.client().get(address).text
    monkeypatch.setattr(PooledQuality, "of", lambda *_: [Pooled(9, None, pending=True)])
    text = filled.client().get(address).text
    assert "The quality of 1 of these windows is still being figured out" in text
    assert f'<a href="?length={LENGTH_S}">load again</a>' in text
