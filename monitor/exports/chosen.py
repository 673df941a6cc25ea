"""What is in the relabel queue, with the masks that are kept, as annotation tools are given it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from monitor.classes import Classes
from monitor.errors import InputError
from monitor.exports.items import Item, masks_of_prediction
from monitor.kept_masks import kept
from monitor.store.exports import Exports, KeptSample
from monitor.store.relabel import RelabelItem

PORTION = 100
"""Samples whose masks are in memory together."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A sample to be labelled, and why. One a sample, however many causes it has."""

    input_id: str
    model: str
    version: str
    purpose: str
    reasons: tuple[str, ...]
    probability: float | None


@dataclass
class Skipped:
    """How many samples could not be written, by why."""

    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(f"{count} {why}" for why, count in sorted(self.counts.items()))


def chosen_of(items: Iterable[RelabelItem]) -> list[Chosen]:
    """One for each sample, in the order of their first items.

    A spot check among a sample's causes makes its label one, with the probability of that draw. Active learning that
    draws by chance gives its probability too. What was picked for what it shows has none.
    """
    of_sample: dict[tuple[str, str], list[RelabelItem]] = {}
    for item in items:
        of_sample.setdefault(item.sample, []).append(item)
    found = []
    for own in of_sample.values():
        check = next((item for item in own if item.kind == "spot_check"), None)
        drawn = check or next((item for item in own if item.kind == "training" and item.probability is not None), None)
        first = drawn or own[0]
        reasons = tuple(dict.fromkeys(f"{item.kind}: {item.reason}" for item in own))
        purpose = "spot_check" if check else "relabel"
        probability = drawn.probability if drawn else None
        found.append(Chosen(first.input_id, first.model, first.version, purpose, reasons, probability))
    return found


def named(exports: Exports, inputs: Sequence[str], model: str, version: str | None) -> list[Chosen]:
    """Samples that somebody names. Raises InputError for the first whose masks are not kept."""
    versions = dict.fromkeys(inputs, version) if version else exports.versions_of(inputs, model)
    for name in inputs:
        if versions.get(name) is None:
            raise InputError(f"--input-id {name}: no masks of {model} are kept of it")
    return [Chosen(name, model, versions[name] or "", "relabel", ("named",), None) for name in dict.fromkeys(inputs)]


def items_of(
    exports: Exports,
    chosen: Sequence[Chosen],
    classes: Classes,
    max_pixels: int,
    skipped: Skipped,
    image_of: Callable[[KeptSample], tuple[str, str]] = lambda _: ("", "png"),
) -> Iterator[Item]:
    """Samples with their masks, in the order given; those without are counted in ``skipped``.

    ``image_of``: address of a sample's image ("" for none) and the ending of its file's name.
    """
    known = set(classes.names)
    for start in range(0, len(chosen), PORTION):
        some = chosen[start : start + PORTION]
        found = {
            (one.input_id, one.model, one.version): one
            for one in exports.kept([(one.input_id, one.model, one.version) for one in some])
        }
        for one in some:
            sample = found.get((one.input_id, one.model, one.version))
            if sample is None:
                skipped.counts["without kept masks"] += 1
                continue
            try:
                size, masks, form = masks_of_prediction(kept(sample.masks), classes, max_pixels)
            except (InputError, ValueError):
                skipped.counts["with masks that cannot be written"] += 1
                continue
            address, suffix = image_of(sample)
            # A class that the model's baseline does not know cannot be labelled either.
            masks = [mask for mask in masks if mask.class_name in known]
            yield Item(one.input_id, size, masks, form, _asked(one), address, suffix)


def _asked(one: Chosen) -> dict[str, object]:
    told: dict[str, object] = {
        "purpose": one.purpose,
        "selection_probability": one.probability,
        "reason": "; ".join(one.reasons),
        "model": one.model,
        "version": one.version,
    }
    return {name: value for name, value in told.items() if value is not None}
