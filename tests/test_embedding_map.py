"""The embedding map: its plane, its geometry, and the page over a filled store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from dashboards.addresses import map_path, sample_path
from dashboards.embedding_map import HEIGHT, WIDTH, embedding_map
from detectors.active_learning import COMPONENTS
from detectors.joint_plane import Plane
from detectors.moments_baseline import SAMPLE_STEPS
from monitor.baseline import FORMAT_VERSION
from monitor.evaluate import Evaluator
from monitor.windows import SECOND_US, to_text
from tests.embedded import HOUR_US, NOW_US, add_baseline, baseline_of, encode, feed
from tests.made_records import prediction
from tests.page_store import LENGTH_S, Site, site

SHIFTED = 12


def samples(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    usual, now = rng.normal(size=(600, 8)), rng.normal(size=(90, 8))
    now[:30, 3] += 6
    return usual, now


def test_samples_of_equal_size_give_the_plane_of_a_principal_component_analysis() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(200, 5)), rng.normal(size=(200, 5)) * [1, 4, 1, 2, 1] + 1
    plane = Plane.of(first, second)
    theirs = PCA(2).fit(np.concatenate([first, second]))
    assert np.allclose(np.abs(theirs.components_ @ plane.axes), np.eye(2), atol=1e-9)
    assert np.allclose(plane.share, theirs.explained_variance_ratio_)
    assert np.allclose(plane.project(first), first @ plane.axes - plane.centre @ plane.axes)


def test_a_sample_weighs_one_half_however_large_it_is() -> None:
    usual, now = samples()
    once, often = Plane.of(usual, now), Plane.of(usual, np.concatenate([now] * 50))
    assert np.allclose(once.axes, often.axes)


def test_one_component_makes_a_line_and_none_is_refused() -> None:
    rng = np.random.default_rng(2)
    plane = Plane.of(rng.normal(size=(9, 1)), rng.normal(size=(9, 1)))
    assert plane.axes.tolist() == [[1.0, 0.0]]
    assert plane.share == (1.0, 0.0)
    for first, second in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="a plane needs two samples"):
            Plane.of(np.zeros((first, 2)), np.zeros((second, 2)))


def test_every_record_lies_in_one_cell_and_the_new_ones_come_first() -> None:
    usual, now = samples()
    found = embedding_map(usual, now, 200)
    assert sorted(index for cell in found.cells for index in cell.records) == list(range(90))
    assert sum(cell.window for cell in found.cells) == pytest.approx(1)
    assert set(found.cells[0].records) <= set(range(30)), "where the baseline has nobody"
    assert found.cells[0].baseline < 0.01
    for cell in found.cells:
        for dot in (found.window[index] for index in cell.records):
            assert cell.x <= dot.x <= cell.x + WIDTH / 12 + 0.1
            assert cell.y <= dot.y <= cell.y + HEIGHT / 9 + 0.1
    assert len(found.baseline) == 200
    assert found.cell(found.cells[0].name) == found.cells[0]
    assert found.cell("99-99") is None


def test_records_at_one_place_are_drawn_in_one_cell() -> None:
    found = embedding_map(np.zeros((5, 3)), np.zeros((4, 3)), 10)
    (cell,) = found.cells
    assert (cell.window, cell.baseline) == (1.0, 1.0)


def start_us() -> int:
    return NOW_US - 2 * HOUR_US


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The pages' store with an hour of street, whose baseline has embeddings; its last records are shifted."""
    with site(tmp_path_factory.mktemp("map")) as found:
        add_baseline(found.store, "street")
        records = [
            prediction(n, start_us() + n * 10 * SECOND_US, shift=3.0 if n >= 60 - SHIFTED else 0.0) for n in range(60)
        ]
        feed(found.store, found.settings, [encode(one) for one in records], topic_id="street")
        evaluator = Evaluator(found.store, found.settings, wall_us=lambda: NOW_US)
        evaluator.finish()
        evaluator.close()
        yield found


def path(**query: object) -> str:
    return map_path("street", "1", to_text(start_us()), LENGTH_S, **query)  # type: ignore[arg-type]


def test_the_map_shows_all_records_of_a_small_window(filled: Site) -> None:
    text = filled.client().get(path()).text
    assert "60 of the window&#39;s 60 records" in text or "60 of the window's 60 records" in text
    assert text.count('class="map-window"') + text.count('class="map-typical"') >= 60
    assert sample_path("street", "1", "input-000059") in text
    assert "<script" not in text


def test_a_cell_leads_to_its_images_and_the_shifted_ones_lie_apart(filled: Site) -> None:
    client = filled.client()
    cells = dict.fromkeys(re.findall(r"cell=([0-9]+-[0-9]+)", client.get(path()).text))
    seen: dict[str, list[str]] = {}
    for cell in cells:
        number, names = 1, []
        while True:
            text = client.get(path(cell=cell, page=number)).text
            names += re.findall(r'class="shots" href="/samples/street/1/([^"]+)"', text)
            if 'rel="next"' not in text:
                break
            number += 1
        seen[cell] = names
    everywhere = [one for names in seen.values() for one in names]
    assert sorted(everywhere) == [f"input-{n:06d}" for n in range(60)]
    shifted = {f"input-{n:06d}" for n in range(60 - SHIFTED, 60)}
    apart = [names for names in seen.values() if shifted & set(names)]
    assert all(set(names) <= shifted for names in apart)


def test_a_slice_has_a_map_of_its_own(filled: Site) -> None:
    text = filled.client().get(path(slice_key="camera=1")).text
    assert re.search(r"20 of the window.{1,5}s 20 records", text)
    assert "The baseline is that of all records" in text


def test_a_cell_without_records_and_one_that_is_none_are_answered(filled: Site) -> None:
    client = filled.client()
    assert "Choose a cell" in client.get(path(cell="99-99")).text
    assert client.get(path(cell="x")).status_code == 422
    assert client.get(map_path("street", "1", to_text(0), LENGTH_S)).status_code == 404


def test_where_the_baseline_has_no_embeddings_it_says_so(filled: Site) -> None:
    bare = replace(baseline_of("street"), moments=None)
    identity = filled.store.add_baseline(
        "street", "2", format_version=FORMAT_VERSION, meta=bare.summary(), payload=bare.to_bytes()
    )
    filled.store.activate(identity)
    records = [prediction(n, start_us() + n * 10 * SECOND_US, version="2") for n in range(20)]
    feed(filled.store, filled.settings, [encode(one) for one in records], topic_id="bare")
    evaluator = Evaluator(filled.store, filled.settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()
    answer = filled.client().get(map_path("street", "2", to_text(start_us()), LENGTH_S))
    assert answer.status_code == 200
    assert "Its baseline has no sample of embeddings" in answer.text


def test_the_baselines_sample_and_the_sketches_are_in_one_unit() -> None:
    moments = baseline_of("street").moments
    assert moments is not None
    rows = moments.rows[:, :COMPONENTS] / SAMPLE_STEPS
    assert rows.std(0) == pytest.approx(1, abs=0.2), "whitened: standard deviations"


def test_of_many_records_an_even_part_is_taken_and_always_the_same(filled: Site) -> None:
    views = filled.store.views
    of = ("street", "1", start_us(), start_us() + HOUR_US, "")
    some = views.sketched(*of, 60, 20, ["input-000001"])
    assert 15 <= len(some) <= 26
    assert "input-000001" in {one.input_id for one in some}
    assert views.sketched(*of, 60, 20, ["input-000001"]) == some
    assert [one.event_time_us for one in some] == sorted(one.event_time_us for one in some)


def test_newest_first_is_the_same_whether_the_tail_is_enough_or_not(filled: Site) -> None:
    views = filled.store.views
    of = ("street", "1", start_us(), start_us() + HOUR_US, "")
    every = [one.input_id for one in views.newest(*of, 0, 100)]
    assert every == [f"input-{n:06d}" for n in reversed(range(60))]
    assert [one.input_id for one in views.newest(*of, 3, 5)] == every[3:8]


def replaced(found: Site, version: str, cut: int) -> str:
    """An hour of a version whose baseline is replaced after ``cut`` of its 60 records; the path of its map."""
    add_baseline(found.store, "street", version)
    records = [encode(prediction(n, start_us() + n * 60 * SECOND_US, version=version)) for n in range(60)]
    for part, some in enumerate((records[:cut], records[cut:])):
        feed(found.store, found.settings, some, topic_id=f"{version}-{part}")
        evaluator = Evaluator(found.store, found.settings, wall_us=lambda at_us=NOW_US + part: at_us)
        evaluator.finish()
        evaluator.close()
        if part == 0:
            other = replace(baseline_of("street"), version=version)
            identity = found.store.add_baseline(
                "street", version, format_version=FORMAT_VERSION, meta=other.summary(), payload=other.to_bytes()
            )
            found.store.activate(identity)
    return map_path("street", version, to_text(start_us()), LENGTH_S)


def test_records_in_the_axes_of_a_replaced_baseline_are_left_out_and_counted(filled: Site) -> None:
    # Panes of five minutes: of the one in which it was replaced nobody knows which record was held against which.
    text = filled.client().get(replaced(filled, "7", 22)).text
    drawn = set(re.findall(r'href="/samples/street/7/(input-[0-9]+)"', text))
    assert drawn == {f"input-{n:06d}" for n in range(25, 60)}
    assert "35 of the window" in text
    assert "25 records are left out" in text


def test_where_all_may_lie_in_other_axes_there_is_no_map(filled: Site) -> None:
    text = filled.client().get(replaced(filled, "8", 57)).text
    assert "There is no map of this window. Its baseline was replaced so late" in text
