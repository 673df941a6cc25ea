"""SLO files: what is read, and that what is wrong is refused by file, line and field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from alerts.slo import kinds
from alerts.slo.parse import KINDS, check_classes, check_retention
from alerts.slo.schema import schema
from alerts.slo.spec import ClassIou, Latency
from monitor import tallies
from monitor.errors import InputError
from monitor.slo_files import SloFiles, find_files

EVERY_KIND = """
slos:
  - {name: availability, kind: availability, model: street, objective: 0.99}
  - {name: latency, kind: latency, objective: 0.95, seconds: 0.25}
  - {name: iou, kind: class_iou, model: street, classes: [car, bus], iou: 0.5, objective: 0.8, events_per_hour: 6}
  - {name: recall, kind: class_recall, classes: car, objective: 0.9}
  - {name: invented, kind: false_positives_per_image, model: street, limit: 0.2}
  - {name: sure, kind: confidence, version: "3", score: 0.5, objective: 0.7}
  - {name: fresh, kind: freshness, of: labels, max_age: 1d, objective: 0.9}
  - {name: calm, kind: drift_free_time, model: street, signals: [embedding], objective: 0.95}
  - {name: cost, kind: cost_per_inference, model: street, limit_usd: 0.001}
  - {name: agree, kind: annotator_agreement, model: street, classes: [car], objective: 0.8}
  - {name: triton, kind: ratio, preset: triton, service: street, objective: 0.999}
"""


def write(tmp_path: Path, text: str, name: str = "slo.yaml") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def one(fields: str) -> str:
    return f"name: a\nkind: availability\nobjective: 0.99\n{fields}"


def test_every_kind_is_read(tmp_path: Path) -> None:
    slos = SloFiles([write(tmp_path, EVERY_KIND)]).slos
    assert {slo.kind for slo in slos} == set(KINDS)
    assert slos[1].source == Latency(0.25)
    assert slos[2].source == ClassIou(0.5)
    assert slos[2].classes == ("car", "bus")
    assert slos[3].classes == ("car",)
    assert slos[0].period_s == 30 * 86_400


def test_a_file_may_hold_one_slo_or_several_documents_and_a_folder_many_files(tmp_path: Path) -> None:
    write(tmp_path, one("") + "---\n" + one("").replace("name: a", "name: b"))
    write(tmp_path, json.dumps({"name": "c", "kind": "availability", "objective": 0.9}), "c.json")
    assert [slo.name for slo in SloFiles(find_files([tmp_path])).slos] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("name: a\nkind: availabilty\nobjective: 0.9\n", 2, "kind", "unknown kind 'availabilty'"),
        ("name: a\nkind: availability\nobjective: 0.9999999999999\n", 3, "objective", "and 0.999999, got"),
        ("name: a\nkind: availability\nobjective: 1.0e-13\n", 3, "objective", "between 1e-06"),
        ("name: a\nkind: cost_per_inference\nlimit_usd: .inf\n", 3, "limit_usd", "got inf"),
        ("name: a\nkind: availability\nobjective: 1.0\n", 3, "objective", "below 1, got 1.0"),
        ("name: x.8h\nkind: availability\nobjective: 0.9\n", 1, "name", "does not end as in .8h"),
        ("name: a\nkind: ratio\nobjective: 0.9\ntotal: hits{code=500}\nbad: b\n", 4, "total", "counter's selector"),
        ("name: a\nkind: ratio\nobjective: 0.9\ntotal: hits ++ misses\nbad: b\n", 4, "total", "counter's selector"),
        ("name: a\nkind: availability\nobjective: 0\n", 3, "objective", "above 0"),
        ("name: a\nkind: availability\nobjective: true\n", 3, "objective", "got True"),
        ("name: a\nkind: availability\nobjective: .nan\n", 3, "objective", "got nan"),
        ("name: a\nkind: availability\n", 1, "", "objective is missing"),
        ("kind: availability\nobjective: 0.9\n", 1, "", "name is missing"),
        ("name: a b\nkind: availability\nobjective: 0.9\n", 1, "name", "expected a name"),
        (one("objektive: 0.9\n"), 4, "objektive", "unknown field"),
        (one("classes: [car]\n"), 4, "classes", "unknown field of kind availability"),
        (one("period: 30\n"), 4, "period", "expected a duration"),
        (one("period: 1h\n"), 4, "period", "shorter than the window"),
        (one("events_per_hour: 0.001\n"), 4, "events_per_hour", "longer than the period"),
        (one("windows: []\n"), 4, "windows", "list of windows"),
        (
            one("windows:\n  - {notify: page, long: 1h, short: 5m}\n"),
            5,
            "windows[0]",
            "factor is missing",
        ),
        (
            one("windows:\n  - notify: page\n    long: 5m\n    short: 1h\n    factor: 2\n"),
            7,
            "windows[0].short",
            "longer than the long one",
        ),
        ("name: a\nkind: latency\nobjective: 0.9\nseconds: 0.3\n", 4, "seconds", "a bound of the histogram"),
        ("name: a\nkind: class_iou\nobjective: 0.9\niou: 0.5\nclasses: [car, car]\n", 5, "classes", "twice"),
        ("name: a\nkind: ratio\nobjective: 0.9\npreset: triton\n", 1, "service", "which triton service"),
        ("name: a\nkind: ratio\nobjective: 0.9\ntotal: x\n", 1, "", "one of good and bad"),
        ("name: a\nkind: ratio\nobjective: 0.9\ntotal: rate(x[5m])\nbad: y\n", 4, "total", "selector"),
        ("name: a\nname: b\n", 2, "", "name stands there twice"),
        (one("unreachable: refuse\n").replace("0.99", "0.8"), 3, "objective", "can never be seen"),
        ("slos: []\n", 1, "slos", "expected a list"),
        ("slos:\n  - name: a\n    kind: availability\n    objective: 2\n", 4, "slos[0].objective", "below 1, got 2"),
        ("a: [\n", 2, "", "not YAML"),
        ("- 1\n", 1, "", "expected an SLO"),
    ],
)
def test_a_bad_file_is_refused_by_line_and_field(
    tmp_path: Path, text: str, line: int, field: str, message: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        SloFiles([file])
    said = str(caught.value)
    assert said.startswith(f"{file}:{line}: {field}"), said
    assert message in said


def test_names_are_unique_over_all_files(tmp_path: Path) -> None:
    first, second = write(tmp_path, one("")), write(tmp_path, "\n" + one(""), "other.yaml")
    with pytest.raises(InputError, match=r"other.yaml:2: name: another SLO has the name 'a'"):
        SloFiles([first, second])


def test_a_class_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    files = SloFiles([write(tmp_path, EVERY_KIND)])
    files.check(check_classes, {"street": ["car", "bus", "tram"]})
    with pytest.raises(InputError, match=r"slo.yaml:5: slos\[2\].classes: .*no class 'bus'; it has car, tram"):
        files.check(check_classes, {"street": ["car", "tram"]})


def test_a_window_longer_than_retention_is_refused(tmp_path: Path) -> None:
    files = SloFiles([write(tmp_path, one("period: 30d\n"))])
    files.check(check_retention, 30 * 86_400)
    with pytest.raises(InputError, match=r"slo.yaml:4: period: SLO 'a': a window of 30d is longer than .*\(15d"):
        files.check(check_retention, 15 * 86_400)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * (1 << 20) + b"!", b"", b"&a [*a]", b"a: !!python/none x"])
def test_hostile_or_empty_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "slo.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"slo.yaml"):
        SloFiles([file])


def test_aliases_are_not_blown_up(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(InputError, match="too many"):
        SloFiles([write(tmp_path, "\n".join(lines))])


def test_schema_and_parser_agree(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    jsonschema.Draft202012Validator.check_schema(schema())
    tree = yaml.safe_load(EVERY_KIND)
    validator.validate(tree)
    for slo in tree["slos"]:
        validator.validate(slo)
        for field in [name for name in slo if name not in ("name", "kind")]:
            wrong: tuple[Any, ...] = ({"x": 1}, [], -1)
            for value in wrong:
                broken = {**slo, field: value}
                assert not validator.is_valid(broken), broken
                with pytest.raises(InputError):
                    SloFiles([write(tmp_path, json.dumps(broken))])
        assert not validator.is_valid({**slo, "unknown": 1})


def test_the_published_schema_is_the_current_one(checkout: Path) -> None:
    assert json.loads((checkout / "docs" / "slo.schema.json").read_text(encoding="utf-8")) == schema()


def test_bounds_are_those_of_the_histograms() -> None:
    assert kinds.LATENCY_BOUNDS == tallies.LATENCY_BUCKETS
    assert (*kinds.CONFIDENCE_BOUNDS, 1.0) == tallies.CONFIDENCE_BUCKETS
    assert (*kinds.IOU_BOUNDS, 1.0) == tallies.IOU_BUCKETS


def test_the_example_of_the_docs_is_read(tmp_path: Path, checkout: Path) -> None:
    page = (checkout / "docs" / "slo.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(slos:.*?)```", page, re.DOTALL)
    assert [slo.kind for slo in SloFiles([write(tmp_path, example)]).slos] == ["availability", "class_iou"]


def test_every_kind_and_field_is_in_the_docs(checkout: Path) -> None:
    page = (checkout / "docs" / "slo.md").read_text(encoding="utf-8")
    for kind, (_, fields, _) in KINDS.items():
        assert f"`{kind}`" in page
        for field in fields:
            assert f"`{field}`" in page, field
