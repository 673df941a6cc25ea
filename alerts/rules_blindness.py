"""Blindness is an alert: a model, class or slice of which nothing new is known. Told to the ML on-call."""

from __future__ import annotations

from alerts import rules_windows
from alerts.installation import COUNT, Installation
from alerts.rules import WHO, Entry, Links, Rule, alert

MODEL = 'model="street",version="1"'
RECORDS = f'segwatch_records_total{{{MODEL},outcome="ok"}}'
EVENT = f"segwatch_last_event_timestamp_seconds{{{MODEL}}}"
BASELINE = f"segwatch_baseline_created_timestamp_seconds{{{MODEL}}}"
LABEL = f'segwatch_last_label_timestamp_seconds{{{MODEL},class="car"}}'
DELAY = f"segwatch_label_delay_seconds_SUFFIX{{{MODEL}}}"
PAIRS = f'segwatch_annotator_pairs_total{{{MODEL},class="car",verdict="VERDICT"}}'
JOINS = f'segwatch_label_joins_total{{{MODEL},outcome="OUTCOME"}}'


def data(links: Links) -> list[Entry]:
    """Records and baselines."""
    silent = alert(
        links,
        "SegwatchModelSilent",
        'time() - max by (model) (segwatch_last_event_timestamp_seconds{model!=""}) > 3600',
        notify="ticket",
        category="ops",
        summary="A model sends no more records.",
        description=f"{WHO}: the newest record of any version is {{{{ $value | humanizeDuration }}}} old. Alerts on its"
        " quality and drift are kept back until it sends again.",
        wait="5m",
    )
    no_baseline = alert(
        links,
        "SegwatchBaselineMissing",
        'sum by (model, version) (increase(segwatch_records_total{model!="",outcome="ok"}[1h])) > 0'
        " unless on (model, version) segwatch_baseline_created_timestamp_seconds",
        notify="ticket",
        category="quality",
        summary="A model version in use has no baseline: its drift is not watched.",
        description=f"{WHO}: {COUNT} records were counted in the last hour, and none was compared with a baseline.",
        wait="1h",
    )
    old_baseline = alert(
        links,
        "SegwatchBaselineOld",
        "(time() - max by (model, version) (segwatch_baseline_created_timestamp_seconds) > 15552000)"
        ' and on (model, version) sum by (model, version) (increase(segwatch_records_total{outcome="ok"}[1h])) > 0',
        notify="ticket",
        category="quality",
        summary="A model version in use is compared with a baseline of more than 180 days.",
        description=f"{WHO}: the baseline is {{{{ $value | humanizeDuration }}}} old.",
        wait="1h",
    )
    flowing = {RECORDS: "0+5x400"}
    failing = {RECORDS.replace('"ok"', '"failed"'): "0+5x400"}
    ended = {RECORDS: "0+5x10 50x400"}
    return [
        Entry(silent, {EVENT: "0+60x30 1800x400"}, {EVENT: "0+60x400"}, "100m"),
        Entry(
            no_baseline,
            {**flowing, BASELINE.replace('"1"', '"2"'): "0x400"},
            {**flowing, BASELINE: "0x400"},
            "125m",
            also_silent=[failing, ended],
        ),
        Entry(
            old_baseline,
            {**flowing, BASELINE: "-15552000x400"},
            {**flowing, BASELINE: "-15000000x400", BASELINE.replace('"1"', '"2"'): "-15552000x400"},
            "125m",
            also_silent=[{**traffic, BASELINE: "-15552000x400"} for traffic in (failing, ended)],
        ),
    ]


def labels(links: Links) -> list[Entry]:
    """Labels: fresh for each class, joined, in time."""
    stale = alert(
        links,
        "SegwatchLabelsStale",
        'time() - max by (model, class) (segwatch_last_label_timestamp_seconds{model!=""}) > 604800',
        notify="ticket",
        category="quality",
        summary="A class has had no label for a week: its quality is not known.",
        description=f"{WHO}: the newest label is {{{{ $value | humanizeDuration }}}} old.",
        wait="1h",
    )
    never = alert(
        links,
        "SegwatchClassUnlabelled",
        'sum by (model, class) (segwatch_spotcheck_instances_total{model!=""}) == 0'
        ' and on (model) sum by (model) (increase(segwatch_records_total{outcome="ok"}[1d])) > 0'
        " unless on (model, class) max by (model, class) (segwatch_last_label_timestamp_seconds)",
        notify="ticket",
        category="quality",
        summary="A class of a model in use has never been labelled.",
        description=f"{WHO}: no spot check has had the class yet, so that nothing is known of its quality.",
        wait="1d",
    )
    late = alert(
        links,
        "SegwatchLabelsTooLate",
        'sum by (model) (increase(segwatch_label_joins_total{outcome="unjoinable"}[1d]))'
        " / (sum by (model) (increase(segwatch_label_joins_total[1d])) > 0) > 0.05",
        notify="ticket",
        category="quality",
        summary="Labels come too late to be used.",
        description=f"{WHO}: {{{{ $value | humanizePercentage }}}} of a day's labels came later than"
        " quality.join_days after their records, or when the masks were gone, and count for nothing.",
        wait="15m",
    )
    bad = alert(
        links,
        "SegwatchLabelsBad",
        'sum by (model) (increase(segwatch_label_joins_total{outcome="bad"}[1d]))'
        " / (sum by (model) (increase(segwatch_label_joins_total[1d])) > 0) > 0.05",
        notify="ticket",
        category="quality",
        summary="Labels do not fit their predictions.",
        description=f"{WHO}: {{{{ $value | humanizePercentage }}}} of a day's labels have another size than"
        " the prediction, or a class that the model does not know, and count for nothing.",
        wait="15m",
    )
    delay = alert(
        links,
        "SegwatchLabelDelay",
        '1 - sum by (model) (increase(segwatch_label_delay_seconds_bucket{le="259200.0"}[1d]))'
        " / (sum by (model) (increase(segwatch_label_delay_seconds_count[1d])) > 5) > 0.5",
        notify="ticket",
        category="quality",
        summary="Labels come days after the records that they judge.",
        description=f"{WHO}: {{{{ $value | humanizePercentage }}}} of a day's labels were made more than 3 days after"
        " their records: quality is known so late.",
        wait="1h",
    )
    disagree = alert(
        links,
        "SegwatchAnnotatorsDisagree",
        'sum by (model, class) (increase(segwatch_annotator_pairs_total{verdict="disagree"}[1d]))'
        " / (sum by (model, class) (increase(segwatch_annotator_pairs_total[1d])) > 10) > 0.4",
        notify="ticket",
        category="quality",
        summary="Annotators disagree on a class: its quality is not known better than that.",
        description=f"{WHO}: of the instances that two annotators looked for in a day, {{{{ $value |"
        " humanizePercentage }} were found by one of them alone.",
        wait="1h",
    )
    joined, unjoinable, unfit = (JOINS.replace("OUTCOME", word) for word in ("joined", "unjoinable", "bad"))
    counter = f'segwatch_spotcheck_instances_total{{{MODEL},class="car",verdict="tp"}}'
    return [
        Entry(stale, {LABEL: "-604800x200"}, {LABEL: "-590000x200"}, "120m"),
        Entry(
            never,
            {counter: "0x2000", RECORDS: "0+1x2000"},
            {counter: "0x200 1x1800", RECORDS: "0+1x2000"},
            "1500m",
            also_silent=[
                {counter: "0x2000", RECORDS.replace('"ok"', '"failed"'): "0+1x2000"},
                {counter: "0x2000", RECORDS: "0+1x10 10x2000"},
            ],
        ),
        Entry(late, *_shares(joined, unjoinable, unfit), "1600m"),
        Entry(bad, *_shares(joined, unfit, unjoinable), "1600m"),
        _delay(delay),
        _disagreement(disagree),
    ]


def _delay(rule: Rule) -> Entry:
    """Of 7 labels a day more than half are late; after a day with many in time."""
    all_of = DELAY.replace("SUFFIX", "count")
    early, late = (DELAY.replace("SUFFIX", "bucket").replace("}", f',le="{le}"}}') for le in ("259200.0", "+Inf"))
    return Entry(
        rule,
        {early: "0+100x10 1000x1600", late: "0+100x10 1000+0.005x1600", all_of: "0+100x10 1000+0.005x1600"},
        {early: "0x10 0+0.6x1600", late: "0x10 0+1x1600", all_of: "0x10 0+1x1600"},
        "1600m",
        also_fires=[{early: "0x10 0+0.4x1600", late: "0x10 0+1x1600", all_of: "0x10 0+1x1600"}],
        also_silent=[
            {early: "0x1700", late: "0x10 0+0.003x1600", all_of: "0x10 0+0.003x1600"},
            {early: "0x1700", late: "0+1x100 100x1600", all_of: "0+1x100 100x1600"},
        ],
    )


def _disagreement(rule: Rule) -> Entry:
    """12 instances in a day, half of them disputed, after many that were not; then fewer disputed, and few."""
    agree, other = (PAIRS.replace("VERDICT", word) for word in ("agree", "disagree"))
    return Entry(
        rule,
        {agree: "0+1x100 100x1400 100+0.0042x1500", other: "0x1500 0+0.0042x1500"},
        {agree: "0+0.021x3000", other: "0+0.009x3000"},
        "2950m",
        also_silent=[
            {agree: "0+0.021x3000", other: "0+1x100 100x1400 100+0.009x1500"},
            {agree: "0+0.0015x3000", other: "0+0.0024x3000"},
        ],
    )


def _shares(whole: str, part: str, other: str) -> tuple[dict[str, str], dict[str, str]]:
    """More than 5 % of the last day, after a day with few; and less than 5 %, after a day with many."""
    return (
        {whole: "0+1000x10 10000+14x1600", part: "0+1x1610"},
        {whole: "0+24x1610", part: "0+200x10 2000+1x1600", other: "0+9x1610"},
    )


def entries(links: Links, installation: Installation) -> list[Entry]:
    """All alerts of blindness."""
    return [*data(links), *rules_windows.entries(links, installation), *labels(links)]
