"""What `segwatch rules render` writes: every alert says what to do, and every mutation is noticed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from alerts.rules import MARK, Entry, Group, Links, RuleFile
from alerts.rules_defaults import catalogue, default_slos, rule_files
from alerts.slo.parse import parse
from alerts.slo.spec import Slo
from monitor.cli import cli
from monitor.settings import Settings
from monitor.store.store import Store
from tests.real.component import unavailable
from tests.rule_mutations import mutations
from tests.seeded_store import seed
from tests.slo_mutants import file_of, mutants, survivors
from tests.test_slo_files import EVERY_KIND

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
ENTRIES = [entry for entries in catalogue(LINKS).values() for entry in entries]
SLOS = [*default_slos(), *parse(yaml.safe_load(EVERY_KIND))]
PRESETS = [
    {"name": preset, "kind": "ratio", "preset": preset, "service": "street", "objective": 0.99}
    for preset in ("kserve", "kserve_latency", "torchserve", "ray_serve")
]
OWN = {
    "name": "own",
    "kind": "ratio",
    "objective": 0.99,
    "total": "sum(increase(http_requests_total[$window]))",
    "bad": 'sum(increase(http_requests_total{code=~"5.."}[$window]))',
}


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    return subprocess.run([tool, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def write(folder: Path, file: RuleFile) -> None:
    for name, text in file.render().items():
        (folder / name).write_text(text, encoding="utf-8")


def invoke(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in a folder without settings or a store."""
    command = [sys.executable, "-c", "from monitor.cli import main; main()", *arguments]
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_promtool_accepts_all_rules(tmp_path: Path) -> None:
    more = [*parse({"slos": [*PRESETS, OWN]}), *SLOS]
    for file in rule_files(more, LINKS):
        write(tmp_path, file)
    files = sorted(path.name for path in tmp_path.glob("*.rules.yml"))
    done = promtool(tmp_path, "check", "rules", *files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(catalogue(LINKS)))
def test_alerts_fire_and_stay_silent_as_their_tests_say(name: str, tmp_path: Path) -> None:
    (file,) = [one for one in rule_files([], LINKS) if one.name == name]
    write(tmp_path, file)
    done = promtool(tmp_path, "test", "rules", f"{name}.rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("slo", [*SLOS, *parse({"slos": PRESETS})], ids=lambda slo: slo.name)
def test_rendered_tests_of_every_kind_and_preset_pass(slo: Slo, tmp_path: Path) -> None:
    file = rule_files([slo], LINKS)[0]
    assert len(file.cases) >= 3
    write(tmp_path, file)
    tests = sorted(path.name for path in tmp_path.glob("*.rules_test.yml"))
    assert len(tests) == 5  # by how seldom rules are evaluated
    for name in tests:
        done = promtool(tmp_path, "test", "rules", name)
        assert done.returncode == 0, done.stdout + done.stderr


def all_alerts() -> Iterator[dict[str, object]]:
    for file in rule_files(SLOS, LINKS):
        for group in file.groups:
            yield from (rule.to_dict() for rule in group.rules if rule.alert)


def test_alerts_carry_the_labels_and_annotations_of_the_contract() -> None:
    for tree in all_alerts():
        labels, annotations = tree["labels"], tree["annotations"]
        assert isinstance(labels, dict) and isinstance(annotations, dict)
        assert labels["severity"] in ("critical", "warning", "info")
        assert labels["notify"] in ("page", "ticket", "watchdog")
        assert (labels["severity"] == "critical") == (labels["notify"] == "page")
        assert labels["category"] in ("quality", "drift", "ops")
        assert labels.get("action", "relabel") in ("relabel", "retrain", "rollback")
        assert set(annotations) == {"summary", "description", "runbook_url", "page_url", "dashboard_url"}
        assert "{{" not in annotations["summary"] and annotations["summary"].endswith(".")


def test_drift_alone_is_a_ticket_to_label_and_pages_only_with_quality() -> None:
    labels: dict[str, Any] = {str(tree["alert"]): tree["labels"] for tree in all_alerts()}
    assert "input" in labels["SegwatchDrift"].pop("shift")
    for name in ("SegwatchDrift", "SegwatchDriftEarly"):
        assert labels[name] == {"severity": "warning", "notify": "ticket", "category": "drift", "action": "relabel"}
    assert labels["SegwatchDriftHarmful"]["notify"] == "page"


def test_every_alert_has_its_runbook_and_every_runbook_its_alert(checkout: Path) -> None:
    folder = checkout / "docs" / "runbooks"
    alerts = {str(tree["alert"]) for tree in all_alerts()}
    assert {path.stem for path in folder.glob("*.md")} - {"README"} == alerts
    index = (folder / "README.md").read_text(encoding="utf-8")
    for name in alerts:
        text = (folder / f"{name}.md").read_text(encoding="utf-8")
        parts = re.split(r"^## ", text, flags=re.MULTILINE)
        assert parts[0].startswith(f"# {name}\n")
        assert [part.splitlines()[0] for part in parts[1:]] == ["Meaning", "First three checks", "Remedies"], name
        steps = re.findall(r"^(\d)\. .*\n\n?   ```", parts[2], flags=re.MULTILINE)
        assert steps == ["1", "2", "3"], name
        assert f"({name}.md)" in index
    for tree in all_alerts():
        assert tree["annotations"]["runbook_url"].endswith(f"/{tree['alert']}.md")  # type: ignore[index]


def test_rules_use_only_series_that_are_documented(checkout: Path) -> None:
    page = (checkout / "docs" / "metrics.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`(segwatch_\w+)`", page)) | {"segwatch_slo_info", "segwatch_slo_objective_ratio"}
    for file in rule_files(SLOS, LINKS):
        for group in file.groups:
            for rule in group.rules:
                for name in re.findall(r"(?<![:\w])segwatch_[a-z_0-9]+", rule.expr):
                    assert name in known or re.sub("_(bucket|count|sum)$", "", name) in known, (rule.expr, name)


def test_render_removes_what_is_no_longer_there_and_leaves_the_users_files(tmp_path: Path) -> None:
    out = tmp_path / "rules"
    (tmp_path / "slo.yaml").write_text("name: mine\nkind: availability\nobjective: 0.9\n", encoding="utf-8")
    out.mkdir()
    (out / "own.rules.yml").write_text("groups: []\n", encoding="utf-8")
    first = invoke("rules", "render", "--out", "rules", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "above 60% bad events: 14.4 times the budget would be 288%" in first.stderr
    assert (out / "slo-default-availability.rules.yml").read_text(encoding="utf-8").startswith(MARK)
    second = invoke("rules", "render", "--out", "rules", "--slo", "slo.yaml", folder=tmp_path)
    assert second.returncode == 0, second.stderr
    names = {path.name for path in out.iterdir()}
    assert {"slo-mine.rules.yml", "slo-mine.rules_test.yml", "own.rules.yml", "ops.rules.yml"} <= names
    assert not any("default" in name for name in names)


def test_a_bad_slo_file_ends_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text("name: mine\nkind: availability\nobjective: 1.0\n", encoding="utf-8")
    done = invoke("rules", "render", "--out", "rules", "--slo", "slo.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "segwatch: slo.yaml:3: objective: expected a number above 0 and below 1, got 1.0\n"
    assert not (tmp_path / "rules").exists()
    late = invoke("rules", "render", "--out", "rules", "--retention", "15d", "--slo", "slo.yaml", folder=tmp_path)
    assert late.returncode == 2


def test_a_class_that_the_models_baseline_lacks_is_refused_where_there_is_a_store(tmp_path: Path) -> None:
    slo = "name: a\nkind: class_recall\nobjective: 0.9\nmodel: street\nclasses: [car, tram]\n"
    (tmp_path / "slo.yaml").write_text(slo, encoding="utf-8")
    without = invoke("rules", "render", "--out", "rules", "--slo", "slo.yaml", folder=tmp_path)
    assert without.returncode == 0
    assert "class names are not checked" in without.stderr
    store = Store.open(Settings(data_dir=str(tmp_path / ".segwatch")), write=True)
    seed(store)
    store.close()
    done = invoke("rules", "render", "--out", "rules", "--slo", "slo.yaml", folder=tmp_path)
    assert done.returncode == 2
    said = "slo.yaml:5: classes: SLO 'a': model 'street' has no class 'tram'; it has car, person"
    assert said in done.stderr


def test_check_finds_a_broken_rule(tmp_path: Path) -> None:
    (file,) = [one for one in rule_files([], LINKS) if one.name == "watchdog"]
    write(tmp_path, file)
    assert invoke("rules", "check", "--dir", ".", folder=tmp_path).returncode == 0
    rules = tmp_path / "watchdog.rules.yml"
    rules.write_text(rules.read_text(encoding="utf-8").replace("vector(1)", "vector(1) > 2"), encoding="utf-8")
    done = invoke("rules", "check", "--dir", ".", folder=tmp_path)
    assert done.returncode == 1
    assert "FAIL promtool test rules watchdog.rules_test.yml" in done.stdout
    assert done.stderr == "segwatch: promtool finds fault with watchdog.rules_test.yml\n"


def test_schema_is_printed(checkout: Path) -> None:
    done = CliRunner().invoke(cli, ["rules", "schema"])
    assert done.output == (checkout / "docs" / "slo.schema.json").read_text(encoding="utf-8")


MUTANTS = [
    pytest.param(entry, changed, id=f"{entry.rule.alert}: {what}")
    for entry in ENTRIES
    if entry.rule.alert != "SegwatchWatchdog"
    for what, changed in mutations(entry.rule.expr)
]


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "changed"), MUTANTS)
def test_every_mutation_of_an_alert_fails_its_tests(entry: Entry, changed: str, tmp_path: Path) -> None:
    rule = replace(entry.rule, expr=changed)
    interval = "5m" if entry in catalogue(LINKS)["blindness"] else "1m"
    write(tmp_path, RuleFile("mutant", [Group("mutant", [rule], interval)], entry.cases()))
    assert promtool(tmp_path, "check", "rules", "mutant.rules.yml").returncode == 0, changed
    assert promtool(tmp_path, "test", "rules", "mutant.rules_test.yml").returncode == 1, changed


@pytest.mark.slow
def test_mutations_of_the_rules_of_an_slo_fail_its_tests(tmp_path: Path) -> None:
    """A sample; bench/bench_slo_mutation.py tries all mutants of an SLO of each kind."""
    if shutil.which("promtool") is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    (slo,) = (one for one in SLOS if one.name == "iou")
    file = file_of(slo)
    sample = mutants(slo, file)[::9]
    assert len(sample) >= 15
    assert not survivors(file, sample, tmp_path / "mutant")
