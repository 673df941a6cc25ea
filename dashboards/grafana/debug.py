"""Why? For the engineer who looks for the reason: classes, signals, slices, and the machines under them."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.frame import Row, build
from dashboards.grafana.panels import GOOD, NEUTRAL, WARN, Panel, Query, graph, note, number, rows_of, states
from dashboards.grafana.promql import eq, increase, of, quantile, rate, share, wilson

VERSION = ("model", "version")
CLASS = (*VERSION, "class")
BY_CLASS = "model, version, class"
NAMES = "{{model}} {{version}} {{class}}"
INSTANCES = "segwatch_spotcheck_instances_total"
WHOLE = 'slice=""'
Z95 = 1.96


def debug(pages: str) -> Dashboard:
    """The dashboard of the engineer."""
    return build(
        "segwatch-debug",
        "segwatch / Debug",
        "Which classes, which signals, which slices, and is it the machines?",
        [
            Row("Quality by class", _quality(pages)),
            Row("Predictions and labels", _labels()),
            Row("Drift by signal", _drift()),
            Row("Drift by slice", _slices()),
            Row("Canaries", _canaries()),
            Row("Machines and queues", _machines()),
        ],
        pages=pages,
        variables=["model", "version", "class", "slice"],
        since="7d",
        refresh="1m",
    )


def _iou(bound: str, estimator: str = "spotcheck") -> str:
    chosen = of("segwatch_iou_ratio", *CLASS, f'estimator="{estimator}"', f'bound="{bound}"')
    return f"max by ({BY_CLASS}) ({chosen})"


def _found(*verdicts: str) -> str:
    return increase(INSTANCES, *CLASS, f'verdict=~"{"|".join(verdicts)}"', by=BY_CLASS)


def _quality(pages: str) -> list[Panel]:
    tp, labelled, predicted = _found("tp"), _found("tp", "fn"), _found("tp", "fp")
    names = ("IoU", "at least", "at most")
    columns = {name: _iou(bound) for name, bound in zip(names, ("point", "lower", "upper"), strict=True)}
    images = increase("segwatch_spotcheck_images_total", *VERSION, by="model, version", over="1d")
    invented = increase(INSTANCES, *CLASS, eq("verdict", "fp"), by=BY_CLASS, over="1d")
    overall = "avg by (model, version, estimator)"
    poor = increase("segwatch_spotcheck_iou_ratio_bucket", *CLASS, 'le="0.5"', by=BY_CLASS, over="1d")
    total = increase("segwatch_spotcheck_iou_ratio_count", *CLASS, by=BY_CLASS, over="1d")
    promised = of("segwatch:dashboard_slo_objective:ratio", "model", "class", 'kind="class_iou"')
    return [
        rows_of(
            "IoU by class",
            "Pooled IoU from spot checks over quality.window_days, with its 95 % interval. A class without a row has"
            " no honest number.",
            "percentunit",
            columns,
        ),
        rows_of(
            "Recall and precision by class",
            "Spot-checked instances of the time range, at an IoU of 0.5. Recall with Wilson's 95 % interval as if"
            " instances were independent: those of one image are not, so that it is a little too narrow.",
            "percentunit",
            {
                "Recall": share(tp, labelled),
                "at least": wilson(tp, labelled, -Z95),
                "at most": wilson(tp, labelled, Z95),
                "Precision": share(tp, predicted),
                "Labelled": labelled,
            },
            units={"Labelled": "short"},
        ),
        graph(
            "IoU over time",
            "Pooled IoU from spot checks. Dashed: its 95 % interval.",
            "percentunit",
            Query(_iou("point"), NAMES),
            Query(_iou("lower"), f"{NAMES} at least", dashed=True),
            Query(_iou("upper"), f"{NAMES} at most", dashed=True),
            highest=1,
        ),
        graph(
            "Instances with an IoU above 0.5",
            "Share of spot-checked instances of the last day, as objectives of kind class_iou count them. Dashed: what"
            " is promised.",
            "percentunit",
            Query(f"clamp_min(1 - {share(poor, total)}, 0)", NAMES),
            Query(f"max by (slo, model, class) ({promised})", "{{slo}} {{model}} {{class}}", dashed=True),
            highest=1,
        ),
        graph(
            "IoU with and without labels",
            "Mean over classes of pooled IoU, by where it comes from: spot checks, spot checks with the help of"
            " confidence, confidence alone. Where they part, confidence is not to be believed.",
            "percentunit",
            Query(
                f"{overall} ({of('segwatch_iou_ratio', *CLASS, eq('bound', 'point'))})",
                "{{model}} {{version}} {{estimator}}",
            ),
            highest=1,
        ),
        graph(
            "Invented instances an image",
            "Instances that nobody has labelled, for each spot-checked image of the last day.",
            "short",
            Query(f"{invented} / on (model, version) group_left () ({images} > 0)", NAMES),
        ),
        note(
            "Only on segwatch's pages",
            "These are computed for a window from stored masks and are no series: the confusion matrix, quality by"
            " size, calibration, and the gap between training, validation and production."
            f" [All models]({pages}/) · `segwatch quality --model MODEL`",
        ),
    ]


def _labels() -> list[Panel]:
    pairs = "segwatch_annotator_pairs_total"
    agreed = increase(pairs, *CLASS, 'verdict="agree"', by="model, class")
    delay = "segwatch_label_delay_seconds"
    return [
        graph(
            "Confidence by class",
            "Median score of predicted instances.",
            "percentunit",
            Query(quantile(0.5, "segwatch_confidence_ratio", *CLASS, by=BY_CLASS), NAMES),
            highest=1,
            width=8,
        ),
        rows_of(
            "Annotators agree",
            "Share of instances that two annotators both have, at an IoU of 0.5, in the time range.",
            "percentunit",
            {"Agreement": share(agreed, increase(pairs, *CLASS, by="model, class"))},
            width=8,
        ),
        graph(
            "Age of labels",
            "From a record's event to its label: half and nine tenths of the labels of an hour came sooner.",
            "s",
            *(
                Query(
                    quantile(q / 100, delay, *VERSION, by="model, version", over="1h"),
                    f"P{q} {{{{model}}}} {{{{version}}}}",
                )
                for q in (50, 90)
            ),
            width=8,
        ),
    ]


def _drift() -> list[Panel]:
    def by_signal(metric: str) -> str:
        return f"max by (model, version, signal) ({of(metric, *VERSION, WHOLE)})"

    signal = "{{model}} {{version}} {{signal}}"
    version = "{{model}} {{version}}"
    evidence, run = (of(f"segwatch_drift_{name}_records", *VERSION) for name in ("evidence", "run_length"))
    return [
        graph(
            "Divergence from the baseline",
            "Jensen-Shannon divergence of the last closed window, all records, bias removed. 0: the same; 1: nothing in"
            " common.",
            "none",
            Query(by_signal("segwatch_drift_divergence_ratio"), signal),
        ),
        graph(
            "p-values",
            "How often a window without drift would score as high.",
            "none",
            Query(by_signal("segwatch_drift_p_value"), signal),
            log=True,
        ),
        states(
            "Alarmed signals",
            "Signals of the last closed window, all records.",
            Query(by_signal("segwatch_drift_alarm"), signal),
            {"0": ("as the baseline", GOOD), "1": ("drift", WARN)},
        ),
        graph(
            "Records of the window",
            "Read the scores with it: few records, little power.",
            "short",
            Query(f"max by (model, version) ({of('segwatch_drift_window_records', *VERSION, WHOLE)})", version),
        ),
        graph(
            "Frechet distance of the embedding",
            "Squared, of the last closed window, chance removed. 1: one component has moved by one standard deviation.",
            "none",
            Query(of("segwatch_drift_frechet_distance", *VERSION), version),
        ),
        graph(
            "Early detection",
            "Evidence of the sequential test over what it alarms at: 1 is an alarm.",
            "none",
            Query(f"{evidence} / {run}", version),
            limits=[(1, WARN)],
        ),
    ]


def _slices() -> list[Panel]:
    chosen = (*VERSION, "slice", 'slice!=""')
    by = "model, version, slice"
    divergence = f"max by ({by}) ({of('segwatch_drift_divergence_ratio', *chosen)})"
    worst = f"topk(20, {divergence})"
    return [
        rows_of(
            "Slices",
            "The 20 slices that differ most from the baseline, by their worst signal, in the last closed window.",
            "none",
            {
                "Divergence": worst,
                "Records": f"max by ({by}) ({of('segwatch_drift_window_records', *chosen)}) and {worst}",
                "Alarm": f"max by ({by}) ({of('segwatch_drift_alarm', *chosen)}) and {worst}",
            },
        ),
        graph(
            "Divergence by slice",
            "The worst signal of the ten slices that differ most.",
            "none",
            Query(f"topk(10, {divergence})", "{{model}} {{slice}}"),
        ),
    ]


def _canaries() -> list[Panel]:
    columns = {
        name: of("segwatch_canary_iou_difference_ratio", "model", "class", f'bound="{bound}"')
        for name, bound in (("Difference", "point"), ("at least", "lower"), ("at most", "upper"))
    }
    by = "max by (model, version, stable, class)"
    return [
        rows_of(
            "Canary against stable",
            "Pooled IoU of the canary less that of the stable version, with its 95 % interval; without a class:"
            " the mean.",
            "percentunit",
            {name: f"{by} ({expr})" for name, expr in columns.items()},
            width=16,
        ),
        number(
            "Pairs",
            "Inputs with labels of both versions' records.",
            "short",
            Query(of("segwatch_canary_pairs", "model"), "{{model}} {{version}}"),
            steps=[(None, NEUTRAL)],
            width=8,
        ),
    ]


def _machines() -> list[Panel]:
    busy, batches = (rate(f"segwatch_embedding_{name}_total", by="device") for name in ("busy_seconds", "batches"))
    return [
        graph(
            "Embedding: share of time",
            "Seconds a second that backbones compute, by device; above 1 where workers run side by side.",
            "none",
            Query(busy, "{{device}}"),
            width=8,
        ),
        graph(
            "Embedding: time a batch",
            "How fast the device is, whatever the load: a batch has the same places, filled or not.",
            "s",
            Query(share(busy, batches), "{{device}}"),
            width=8,
        ),
        graph(
            "Records that wait",
            "Records of the topics that are not read yet, and messages that are not delivered yet.",
            "short",
            Query(f"sum by (topic) ({of('segwatch_consumer_lag_records')})", "{{topic}}"),
            Query(f"max({of('segwatch_outbox_pending_messages')})", "outbox"),
            width=8,
        ),
    ]
