"""The 17 rules of Grafana's dashboard-linter, written anew from their description (docs/rules of that project).

Each rule gives what is wrong with a dashboard; none can be excluded. Where a rule covers some types of panels alone,
here it covers all that have queries. LogQL is not read: a query of Loki is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.promql_reading import selectors

Tree = dict[str, Any]
UNITS = set(
    "none string short percent percentunit s ms m h d dtdurations reqps rps ops cps wps iops cpm opm rpm wpm hertz"
    " bytes decbytes currencyUSD dateTimeAsIso dateTimeFromNow bool bool_yes_no bool_on_off sci locale".split()
)
"""Of Grafana's unit ids, those that may ever be of use here."""
RATES = ("rate", "irate")


def panels(board: Tree) -> Iterator[Tree]:
    """All but rows, those in collapsed rows too."""
    for panel in board.get("panels", []):
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def with_queries(board: Tree) -> Iterator[Tree]:
    return (panel for panel in panels(board) if panel["type"] != "text")


def targets(board: Tree) -> Iterator[tuple[Tree, Tree]]:
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel, target


def variables(board: Tree, kind: str = "") -> list[Tree]:
    return [one for one in board["templating"]["list"] if kind in ("", one["type"])]


def template_datasource(board: Tree) -> Iterator[str]:
    sources = variables(board, "datasource")
    if not sources:
        yield "no variable for the data source"
    for one in sources:
        kind = one["query"]
        names = {f"{kind}_datasource": f"{kind.title()} data source"}
        if len(sources) == 1:
            names["datasource"] = "Data source"
        if one["name"] not in names:
            yield f"the data source's variable is called {one['name']}"
        elif one["label"] not in names.values():
            yield f"the data source's variable is labelled {one['label']}"


def _template(name: str) -> Callable[[Tree], Iterator[str]]:
    def rule(board: Tree) -> Iterator[str]:
        found = [one for one in variables(board) if one["name"] == name]
        if not found:
            yield f"no variable {name}"
            return
        (one,) = found
        wanted = {"type": "query", "label": name.title(), "multi": True, "allValue": ".+"}
        yield from (f"{name}: {key} is {one.get(key)!r}" for key, value in wanted.items() if one.get(key) != value)
        if one.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
            yield f"{name} does not ask the chosen data source"

    return rule


def template_label_promql(board: Tree) -> Iterator[str]:
    for one in variables(board, "query"):
        match = re.fullmatch(r"(label_values|label_names|metrics|query_result)\((.+), \w+\)", str(one["query"]))
        if not match or not selectors(match[2]):
            yield f"{one['name']}: {one['query']} is no query of labels"


def template_reload(board: Tree) -> Iterator[str]:
    yield from (f"{one['name']} is not refreshed" for one in variables(board, "query") if one.get("refresh") != 2)


def panel_datasource(board: Tree) -> Iterator[str]:
    allowed = {text for one in variables(board, "datasource") for text in (f"${one['name']}", f"${{{one['name']}}}")}
    for panel in with_queries(board):
        for asked in (panel, *panel.get("targets", [])):
            if asked.get("datasource", {}).get("uid") not in allowed:
                yield f"{panel['title']} does not ask the chosen data source"


def panel_title_description(board: Tree) -> Iterator[str]:
    for panel in with_queries(board):
        if not panel.get("title") or not panel.get("description"):
            yield f"panel {panel['id']} has no title or no description"


def panel_units(board: Tree) -> Iterator[str]:
    for panel in with_queries(board):
        fields = panel.get("fieldConfig", {})
        own = [fields.get("defaults", {}).get("unit")]
        for override in fields.get("overrides", []):
            own += [one["value"] for one in override["properties"] if one["id"] == "unit"]
        if not set(own) <= UNITS:
            yield f"{panel['title']}: unit {own}"


def panel_no_targets(board: Tree) -> Iterator[str]:
    yield from (f"{panel['title']} asks nothing" for panel in with_queries(board) if not panel.get("targets"))


def target_logql(board: Tree) -> Iterator[str]:
    asked = [target.get("datasource", {}).get("type") for _, target in targets(board)]
    asked += [one["query"] for one in variables(board, "datasource")]
    yield from ("a query of Loki" for one in asked if one == "loki")


def target_logql_auto(board: Tree) -> Iterator[str]:
    for panel, target in targets(board):
        if re.match(r"\s*\{", target["expr"]) and "$__auto" not in target["expr"]:
            yield f"{panel['title']}: a query of logs"


def target_promql(board: Tree) -> Iterator[str]:
    """Here: something is asked, and brackets close. promtool reads the whole in a test of its own."""
    for panel, target in targets(board):
        expr = target.get("expr", "")
        if not selectors(expr) or any(expr.count(a) != expr.count(b) for a, b in ("()", "{}", "[]")):
            yield f"{panel['title']}: {expr!r}"


def target_rate_interval(board: Tree) -> Iterator[str]:
    for panel, target in targets(board):
        for one in selectors(target["expr"]):
            if one.range and one.range != "$__rate_interval" and one.within in RATES:
                yield f"{panel['title']}: {one.within} over {one.range}"
            if one.range == "$__rate_interval" and one.within not in (*RATES, "increase"):
                yield f"{panel['title']}: {one.within} over {one.range}"


def _target_matcher(label: str) -> Callable[[Tree], Iterator[str]]:
    def rule(board: Tree) -> Iterator[str]:
        for panel, target in targets(board):
            for one in selectors(target["expr"]):
                if (label, "=~", f"${label}") not in one.matchers:
                    yield f"{panel['title']}: {one.name} of any {label}"

    return rule


def target_counter_agg(board: Tree) -> Iterator[str]:
    for panel, target in targets(board):
        for one in selectors(target["expr"]):
            if one.name.endswith("_total") and not (one.range and one.within in (*RATES, "increase")):
                yield f"{panel['title']}: {one.name} as it stands"


def uneditable(board: Tree) -> Iterator[str]:
    if board.get("editable") is not False:
        yield "may be edited"


RULES: dict[str, Callable[[Tree], Iterator[str]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": _template("job"),
    "template-instance-rule": _template("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql_auto,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": _target_matcher("job"),
    "target-instance-rule": _target_matcher("instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard-rule": uneditable,
}
