"""What all dashboards share: variables, links to each other, annotations, and where panels stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models import dashboard

from dashboards.grafana.panels import SOURCE, Panel
from dashboards.grafana.promql import of

TAG: Final = "segwatch"
FIRING: Final = "segwatch:dashboard_alerts:firing"
ALL: Final = dashboard.VariableOption(text=["All"], value=["$__all"], selected=True)

CHOICES: Final = {
    "model": of("segwatch_records_total", 'model!=""'),
    "version": of("segwatch_records_total", "model", 'version!=""'),
    "class": of("segwatch_spotcheck_instances_total", "model", "version"),
    "slice": of("segwatch_drift_window_records", "model", "version"),
}
"""Where a variable's values come from. What has no such label (an SLO of a whole model) is shown whatever is chosen."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right and on."""

    title: str
    panels: Sequence[Panel]


def build(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    *,
    pages: str,
    variables: Sequence[str],
    since: str,
    refresh: str,
) -> dashboard.Dashboard:
    """A dashboard. ``variables``: names of ``CHOICES``; ``pages``: address of segwatch's pages."""
    made = builders.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    made.time(f"now-{since}", "now").refresh(refresh).timezone("browser").tooltip(
        dashboard.DashboardCursorSync.CROSSHAIR
    )
    made.with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    made.with_variable(_choice("job", "segwatch_build_info", ".+"))
    made.with_variable(_choice("instance", 'segwatch_build_info{job=~"$job"}', ".+"))
    for name in variables:
        made.with_variable(_choice(name, CHOICES[name], ".*"))
    made.link(
        builders.DashboardLink("Dashboards")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
        .icon("external link")
    )
    made.link(
        builders.DashboardLink("segwatch's pages")
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"{pages}/")
        .tooltip("Samples, windows and why: what has no series")
        .icon("doc")
        .target_blank(True)
    )
    for annotation in _annotations("model" in variables):
        made.annotation(annotation)
    _place(made, rows)
    return made.build()


def _choice(name: str, selector: str, everything: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({selector}, {name})")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(ALL)
    )


def _annotations(of_models: bool) -> list[builders.AnnotationQuery]:
    """Alerts that page, and releases: a version that was not there a step before, of a model that was."""
    chosen = ["model"] if of_models else []
    seen = of("segwatch_last_event_timestamp_seconds", *chosen)
    firing = of(FIRING, *chosen, 'notify=~"page|ticket"')
    now = f"group by (model, version) ({seen})"
    known = f"group by (model, version) (last_over_time({seen}[1d] offset $__interval))"
    had = f"group by (model) (last_over_time({seen}[1d] offset $__interval))"
    return [
        _annotation("Alerts", f"max by (alertname, model, class, notify) ({firing})", "red")
        .title_format("{{alertname}}")
        .text_format("{{notify}} {{model}} {{class}}")
        .tag_keys("notify"),
        _annotation("Releases", f"{now} unless {known} and on (model) {had}", "blue")
        .title_format("{{model}} version {{version}}")
        .text_format("first event"),
    ]


def _annotation(name: str, expr: str, colour: str) -> builders.AnnotationQuery:
    target = prometheus.Dataquery().datasource(SOURCE).expr(expr).interval("60s").range().ref_id("Anno")
    return builders.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).target(target)


def _place(made: builders.Dashboard, rows: Sequence[Row]) -> None:
    """Numbers panels in their order: ids are unique, and stay while the order does."""
    number = 0
    for row in rows:
        number += 1
        made.with_row(builders.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(panel.id(number))
