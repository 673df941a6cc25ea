"""Is it good, and what does it cost? For somebody who looks once a week."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.frame import Row, build
from dashboards.grafana.panels import BAD, GOOD, WARN, Panel, Query, graph, note, number, rows_of
from dashboards.grafana.promql import increase, of, rate, share

MODEL = "model"
COUNTED = 'outcome=~"ok|failed"'
LEFT = "segwatch:dashboard_slo_budget_remaining:ratio"
INTERVAL = (
    "Bounds are the means of the classes' 95 % bounds: wider than an interval of the mean would be. No line where no"
    " class has enough labels."
)


def mean_iou(bound: str) -> str:
    """Mean over classes of pooled IoU from spot checks, of each model version."""
    chosen = of("segwatch_iou_ratio", MODEL, 'estimator="spotcheck"', f'bound="{bound}"')
    return f"avg by (model, version) ({chosen})"


def executive(pages: str) -> Dashboard:
    """The dashboard of whoever pays for the models."""
    return build(
        "segwatch-executive",
        "segwatch / Executive",
        "Is it good, and what does it cost?",
        [
            Row("At a glance", _glance()),
            Row("Quality", _quality(pages)),
            Row("Service levels", _slos()),
            Row("Volume and cost", _cost()),
        ],
        pages=pages,
        variables=["model"],
        since="30d",
        refresh="5m",
    )


def _glance() -> list[Panel]:
    cost = increase("segwatch_cost_usd_total", MODEL)
    records = increase("segwatch_records_total", MODEL, COUNTED)
    met = f"avg({of(LEFT, MODEL)} >= bool 0)"
    return [
        number(
            "Objectives met",
            "Share of service level objectives whose error budget is not used up, over all models and classes.",
            "percentunit",
            Query(met),
            steps=[(None, BAD), (0.9, WARN), (1, GOOD)],
        ),
        number(
            "Mean IoU",
            "Mean over classes of pooled IoU from spot checks, of the version that is worst.",
            "percentunit",
            Query(f"min({mean_iou('point')})"),
            decimals=1,
        ),
        number(
            "Models with drift",
            "Models whose last window differs from the baseline so that it is no chance. Drift need not be harmful.",
            "short",
            Query(f"sum(max by (model) ({of('segwatch_drift_alarm', MODEL)}))"),
            steps=[(None, GOOD), (1, WARN)],
        ),
        number("Inferences", "Inferences counted in the time range.", "short", Query(records)),
        number(
            "Cost",
            "What the models' services reported for the time range.",
            "currencyUSD",
            Query(cost),
            decimals=2,
        ),
        number(
            "Cost per inference",
            "Cost over inferences of the time range.",
            "currencyUSD",
            Query(share(cost, records)),
            decimals=6,
        ),
    ]


def _quality(pages: str) -> list[Panel]:
    by_class = of("segwatch_iou_ratio", MODEL, 'estimator="spotcheck"', 'bound="point"')
    return [
        graph(
            "Mean IoU with its interval",
            f"Mean over classes of pooled IoU from spot checks. {INTERVAL}",
            "percentunit",
            Query(mean_iou("point"), "{{model}} {{version}}"),
            Query(mean_iou("lower"), "{{model}} {{version}} at least", dashed=True),
            Query(mean_iou("upper"), "{{model}} {{version}} at most", dashed=True),
            highest=1,
        ),
        graph(
            "Worst classes",
            "The five classes with the lowest pooled IoU from spot checks.",
            "percentunit",
            Query(f"bottomk(5, min by (model, class) ({by_class}))", "{{model}} {{class}}"),
            highest=1,
        ),
        note(
            "Mean average precision",
            "mAP is computed with its interval where it is asked for and is no series: see"
            f" [segwatch's pages]({pages}) or `segwatch quality`.",
            height=3,
        ),
    ]


def _slos() -> list[Panel]:
    objective, good = (f"segwatch:dashboard_slo_{name}:ratio" for name in ("objective", "good"))
    worst = "min by (slo, kind, model, class, period)"
    return [
        rows_of(
            "Objectives",
            "Of each objective, over its period: what was promised, what was kept, and how much of the error budget is"
            " left (0: used up; below 0: overspent). Limits of cost have no share of good events.",
            "percentunit",
            {
                "Promised": f"{worst} ({of(objective, MODEL)})",
                "Kept": f"{worst} ({of(good, MODEL)})",
                "Budget left": f"{worst} ({of(LEFT, MODEL)})",
            },
            steps=[(None, BAD), (0, WARN), (0.25, GOOD)],
        ),
        graph(
            "Error budget left",
            "1: untouched; 0: used up. The worst class of each objective and model.",
            "percentunit",
            Query(f"clamp_min(min by (slo, model) ({of(LEFT, MODEL)}), -1)", "{{slo}} {{model}}"),
            limits=[(0, BAD), (0.25, WARN)],
            lowest=-1,
            highest=1,
        ),
    ]


def _cost() -> list[Panel]:
    cost = rate("segwatch_cost_usd_total", MODEL, by="model")
    records = rate("segwatch_records_total", MODEL, COUNTED, by="model")
    return [
        graph("Inferences a second", "Inferences a second, by model.", "reqps", Query(records, "{{model}}"), width=8),
        graph("Cost per day", "At the present rate.", "currencyUSD", Query(f"{cost} * 86400", "{{model}}"), width=8),
        graph(
            "Cost per inference over time",
            "Cost over inferences, by model.",
            "currencyUSD",
            Query(share(cost, records), "{{model}}"),
            width=8,
        ),
    ]
