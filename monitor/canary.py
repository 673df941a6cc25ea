"""Read model of ``segwatch canary compare``: is a new version as good as the one it is to replace?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from detectors.canary.difference import Difference
from detectors.canary.sequential import confidence_sequence
from detectors.canary.units import ClassUnits
from detectors.canary.verdict import Rule, Verdict, decide, gather
from monitor.canary_agreement import agreement, unknown_names
from monitor.canary_classes import Ontology, ontology_of
from monitor.canary_operations import operations
from monitor.canary_pairs import MEAN, OVERALL, LabelledVersions, labelled_versions
from monitor.canary_sample import chosen_inputs
from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.errors import InputError
from monitor.records import Limits
from monitor.settings import CanarySettings, Settings
from monitor.store.baselines import newest_by_model
from monitor.store.canary import Seen
from monitor.store.store import Store
from monitor.tallies import TallyKey
from monitor.windows import DAY_US, SECOND_US, to_text

MOST_WORST = 20
MOST_LOG = 690.0
"""Evidence beyond e^690 is shown as that: JSON knows no infinity."""
MORE_FAILURES = 0.002
"""Share of records: where a canary surely fails more often than by this, it is not promoted."""
LABELS_A_PAIR = 5
"""So many times ``canary.most_pairs`` labelled records of each version are judged, those that were labelled first: by
then a verdict has long been reached, and the work stays bounded however long a canary is watched."""
SCORES = {"promote": 1, "continue": 0, "roll back": -1}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which versions, and which of their records."""

    model: str
    stable: str
    canary: str
    since_us: int | None = None
    until_us: int | None = None
    slice_key: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    """Classes of other names: (OLD, NEW), with "" on one side for a class to be left out."""

    @property
    def versions(self) -> tuple[str, str]:
        return self.stable, self.canary


def rule_of(settings: CanarySettings) -> Rule:
    return Rule(settings.wrong_rollback, settings.wrong_promotion, settings.margin, settings.most_pairs)


def compare(
    store: Store, settings: Settings, asked: Asked, baselines: Baselines, *, masks: bool = True
) -> dict[str, Any]:
    """The comparison, ready for JSON; documented in docs/canary.md.

    ``masks`` off leaves out how far the versions agree without labels, and how many inputs both have seen: what that
    takes grows with the traffic.

    Raises InputError for a model or version that was never seen, and for classes that differ.
    """
    stable, canary = _classes(store, asked, baselines)
    tallies = store.read_tallies()
    for version in asked.versions:
        if not any((key.model, key.version) == (asked.model, version) for key in tallies):
            raise InputError(f"model {asked.model!r} version {version!r}: no records")
    if asked.stable == asked.canary:
        raise InputError(f"version {asked.stable!r} is compared with itself")
    seen = _seen(store, asked)
    keep_us = round(settings.quality.keep_masks_days * DAY_US)
    chosen = chosen_inputs(store, seen, settings.windows.pane_seconds * SECOND_US, keep_us)
    unknown = unknown_names(store, asked.model, asked.versions, stable, [one.input_id for one in chosen])
    ontology = ontology_of(stable, canary, asked.renamed, unknown - set(canary.names))
    limits = Limits.from_settings(settings)
    labelled = labelled_versions(store, ontology, limits, seen, LABELS_A_PAIR * settings.canary.most_pairs)
    shared, agreed = None, None
    if masks:
        shared = store.canaries.count_shared(seen)
        agreed = {
            "shared_inputs": shared,
            **agreement(store, ontology, limits.max_pixels, asked.model, asked.versions, chosen),
        }
    shown = _told(asked, settings, ontology, labelled, shared, agreed, tallies)
    return {**shown, **_requests(store, asked)}


def _seen(store: Store, asked: Asked) -> Seen:
    """Which records: from the canary's first on, where nobody says since when."""
    since_us = asked.since_us
    if since_us is None:
        since_us = store.views.first_records(asked.model).get(asked.canary)
    return Seen(asked.model, asked.versions, since_us, asked.until_us, asked.slice_key)


def _requests(store: Store, asked: Asked) -> dict[str, Any]:
    """When the leader requested this canary's rollback or promotion, and how long that took."""
    names = ("request", "promotion")
    for one in store.canaries.verdicts():
        if (one.model, one.stable, one.canary) == (asked.model, *asked.versions):
            payload = msgspec.json.decode(one.payload)
            # One that was held back in its transaction stands in what was said, and never went out.
            asked_for = payload.get("request") if one.requested_at_us is not None else None
            return {"request": asked_for, "promotion": payload.get("promotion")}
    return dict.fromkeys(names)


def _classes(store: Store, asked: Asked, baselines: Baselines) -> tuple[Classes, Classes]:
    """Of each version's own baseline, else of the model's newest."""
    active = store.active_baselines()
    newest = newest_by_model(active).get(asked.model)
    if newest is None:
        raise InputError(f"--model {asked.model}: no active baseline has this name")
    stable, canary = (
        baselines.of(active.get((asked.model, version), newest).meta.id).classes for version in asked.versions
    )
    return stable, canary


def _told(
    asked: Asked,
    settings: Settings,
    ontology: Ontology,
    labelled: LabelledVersions,
    shared: int | None,
    agreed: dict[str, Any] | None,
    tallies: Mapping[TallyKey, int],
) -> dict[str, Any]:
    rule = rule_of(settings.canary)
    critical = frozenset(name for name, _ in ontology.classes.critical)
    pairs = labelled.pairs
    counts = {"stable": len(labelled.stable.inputs), "canary": len(labelled.canary.inputs)}
    paired = 2 * pairs >= min(counts.values())
    entries, ious = _differences(labelled, critical)
    ran = operations(tallies, asked.model, asked.versions)
    units = labelled.units(paired_inputs=paired)
    verdict, sequential = _sequential(
        units, labelled, rule, pairs if paired else min(counts.values()), ious, critical, _hindrances(ran)
    )
    sequences = len({*labelled.canary.clusters.tolist()})
    return {
        "model": asked.model,
        "stable": asked.stable,
        "canary": asked.canary,
        "since": None if asked.since_us is None else to_text(asked.since_us),
        "until": None if asked.until_us is None else to_text(asked.until_us),
        "slice": asked.slice_key or None,
        "verdict": verdict.decision,
        "promote": verdict.decision == "promote",
        "rollback": verdict.decision == "roll back",
        "score": SCORES[verdict.decision],
        "reasons": list(verdict.reasons),
        "missing": list(verdict.missing),
        "pairs": pairs,
        "labels": counts,
        "sequences": sequences,
        "shared_inputs": shared,
        "method": ("paired" if paired else "unpaired") if units is not None else None,
        "classes": entries,
        "sequential": sequential,
        "agreement": agreed,
        **ran,
        "mapping": {"renamed": dict(ontology.renamed), "left_out": sorted(ontology.left_out)},
        "worst": [] if units is None else _worst(units[2], units[1], labelled),
        "notes": _notes(labelled, paired, asked, critical - {name for name in ious if name}),
    }


def _differences(
    labelled: LabelledVersions, critical: frozenset[str]
) -> tuple[list[dict[str, Any]], dict[str | None, Difference]]:
    entries, ious = [], {}
    for metric in labelled.metrics():
        names: Sequence[str | None] = [None] if metric in OVERALL else labelled.names
        for column, name in enumerate(names):
            found = labelled.difference(metric, column)
            if found.status == "absent" or (metric != "iou" and name not in ious and found.stable == found.canary == 0):
                continue  # also a count of nothing, of a class that nobody has
            entries.append(_entry(name, metric, found, critical))
            if metric == "iou":
                ious[name] = found
    mean = labelled.mean()
    if mean is not None and mean.status != "absent":
        entries.append(_entry(None, MEAN, mean, critical))
        ious[None] = mean
    return entries, ious


def _entry(name: str | None, metric: str, found: Difference, critical: frozenset[str]) -> dict[str, Any]:
    told = asdict(found)
    status = told.pop("status").replace(" ", "_")
    return {"class": name, "metric": metric, **told, "critical": name in critical, "status": status}


def _sequential(
    units: tuple[list[ClassUnits], ClassUnits, list[list[str]]] | None,
    labelled: LabelledVersions,
    rule: Rule,
    pairs: int,
    ious: Mapping[str | None, Difference],
    critical: frozenset[str],
    hindrances: Sequence[str],
) -> tuple[Verdict, dict[str, Any] | None]:
    if units is None:
        more = max(rule.least_pairs - labelled.pairs, 1)
        missing = f"{more} more labelled inputs that both versions saw, or labels of records of each"
        reason = "too few pairs" if labelled.pairs else "nothing labelled is there of both versions"
        return Verdict("continue", (reason,), (missing,)), None
    classes, mean, inputs = units
    evidence = gather(labelled.names, classes, mean, len(inputs), critical, rule.margin)
    verdict = decide(evidence, rule, pairs, ious, critical, hindrances)
    crossed = evidence.crossed(rule.wrong_rollback)
    told: dict[str, Any] = {
        "units": len(inputs),
        "evidence": _shown(evidence.highest),
        "enough": 1 / rule.wrong_rollback,
        "now": _shown(float(evidence.path[-1])) if len(evidence.path) else None,
        "crossed_after_pairs": None if crossed is None else sum(len(some) for some in inputs[: crossed + 1]),
        "first_at": to_text(min(labelled.times_us[name] for some in inputs for name in some)),
        "last_at": to_text(max(labelled.times_us[name] for some in inputs for name in some)),
        "regression_since": None,
        "crossed_at": None,
        "margin": rule.margin,
        "kept": {
            name or MEAN: _shown(value) for name, value in sorted(evidence.kept.items(), key=lambda pair: pair[0] or "")
        },
        "kept_enough": 1 / rule.wrong_promotion,
        "bounds": [
            _bounds(None, mean, rule),
            *(_bounds(name, one, rule) for name, one in zip(labelled.names, classes, strict=True) if len(one.places)),
        ],
    }
    if crossed is not None:
        first = inputs[min(evidence.began(crossed), crossed)]
        told["regression_since"] = to_text(min(labelled.times_us[name] for name in first))
        told["crossed_at"] = to_text(max(labelled.times_us[name] for name in inputs[crossed]))
    return verdict, told


def _bounds(name: str | None, units: ClassUnits, rule: Rule) -> dict[str, Any]:
    """Bounds that hold at all times together, of the difference with large units capped."""
    lower, upper = confidence_sequence(units.differences, rule.wrong_promotion / 2)
    return {"class": name, "lower": lower, "upper": upper}


def _shown(log_value: float) -> float:
    return float(f"{math.exp(min(log_value, MOST_LOG)):.4g}")


def _worst(inputs: Sequence[Sequence[str]], mean: ClassUnits, labelled: LabelledVersions) -> list[dict[str, Any]]:
    """Units in which the canary lost most, each with one of its inputs."""
    times_us = labelled.times_us
    chance = dict(zip(labelled.canary.inputs, labelled.canary.probability.tolist(), strict=True))
    lost = mean.differences.difference * mean.differences.shares
    order = [i for i in np.argsort(lost, kind="stable").tolist() if lost[i] < 0][:MOST_WORST]
    return [
        {
            "input_id": inputs[int(mean.places[i])][0],
            "event_time": to_text(times_us[inputs[int(mean.places[i])][0]]),
            "inputs": len(inputs[int(mean.places[i])]),
            "selection_probability": chance[inputs[int(mean.places[i])][0]],
            "difference": round(float(mean.differences.difference[i]), 6),
        }
        for i in order
    ]


def _hindrances(ran: Mapping[str, Any]) -> list[str]:
    failures = ran["failures"]
    if failures["lower"] is not None and failures["lower"] > MORE_FAILURES:
        return [f"the canary fails more often: {failures['canary']:.2%} of records, {failures['stable']:.2%} before"]
    return []


def _notes(labelled: LabelledVersions, paired: bool, asked: Asked, critical: frozenset[str]) -> list[str]:
    notes = ["latency, cost and failures: of all records of each version, as totals know no times, slices or sequences"]
    if not paired and labelled.canary.inputs and labelled.stable.inputs:
        notes.append(
            "unpaired: the versions have seen different inputs; that is fair only where traffic is split at random"
        )
    cut = [f"{used} of {total}" for used, total in labelled.counted if used < total]
    if cut:
        notes.append(f"only the labelled records whose labels were made first: {' and '.join(cut)}")
    assumed = labelled.stable.assumed + labelled.canary.assumed
    if assumed:
        notes.append(f"{assumed} labels of unknown probability count as drawn at random")
    left_out = labelled.stable.left_out + labelled.canary.left_out
    if left_out:
        notes.append(
            f"{left_out} labelled records stay out: made for other purposes, with a probability that nobody knows"
        )
    if asked.renamed:
        notes.append("judged again under the classes as mapped; annotations whose masks are gone are left out")
    notes += [f"{name}: critical, and no labelled record has it" for name in sorted(critical)]
    return notes
