"""Is segwatch well? What is wrong here is wrong in all other dashboards too."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.frame import Row, build
from dashboards.grafana.panels import BAD, GOOD, NEUTRAL, WARN, Panel, Query, graph, number
from dashboards.grafana.promql import increase, of, rate, share


def itself(pages: str) -> Dashboard:
    """The dashboard of whoever runs segwatch."""
    return build(
        "segwatch-itself",
        "segwatch / Itself",
        "Is segwatch well? What is wrong here is wrong in all other dashboards too.",
        [
            Row("At a glance", _glance()),
            Row("Reading", _reading()),
            Row("Evaluating and delivering", _evaluating()),
            Row("Labels", _labels()),
            Row("This page of metrics", _page()),
        ],
        pages=pages,
        variables=[],
        since="6h",
        refresh="30s",
    )


def _glance() -> list[Panel]:
    lost = [increase(f"segwatch_{name}_records_total") for name in ("dead_letter", "dropped")]
    return [
        number(
            "Scraped",
            "Whether Prometheus reaches segwatch.",
            "none",
            Query(f"min({of('up')})"),
            steps=[(None, BAD), (1, GOOD)],
            words={"0": "down", "1": "up"},
        ),
        number("Version", "Of the web process that serves the metrics.", "none", _version(), name=True),
        number(
            "Leaders",
            "Evaluators that have led within the last minute: 1 is right; 2 for a minute after a change.",
            "short",
            Query(f"max({of('segwatch_leaders')})"),
            steps=[(None, BAD), (1, GOOD), (2, WARN)],
        ),
        number(
            "Lag",
            "Age of the moment up to which the slowest partition has been read.",
            "s",
            Query(f"max({of('segwatch_consumer_lag_seconds')})"),
            steps=[(None, GOOD), (300, WARN), (900, BAD)],
        ),
        number(
            "Records lost",
            "Records of the time range that could not be counted (dead letters) or read (dropped).",
            "short",
            Query(" + ".join(lost)),
            steps=[(None, GOOD), (1, WARN)],
        ),
        number(
            "Settings",
            "Whether the web process's last reload of its settings went well.",
            "none",
            Query(f"min({of('segwatch_settings_reload_success')})"),
            steps=[(None, BAD), (1, GOOD)],
            words={"0": "reload failed", "1": "in force"},
        ),
    ]


def _version() -> Query:
    return Query(f"max by (version) ({of('segwatch_build_info')})", "{{version}}")


def _reading() -> list[Panel]:
    partition = "{{topic}} {{partition}}"
    return [
        graph(
            "Records by outcome",
            "Records a second, by how they ended.",
            "rps",
            Query(rate("segwatch_records_total", by="outcome"), "{{outcome}}"),
            stacked=True,
        ),
        graph(
            "Dead letters and losses",
            "Records a second that could not be counted, or that were gone before they could be read.",
            "rps",
            Query(f"{rate('segwatch_dead_letter_records_total', by='reason')}", "{{reason}}"),
            Query(f"{rate('segwatch_dropped_records_total', by='reason')}", "lost: {{reason}}", dashed=True),
        ),
        graph(
            "Lag by partition",
            "Age of the moment up to which a partition has been read.",
            "s",
            Query(_max("segwatch_consumer_lag_seconds", "topic, partition"), partition),
        ),
        graph(
            "Records that wait",
            "As of the last commit or heartbeat.",
            "short",
            Query(_max("segwatch_consumer_lag_records", "topic, partition"), partition),
        ),
        graph(
            "Embedding: share of time",
            "Seconds a second that backbones compute, by device; above 1 where workers run side by side.",
            "none",
            Query(rate("segwatch_embedding_busy_seconds_total", by="device"), "{{device}}"),
            width=8,
        ),
        graph(
            "Embedding: time a batch",
            "How fast the device is, whatever the load.",
            "s",
            Query(
                share(
                    rate("segwatch_embedding_busy_seconds_total", by="device"),
                    rate("segwatch_embedding_batches_total", by="device"),
                ),
                "{{device}}",
            ),
            width=8,
        ),
        graph(
            "GPUs that were not there",
            "How often in the last hour a GPU was wanted and the CPU had to be taken.",
            "short",
            Query(increase("segwatch_backbone_fallbacks_total", over="1h"), "fallbacks"),
            width=8,
        ),
    ]


def _max(metric: str, by: str) -> str:
    return f"max by ({by}) ({of(metric)})"


def _evaluating() -> list[Panel]:
    oldest = of("segwatch_outbox_oldest_message_timestamp_seconds")
    return [
        graph(
            "Since the leader's last sign of life",
            "From its work in the database.",
            "s",
            Query(f"time() - max({of('segwatch_leader_timestamp_seconds')})", "leader"),
            limits=[(60, WARN)],
            width=6,
        ),
        graph(
            "Messages that wait",
            "Actions and dead letters that are not delivered yet.",
            "short",
            Query(f"max({of('segwatch_outbox_pending_messages')})", "pending"),
            width=6,
        ),
        graph(
            "Oldest message",
            "How long it has waited; 0 where none waits.",
            "s",
            Query(f"time() - min({oldest}) or vector(0)", "oldest"),
            width=6,
        ),
        graph(
            "Failed deliveries",
            "Attempts a second that failed; each is tried again.",
            "ops",
            Query(rate("segwatch_outbox_delivery_failures_total", by="topic"), "{{topic}}"),
            width=6,
        ),
    ]


def _labels() -> list[Panel]:
    return [
        graph(
            "Labels by outcome",
            "Labels a second, by what became of them.",
            "rps",
            Query(rate("segwatch_labels_total", by="outcome"), "{{outcome}}"),
        ),
        graph(
            "Labels held against predictions",
            "A second: joined, bad, or too late to be joined or to correct what was.",
            "rps",
            Query(rate("segwatch_label_joins_total", by="outcome"), "{{outcome}}"),
        ),
    ]


def _page() -> list[Panel]:
    omitted = {name: of(f"segwatch_omitted_{name}") for name in ("series", "versions", "slices")}
    return [
        graph(
            "Series",
            "Series that segwatch exports. Dashed: its limit; beyond, the least important are left out.",
            "short",
            Query(f"max({of('segwatch_exported_series')})", "exported"),
            Query(f"max({of('segwatch_exported_series_limit')})", "limit", dashed=True),
            width=6,
        ),
        graph(
            "Left out",
            "Series, old versions and slices that are in the store and on the pages, but not in Prometheus.",
            "short",
            *(Query(f"sum({expr})", name) for name, expr in omitted.items()),
            width=6,
        ),
        graph(
            "Age of the totals",
            "How old the figures are that a scrape gets.",
            "s",
            Query(f"time() - max({of('segwatch_totals_timestamp_seconds')})", "totals"),
            width=6,
        ),
        graph(
            "Refused requests",
            "Requests a second that the web process refused, by HTTP status.",
            "reqps",
            Query(rate("segwatch_unauthorised_requests_total", by="code"), "{{code}}"),
            width=6,
        ),
        graph(
            "Scrapes",
            "How long Prometheus takes to fetch the metrics.",
            "s",
            Query(f"max by (instance) ({of('scrape_duration_seconds')})", "{{instance}}"),
            width=12,
        ),
        number(
            "Series of this job",
            "As Prometheus counts them.",
            "short",
            Query(f"sum({of('scrape_samples_scraped')})"),
            steps=[(None, NEUTRAL)],
            width=12,
        ),
    ]
