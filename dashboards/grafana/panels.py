"""Panels in the few forms that the dashboards use, by grafana-foundation-sdk's builders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, text, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

SOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

GOOD, WARN, BAD, NEUTRAL = "blue", "orange", "red", "text"
"""Blue against orange and red can be told apart with any eyes; green against red cannot."""

Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from which value on which colour; None: from below."""
Panel = timeseries.Panel | stat.Panel | table.Panel | statetimeline.Panel | text.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and how its series are called. ``dashed``: a bound or an objective, beside what is measured."""

    expr: str
    legend: str = ""
    dashed: bool = False


def _steps(steps: Steps) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value, colour) for value, colour in steps])
    )


def _target(index: int, query: Query, *, instant: bool, as_table: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(SOURCE).expr(query.expr).ref_id(chr(ord("A") + index))
    target = target.instant() if instant else target.range()
    target.legend_format(query.legend or "__auto")
    return target.format(PromQueryFormat.TABLE if as_table else PromQueryFormat.TIME_SERIES)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Steps = (),
    width: int = 12,
    lowest: float = 0,
    highest: float | None = None,
    log: bool = False,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time. ``limits``: thresholds, drawn as dashed lines."""
    panel = timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel.span(width).height(8)
    if not log:
        panel.min(lowest)
    panel.line_width(1).fill_opacity(30 if stacked else 0).show_points(common.VisibilityMode.AUTO).span_nulls(False)
    panel.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    panel.legend(
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    if highest is not None:
        panel.max(highest)
    if log:
        panel.scale_distribution(common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10))
    if stacked:
        panel.stacking(common_builders.StackingConfig().group("A").mode(common.StackingMode.NORMAL))
    if limits:
        panel.thresholds(_steps([(None, "transparent"), *limits]))
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    for index, query in enumerate(queries):
        panel.with_target(_target(index, query, instant=False))
        if query.dashed:
            dashes = {"fill": "dash", "dash": [4, 6]}
            panel.override_by_query(chr(ord("A") + index), [dashboard.DynamicConfigValue("custom.lineStyle", dashes)])
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    steps: Steps = ((None, NEUTRAL),),
    words: Mapping[str, str] | None = None,
    width: int = 4,
    decimals: int | None = None,
    trend: bool = False,
    name: bool = False,
) -> stat.Panel:
    """One figure, or one for each series. ``words``: what is shown in place of a value; ``name``: the legend is."""
    panel = stat.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel.span(width).height(4).thresholds(_steps(steps)).no_value("no data")
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    panel.color_mode(common.BigValueColorMode.VALUE).text_mode(
        common.BigValueTextMode.NAME if name else common.BigValueTextMode.AUTO
    )
    panel.graph_mode(common.BigValueGraphMode.AREA if trend else common.BigValueGraphMode.NONE)
    panel.justify_mode(common.BigValueJustifyMode.AUTO).orientation(common.VizOrientation.AUTO)
    panel.wide_layout(True).show_percent_change(False)
    panel.percent_change_color_mode(common.PercentChangeColorMode.STANDARD)
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        panel.mappings([_words(words)])
    return panel.with_target(_target(0, query, instant=not trend))


def _words(words: Mapping[str, str]) -> dashboard.ValueMap:
    return dashboard.ValueMap({value: dashboard.ValueMappingResult(text=word) for value, word in words.items()})


def rows_of(
    title: str,
    description: str,
    unit: str,
    columns: Mapping[str, str],
    *,
    steps: Steps = ((None, NEUTRAL),),
    hide: Sequence[str] = (),
    width: int = 12,
    units: Mapping[str, str] | None = None,
    links: Mapping[str, tuple[str, str]] | None = None,
    sort: str = "",
) -> table.Panel:
    """A table with a row for each label set and a column for each query (name to PromQL). ``units``: by column.

    ``links``: by label, a title and an address, in which ``${__value.raw}`` stands for the cell.
    """
    panel = table.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel.span(width).height(8).thresholds(_steps(steps)).no_value("none").filterable(True)
    panel.show_header(True).cell_height(common.TableCellHeight.SM)
    if sort:
        panel.sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(False)])
    names = {}
    for index, (name, expr) in enumerate(columns.items()):
        panel.with_target(_target(index, Query(expr), instant=True, as_table=True))
        names[f"Value #{chr(ord('A') + index)}" if len(columns) > 1 else "Value"] = name
        if units and name in units:
            panel.override_by_name(name, [dashboard.DynamicConfigValue("unit", units[name])])
        if len(steps) > 1:
            coloured = [dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})]
            panel.override_by_name(name, coloured)
    for label, (words, url) in (links or {}).items():
        link = {"title": words, "url": url, "targetBlank": True}
        panel.override_by_name(label, [dashboard.DynamicConfigValue("links", [link])])
    if len(columns) > 1:
        panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    unwanted = dict.fromkeys(("Time", "job", "instance", "__name__", *hide), True)
    return panel.with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize", options={"excludeByName": unwanted, "indexByName": {}, "renameByName": names}
        )
    )


def states(
    title: str, description: str, query: Query, words: Mapping[str, tuple[str, str]], *, width: int = 12
) -> statetimeline.Panel:
    """What was when. ``words``: value to word and colour."""
    panel = statetimeline.Panel().title(title).description(description).datasource(SOURCE).unit("none")
    panel.span(width).height(8).show_value(common.VisibilityMode.NEVER).row_height(0.8).merge_values(True)
    panel.fill_opacity(80).line_width(0)
    panel.legend(
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs([])
    )
    panel.tooltip(
        common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE).sort(common.SortOrder.NONE)
    )
    shown = {value: dashboard.ValueMappingResult(text=word, color=colour) for value, (word, colour) in words.items()}
    panel.mappings([dashboard.ValueMap(shown)]).thresholds(_steps([(None, NEUTRAL)]))
    return panel.with_target(_target(0, query, instant=False))


def note(title: str, markdown: str, *, width: int = 24, height: int = 4) -> text.Panel:
    """Words and links."""
    panel = text.Panel().title(title).span(width).height(height)
    return panel.mode(TextMode.MARKDOWN).content(markdown)
