"""What an SLO's alerts say. Figures are looked up as the text is made, by the labels of the alert."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from alerts.rules import WHO
from alerts.slo.promql import duration, quote
from alerts.slo.spec import Slo

EVENTS_OF: Final = {"false_positives_per_image": "images", "cost_per_inference": "inferences"}
"""What is counted, where that is not called an event."""
AMOUNT_OF: Final = {
    "false_positives_per_image": "invented instances an image",
    "cost_per_inference": "US dollars an inference",
}


class Seen(NamedTuple):
    """A pair of windows: where it alarms, its long window, and PromQL of what that has seen.

    ``lower``: of the lower bound; "" where there is none.
    """

    alarms: str
    window: str
    ratio: str
    lower: str
    events: str


def subject(slo: Slo) -> str:
    """Which model, class and SLO."""
    return f"{{{{ if $labels.model }}}}{WHO}, {{{{ end }}}}SLO {{{{ $labels.slo }}}} ({slo.kind})"


def events_of(slo: Slo) -> str:
    """What the SLO counts."""
    return "minutes" if slo.timed else EVENTS_OF.get(slo.kind, "events")


def burning(slo: Slo, pairs: Iterable[Seen], left: str) -> str:
    """The evidence of each pair that alarms; where none does, the alert is held. ``left``: PromQL of the budget."""
    text = f"{subject(slo)}: {{{{ $alarms := false }}}}"
    for pair in pairs:
        text += _where(slo, pair.alarms, f"{{{{ $alarms = true }}}}{_evidence(slo, pair)}; ")
    allowed = f"{100 * slo.budget:.4g} %" if slo.bounded else f"{slo.budget:.4g}"
    return (
        f"{text}{{{{ if not $alarms }}}}no data since; held until there are. {{{{ end }}}}{allowed} are allowed."
        f" Budget left of {duration(slo.period_s)}: {percent(slo, left, '%.0f')}."
    )


def _evidence(slo: Slo, pair: Seen) -> str:
    def shown(query: str) -> str:
        return percent(slo, query, "%.3g") if slo.bounded else _value(slo, query, "%.3g")

    bad = f"of {events_of(slo)} were bad" if slo.bounded else AMOUNT_OF[slo.kind]
    sure = f" (at least {shown(pair.lower)} at 95 % confidence)" if pair.lower else ""
    counted = f"{_value(slo, pair.events, '%.0f')} {events_of(slo)}"
    return f"{shown(pair.ratio)} {bad} in the last {pair.window}{sure}, of {counted}"


def percent(slo: Slo, query: str, form: str) -> str:
    """A template that looks a ratio up."""
    return _value(slo, f"100 * {query}", form, " %")


def _value(slo: Slo, query: str, form: str, unit: str = "") -> str:
    shown = f'{{{{ . | first | value | printf "{form}" }}}}{unit}'
    return _where(slo, query, f"{shown}{{{{ else }}}}unknown")


def _where(slo: Slo, query: str, then: str) -> str:
    """A template that says ``then`` where the SLO's query has a result for the labels of the alert."""
    own = query.replace(f"{{slo={quote(slo.name)}}}", "{slo=%[1]q,model=%[2]q,class=%[3]q}")
    return f"{{{{ with printf `{own}` $labels.slo $labels.model $labels.class | query }}}}{then}{{{{ end }}}}"
