"""What need not be told because something else was: outages, and tickets of what already pages."""

from __future__ import annotations

from typing import Any, Final

Tree = dict[str, Any]

SERVICE_OUTAGES: Final = ("SegwatchDown", "SegwatchTotalsOld", "SegwatchIngestStalled")
"""Of segwatch as a whole, so without a model: nothing that is computed from its series can be trusted.
Each explains those after it."""

JUDGING_OUTAGES: Final = ("SegwatchNoLeader",)
"""Records are counted, and nothing is made of them: without a model, too."""

MODEL_OUTAGES: Final = ("SegwatchModelSilent",)
"""Of one model: its label ``model`` is never empty."""

FROM_RECORDS: Final = (
    "SegwatchModelSilent",
    "SegwatchLagGrowing",
    "SegwatchSloBlind",
    "SegwatchClassSilent",
    "SegwatchTooFewEvents",
    "SegwatchBudgetExhausted",
    "SegwatchServiceBurnFast",
    "SegwatchServiceBurnSlow",
)
"""Alerts of operations that an outage causes or freezes. ``ratio`` SLOs have counters of others, and go on."""

JUDGED: Final = 'category=~"quality|drift"'
NOT_OTHERS: Final = 'kind!="ratio"'
"""``ratio``: somebody else's counters, which are fresh while segwatch is down."""

NOT_LABELS: Final = 'stream!="labels"'
OF_LABELS: Final = 'stream="labels"'
"""Where only labels are not read, predictions still are: drift and availability are told."""

TICKET: Final = 'notify="ticket"'
"""A model that fell silent keeps no page of operations back: it may have failed before it died."""

FROM_LABELS: Final = 'kind=~"class_iou|class_recall|false_positives_per_image|freshness"'
"""Kinds of SLO whose silence means that labels are missing."""

SAME_OBJECTIVE: Final = ("slo", "model", "version", "class")


def inhibit_rules() -> list[Tree]:
    """All rules. A missing label equals a missing one, so ``equal`` names only labels that the source always has."""
    rules = []
    for index, name in enumerate(SERVICE_OUTAGES):
        rules.append(_rule([_is(name), NOT_LABELS], [JUDGED, NOT_OTHERS]))
        rules.append(_rule([_is(name), NOT_LABELS], [_is(*SERVICE_OUTAGES[index + 1 :], *FROM_RECORDS), NOT_OTHERS]))
    rules.append(_rule([_is("SegwatchIngestStalled"), OF_LABELS], ['category="quality"', NOT_OTHERS]))
    rules += [_rule([_is(name)], [JUDGED, NOT_OTHERS]) for name in JUDGING_OUTAGES]
    for name in MODEL_OUTAGES:
        rules.append(_rule([_is(name)], [JUDGED, NOT_OTHERS], "model"))
        others = [other for other in FROM_RECORDS if other not in MODEL_OUTAGES]
        rules.append(_rule([_is(name)], [_is(*others), NOT_OTHERS, TICKET], "model"))
    burn_slow = _is("SegwatchQualityBurnSlow", "SegwatchServiceBurnSlow", "SegwatchBudgetExhausted")
    burn_fast = _is("SegwatchQualityBurnFast", "SegwatchServiceBurnFast")
    unlabelled = _is("SegwatchLabelsStale", "SegwatchClassUnlabelled", "SegwatchTooFewEvents")
    return [
        *rules,
        _rule([burn_fast], [burn_slow], *SAME_OBJECTIVE),
        _rule([_is("SegwatchClassSilent"), FROM_LABELS], [unlabelled], "model", "class"),
        # SegwatchDrift itself is never kept back by SegwatchDriftHarmful: it asks for labels, the other for a rollback.
        # The early test looks at all records: a shift of one camera does not explain it.
        _rule([_is("SegwatchDrift"), 'slice=""'], [_is("SegwatchDriftEarly")], "model", "version"),
    ]


def _is(*names: str) -> str:
    return f'alertname="{names[0]}"' if len(names) == 1 else f'alertname=~"{"|".join(names)}"'


def _rule(source: list[str], target: list[str], *equal: str) -> Tree:
    rule: Tree = {"source_matchers": source, "target_matchers": target}
    return {**rule, "equal": list(equal)} if equal else rule
