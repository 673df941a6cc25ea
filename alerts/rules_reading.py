"""Alerts on how Kafka is read."""

from __future__ import annotations

from alerts.installation import Installation
from alerts.rules import Entry, Links, alert
from alerts.slo.promql import quote

RECORDS = 'segwatch_records_total{model="street",version="1",outcome="ok"}'
LAG = 'segwatch_consumer_lag_records{topic="segwatch.predictions",partition="0"}'
LAG_SECONDS = 'segwatch_consumer_lag_seconds{topic="segwatch.predictions",partition="0"}'
OFFSET = 'segwatch_consumer_offset{topic="segwatch.predictions",partition="0"}'


def entries(links: Links, installation: Installation) -> list[Entry]:
    """Kafka is read, and as fast as records come.

    Neither alert trusts the lag in seconds alone: it is an age of events, so that bulk labels with old times have a
    large one, which grows while they are read as fast as can be. Offsets that move and fewer records that wait say so.
    """
    stalled = alert(
        links,
        "SegwatchIngestStalled",
        "count by (topic) ((segwatch_consumer_lag_seconds > 900"
        " or (segwatch_consumer_lag_records > 0 unless segwatch_consumer_lag_seconds))"
        " and changes(segwatch_consumer_offset[15m]) == 0)",
        notify="page",
        category="ops",
        summary="A topic is not read: what it holds is not counted.",
        description="Topic {{ $labels.topic }}: nothing has been read from {{ $value }} of its partitions in 15"
        ' minutes{{ with printf "max(segwatch_consumer_lag_seconds{topic=%q})" $labels.topic | query }}; what is'
        " counted ends {{ . | first | value | humanizeDuration }} ago{{ end }}."
        '{{ with printf "sum(segwatch_consumer_lag_records{topic=%q}) > 0" $labels.topic | query }} At least'
        " {{ . | first | value | humanize }} records wait.{{ end }} Nothing is lost until the topic's retention"
        " deletes it.",
        wait="5m",
        labels={"stream": _stream(installation.labels_topic)},
    )
    lag = alert(
        links,
        "SegwatchLagGrowing",
        "max by (topic) (segwatch_consumer_lag_seconds > 600 and deriv(segwatch_consumer_lag_seconds[15m]) > 0"
        " and deriv(segwatch_consumer_lag_records[15m]) >= 0)",
        notify="ticket",
        category="ops",
        summary="Ingest falls behind.",
        description="Topic {{ $labels.topic }} is read {{ $value | humanizeDuration }} late, and the delay grows"
        '{{ with printf "sum(segwatch_consumer_lag_records{topic=%q})" $labels.topic | query }}:'
        " {{ . | first | value | humanize }} records wait{{ end }}.",
        wait="10m",
    )
    dead_worker = {LAG_SECONDS: "0x4 0+60x40", LAG: "0x45", OFFSET: "0+9x4 36x40"}
    return [
        Entry(
            stalled,
            dead_worker,
            # Bulk labels of yesterday, of which more come than are read.
            {LAG_SECONDS: "86400+60x40", LAG: "0+500x40", OFFSET: "0+9x40"},
            "29m",
            also_fires=[
                # Labels are not read, while predictions are.
                {_of_labels(series): values for series, values in dead_worker.items()}
                | {LAG_SECONDS: "5x40", LAG: "0x40", OFFSET: "0+9x40", RECORDS: "0+9x40"},
                # One of two partitions.
                {**dead_worker, _other(LAG_SECONDS): "5x40", _other(LAG): "0x40", _other(OFFSET): "0+9x40"},
                # Nothing was ever read, so that nothing is known of times.
                {LAG: "50x40", OFFSET: "0x40"},
            ],
            also_silent=[
                {LAG_SECONDS: "5x40", LAG: "0x40", OFFSET: "36x40"},  # idle
                {LAG_SECONDS: "600x40", LAG: "50x40", OFFSET: "36x40"},
                {LAG: "0x40", OFFSET: "0x40"},
                {LAG_SECONDS: "9000+60x22 5x20", LAG: "50x22 0x20", OFFSET: "36x22 99x20"},  # over
            ],
        ),
        Entry(
            lag,
            {LAG_SECONDS: "600+5x60", LAG: "50x60"},
            {LAG_SECONDS: "2000-10x60", LAG: "50x60"},
            "35m",
            also_fires=[{LAG_SECONDS: "600+5x60", LAG: "50+9x60", _other(LAG_SECONDS): "5x60", _other(LAG): "0x60"}],
            also_silent=[
                {LAG_SECONDS: "1000+20x20 1400-9x40", LAG: "50x60"},
                {LAG_SECONDS: "86400+60x60", LAG: "90000+9x20 90180-500x40"},  # bulk labels, read
                {LAG_SECONDS: "86400+60x60", LAG: "0+500x14 7000-20x40"},  # ... as soon as they are all there
                # One partition is late and catches up, another is in time and a little later each time.
                {LAG_SECONDS: "2000-10x60", LAG: "50x60", _other(LAG_SECONDS): "5+1x60", _other(LAG): "1x60"},
            ],
        ),
    ]


def _stream(labels_topic: str) -> str:
    """Which kind of record the topic holds: where labels stand still, drift and availability go on."""
    return f"{{{{ if eq $labels.topic {quote(labels_topic)} }}}}labels{{{{ else }}}}predictions{{{{ end }}}}"


def _of_labels(series: str) -> str:
    return series.replace("segwatch.predictions", "segwatch.labels")


def _other(series: str) -> str:
    return series.replace('partition="0"', 'partition="1"')
