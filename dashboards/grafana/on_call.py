"""What is wrong, since when, and what was released? For whoever is woken at night."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from alerts.slo.windows import TIERS
from dashboards.grafana.frame import FIRING, Row, build
from dashboards.grafana.panels import BAD, GOOD, NEUTRAL, WARN, Panel, Query, graph, note, number, rows_of, states
from dashboards.grafana.promql import eq, of, quantile, rate, share

VERSION = ("model", "version")
BY = "model, version"
NAMES = "{{model}} {{version}}"
COUNTED = 'outcome=~"ok|failed"'
LATENCY = "segwatch_inference_latency_seconds"
BURN = "segwatch:dashboard_slo_burn_rate:ratio"
OBJECTIVE = "segwatch:dashboard_slo_objective:ratio"


def on_call(pages: str) -> Dashboard:
    """The dashboard that alerts link to."""
    return build(
        "segwatch-on-call",
        "segwatch / On-call",
        "What is wrong, since when, and what was released?",
        [
            Row("Alerts", _alerts(pages)),
            Row("Service", _service()),
            Row("Error budgets", _budgets()),
            Row("Drift and releases", _changes()),
        ],
        pages=pages,
        variables=VERSION,
        since="6h",
        refresh="30s",
    )


def _alerts(pages: str) -> list[Panel]:
    firing = of(FIRING, 'alertname!="SegwatchWatchdog"', "model")
    return [
        number(
            "Pages",
            "Alerts that fire and wake somebody.",
            "short",
            Query(f"count({of(FIRING, 'model', eq('notify', 'page'))}) or vector(0)"),
            steps=[(None, GOOD), (1, BAD)],
            width=3,
        ),
        number(
            "Tickets",
            "Alerts that fire and can wait for the morning.",
            "short",
            Query(f"count({of(FIRING, 'model', eq('notify', 'ticket'))}) or vector(0)"),
            steps=[(None, GOOD), (1, WARN)],
            width=3,
        ),
        number(
            "Heartbeat",
            "The watchdog always fires. Where it does not, rules are not evaluated, and no alert says anything.",
            "none",
            Query(f"max({of(FIRING, eq('alertname', 'SegwatchWatchdog'))}) or vector(0)"),
            steps=[(None, BAD), (1, GOOD)],
            words={"0": "silent", "1": "beats"},
            width=3,
        ),
        number(
            "Since the last event",
            "Age of the newest event of the model that has been silent for longest.",
            "s",
            Query(f"max(time() - max by (model) ({of('segwatch_last_event_timestamp_seconds', *VERSION)}))"),
            width=3,
        ),
        note(
            "Next",
            f"A click on an alert opens its runbook, on a model its samples and windows. [All models]({pages}/) ·"
            f" [Budgets]({pages}/slo) · [Actions]({pages}/actions) · [Canary]({pages}/canary) ·"
            f" [Runbooks]({pages}/runbooks)",
            width=12,
        ),
        rows_of(
            "Firing alerts",
            "All alerts that fire, pages first. Each has a runbook of its name.",
            "short",
            {"Firing": firing},
            hide=("Firing", "severity"),
            sort="notify",
            links={
                "alertname": ("Runbook", f"{pages}/runbooks/${{__value.raw}}.md"),
                "model": ("Samples and windows", f"{pages}/?model=${{__value.raw:percentencode}}"),
            },
            width=24,
        ),
    ]


def _service() -> list[Panel]:
    status = "segwatch_inference_status_total"
    failed = rate("segwatch_records_total", *VERSION, 'outcome="failed"', by=BY)
    counted = rate("segwatch_records_total", *VERSION, COUNTED, by=BY)
    allowed = f"1 - max by (model) ({of(OBJECTIVE, 'model', eq('kind', 'availability'))})"
    return [
        graph(
            "Latency",
            "Quantiles of what the model's service reported, interpolated within buckets.",
            "s",
            *(Query(quantile(q / 100, LATENCY, *VERSION, by=BY), f"P{q} {NAMES}", q == 50) for q in (99, 95, 50)),
        ),
        graph(
            "Failed inferences",
            "Share of inferences that did not end with status ok. Dashed: what the availability objective allows.",
            "percentunit",
            Query(share(failed, counted), NAMES),
            Query(allowed, "{{model}} allowed", dashed=True),
        ),
        graph(
            "Failures by kind",
            "Inferences a second that ended with an error, a timeout or for lack of memory.",
            "reqps",
            Query(rate(status, *VERSION, 'status!="ok"', by="model, status"), "{{model}} {{status}}"),
            stacked=True,
        ),
        graph(
            "Inferences by version",
            "Inferences a second: where a release takes over.",
            "reqps",
            Query(counted, NAMES),
            stacked=True,
        ),
    ]


def _budgets() -> list[Panel]:
    factors = sorted({tier.factor for tier in TIERS if tier.notify == "page" and not tier.critical_budget})
    left = of("segwatch:dashboard_slo_budget_remaining:ratio", "model")
    spans = (("short", False), ("long", True))
    return [
        graph(
            "Burn rates",
            "How many times faster than allowed an error budget is spent, by the worst class of each objective, in the"
            " shortest and (dashed) the longest window of its alerts; lines at the factors of pages."
            " Objectives below 93 % page earlier, see the rules.",
            "short",
            *(
                Query(
                    f"max by (slo, model, window) ({of(BURN, 'model', eq('span', span))})",
                    "{{slo}} {{model}} {{window}}",
                    dashed,
                )
                for span, dashed in spans
            ),
            limits=[(factor, BAD) for factor in factors],
        ),
        graph(
            "Error budget left",
            "1: untouched; 0: used up. The worst class of each objective and model.",
            "percentunit",
            Query(f"clamp_min(min by (slo, model) ({left}), -1)", "{{slo}} {{model}}"),
            limits=[(0, BAD), (0.1, WARN)],
            lowest=-1,
            highest=1,
        ),
    ]


def _changes() -> list[Panel]:
    alarm = of("segwatch_drift_alarm", *VERSION)
    return [
        states(
            "Drift alarms",
            "Whether any signal of the last closed window was alarmed, in any slice.",
            Query(f"max by (model, version) ({alarm})", NAMES),
            {"0": ("no drift", GOOD), "1": ("drift", WARN)},
        ),
        states(
            "Harm",
            "What the last closed window says of harm to the model.",
            Query(
                f"max by (model, version) ({of('segwatch_drift_harm', *VERSION, eq('harm', 'likely'))}) * 2"
                f" + max by (model, version) ({of('segwatch_drift_harm', *VERSION, eq('harm', 'unknown'))})",
                NAMES,
            ),
            {"0": ("unlikely", GOOD), "1": ("unknown", NEUTRAL), "2": ("likely", BAD)},
        ),
        states(
            "Canaries",
            "Verdict on each watched canary against its stable version.",
            Query(of("segwatch_canary_score", "model"), "{{model}} {{version}} against {{stable}}"),
            {"-1": ("roll back", BAD), "0": ("go on", NEUTRAL), "1": ("promote", GOOD)},
        ),
        graph(
            "Lag",
            "Age of the moment up to which the slowest partition has been read. Newer records are in no figure yet.",
            "s",
            Query(f"max by (topic) ({of('segwatch_consumer_lag_seconds')})", "{{topic}}"),
        ),
    ]
