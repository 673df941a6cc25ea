"""Drift alerts: a shift is a reason to look and to label; only where quality suffers too does anybody get up."""

from __future__ import annotations

from alerts.rules import WHO, Entry, Links, alert

MODEL = 'model="street",version="1"'
ALARM = f'segwatch_drift_alarm{{{MODEL},slice="",signal="embedding"}}'
EARLY = f"segwatch_drift_early_alarm{{{MODEL}}}"
UNLIKELY = f'segwatch_drift_harm{{{MODEL},harm="unlikely"}}'
QUALITY = (
    'ALERTS{alertname="SegwatchQualityBurnSlow",alertstate="firing",category="quality",notify="ticket",'
    'severity="warning",slo="car",model="street",class="car"}'
)

OF_WINDOW = "model=%q,version=%q,slice=%q"
LABELS = "$labels.model $labels.version $labels.slice"
SHIFT = (
    f"{{{{ with printf \"segwatch_drift_alarm{{{OF_WINDOW},signal=~'input|embedding.*'}} == 1\" {LABELS} | query }}}}"
    "input{{ else }}prediction{{ end }}"
)
"""Whether the pictures moved, or only what the model makes of them: another cause, so another notification.

No finer: which signal moves most changes from window to window, and each change would be a new alert.
"""
HOW_SURE = (
    f'{{{{ with printf "min(segwatch_drift_p_value{{{OF_WINDOW}}})" {LABELS} | query }}}}'
    ' Smallest p-value: {{ . | first | value | printf "%.2g" }}.{{ end }}'
)


def entries(links: Links) -> list[Entry]:
    """All alerts of this file. A shift and a burning quality budget of the same model are one cause."""
    shift = alert(
        links,
        "SegwatchDrift",
        'max by (model, version, slice) (segwatch_drift_alarm{model!=""}) == 1',
        notify="ticket",
        category="drift",
        action="relabel",
        summary="What a model sees differs from its baseline.",
        description=f"{WHO}: the last window is alarmed"
        f'{{{{ with printf "sort_desc(segwatch_drift_divergence_ratio{{{OF_WINDOW}}}'
        f' and on (model, version, slice, signal) segwatch_drift_alarm == 1)" {LABELS} | query }}}}'
        '{{ range . }}, {{ .Labels.signal }} by {{ . | value | printf "%.2f" }}{{ end }}{{ end }}'
        f" (Jensen-Shannon, 0 to 1).{HOW_SURE} Whether the model suffers is for labels to say.",
        labels={"shift": SHIFT},
    )
    early = alert(
        links,
        "SegwatchDriftEarly",
        'max by (model, version) (segwatch_drift_early_alarm{model!=""}) == 1',
        notify="ticket",
        category="drift",
        action="relabel",
        summary="The sequential test has seen a shift before its window closed.",
        description=f"{WHO}: the records of late differ from the baseline"
        '{{ with printf "time() - max(segwatch_last_early_alarm_timestamp_seconds{model=%q,version=%q})" $labels.model'
        " $labels.version | query }}; the test alarmed at records of"
        " {{ . | first | value | humanizeDuration }} ago{{ end }}. Whether the model suffers is for labels to say.",
    )
    harmful = alert(
        links,
        "SegwatchDriftHarmful",
        '((max by (model, version) (segwatch_drift_alarm{model!="",slice=""}) == 1'
        ' or max by (model, version) (segwatch_drift_early_alarm{model!=""}) == 1)'
        ' unless on (model, version) segwatch_drift_harm{harm="unlikely"} == 1)'
        ' and on (model) ALERTS{alertname=~"SegwatchQualityBurn.*",alertstate="firing"}',
        notify="page",
        category="drift",
        action="rollback",
        summary="What a model sees has shifted, and its quality falls.",
        description=f"{WHO}: drift is alarmed while an error budget of the model's quality burns; harm is"
        '{{ with printf "segwatch_drift_harm{model=%q,version=%q} == 1" $labels.model $labels.version | query }}'
        "{{ range . }} {{ .Labels.harm }}{{ end }}{{ else }} not judged yet{{ end }}.",
    )
    return [
        Entry(shift, {ALARM: "0x10 1x30"}, {ALARM: "1x10 0x30"}),
        Entry(early, {EARLY: "0x10 1x30"}, {EARLY: "1x10 0x30"}),
        Entry(
            harmful,
            {ALARM: "0x10 1x30", QUALITY: "1x40"},
            {ALARM: "0x10 1x30", QUALITY.replace("street", "other"): "1x40"},
            also_fires=[
                {EARLY: "0x10 1x30", QUALITY: "1x40"},
                {ALARM: "1x40", QUALITY: "1x40", UNLIKELY: "0x40", UNLIKELY.replace("unlikely", "likely"): "1x40"},
            ],
            also_silent=[
                {ALARM: "1x40", EARLY: "1x40", QUALITY: "1x40", UNLIKELY: "1x40"},
                {ALARM: "0x40", EARLY: "0x40", QUALITY: "1x40"},
                {ALARM.replace('slice=""', 'slice="camera=7"'): "1x40", QUALITY: "1x40"},
                {ALARM: "1x40", QUALITY.replace("QualityBurnSlow", "ClassSilent"): "1x40"},
                {ALARM: "1x40", QUALITY.replace("firing", "pending"): "1x40"},
            ],
        ),
    ]
