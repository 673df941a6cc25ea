"""Classes files."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.canary_classes import ontology_of
from monitor.classes import Classes, read_classes
from monitor.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "classes.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_contracts_example_is_read(tmp_path: Path) -> None:
    text = "{names: {0: sky, 1: building, 2: pedestrian, 11: void}, ignore: [11], critical: [pedestrian]}"
    classes = read_classes(write(tmp_path, text))
    assert classes == Classes(("sky", "building", "pedestrian"), (0, 1, 2), (11,), (("pedestrian", None),))
    assert classes.position_of_index == {0: 0, 1: 1, 2: 2}


def test_json_a_list_of_names_and_targets_are_read_too(tmp_path: Path) -> None:
    classes = read_classes(write(tmp_path, '{"names": ["a", "b"], "critical": {"b": 0.8}}'))
    assert classes.names == ("a", "b")
    assert classes.critical == (("b", 0.8),)
    assert Classes.from_dict(classes.to_dict()) == classes


def test_json_keys_are_texts_and_mean_indices(tmp_path: Path) -> None:
    assert read_classes(write(tmp_path, '{"names": {"3": "x"}}')).indices == (3,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with the key names"),
        ("names: {}", "names: expected a mapping of indices to names"),
        ("names: {a: b}", "names: 'a' is no index"),
        ("names: {0: 1}", "names.0: expected a name"),
        ("names: {0: a, 1: a}", "names.1: 'a' stands there twice"),
        ("names: {-1: a}", "names: -1 is no index"),
        ("names: {0: a}\ncritical: [b]", "critical: 'b' is none of the class names"),
        ("names: {0: a}\ncritical: {a: 2}", "critical.a: expected a target IoU"),
        ("names: {0: a}\nignore: 3", "ignore: expected a list"),
        ("names: {0: a}\nextra: 3", "unknown key extra"),
        ("names: [", "neither YAML nor JSON"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"classes.yaml: {message}"):
        read_classes(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_classes(tmp_path / "none.yaml")


def test_without_a_file_the_names_that_instances_carry_are_the_classes() -> None:
    assert Classes.observed(["car", "bus", "car"]).names == ("bus", "car")
    both = Classes.observed(["car", "0"], [0, 4])
    assert both.names == ("0", "4", "car")
    assert both.position_of_index == {0: 0, 4: 1, 5: 2}


def test_things_are_read_kept_and_else_those_that_lists_have_named(tmp_path: Path) -> None:
    told = read_classes(write(tmp_path, "names: [road, car, bus]\nthings: [car]"))
    assert told.things == ("car",) and told.with_things(["bus"]) == told
    assert Classes.from_dict(told.to_dict()) == told
    silent = read_classes(write(tmp_path, "names: [road, car, bus]"))
    assert silent.things is None and "things" not in silent.to_dict()
    assert silent.with_things(["car", "tram"]).things == ("car",)
    with pytest.raises(InputError, match="things: 'tram' is none of the class names"):
        read_classes(write(tmp_path, "names: [road, car]\nthings: [tram]"))


def test_a_thing_that_a_comparison_of_versions_leaves_out_is_none_of_its_classes() -> None:
    both = Classes(("road", "car", "bus"), (0, 1, 2), things=("bus", "car"))
    assert ontology_of(both, both, [("bus", "")]).classes == Classes(("road", "car"), (0, 1), (2,), things=("car",))
