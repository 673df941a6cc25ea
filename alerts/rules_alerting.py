"""Alerts on Prometheus and Alertmanager, by their own metrics: who tells that nobody is told."""

from __future__ import annotations

from alerts.installation import COUNT, SCRAPED
from alerts.rules import Entry, Links, alert

FAILED = 'alertmanager_notifications_failed_total{integration="email"}'
FAILED_WEBHOOK = FAILED.replace("email", "webhook")
DOWN = 'ALERTS{alertname="SegwatchDown",alertstate="firing",job="segwatch"}'
RELOAD = 'prometheus_config_last_reload_successful{job="prometheus",instance="a"}'


def entries(links: Links) -> list[Entry]:
    """All alerts of this file."""
    rules = alert(
        links,
        "SegwatchRulesFailing",
        'sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total{rule_group=~".*segwatch.*"}[5m])) > 0',
        notify="page",
        category="ops",
        summary="Rules of segwatch cannot be evaluated: their alerts are blind.",
        description=f"{COUNT} evaluations of {{{{ $labels.rule_group }}}} failed in 5 minutes: what it would alert on"
        " is not seen.",
    )
    missed = alert(
        links,
        "SegwatchRulesSlow",
        "sum by (rule_group)"
        ' (increase(prometheus_rule_group_iterations_missed_total{rule_group=~".*segwatch.*"}[15m])) > 0',
        notify="ticket",
        category="ops",
        summary="Rules of segwatch take longer than their interval.",
        description=f"{COUNT} evaluations of {{{{ $labels.rule_group }}}} were left out in 15 minutes: its alerts come"
        " late.",
    )
    unsent = alert(
        links,
        "SegwatchNotificationsFailing",
        # Alertmanager counts a failure when it has tried for a group_interval: of tickets one in 30 minutes. Webhooks
        # fail with segwatch, which takes actions by webhook; that is told by SegwatchDown, and counts until it is old.
        "sum(increase(prometheus_notifications_dropped_total[5m])) > 0"
        " or (sum by (integration) (increase(alertmanager_notifications_failed_total[35m])) > 0 unless on (integration)"
        ' label_replace(max(max_over_time(ALERTS{alertname="SegwatchDown"}[45m])), "integration", "webhook", "", ""))',
        notify="page",
        category="ops",
        summary="Alerts do not reach those whom they are for.",
        description=f"{{{{ with $labels.integration }}}}Alertmanager gave up {COUNT} notifications by {{{{ . }}}} in"
        ' the last 35 minutes, after trying again and again.{{ if eq . "webhook" }} Segwatch takes actions by webhook,'
        " too: check its token.{{ end }}{{ else }}"
        f"Prometheus dropped {COUNT} alerts in the last 5 minutes: no Alertmanager takes them.{{{{ end }}}}",
        wait="10m",
    )
    reload = alert(
        links,
        "SegwatchPrometheusReloadFailed",
        "min by (job, instance) (prometheus_config_last_reload_successful) == 0"
        " or min by (job, instance) (alertmanager_config_last_reload_successful) == 0",
        notify="ticket",
        category="ops",
        summary="Prometheus or Alertmanager runs on an old configuration: its last reload failed.",
        description="{{ $labels.job }} at {{ $labels.instance }}: new rules, routes and receivers are not in force"
        " until a reload succeeds.",
        wait="5m",
    )
    failures = (
        'prometheus_rule_evaluation_failures_total{rule_group="/etc/prometheus/rules/ops.rules.yml;segwatch-ops"}'
    )
    other = 'prometheus_rule_evaluation_failures_total{rule_group="/etc/prometheus/other.yml;other"}'
    scraped = {SCRAPED: "1x120"}
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
            {**scraped, "prometheus_notifications_dropped_total": "0x80 0+1x40"},
            # Alertmanager came up some minutes after Prometheus; a receiver was away for ten minutes, an hour ago.
            {**scraped, "prometheus_notifications_dropped_total": "0x88 0+1x3 3x30", FAILED: "0x30 0+1x10 10x90"},
            "100m",
            also_fires=[
                # Tickets: every half hour an attempt.
                {**scraped, FAILED: "0x20 1x30 2x30 3x40"},
                # segwatch was down an hour ago; the webhook still fails. Another alert than SegwatchDown is no excuse.
                {
                    **scraped,
                    FAILED_WEBHOOK: "0x60 0+1x60",
                    DOWN: "1x40 _x80",
                    DOWN.replace("Down", "DeadLetters"): "1x120",
                },
                # segwatch is down, and no mail goes out.
                {**scraped, FAILED: "0x60 0+1x60", DOWN: "1x120"},
            ],
            also_silent=[
                {**scraped, FAILED_WEBHOOK: "0x60 0+1x60", DOWN: "_x60 1x60"},
                {**scraped, FAILED_WEBHOOK: "0x60 0+1x30 30x30", DOWN: "_x60 1x30 _x30"},  # just over
                {**scraped, FAILED_WEBHOOK: "0x60 0+1x60", DOWN.replace("firing", "pending"): "_x80 1x40"},
            ],
        ),
        Entry(
            reload,
            {RELOAD: "0x40"},
            {RELOAD: "1x40", RELOAD.replace("prometheus", "alertmanager"): "1x40"},
            also_fires=[{RELOAD: "1x40", RELOAD.replace("prometheus", "alertmanager"): "0x40"}],
        ),
    ]
