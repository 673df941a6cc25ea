"""Alerts on the parts of segwatch: devices, leader, settings, access, outbox; and on models that run out of memory."""

from __future__ import annotations

from alerts.installation import COUNT
from alerts.rules import WHO, Entry, Links, alert

OOM = 'segwatch_inference_status_total{model="street",version="1",status="oom"}'
BUSY = 'segwatch_embedding_busy_seconds_total{device="cuda"}'
BATCHES = 'segwatch_embedding_batches_total{device="cuda"}'
LEADERS = "segwatch_leaders"
RELOADED = 'segwatch_settings_reload_success{instance="segwatch"}'
REFUSED = 'segwatch_unauthorised_requests_total{code="401"}'
OLDEST = "segwatch_outbox_oldest_message_timestamp_seconds"
GIVEN_UP = 'segwatch_action_deliveries_total{receiver="trainer",outcome="given_up"}'
TAKEN = 'segwatch_actions_oldest_waiting_timestamp_seconds{receiver="trainer"}'
UNDELIVERED = 'segwatch_outbox_delivery_failures_total{topic="segwatch.actions"}'


def memory(links: Links) -> list[Entry]:
    """The models' services: a model that runs out of memory says so in its records."""
    oom = alert(
        links,
        "SegwatchInferenceOom",
        'sum by (model, version) (increase(segwatch_inference_status_total{status="oom"}[1h])) > 2',
        notify="ticket",
        category="ops",
        summary="A model runs out of memory.",
        description=f"{WHO}: {COUNT} inferences of the last hour ended with status oom (out of memory, as the model's"
        " own service says).",
    )
    other = OOM.replace('"oom"', '"timeout"')
    return [
        Entry(
            oom,
            {OOM: "0x100 0+1x3 3x30"},
            {OOM: "0x20 0+1x30 30x90", other: "0+1x200"},
            "130m",
            also_silent=[{OOM: "0x100 0+1x2 2x40"}],
        )
    ]


def devices(links: Links) -> list[Entry]:
    """Backbones: a batch has always the same size, so that its time says how fast the device is."""
    slow = alert(
        links,
        "SegwatchEmbeddingSlow",
        f"({_batch_seconds('[1h]', 20)}) / ({_batch_seconds('[1d] offset 1h', 0)}) > 2",
        notify="ticket",
        category="ops",
        summary="A backbone takes far longer for a batch than the day before.",
        description="On {{ $labels.device }} a batch of the last hour took {{ $value | humanize }} times as long"
        " as in the day before: ingest will fall behind where it was near its limit.",
        wait="15m",
    )
    # Two days and more at a batch a minute and 1 s each (or the first of them at 10 s); then an hour and a half.
    steady, before = "0+1x3000", 3000
    return [
        Entry(
            slow,
            # 25 batches an hour, 2.6 s each: more than twice the time, less than three times.
            {BATCHES: f"{steady} {before}+0.45x120", BUSY: "0+10x1500 15000+1x1500 16500+1.17x120"},
            {BATCHES: f"{steady} {before}+0.45x120", BUSY: f"{steady} {before}+0.8x120"},
            "3090m",
            also_fires=[
                # Slow for half an hour before the last hour: only the last one counts as now.
                {BATCHES: f"{steady} {before}+1x120", BUSY: "0+2x2940 5880+1x30 5910+4.2x150"},
            ],
            also_silent=[
                {BATCHES: f"{steady} {before}+0.3x120", BUSY: f"{steady} {before}+3x120"},
            ],
        )
    ]


def _batch_seconds(window: str, least: int) -> str:
    took, batches = (
        f"sum by (device) (increase(segwatch_embedding_{name}_total{window}))" for name in ("busy_seconds", "batches")
    )
    return f"{took} / ({batches} > {least})"


def leader(links: Links) -> list[Entry]:
    """One evaluator leads: none leaves windows unscored, two count labels twice."""
    none = alert(
        links,
        "SegwatchNoLeader",
        "max(segwatch_leaders) == 0",
        notify="page",
        category="ops",
        summary="No evaluator leads: windows are not scored, and labels not judged.",
        description='{{ with query "time() - max(segwatch_leader_timestamp_seconds)" }}The last one was heard of'
        " {{ . | first | value | humanizeDuration }} ago.{{ else }}None has been heard of for a day.{{ end }}",
        wait="5m",
    )
    two = alert(
        links,
        "SegwatchTwoLeaders",
        "max(segwatch_leaders) >= 2",
        notify="page",
        category="ops",
        summary="Several evaluators lead at the same time, or take turns.",
        description="{{ $value | humanize }} evaluators have claimed to lead within a minute, for 5 minutes on end.",
        wait="5m",
    )
    return [
        Entry(none, {LEADERS: "1x20 0x20"}, {LEADERS: "1x21 0x3 1x20"}),
        Entry(two, {LEADERS: "1x20 2x20"}, {LEADERS: "1x22 2x2 1x20"}, also_silent=[{LEADERS: "1x40"}]),
    ]


def web(links: Links) -> list[Entry]:
    """The web process: its settings, and who was sent away."""
    reload = alert(
        links,
        "SegwatchReloadFailed",
        "min by (instance) (segwatch_settings_reload_success) == 0",
        notify="ticket",
        category="ops",
        summary="segwatch runs on old settings: its last reload failed.",
        description="What is written in the settings is not what runs at {{ $labels.instance }}"
        '{{ with printf "time() - max(segwatch_settings_reload_timestamp_seconds{instance=%q})" $labels.instance'
        " | query }}: it runs on what was read {{ . | first | value | humanizeDuration }} ago{{ end }}.",
        wait="5m",
    )
    access = alert(
        links,
        "SegwatchUnauthorisedRequests",
        "sum by (code) (increase(segwatch_unauthorised_requests_total[15m])) > 30",
        notify="ticket",
        category="ops",
        summary="Many requests without the right to make them.",
        description=f"{COUNT} requests were refused in 15 minutes with status {{{{ $labels.code }}}}"
        '{{ if eq $labels.code "401" }} (no token, or a wrong one){{ end }}'
        '{{ if eq $labels.code "403" }} (not allowed, or from another site){{ end }}'
        '{{ if eq $labels.code "421" }} (under a name that segwatch does not answer to){{ end }}.',
    )
    return [
        Entry(reload, {RELOADED: "1x10 0x30"}, {RELOADED: "1x40"}),
        Entry(
            access,
            {REFUSED: "0x15 0+2.5x30"},
            {REFUSED: "0+40x10 400x40", REFUSED.replace("401", "403"): "0+1.5x40"},
        ),
    ]


def outbox(links: Links) -> list[Entry]:
    """Actions and dead letters on their way: what is not delivered triggers nothing."""
    stuck = alert(
        links,
        "SegwatchOutboxStuck",
        "time() - max(segwatch_outbox_oldest_message_timestamp_seconds) > 900",
        notify="page",
        category="ops",
        summary="Actions and dead letters are not delivered: nothing is triggered.",
        description="A message has waited for {{ $value | humanizeDuration }}"
        '{{ with query "max(segwatch_outbox_pending_messages)" }}, and {{ . | first | value | humanize }} wait'
        " in all{{ end }}. Messages are kept until they can be delivered.",
        wait="5m",
    )
    failing = alert(
        links,
        "SegwatchDeliveriesFailing",
        "sum by (topic) (increase(segwatch_outbox_delivery_failures_total[15m])) > 10",
        notify="ticket",
        category="ops",
        summary="Messages cannot be delivered.",
        description=f"{COUNT} attempts at delivering a message to {{{{ $labels.topic }}}} failed in 15 minutes."
        " Messages are kept, and tried again.",
    )
    return [
        Entry(stuck, {OLDEST: "0x60"}, {OLDEST: "600x60"}, "25m", also_silent=[{OLDEST: "0x10 _x30"}]),
        Entry(failing, {UNDELIVERED: "0x15 0+0.9x30"}, {UNDELIVERED: "0+40x10 400x40"}),
    ]


def receivers(links: Links) -> list[Entry]:
    """Actions on their way to those who act on them."""
    given_up = alert(
        links,
        "SegwatchActionsGivenUp",
        'sum by (receiver) (increase(segwatch_action_deliveries_total{outcome="given_up"}[1h])) > 0',
        notify="page",
        category="ops",
        summary="Actions never reached a receiver, and are not tried again.",
        description=f"{COUNT} actions for {{{{ $labels.receiver }}}} were given up in the last hour: what they"
        " asked for is not done unless somebody does it.",
    )
    waiting = alert(
        links,
        "SegwatchActionsWaiting",
        "time() - max by (receiver) (segwatch_actions_oldest_waiting_timestamp_seconds) > 3600",
        notify="ticket",
        category="ops",
        summary="An action waits for a receiver that does not take it.",
        description="Receiver {{ $labels.receiver }} has not taken an action for {{ $value | humanizeDuration }}"
        '{{ with printf "max(segwatch_actions_waiting{receiver=%q})" $labels.receiver | query }};'
        " {{ . | first | value | humanize }} wait for it{{ end }}. They are tried again until they are given up.",
        wait="5m",
    )
    other = GIVEN_UP.replace("given_up", "failed")
    return [
        Entry(
            given_up,
            {GIVEN_UP: "0x60 1x60"},
            {GIVEN_UP: "0x120", other: "0+1x120"},
            "100m",
            also_silent=[{GIVEN_UP: "0x10 1x110"}],
        ),
        Entry(waiting, {TAKEN: "0x90"}, {TAKEN: "3600x90"}, "75m", also_silent=[{TAKEN: "0x30 _x60"}]),
    ]


def entries(links: Links) -> list[Entry]:
    """All alerts of this file that are a matter of minutes; ``devices`` is one of hours."""
    return [*memory(links), *leader(links), *web(links), *outbox(links), *receivers(links)]
