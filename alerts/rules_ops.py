"""Alerts on segwatch itself and on the Prometheus that watches it: told to operations."""

from __future__ import annotations

from alerts import rules_service
from alerts.rules import WHO, Entry, Links, alert

SCRAPED = 'up{job="segwatch",instance="segwatch"}'
RECORDS = 'segwatch_records_total{model="street",version="1",outcome="ok"}'
LATE = RECORDS.replace('"ok"', '"late"')
LAG = 'segwatch_consumer_lag_records{topic="segwatch.predictions",partition="0"}'
LAG_SECONDS = 'segwatch_consumer_lag_seconds{topic="segwatch.predictions",partition="0"}'


def watchdog(links: Links) -> Entry:
    """Fires always: whoever no longer hears it knows that alerting is broken."""
    rule = alert(
        links,
        "SegwatchWatchdog",
        "vector(1)",
        notify="watchdog",
        category="ops",
        summary="Alerting works: this alert always fires.",
        description="When it stops arriving, Prometheus, Alertmanager or the way between them is broken.",
    )
    return Entry(rule, {SCRAPED: "1x30"}, {})


def service(links: Links, job: str) -> list[Entry]:
    """segwatch: reachable, reading, keeping up, losing nothing."""
    up = f'up{{job="{job}"}}'
    down = alert(
        links,
        "SegwatchDown",
        f"max by (job) ({up}) == 0 or absent({up})",
        notify="page",
        category="ops",
        summary="segwatch cannot be scraped: nobody watches the models.",
        description="No target of job {{ $labels.job }} has answered for 5 minutes. Quality alerts are held.",
        wait="5m",
    )
    old = alert(
        links,
        "SegwatchTotalsOld",
        "time() - max(segwatch_totals_timestamp_seconds) > 300",
        notify="page",
        category="ops",
        summary="segwatch answers with old totals.",
        description="The totals on /metrics are {{ $value | humanizeDuration }} old: the store does not answer.",
        wait="5m",
    )
    stalled = alert(
        links,
        "SegwatchIngestStalled",
        "sum(segwatch_consumer_lag_records) > 0 and sum(increase(segwatch_records_total[15m])) == 0",
        notify="page",
        category="ops",
        summary="Records wait, and none is read.",
        description="{{ $value | humanize }} records wait to be read, and none was counted in 15 minutes.",
        wait="5m",
    )
    lag = alert(
        links,
        "SegwatchLagGrowing",
        "max by (topic) (segwatch_consumer_lag_seconds) > 600"
        " and max by (topic) (deriv(segwatch_consumer_lag_seconds[15m])) > 0",
        notify="ticket",
        category="ops",
        summary="Ingest falls behind.",
        description="Topic {{ $labels.topic }} is read {{ $value | humanizeDuration }} late, and the delay grows.",
        wait="10m",
    )
    dead = alert(
        links,
        "SegwatchDeadLetters",
        "sum by (reason) (increase(segwatch_dead_letter_records_total[1h])) > 10",
        notify="ticket",
        category="ops",
        summary="Records cannot be read or understood.",
        description="{{ $value | humanize }} records went to the dead letters in an hour: {{ $labels.reason }}.",
    )
    dropped = alert(
        links,
        "SegwatchRecordsDropped",
        "sum by (reason) (increase(segwatch_dropped_records_total[1h])) > 0",
        notify="page",
        category="ops",
        summary="Records were lost before they could be read.",
        description="{{ $value | humanize }} records were lost in an hour: {{ $labels.reason }}.",
    )
    late = alert(
        links,
        "SegwatchLateRecords",
        'sum by (model) (increase(segwatch_records_total{model!="",outcome="late"}[1h]))'
        ' / (sum by (model) (increase(segwatch_records_total{model!=""}[1h])) > 0) > 0.05',
        notify="ticket",
        category="ops",
        summary="Many records come too late to be counted.",
        description=f"{WHO}: {{{{ $value | humanizePercentage }}}} of the last hour's records were late.",
        wait="15m",
    )
    skew = alert(
        links,
        "SegwatchClockSkew",
        'max by (model) (segwatch_last_event_timestamp_seconds{model!=""}) - time() > 120',
        notify="ticket",
        category="ops",
        summary="Records come from the future: a clock is wrong.",
        description=f"{WHO}: its newest event is {{{{ $value | humanizeDuration }}}} ahead of Prometheus's clock.",
        wait="5m",
    )
    fallback = alert(
        links,
        "SegwatchGpuFallback",
        "increase(segwatch_backbone_fallbacks_total[1h]) > 0",
        notify="ticket",
        category="ops",
        summary="A backbone runs on the CPU although a GPU was asked for.",
        description="{{ $value | humanize }} times in an hour a GPU was wanted and the CPU taken.",
    )
    lag_example = {LAG: "50x40", RECORDS: "7x40"}
    return [
        Entry(
            down,
            {SCRAPED: "1x5 0x30"},
            {SCRAPED: "1x40", 'up{job="other",instance="a"}': "0x40"},
            "15m",
            also_fires=[{'up{job="other",instance="a"}': "1x40"}],
        ),
        Entry(
            old,
            {"segwatch_totals_timestamp_seconds": "0+60x10 600x30"},
            {"segwatch_totals_timestamp_seconds": "0+60x60"},
            "22m",
        ),
        Entry(
            stalled,
            lag_example,
            {LAG: "50x40", RECORDS: "0+1x40"},
            "25m",
            also_fires=[{LAG: "50x40", RECORDS: "0+1x4 4x40"}],
        ),
        Entry(
            lag,
            {LAG_SECONDS: "600+5x60"},
            {LAG_SECONDS: "2000-10x60"},
            "35m",
            also_silent=[{LAG_SECONDS: "1000+20x20 1400-9x40"}],
        ),
        Entry(
            dead,
            {'segwatch_dead_letter_records_total{reason="not_json"}': "0+0.22x180"},
            {'segwatch_dead_letter_records_total{reason="not_json"}': "0+0.1x180"},
            "160m",
        ),
        Entry(
            dropped,
            {'segwatch_dropped_records_total{reason="retention"}': "0x60 1x100"},
            {'segwatch_dropped_records_total{reason="retention"}': "4x30 5x140"},
            "110m",
        ),
        Entry(
            late,
            {RECORDS: "0+1000x10 10000+14x200", LATE: "0+1x210"},
            {RECORDS: "0+24x210", LATE: "0+1x210"},
            "110m",
            also_silent=[{RECORDS: "0+14x210", LATE: "0+9x40 360x170"}],
        ),
        Entry(
            skew,
            {'segwatch_last_event_timestamp_seconds{model="street",version="1"}': "150+60x40"},
            {'segwatch_last_event_timestamp_seconds{model="street",version="1"}': "100+60x40"},
        ),
        Entry(
            fallback,
            {"segwatch_backbone_fallbacks_total": "0x60 1x100"},
            {"segwatch_backbone_fallbacks_total": "3x30 4x140"},
            "110m",
        ),
    ]


def cardinality(links: Links) -> list[Entry]:
    """What /metrics leaves out, and what it soon will."""
    near = alert(
        links,
        "SegwatchSeriesNearLimit",
        "max(segwatch_exported_series) / max(segwatch_exported_series_limit) > 0.9",
        notify="ticket",
        category="ops",
        summary="/metrics is near its limit of series.",
        description="{{ $value | humanizePercentage }} of web.max_series are used; beyond, slices are left out first.",
        wait="15m",
    )
    omitted = alert(
        links,
        "SegwatchSeriesOmitted",
        "max(segwatch_omitted_series) > 0",
        notify="ticket",
        category="ops",
        summary="/metrics leaves series out: SLOs may miss classes or versions.",
        description="{{ $value | humanize }} series are left out of /metrics.",
        wait="5m",
    )
    slices = alert(
        links,
        "SegwatchSlicesOmitted",
        "max by (model) (segwatch_omitted_slices) > 0",
        notify="ticket",
        category="ops",
        summary="/metrics leaves slices of a model out.",
        description=f"{WHO}: {{{{ $value | humanize }}}} slices are left out of /metrics (web.max_slices).",
        wait="1h",
    )
    limit = "segwatch_exported_series_limit"
    return [
        Entry(
            near,
            {"segwatch_exported_series": "960x40", limit: "1000x40"},
            {"segwatch_exported_series": "850x40", limit: "1000x40"},
        ),
        Entry(omitted, {"segwatch_omitted_series": "1x40"}, {"segwatch_omitted_series": "0x40"}),
        Entry(
            slices,
            {'segwatch_omitted_slices{model="street"}': "1x90"},
            {'segwatch_omitted_slices{model="street"}': "0x90"},
            "80m",
        ),
    ]


def prometheus(links: Links) -> list[Entry]:
    """Prometheus and Alertmanager, by their own metrics."""
    rules = alert(
        links,
        "SegwatchRulesFailing",
        'sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total{rule_group=~".*segwatch.*"}[5m])) > 0',
        notify="page",
        category="ops",
        summary="Rules of segwatch cannot be evaluated: their alerts are blind.",
        description="{{ $value | humanize }} evaluations of {{ $labels.rule_group }} failed in 5 minutes.",
    )
    missed = alert(
        links,
        "SegwatchRulesSlow",
        "sum by (rule_group)"
        ' (increase(prometheus_rule_group_iterations_missed_total{rule_group=~".*segwatch.*"}[15m])) > 0',
        notify="ticket",
        category="ops",
        summary="Rules of segwatch take longer than their interval.",
        description="{{ $value | humanize }} evaluations of {{ $labels.rule_group }} were left out in 15 minutes.",
    )
    unsent = alert(
        links,
        "SegwatchNotificationsFailing",
        "sum(increase(prometheus_notifications_dropped_total[15m])) > 0"
        " or sum(increase(alertmanager_notifications_failed_total[15m])) > 0",
        notify="page",
        category="ops",
        summary="Alerts do not reach people.",
        description="{{ $value | humanize }} notifications were lost in 15 minutes.",
    )
    reload = alert(
        links,
        "SegwatchPrometheusReloadFailed",
        "min(prometheus_config_last_reload_successful) == 0",
        notify="ticket",
        category="ops",
        summary="Prometheus runs on an old configuration: its last reload failed.",
        description="New rules are not in force until a reload succeeds.",
        wait="5m",
    )
    failures = (
        'prometheus_rule_evaluation_failures_total{rule_group="/etc/prometheus/rules/ops.rules.yml;segwatch-ops"}'
    )
    other = 'prometheus_rule_evaluation_failures_total{rule_group="/etc/prometheus/other.yml;other"}'
    slow = failures.replace("rule_evaluation_failures", "rule_group_iterations_missed")
    return [
        Entry(rules, {failures: "0x27 0+1x10"}, {failures: "0x20 5x40", other: "0+1x40"}),
        Entry(
            missed,
            {slow: "0x20 0+1x20"},
            {slow: "0x10 5x60", other.replace("rule_evaluation_failures", "rule_group_iterations_missed"): "0+1x40"},
        ),
        Entry(
            unsent,
            {"prometheus_notifications_dropped_total": "0x20 0+1x20"},
            {
                "prometheus_notifications_dropped_total": "0x10 9x40",
                "alertmanager_notifications_failed_total": "0x10 9x40",
            },
            also_fires=[{"alertmanager_notifications_failed_total": "0x20 0+1x20"}],
        ),
        Entry(
            reload,
            {"prometheus_config_last_reload_successful": "0x40"},
            {"prometheus_config_last_reload_successful": "1x40"},
        ),
    ]


def entries(links: Links, job: str) -> list[Entry]:
    """All alerts that operations are told."""
    return [*service(links, job), *cardinality(links), *prometheus(links), *rules_service.entries(links)]
