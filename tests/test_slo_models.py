"""SLOs whose model or class the store does not know: refused or said, by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerts.slo.parse import parse
from monitor.errors import InputError
from monitor.rules import Options, read_slos, render
from monitor.settings import Settings, WebSettings
from monitor.slo_models import doubts
from monitor.store.store import Store
from tests.seeded_store import seed


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A store with model street, classes car and person."""
    found = Settings(data_dir=str(tmp_path / ".segwatch"))
    with Store.open(found, write=True) as store:
        seed(store)
    return found


def said(settings: Settings, folder: Path, text: str) -> list[str]:
    file = folder / "slo.yaml"
    file.write_text(text, encoding="utf-8")
    lines: list[str] = []
    assert read_slos(settings, Options([file]), lines.append)
    return [line.removeprefix(f"warning: {folder}/") for line in lines]


def test_a_model_without_a_baseline_is_said_with_what_may_be_meant(settings: Settings, tmp_path: Path) -> None:
    text = "name: a\nkind: class_recall\nobjective: 0.9\nmodel: stret\nclasses: [car]\n"
    assert said(settings, tmp_path, text) == [
        "slo.yaml:4: model: SLO 'a': model 'stret' has no active baseline (did you mean 'street'?): until it has one"
        " this SLO sees no records. Its classes are not checked. Known: street"
    ]


def test_a_mistyped_model_is_said_of_slos_without_classes_too(settings: Settings, tmp_path: Path) -> None:
    (line,) = said(settings, tmp_path, "name: a\nkind: availability\nobjective: 0.9\nmodel: yard\n")
    assert line.startswith("slo.yaml:4: model: SLO 'a': model 'yard' has no active baseline: until")


def test_what_the_store_knows_is_no_doubt(settings: Settings, tmp_path: Path) -> None:
    known = "name: a\nkind: class_recall\nobjective: 0.9\nmodel: street\nclasses: [car]\n"
    assert said(settings, tmp_path, known) == []
    assert said(settings, tmp_path, known.replace("model: street\n", "")) == []


def test_a_model_of_somebody_elses_counters_is_no_doubt(settings: Settings, tmp_path: Path) -> None:
    own = "name: own\nkind: ratio\nobjective: 0.99\nmodel: yard\ntotal: a_total\nbad: b_total\n"
    assert said(settings, tmp_path, own) == []


def test_a_class_that_no_model_has_is_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"slo\.yaml:4: classes: SLO 'a': no model has a class 'tram'; there are car"):
        said(settings, tmp_path, "name: a\nkind: class_recall\nobjective: 0.9\nclasses: [car, tram]\n")


def test_without_any_model_nothing_is_refused(tmp_path: Path) -> None:
    empty = Settings(data_dir=str(tmp_path / ".segwatch"))
    Store.open(empty, write=True).close()
    assert said(empty, tmp_path, "name: a\nkind: class_recall\nobjective: 0.9\nclasses: [car, tram]\n") == []


@pytest.mark.parametrize(("token", "warned"), [("", False), ("a-token-of-some-length", True)])
def test_rendering_warns_of_actions_that_segwatch_will_refuse(tmp_path: Path, token: str, warned: bool) -> None:
    lines: list[str] = []
    render(Settings(web=WebSettings(token=token)), Options(), tmp_path / "out", lines.append)
    assert any(line.startswith("warning: segwatch asks for a token") for line in lines) == warned


def test_a_class_that_some_models_lack_is_said_of_each_of_them() -> None:
    slos = parse({"name": "a", "kind": "class_recall", "objective": 0.9, "classes": ["car", "bus"]})
    known = {"street": ["car", "bus"], "yard": ["car"]}
    assert [str(doubt) for doubt in doubts(slos, known)] == [
        "SLO 'a' is of each model, and model 'yard' has no class 'bus'"
    ]
