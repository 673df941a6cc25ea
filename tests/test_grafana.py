"""Grafana's dashboards: what is committed is what is rendered, keeps the linter's rules, and asks for what there is."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from alerts.installation import Installation
from alerts.rules import Links
from alerts.rules_defaults import default_slos, rule_files
from dashboards.grafana.render import DASHBOARDS, PAGES, render
from monitor.cli import cli
from monitor.exposition import Family
from monitor.metrics import FAMILIES
from tests.grafana_lint import RULES, Tree, panels, targets, variables, with_queries
from tests.promql_reading import selectors
from tests.real.component import unavailable

BOARDS: dict[str, Tree] = {name: json.loads(text) for name, text in render().items()}
OF_PROMETHEUS = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
UIDS = {"segwatch-executive", "segwatch-on-call", "segwatch-debug", "segwatch-itself"}
"""Alerts and bookmarks point to them."""


def each_board(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("name", BOARDS)(function)  # type: ignore[no-any-return]


def exprs(board: Tree) -> list[str]:
    """All queries of a dashboard, annotations' too."""
    of_panels = [target["expr"] for _, target in targets(board)]
    return of_panels + [one["target"]["expr"] for one in board["annotations"]["list"]]


def test_what_is_committed_is_what_is_rendered(checkout: Path) -> None:
    committed = {
        path.name: path.read_text(encoding="utf-8") for path in (checkout / "dashboards/grafana").glob("*.json")
    }
    assert committed == render(), "run: segwatch dashboards render --out dashboards/grafana"


@each_board
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_grafanas_linter_holds(rule: str, name: str) -> None:
    assert list(RULES[rule](BOARDS[name])) == []


def test_there_are_17_rules() -> None:
    assert len(RULES) == 17


def first(board: Tree) -> Tree:
    return next(with_queries(board))


def ask(board: Tree, expr: str) -> None:
    first(board)["targets"][0]["expr"] = expr


def variable(board: Tree, name: str, **changes: Any) -> None:
    next(one for one in variables(board) if one["name"] == name).update(changes)


FAULTS: dict[str, Callable[[Tree], None]] = {
    "template-datasource-rule": lambda board: variable(board, "datasource", label="Source"),
    "template-job-rule": lambda board: variable(board, "job", allValue=".*"),
    "template-instance-rule": lambda board: variable(board, "instance", multi=False),
    "template-label-promql-rule": lambda board: variable(board, "job", query="labels(up, job)"),
    "template-on-time-change-reload-rule": lambda board: variable(board, "job", refresh=1),
    "panel-datasource-rule": lambda board: first(board).update(datasource={"uid": "prometheus"}),
    "panel-title-description-rule": lambda board: first(board).update(description=""),
    "panel-units-rule": lambda board: first(board)["fieldConfig"]["defaults"].update(unit="apples"),
    "panel-no-targets-rule": lambda board: first(board).update(targets=[]),
    "target-logql-rule": lambda board: first(board)["targets"][0]["datasource"].update(type="loki"),
    "target-logql-auto-rule": lambda board: ask(board, '{job=~"$job"} |= "error"'),
    "target-promql-rule": lambda board: ask(board, 'sum(up{job=~"$job"}'),
    "target-rate-interval-rule": lambda board: ask(board, 'rate(x_total{job=~"$job"}[5m])'),
    "target-job-rule": lambda board: ask(board, 'up{instance=~"$instance",job="$job"}'),
    "target-instance-rule": lambda board: ask(board, 'up{job=~"$job"}'),
    "target-counter-agg-rule": lambda board: ask(board, 'sum(x_total{job=~"$job",instance=~"$instance"})'),
    "uneditable-dashboard-rule": lambda board: board.update(editable=True),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_its_fault(rule: str) -> None:
    board = copy.deepcopy(BOARDS["on-call.json"])
    FAULTS[rule](board)
    assert list(RULES[rule](board))


def test_uids_are_those_that_others_point_to() -> None:
    assert {board["uid"] for board in BOARDS.values()} == UIDS


@each_board
def test_a_dashboard_has_a_time_range_a_refresh_and_links_to_the_others(name: str) -> None:
    board = BOARDS[name]
    assert board["time"]["from"].startswith("now-") and board["time"]["to"] == "now"
    assert re.fullmatch(r"\d+[sm]", board["refresh"])
    assert board["tags"] == ["segwatch"]
    links = {one["type"]: one for one in board["links"]}
    assert links["dashboards"]["tags"] == ["segwatch"] and links["dashboards"]["keepTime"]
    assert links["link"]["url"].startswith(PAGES)


@each_board
def test_panels_have_their_own_ids_and_places(name: str) -> None:
    every = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken = set()
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@each_board
def test_titles_and_descriptions_are_sentences_of_their_own(name: str) -> None:
    titles = [panel["title"] for panel in panels(BOARDS[name])]
    assert len(set(titles)) == len(titles)
    for panel in with_queries(BOARDS[name]):
        assert panel["description"].endswith("."), panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))


@each_board
def test_alerts_and_releases_are_annotations(name: str) -> None:
    assert [one["name"] for one in BOARDS[name]["annotations"]["list"]] == ["Alerts", "Releases"]
    assert all(one["enable"] and not one["hide"] for one in BOARDS[name]["annotations"]["list"])


def exported(family: Family) -> set[str]:
    """Names of a family's series in Prometheus."""
    if family.kind == "histogram":
        return {f"{family.name}_{end}" for end in ("bucket", "count", "sum")}
    return {family.series_name}


def labels_of() -> dict[str, set[str]]:
    """The labels that each exported series has."""
    return {
        name: {*family.labels, "job", "instance", *(["le"] if name.endswith("_bucket") else [])}
        for family in FAMILIES
        for name in exported(family)
    }


def recorded() -> set[str]:
    files = rule_files(default_slos(), Links("r", "p"))
    return {rule.record for file in files for group in file.groups for rule in group.rules if rule.record}


@each_board
def test_every_series_that_is_asked_for_exists_with_its_labels(name: str) -> None:
    known, rules = labels_of(), recorded()
    queries = [*exprs(BOARDS[name]), *(one["query"] for one in variables(BOARDS[name], "query"))]
    for expr in queries:
        for one in selectors(
            expr.removeprefix("label_values(").rpartition(", ")[0] if expr.startswith("label_v") else expr
        ):
            assert one.name in known or one.name in rules | OF_PROMETHEUS, one.name
            if one.name in known:
                assert {label for label, _, _ in one.matchers} <= known[one.name], one


@each_board
def test_a_variable_that_is_asked_for_is_there_and_each_is_asked_for(name: str) -> None:
    board = BOARDS[name]
    text = json.dumps([board["panels"], board["annotations"]])
    used = set(re.findall(r"\$\{?(?!__)([a-z]\w*)", text))
    assert used == {one["name"] for one in variables(board)}


def chosen(expr: str) -> str:
    """With Grafana's variables filled in, as for a scrape interval of 15 s."""
    for name, value in {"__rate_interval": "1m", "__range": "6h", "__interval": "15s"}.items():
        expr = expr.replace(f"${name}", value)
    return re.sub(r"\$\{?(\w+)\}?", ".*", expr)


@each_board
def test_prometheus_can_read_every_query(name: str, tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    rules = [{"record": f"query{index}", "expr": chosen(expr)} for index, expr in enumerate(exprs(BOARDS[name]))]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [tool, "check", "rules", "queries.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def check_schema(checkout: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [checkout / "tools/check-dashboards", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 2:
        unavailable("Grafana's schema", done.stderr.strip().splitlines()[-1])
    return done


@pytest.mark.slow
def test_grafanas_own_schema_is_kept(checkout: Path) -> None:
    done = check_schema(checkout)
    assert done.returncode == 0, done.stdout
    assert f"{len(DASHBOARDS)} dashboards keep" in done.stdout


SCHEMA_FAULTS: list[tuple[tuple[Any, ...], object]] = [
    (("options", "colorMode"), "rainbow"),
    (("options", "sizeOfText"), 3),
    (("targets", 0, "expr"), 7),
    (("gridPos", "w"), "wide"),
    (("fieldConfig", "defaults", "unitt"), "s"),
]


@pytest.mark.slow
def test_grafanas_schema_finds_faults(checkout: Path, tmp_path: Path) -> None:
    for index, (path, value) in enumerate(SCHEMA_FAULTS):
        board = copy.deepcopy(BOARDS["on-call.json"])
        inner: Any = first(board)
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        (tmp_path / f"fault{index}.json").write_text(json.dumps(board))
    done = check_schema(checkout, *sorted(tmp_path.glob("*.json")))
    assert done.returncode == 1
    found = set(re.findall(r"^(fault\d)\.mts\(.*error TS", done.stdout, flags=re.MULTILINE))
    assert len(found) == len(SCHEMA_FAULTS), done.stdout


def test_links_to_pages_lead_somewhere(checkout: Path) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (checkout / "dashboards").glob("*.py")]
    served = {path for text in sources for path in re.findall(r'router\.get\("(/\w*)', text)}
    linked = {path for text in render().values() for path in re.findall(rf"{PAGES}(/\w*)", text)}
    assert linked and linked <= served, linked - served


def test_the_compose_files_grafana_is_given_these_dashboards(checkout: Path) -> None:
    compose = yaml.safe_load((checkout / "docker-compose.yml").read_text())["services"]
    (provider,) = yaml.safe_load((checkout / "deploy/grafana/dashboards/segwatch.yml").read_text())["providers"]
    assert f"./dashboards/grafana:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
    assert provider["allowUiUpdates"] is False
    asked = (checkout / "tools/check-dashboards").read_text()
    assert f"schema={compose['grafana']['image'].rpartition(':')[2]} " in asked, "the schema is of another Grafana"
    to = next(one.partition("=")[2] for one in compose["rules"]["command"] if one.startswith("--dashboard="))
    assert to.rpartition("/")[2] in UIDS
    assert f"--pages={PAGES}" in compose["rules"]["command"]


def test_the_command_writes_them_with_links_to_the_pages(tmp_path: Path) -> None:
    command = ["dashboards", "render", "--out", str(tmp_path / "new"), "--pages", "https://segwatch.example/"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0 and "4 files" in done.output
    text = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir())
    assert "https://segwatch.example/" in text and PAGES not in text and "example//" not in text


def test_an_unwritable_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli, ["dashboards", "render", "--out", str(tmp_path / "file" / "folder")])
    assert done.exit_code != 0 and "--out" in str(done.exception)


@pytest.mark.parametrize("instance", ["segwatch", "web:8600"])
def test_rules_give_what_dashboards_choose_by(instance: str) -> None:
    (file,) = [
        one
        for one in rule_files(default_slos(), Links("r", "p"), Installation("watch", instance))
        if one.name == "dashboards"
    ]
    for group in file.groups:
        assert len(group.rules) <= 20
        for rule in group.rules:
            assert rule.labels["job"] == "watch" and rule.labels["instance"] == instance


def test_the_rules_of_dashboards_pass_their_own_tests(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    (file,) = [one for one in rule_files(default_slos(), Links("r", "p")) if one.name == "dashboards"]
    for name, text in file.render().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [tool, "test", "rules", "dashboards.rules_test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
