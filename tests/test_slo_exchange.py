"""SLO files of OpenSLO and Sloth: ours come back with the same rules, theirs are read or refused by line and field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from alerts.rules import Links
from alerts.rules_defaults import default_slos
from alerts.slo import openslo, queries, sloth
from alerts.slo.kinds import SELECTOR
from alerts.slo.parse import parse
from alerts.slo.render import groups
from alerts.slo.spec import Ratio, Slo
from alerts.slo.write import to_dict
from monitor.cli import cli
from monitor.errors import CheckFailed, InputError
from monitor.slo_exchange import export_text, import_text
from monitor.slo_files import SloFiles
from tests.test_slo_files import EVERY_KIND

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
RATIOS = """
slos:
  - {name: Selectors.of_a, kind: ratio, objective: 0.999, total: 'a_total{x="1"} + b_total', bad: 'a_total{x="1"}'}
  - {name: good, kind: ratio, model: 'a model', objective: 0.95, total: 'h_count', good: 'h_bucket{le="0.25"}'}
  - {name: sums, kind: ratio, objective: 0.9, total: 'sum(increase(a[$window]))', bad: 'sum(increase(b[$window]))'}
  - {name: minutes, kind: ratio, objective: 0.9, total: 'count_over_time(up[$window])',
     bad: 'count_over_time((up == 0)[$window:1m])', guard: false, period: 28d, design_effect: 2.5, min_events: 9,
     description: 'Not "up", {{in}} words', hold: false, unreachable: refuse, blind_after: 2h, category: quality,
     windows: [{notify: page, long: 2h, short: 10m, factor: 3.5, critical_budget: 0.2}]}
  - {name: kserve, kind: ratio, preset: kserve_latency, service: street, objective: 0.99, model: '{{ street'}
"""
ALL = [*default_slos(), *parse(yaml.safe_load(EVERY_KIND)), *parse(yaml.safe_load(RATIOS))]
SHARES = [slo for slo in ALL if slo.bounded]
EXPRESSIONS = {
    "sum(rate(a{code=~'5..'}[{{.window}}]))": "a{code=~'5..'}",
    "(sum(increase(a[{{ .window }}]))) or vector(0)": "a",
    "sum(rate(a[{{.window}}])) OR on() vector(0)": "a",
    "sum(rate(a[{{.window}}])) + sum(rate(b[{{.window}}]))": "a + b",
    "(\n  sum(rate(a[{{.window}}]))  # all\n  -\n  sum(rate(b[{{.window}}]))\n)": (
        "sum(increase(a[$window])) - sum(increase(b[$window]))"
    ),
    'sum by (job) (rate(a{b="rate(c)"}[{{.window}}]))': 'sum by (job) (increase(a{b="rate(c)"}[$window]))',
    "0.5 * sum(rate(a[{{.window}}]))": "0.5 * sum(increase(a[$window]))",
    "sum(increase(a[{{.window}}])) / 2 > 1": "sum(increase(a[$window])) / 2 > 1",
    "count_over_time((up == 0)[{{.window}}:1m])": "count_over_time((up == 0)[$window:1m])",
}


def openslo_document(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "service": "shop",
        "indicator": {
            "metadata": {"name": "errors"},
            "spec": {
                "ratioMetric": {
                    "counter": True,
                    "good": metric('http_requests_total{code=~"2.."}'),
                    "total": metric("http_requests_total"),
                }
            },
        },
        "timeWindow": [{"duration": "4w", "isRolling": True}],
        "budgetingMethod": "Occurrences",
        "objectives": [{"targetPercent": 99.9}],
    }
    kept = {key: value for key, value in {**spec, **changes}.items() if value is not None}
    return {"apiVersion": "openslo/v1", "kind": "SLO", "metadata": {"name": "shop-errors"}, "spec": kept}


def metric(query: str) -> dict[str, Any]:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def ratio(**more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": {"ratioMetric": {"counter": False, **more}}}


def sloth_document(**changes: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": "availability",
        "objective": 99.9,
        "sli": {
            "events": {
                "error_query": 'sum(rate(http_requests_total{code=~"5.."}[{{.window}}]))',
                "total_query": "sum(rate(http_requests_total[{{.window}}]))",
            }
        },
        "alerting": {"name": "ShopErrors"},
        **changes,
    }
    return {"version": "prometheus/v1", "service": "shop", "slos": [entry]}


def events(error: str, total: str) -> dict[str, Any]:
    return {"events": {"error_query": error, "total_query": total}}


def read(tmp_path: Path, *trees: Any) -> SloFiles:
    file = tmp_path / "slo.yaml"
    file.write_text("---\n".join(yaml.safe_dump(tree, sort_keys=False) for tree in trees), encoding="utf-8")
    return SloFiles([file])


def rules(slo: Slo) -> list[dict[str, Any]]:
    return [rule.to_dict() for group in groups(slo, LINKS) for rule in group.rules]


@pytest.mark.parametrize("slo", ALL, ids=lambda slo: slo.name)
def test_an_slo_written_to_our_file_is_the_same_when_it_is_read(slo: Slo) -> None:
    (again,) = parse(yaml.safe_load(yaml.safe_dump(to_dict(slo))))
    assert again == replace(slo, path=())


@pytest.mark.parametrize("to", ["openslo", "sloth"])
def test_an_exported_slo_comes_back_with_the_same_rules(to: str, tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "theirs.yaml"
    text, count = export_text(ALL, to, said.append)
    assert count == len(SHARES)
    assert sum("has a limit, not a share" in line for line in said) == 2
    file.write_text(text, encoding="utf-8")
    back = {slo.name: slo for slo in SloFiles([file]).slos}
    assert list(back) and set(back) == {slo.name for slo in SHARES}
    for slo in SHARES:
        assert rules(back[slo.name]) == rules(slo)
        assert back[slo.name] == replace(slo, path=back[slo.name].path)


@pytest.mark.parametrize("to", ["openslo", "sloth"])
def test_without_our_annotation_the_queries_alone_keep_the_recorded_ratio(to: str) -> None:
    """What another tool would hand on: queries and objective."""
    for slo in SHARES:
        if not isinstance(slo.source, Ratio) or slo.name == "sums":  # sums of one counter are read as that counter
            continue
        if to == "openslo":
            documents, _ = openslo.write([slo])
            del documents[-1]["metadata"]["annotations"]
            (found,) = openslo.read(dict(enumerate(documents))).slos
        else:
            documents, _ = sloth.write([slo])
            del documents[0]["slos"][0]["alerting"]["annotations"]
            (found,) = sloth.read(documents[0], 0).slos
        assert found.source == slo.source
        assert found.objective == slo.objective


def test_an_exported_document_that_somebody_edited_says_what_it_now_says(tmp_path: Path) -> None:
    slo = replace(default_slos()[0], model="street", guard=False)
    (document,) = sloth.write([slo])[0]
    document["slos"][0] |= {"objective": 97.5, "name": "renamed"}
    (found,) = read(tmp_path, document).slos
    assert (found.name, found.objective, found.kind, found.guard) == ("renamed", 0.975, "availability", False)
    document["slos"][0]["sli"] = events("sum(rate(x[{{.window}}]))", "sum(rate(y[{{.window}}]))")
    files = read(tmp_path, document)
    assert files.slos[0].source == Ratio(total="y", bad="x")
    assert any("slos[0].sli: not kept: kind availability" in note for note in files.notes)
    document["slos"][0]["alerting"]["annotations"] = {"segwatch_slo": "{"}
    with pytest.raises(InputError, match=r"annotations.segwatch_slo: expected what segwatch slo export writes"):
        read(tmp_path, document)


def test_sloths_own_example_is_read(tmp_path: Path) -> None:
    told = {
        "name": "A",
        "labels": {"x": "y"},
        "page_alert": {"labels": {"z": "w"}},
        "ticket_alert": {"disable": True},
    }
    files = read(tmp_path, {**sloth_document(alerting=told), "labels": {"owner": "me"}})
    (slo,) = files.slos
    assert slo.name == "shop-availability"
    assert slo.model == "shop"
    assert slo.objective == 0.999
    assert slo.source == Ratio(total="http_requests_total", bad='http_requests_total{code=~"5.."}')
    assert {tier.notify for tier in slo.tiers} == {"page"}
    said = {note.partition("slo.yaml:")[2].split(": ")[1] for note in files.notes}
    alerting = "slos[0].alerting."
    assert said == {"labels", f"{alerting}name", f"{alerting}labels", f"{alerting}page_alert.labels"}


def test_errors_written_as_the_rest_become_good_events(tmp_path: Path) -> None:
    total = 'sum(rate(h_count{verb!="WATCH"}[{{.window}}]))'
    error = f'(\n  {total}\n  -\n  sum(rate(h_bucket{{le="0.4",verb!="WATCH"}}[{{{{.window}}}}]))\n)'
    (slo,) = read(tmp_path, sloth_document(sli=events(error, total))).slos
    assert slo.source == Ratio(total='h_count{verb!="WATCH"}', good='h_bucket{le="0.4",verb!="WATCH"}')


@pytest.mark.parametrize(("theirs", "ours"), EXPRESSIONS.items())
def test_queries_become_events_of_the_window(theirs: str, ours: str) -> None:
    assert queries.of_window(theirs) == ours


@given(st.lists(st.from_regex(r"[a-z]{1,5}(\{x=\"[a-z+ \-(){}#]{0,6}\"\})?", fullmatch=True), min_size=1, max_size=3))
def test_sums_of_counters_are_read_back(selectors: list[str]) -> None:
    plain = [one for one in selectors if SELECTOR.fullmatch(one)]
    if not plain:
        return
    text = " + ".join(f"sum(increase({one}[{{{{.window}}}}]))" for one in plain)
    assert queries.of_window(text) == " + ".join(plain)
    assert queries.counter(" + ".join(f"sum({one})" for one in plain)) == " + ".join(plain)


def test_openslo_documents_may_name_each_other(tmp_path: Path) -> None:
    sli = {"apiVersion": "openslo/v1", "kind": "SLI", "metadata": {"name": "errors"}}
    sli["spec"] = openslo_document()["spec"]["indicator"]["spec"]
    slo = openslo_document(indicator=None, indicatorRef="errors", description="Why.", alertPolicies=[{"x": 1}])
    service = {"apiVersion": "openslo/v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": {}}
    policy = {"apiVersion": "openslo/v1", "kind": "AlertPolicy", "metadata": {"name": "p"}, "spec": {}}
    files = read(tmp_path, slo, service, policy, sli)
    (found,) = files.slos
    assert (found.name, found.model, found.objective, found.description) == ("shop-errors", "shop", 0.999, "Why.")
    assert found.period_s == 28 * 86_400
    assert found.source == Ratio(total="http_requests_total", good='http_requests_total{code=~"2.."}')
    assert [note.partition("slo.yaml:")[2].partition(": not kept")[0] for note in files.notes] == [
        "25: kind",
        "15: spec.alertPolicies",
    ]


def test_each_objective_is_an_slo_of_its_own(tmp_path: Path) -> None:
    objectives = [{"target": 0.99}, {"displayName": "very good", "target": 0.999}]
    slos = read(tmp_path, openslo_document(objectives=objectives)).slos
    assert [(slo.name, slo.objective) for slo in slos] == [("shop-errors-1", 0.99), ("shop-errors-very-good", 0.999)]


def test_a_fixed_range_becomes_the_window_and_that_is_said(tmp_path: Path) -> None:
    indicator = ratio(bad=metric("sum(rate(bad_things[5m]))"), total=metric("sum(rate(things[5m]))"))
    files = read(tmp_path, openslo_document(indicator=indicator))
    assert files.slos[0].source == Ratio(total="things", bad="bad_things")
    assert sum("[5m] becomes each window" in note for note in files.notes) == 2


TOTAL = "sum(rate(a[{{.window}}]))"


@pytest.mark.parametrize(
    ("tree", "field", "message"),
    [
        ({**openslo_document(), "apiVersion": "openslo/v1alpha"}, "apiVersion", "expected openslo/v1, got"),
        ({**openslo_document(), "kind": "Slo"}, "kind", "unknown kind 'Slo'"),
        (openslo_document(budgetingMethod="Timeslices"), "spec.budgetingMethod", "expected Occurrences"),
        (openslo_document(objectives=[]), "spec.objectives", "a list of objectives"),
        (openslo_document(objectives=[{"target": 1.0}]), "spec.objectives[0].target", "below 1, got 1.0"),
        (openslo_document(objectives=[{"targetPercent": 100}]), "spec.objectives[0].targetPercent", "below 100"),
        (openslo_document(objectives=[{}]), "spec.objectives[0]", "one of target and targetPercent"),
        (openslo_document(timeWindow=[]), "spec.timeWindow", "a list of one"),
        (
            openslo_document(timeWindow=[{"duration": "1M", "isRolling": True}]),
            "spec.timeWindow[0].duration",
            "such as 30d, got '1M'",
        ),
        (
            openslo_document(timeWindow=[{"duration": "1d", "calendar": {"timeZone": "UTC"}}]),
            "spec.timeWindow[0]",
            "isRolling: true",
        ),
        (openslo_document(timeWindow=[{"duration": "1h", "isRolling": True}]), "spec.timeWindow", "shorter than"),
        (openslo_document(indicatorRef="x"), "spec", "one of indicator and indicatorRef"),
        (openslo_document(indicator=None, indicatorRef="x"), "spec.indicatorRef", "no SLI of the name 'x'"),
        (
            openslo_document(indicator={"spec": {"thresholdMetric": metric("x")}}),
            "spec.indicator.spec.thresholdMetric",
            "expected a ratioMetric",
        ),
        (
            openslo_document(indicator=ratio(raw=metric("x"), rawType="success")),
            "spec.indicator.spec.ratioMetric.raw",
            "already calculated",
        ),
        (
            openslo_document(indicator=ratio(total=metric(TOTAL))),
            "spec.indicator.spec.ratioMetric",
            "one of good and bad",
        ),
        (
            openslo_document(indicator=ratio(total=metric("a_total"), bad=metric("b_total"))),
            "spec.indicator.spec.ratioMetric.total.metricSource.spec.query",
            "a gauge counts no events",
        ),
        (
            openslo_document(indicator=ratio(total=metric("rate(a[5m]) - rate(a[1h])"), bad=metric(TOTAL))),
            "spec.indicator.spec.ratioMetric.total.metricSource.spec.query",
            "several ranges (1h, 5m)",
        ),
        (
            openslo_document(
                indicator=ratio(total=metric(TOTAL), bad={"metricSource": {"type": "Datadog", "spec": {"query": "x"}}})
            ),
            "spec.indicator.spec.ratioMetric.bad.metricSource.type",
            "expected Prometheus, got 'Datadog'",
        ),
        ({**sloth_document(), "version": "prometheus/v2"}, "version", "expected version: prometheus/v1"),
        ({"apiVersion": "sloth.slok.dev/v1", "kind": "PrometheusServiceLevel"}, "apiVersion", "sloth.slok.dev/v1"),
        ({"version": "prometheus/v1", "slos": [{}]}, "", "service is missing"),
        (sloth_document(objective=100), "slos[0].objective", "below 100, got 100"),
        (sloth_document(sli={"plugin": {"id": "x"}}), "slos[0].sli.plugin", "within Sloth"),
        (sloth_document(sli={"raw": {"error_ratio_query": "x"}}), "slos[0].sli.raw", "already calculated"),
        (sloth_document(sli={"denominator": {}}), "slos[0].sli.denominator", "unknown kind of SLI"),
        (sloth_document(sli={"events": {"error_query": "x"}}), "slos[0].sli.events", "total_query is missing"),
        (
            sloth_document(sli=events("sum(rate(a[5m]))", TOTAL)),
            "slos[0].sli.events.error_query",
            "expected {{.window}} in brackets",
        ),
        (
            sloth_document(sli=events("sum(rate(a[{{.window}}])) * {{.x}}", TOTAL)),
            "slos[0].sli.events.error_query",
            "a template other than",
        ),
        (
            sloth_document(sli=events("sum(increase(a[{{.window}}]))", TOTAL)),
            "slos[0].sli.events.error_query",
            "the other events a second",
        ),
        (
            sloth_document(sli=events("sum(rate(a[{{.window}}]) > 5)", TOTAL)),
            "slos[0].sli.events.error_query",
            "comparing or dividing rates",
        ),
        (
            sloth_document(sli=events(TOTAL, "rate(a[{{.window}}]) / rate(b[{{.window}}])")),
            "slos[0].sli.events.total_query",
            "comparing or dividing rates",
        ),
        (
            sloth_document(sli=events("1 - avg_over_time(up[{{.window}}])", TOTAL)),
            "slos[0].sli.events.error_query",
            "the other events a second",
        ),
        (
            sloth_document(sli=events("avg_over_time(x[{{.window}}])", "sum(count_over_time(up[{{.window}}]))")),
            "slos[0].sli.events.error_query",
            "avg_over_time gives no number of events",
        ),
        (
            sloth_document(alerting={"page_alert": {"disable": True}, "ticket_alert": {"disable": True}}),
            "slos[0].alerting",
            "both disabled",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_line_and_field(tmp_path: Path, tree: Any, field: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, tree)
    said = str(caught.value)
    place, _, rest = said.removeprefix(f"{tmp_path}/slo.yaml:").partition(": ")
    assert rest.startswith(f"{field}: " if field else message), said
    assert message in rest
    lines = (tmp_path / "slo.yaml").read_text(encoding="utf-8").splitlines()
    if field and not field.endswith("]"):
        assert field.rpartition(".")[2] in lines[int(place) - 1]


def test_an_sli_at_fault_is_named_where_it_stands(tmp_path: Path) -> None:
    sli = {"apiVersion": "openslo/v1", "kind": "SLI", "metadata": {"name": "e"}, "spec": {"thresholdMetric": {}}}
    with pytest.raises(InputError, match=r"slo.yaml:\d+: spec.thresholdMetric: expected a ratioMetric"):
        read(tmp_path, openslo_document(indicator=None, indicatorRef="e"), sli)


def test_a_name_that_would_begin_a_template_is_refused() -> None:
    slo = replace(default_slos()[0], model="{{ street")
    with pytest.raises(InputError, match="two braces"):
        export_text([slo], "sloth", print)


def test_names_that_would_become_one_are_refused() -> None:
    slos = [replace(default_slos()[0], name=name) for name in ("a.b", "a-b")]
    with pytest.raises(InputError, match="would both become a-b"):
        export_text(slos, "sloth", print)
    with pytest.raises(CheckFailed, match="no SLO could be exported"):
        export_text([slo for slo in ALL if not slo.bounded], "openslo", lambda _: None)


def test_a_document_of_another_form_than_asked_for_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(json.dumps(sloth_document()), encoding="utf-8")
    with pytest.raises(InputError, match=r"slo.yaml:1: expected a document of openslo"):
        import_text([file], "openslo", print)


def test_the_commands_write_files_and_say_what_is_lost(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(yaml.safe_dump({**sloth_document(), "labels": {"a": "b"}}), encoding="utf-8")
    done = CliRunner().invoke(cli, ["slo", "import", str(theirs), "--out", str(ours)])
    assert done.exit_code == 0, done.output
    assert "1 SLOs in" in done.output
    assert f"{theirs}:1: labels: not kept: it changes Sloth's rules only" in done.output
    assert [slo.name for slo in SloFiles([ours]).slos] == ["shop-availability"]
    done = CliRunner().invoke(cli, ["slo", "export", "--to", "openslo", "--slo", str(ours)])
    assert done.exit_code == 0, done.output
    assert [tree["kind"] for tree in yaml.safe_load_all(done.stdout)] == ["Service", "SLO"]
    # What `rules render --slo` reads: the documents themselves.
    assert rules(SloFiles([theirs]).slos[0]) == rules(SloFiles([ours]).slos[0])
