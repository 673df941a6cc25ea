"""Alerts on segwatch itself: told to operations."""

from __future__ import annotations

from alerts import rules_alerting, rules_reading, rules_service
from alerts.installation import COUNT, SCRAPED, Installation
from alerts.rules import WHO, Entry, Links, alert
from alerts.slo.promql import quote

RECORDS = 'segwatch_records_total{model="street",version="1",outcome="ok"}'
FALLBACKS = "segwatch_backbone_fallbacks_total"
ON_CPU = 'segwatch_embedding_batches_total{device="cpu"}'
LATE = RECORDS.replace('"ok"', '"late"')


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


def service(links: Links, installation: Installation) -> list[Entry]:
    """segwatch: reachable, reading, keeping up, losing nothing."""
    up = f"up{{job={quote(installation.job)}}}"
    down = alert(
        links,
        "SegwatchDown",
        f"max by (job) ({up}) == 0 or absent({up})",
        notify="page",
        category="ops",
        summary="segwatch cannot be scraped: nobody watches the models.",
        description="No target of job {{ $labels.job }} has answered for 5 minutes, or there is none. No alert sees the"
        " models until one does; quality alerts that fired are held.",
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
    dead = alert(
        links,
        "SegwatchDeadLetters",
        "sum by (reason) (increase(segwatch_dead_letter_records_total[1h])) > 10",
        notify="ticket",
        category="ops",
        summary="Records cannot be read or understood.",
        description=f"{COUNT} records went to the dead letters in the last hour, because: {{{{ $labels.reason }}}}.",
    )
    dropped = alert(
        links,
        "SegwatchRecordsDropped",
        "sum by (reason) (increase(segwatch_dropped_records_total[1h])) > 0",
        notify="page",
        category="ops",
        summary="Records were lost before they could be read.",
        description=f"{COUNT} records were lost in the last hour, because: {{{{ $labels.reason }}}}"
        '{{ if eq $labels.reason "retention" }} (Kafka deleted them before they were read){{ end }}'
        '{{ if eq $labels.reason "unreadable" }} (their batch is damaged){{ end }}. They are not counted anywhere.',
    )
    late = alert(
        links,
        "SegwatchLateRecords",
        'sum by (model) (increase(segwatch_records_total{model!="",outcome="late"}[1h]))'
        ' / (sum by (model) (increase(segwatch_records_total{model!=""}[1h])) > 0) > 0.05',
        notify="ticket",
        category="ops",
        summary="Many records come too late to be counted.",
        description=f"{WHO}: {{{{ $value | humanizePercentage }}}} of the last hour's records were late (older than"
        " windows.allowed_lateness_seconds when Kafka got them), and are in no window.",
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
        # Counted when a worker starts, and true until it has ended: the CPU's batches say so.
        "sum(increase(segwatch_backbone_fallbacks_total[6h])) > 0"
        ' and sum(increase(segwatch_embedding_batches_total{device="cpu"}[1h])) > 0',
        notify="ticket",
        category="ops",
        summary="A backbone runs on the CPU although a GPU was asked for.",
        description=f"{COUNT} times in the last 6 hours a GPU was wanted for a backbone and the CPU was taken, and the"
        " CPU is in use: embedding is many times slower until a worker that has its GPU takes over.",
    )
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
        *rules_reading.entries(links, installation),
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
            {FALLBACKS: "0x60 1x400", ON_CPU: "0+1x460"},
            {FALLBACKS: "3x30 4x430", ON_CPU: "0+1x460"},
            "400m",
            also_silent=[
                {FALLBACKS: "0x60 1x400", ON_CPU: "0+1x300 300x160"},  # a worker with its GPU has taken over
                {FALLBACKS: "0x60 1x400", ON_CPU: "0x460", ON_CPU.replace("cpu", "cuda"): "0+1x460"},
            ],
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
        description=f"{COUNT} series are left out of /metrics"
        '{{ with query "max(segwatch_exported_series_limit)" }}, which has at most'
        ' {{ . | first | value | printf "%.0f" }} (web.max_series){{ end }}. Slices are left out first, then classes,'
        " then model versions.",
        wait="5m",
    )
    slices = alert(
        links,
        "SegwatchSlicesOmitted",
        "max by (model) (segwatch_omitted_slices) > 0",
        notify="ticket",
        category="ops",
        summary="/metrics leaves slices of a model out.",
        description=f"{WHO}: {COUNT} slices are left out of /metrics (web.max_slices); no alert sees them.",
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


def entries(links: Links, installation: Installation) -> list[Entry]:
    """All alerts that operations are told."""
    return [
        *service(links, installation),
        *cardinality(links),
        *rules_alerting.entries(links),
        *rules_service.entries(links),
    ]
