"""Blindness to drift: windows that are not scored, not judged, or that a slice no longer fills.

How long a window may take follows from the settings: one of a day is scored a day after its first record.
"""

from __future__ import annotations

from typing import Final

from alerts.installation import COUNT, DAY_S, Installation
from alerts.rules import WHO, Entry, Links, alert
from alerts.slo.promql import duration

VERSION: Final = 'model="street",version="1"'
RECORDS: Final = f'segwatch_records_total{{{VERSION},outcome="ok"}}'
EVENT: Final = f"segwatch_last_event_timestamp_seconds{{{VERSION}}}"
BASELINE: Final = f"segwatch_baseline_created_timestamp_seconds{{{VERSION}}}"
ALL: Final = f'segwatch_last_drift_window_timestamp_seconds{{{VERSION},slice=""}}'
SLICE: Final = ALL.replace('slice=""', 'slice="camera=7"')
IN_WINDOW: Final = f'segwatch_drift_window_records{{{VERSION},slice="camera=7"}}'
VERDICT: Final = f'segwatch_drift_alarm{{{VERSION},slice="camera=7",signal="embedding"}}'

SLICE_GONE_AFTER_S: Final = 7 * DAY_S
"""A camera that was taken down is told of for so long, and then counts as gone."""


def entries(links: Links, installation: Installation) -> list[Entry]:
    """All alerts of this file. The series of their tests, a sample a minute, follow from the settings, too."""
    return [
        _stale(links, installation),
        _missing(links, installation),
        _unjudged(links, installation),
        _slice_silent(links, installation),
    ]


def _ok_records(span_s: int) -> str:
    return f'sum by (model, version) (increase(segwatch_records_total{{outcome="ok"}}[{duration(span_s)}])) > 0'


def _stale(links: Links, installation: Installation) -> Entry:
    """In event time, so that neither a night without records nor records that come a day late are a standstill.

    The first record after a night opens a window, which must be given its time: hence the wait. Records that failed are
    in no window: hence those that were ok, within a span too short to outlast that wait.
    """
    due = installation.scored_within_s
    span = max(3600, 2 * installation.window_s)
    rule = alert(
        links,
        "SegwatchDriftWindowsStale",
        '(max by (model, version) (segwatch_last_event_timestamp_seconds{model!=""}) - on (model, version)'
        f' max by (model, version) (segwatch_last_drift_window_timestamp_seconds{{slice=""}}) > {due})'
        f" and on (model, version) {_ok_records(span)}",
        notify="ticket",
        category="quality",
        summary="Records come in, and their windows are not scored for drift.",
        description=f"{WHO}: the newest record is {{{{ $value | humanizeDuration }}}} newer than the last window that"
        f" was scored; with these settings a window is scored within {duration(due)}.",
        wait=duration(due),
    )
    due_min, span_min = due // 60, span // 60
    at = 9 * due_min // 4 + 10  # it fires after twice the time, and the grid of evaluations
    last_ok, morning = due_min - span_min // 2, at - due_min // 2
    all_along, still = f"0+60x{at}", f"0x{at}"
    flowing, going_on = {RECORDS: f"0+5x{at}"}, {EVENT: all_along}
    return Entry(
        rule,
        {**flowing, **going_on, ALL: still},
        {**flowing, **going_on, ALL: f"-1800+60x{at}", ALL.replace('"1"', '"2"'): still},
        f"{at}m",
        also_fires=[{**flowing, **going_on, ALL: still, SLICE: all_along}],
        also_silent=[
            {RECORDS.replace('"ok"', '"failed"'): f"0+5x{at}", **going_on, ALL: still},
            {RECORDS: f"0+5x{last_ok} {5 * last_ok}x{at}", **going_on, ALL: still},  # all have failed since
            # The morning's first window.
            {RECORDS: f"0x{morning} 0+5x{at}", EVENT: f"0x{morning} {60 * morning}+60x{at}", ALL: still},
            {**flowing, EVENT: f"-86400+60x{at}", ALL: f"-88200+60x{at}"},  # each record comes a day late
        ],
    )


def _missing(links: Links, installation: Installation) -> Entry:
    span = installation.first_scored_within_s
    rule = alert(
        links,
        "SegwatchDriftWindowsMissing",
        f"(segwatch_baseline_created_timestamp_seconds and on (model, version) {_ok_records(span)})"
        ' unless on (model, version) segwatch_last_drift_window_timestamp_seconds{slice=""}',
        notify="ticket",
        category="quality",
        summary="A model version has a baseline and records, and was never scored for drift.",
        description=f"{WHO}: no window has been scored since the baseline was built; with these settings the first one"
        f" is scored within {duration(span)}.",
        wait=duration(span),
    )
    at = 2 * span // 60
    built = {BASELINE: f"0x{at}"}
    flowing = {RECORDS: f"0+5x{at}", **built}
    failing = {RECORDS.replace('"ok"', '"failed"'): f"0+5x{at}", **built}
    ended = {RECORDS: f"0+5x10 50x{at}", **built}
    return Entry(
        rule,
        flowing,
        {**flowing, ALL: f"0+60x{at}"},
        f"{at}m",
        also_fires=[{**flowing, SLICE: f"0+60x{at}"}],
        also_silent=[failing, ended],
    )


def _unjudged(links: Links, installation: Installation) -> Entry:
    span = installation.judged_within_s
    rule = alert(
        links,
        "SegwatchDriftUnjudged",
        'max by (model, version, slice) (segwatch_drift_window_records{model!=""}) > 0'
        " unless on (model, version, slice)"
        f" max by (model, version, slice) (max_over_time(segwatch_drift_alarm[{duration(span)}]))"
        f" and on (model, version, slice) time() - segwatch_last_drift_window_timestamp_seconds < {span}",
        notify="ticket",
        category="quality",
        summary="Windows are closed, and none can be judged for drift.",
        description=f"{WHO}: the last window has {COUNT} records, and in {duration(span)} no window had enough of them,"
        " or a baseline, for a verdict.",
        wait="6h",
    )
    at = span // 60 + 860
    closed = {IN_WINDOW: f"30x{at}", SLICE: f"0+60x{at}"}
    return Entry(
        rule,
        # The last verdict is older than the span when the six hours begin.
        {**closed, VERDICT: f"0x300 _x{at}"},
        {**closed, VERDICT: f"0x1000 _x{at}"},
        f"{at}m",
        also_fires=[{**closed, IN_WINDOW: f"1x{at}", VERDICT.replace("camera=7", "camera=8"): f"0x{at}"}],
        also_silent=[
            {**closed, IN_WINDOW: f"0x{at}"},
            {**closed, SLICE: f"30000x{at}"},  # none is closed any more
        ],
    )


def _slice_silent(links: Links, installation: Installation) -> Entry:
    """Against the model's windows, so that a standstill of all is not told once for each slice.

    Of all versions together: a canary sees little of a rare camera.
    """
    silent = installation.slice_silent_after_s
    rule = alert(
        links,
        "SegwatchSliceSilent",
        '(max by (model) (segwatch_last_drift_window_timestamp_seconds{slice=""}) - on (model) group_right'
        f" max by (model, slice) (segwatch_last_drift_window_timestamp_seconds) > {silent})"
        f" < {silent + SLICE_GONE_AFTER_S}",
        notify="ticket",
        category="quality",
        summary="A slice has sent no records, while its model went on.",
        description=f"{WHO}: its last window is {{{{ $value | humanizeDuration }}}} older than the model's. Where the"
        f" slice was taken away, nothing need be done: this alert ends {duration(SLICE_GONE_AFTER_S)} after it began.",
        wait="30m",
    )
    at = silent // 60 + 100
    going_on, still = f"0+60x{at}", f"0x{at}"
    return Entry(
        rule,
        {ALL: going_on, SLICE: still},
        {ALL: still, SLICE: f"{10_000 - silent}x{at}"},
        f"{at}m",
        # Version 2 has all the traffic, and none of the camera.
        also_fires=[{ALL: still, SLICE: still, ALL.replace('"1"', '"2"'): going_on}],
        also_silent=[
            {ALL: still, SLICE: f"{-silent - SLICE_GONE_AFTER_S - 100_000}x{at}"},
            # Nothing is scored as a whole, which is another alert.
            {ALL: still, SLICE: still, SLICE.replace("camera=7", "camera=8"): f"{2 * silent}x{at}"},
            # The camera moved to version 2.
            {ALL: going_on, SLICE: still, SLICE.replace('"1"', '"2"'): going_on},
        ],
    )
