"""Whether labels belong to the predictions that are there: the same answer as judging gives, for less."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from monitor import judging, label_fit
from monitor.classes import Classes
from monitor.errors import BadRecord
from monitor.judging import check_fit, judge_label
from monitor.kept_masks import KeptMasks
from monitor.label_fit import LabelFit
from monitor.masks import Rle, encode_rle
from monitor.records import Instance, Label, Limits, Semantic, decode
from monitor.settings import Settings
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.store import Store
from monitor.store.values import LabelledSample
from tests.embedded import NOW_US, encode, feed, open_store, settings_of
from tests.made_labels import SIDE, after, label, seen, square

CLASSES = Classes(("road", "car"), (0, 7), ignore=(255,))
MOST = 10_000


def png(values: Any) -> bytes:
    return cv2.imencode(".png", np.asarray(values, np.uint8))[1].tobytes()


def decoded(record: dict[str, Any]) -> Label:
    found = decode(RawRecord(Partition("file", "", "", 0), 0, encode(record), None, (), None), Limits())
    assert isinstance(found, Label)
    return found


def map_label(values: Any) -> Label:
    semantic = {"classes_png": base64.b64encode(png(values)).decode()}
    return decoded({**label(1, NOW_US), "instances": None, "semantic": semantic})


def list_label(*instances: tuple[str, dict[str, Any]], **more: Any) -> Label:
    return decoded(label(1, NOW_US, *instances, **more))


def with_map(values: Any, height: int = 0, width: int = 0) -> KeptMasks:
    return KeptMasks(height, width, None, Semantic(png(values)))


def with_list(mask: dict[str, Any], height: int = 0, width: int = 0) -> KeptMasks:
    return KeptMasks(height, width, [Instance("car", 0.9, Rle(tuple(mask["size"]), mask["counts"]))], None)


MAP = np.zeros((40, 60), np.uint8)
SMALL = encode_rle(np.ones((10, 12), np.bool_))
TRIANGLE: Any = [[1, 1, 30, 1, 1, 30]]
FAR: Any = [[100, 100, 130, 100, 100, 130]]


@pytest.mark.parametrize(
    ("kept", "told", "why"),
    [
        (with_map(MAP), map_label(MAP), ""),
        (with_map(MAP), map_label(MAP + np.uint8(255)), ""),
        (with_map(MAP), map_label(MAP + np.uint8(9)), "value 9, which is no class"),
        (with_map(MAP), map_label(np.zeros((60, 40))), "not the same shape"),
        (with_map(MAP, 80, 120), map_label(np.zeros((20, 30))), ""),
        (with_map(MAP, 20, 30), map_label(MAP), "the image 20 x 30"),
        (with_map(MAP), map_label(np.zeros((80, 130))), "80 x 130 pixels, the limit is 10000"),
        (with_map(MAP, 200, 300), map_label(MAP), "200 x 300, above the limit of 10000 pixels"),
        (with_map(MAP), list_label(("car", square(0))), "the label has instances, the prediction a map"),
        (with_list(square(0)), map_label(MAP), "the label has a map, the prediction instances"),
        (with_list(square(0)), list_label(("car", square(9))), ""),
        (with_list(square(0)), list_label(("car", SMALL)), "10 x 12"),
        (with_list(square(0)), list_label(("tram", square(9))), "'tram' is no class"),
        (with_list(square(0)), list_label(("car", TRIANGLE)), ""),
        (with_list(square(0)), list_label(("car", FAR)), "outside the image"),
        (with_list(square(0)), list_label(image_size=[9, 9]), "image_size is 9 x 9"),
    ],
)
def test_the_check_gives_the_same_answer_as_judging(kept: KeptMasks, told: Label, why: str) -> None:
    answers = []
    for function in (check_fit, judge_label):
        try:
            function(kept, told, CLASSES, MOST)
            answers.append("")
        except BadRecord as bad:
            answers.append(str(bad))
    assert answers[0] == answers[1]
    assert (why in answers[0]) and bool(why) == bool(answers[0])


def test_of_two_maps_the_check_decodes_the_label_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    decode_semantic = judging.decode_semantic
    monkeypatch.setattr(judging, "decode_semantic", lambda one, most: read.append(one) or decode_semantic(one, most))
    told = map_label(MAP)
    check_fit(with_map(MAP), told, CLASSES, MOST)
    assert read == [told.semantic]


def test_a_list_is_not_painted_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    painted = []
    as_rle = judging._as_rle
    monkeypatch.setattr(judging, "_as_rle", lambda *given: painted.append(given) or as_rle(*given))
    check_fit(with_list(square(0)), list_label(("car", TRIANGLE)), CLASSES, MOST)
    assert not painted


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        feed(opened, settings, [encode(seen(i, NOW_US + i, ("car", 0.9, square(10)))) for i in range(9)])
        yield opened


def test_masks_of_few_inputs_are_in_memory_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    samples_of = Store.samples_of

    def counting(self: Store, inputs: Sequence[str]) -> dict[str, list[LabelledSample]]:
        asked.append(len(inputs))
        return samples_of(self, inputs)

    monkeypatch.setattr(Store, "samples_of", counting)
    monkeypatch.setattr(label_fit, "AT_ONCE", 4)
    told = [(str(i), decoded(label(i, after(NOW_US), ("car", square(10))))) for i in range(9)]
    assert LabelFit(store, Limits(), "street").check(Path("export.json"), told) == [True] * 9
    assert asked == [4, 4, 1]


def test_who_is_told_of_the_labels_that_do_not_fit_gets_the_others(store: Store) -> None:
    assert SMALL["size"] != [SIDE, SIDE]
    said: list[str] = []
    masks = {2: SMALL, 5: SMALL}
    told = [(f"label {i}", decoded(label(i, after(NOW_US), ("car", masks.get(i, square(10)))))) for i in range(9)]
    fit = LabelFit(store, Limits(), "street", said.append)
    assert fit.check(Path("far/away/job-7.json"), told) == [i not in masks for i in range(9)]
    assert [one.split(": label_mismatch: ")[0] for one in said] == [
        f"job-7.json: label {i}: input_id 'input-{i:06d}'" for i in masks
    ]
    assert fit.left_out == {"label_mismatch": 2}
