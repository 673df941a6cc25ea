"""Whether labels belong to the predictions that the store has of their inputs, before they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from monitor.drift import Baselines
from monitor.errors import BadRecord, InputError
from monitor.judging import check_fit
from monitor.kept_masks import kept
from monitor.records import Label, Limits
from monitor.records.reasons import shorten
from monitor.store.baselines import newest_by_model
from monitor.store.bulk import portions
from monitor.store.store import Store
from monitor.store.values import LabelledSample

AT_ONCE = 200
"""Inputs whose masks are in memory together, of all models and versions."""


class LabelFit:
    """What is not known yet (the prediction comes later) or no more (its masks are gone) is no reason to refuse.

    ``model``: whose labels they are where they do not say; what another model has made of an input may be of another
    kind, and refuses nothing. ``tell``: is told the entry, the input and the reason of each label that does not fit,
    which is then left out; None refuses them all for one.
    """

    def __init__(self, store: Store, limits: Limits, model: str, tell: Callable[[str], None] | None = None) -> None:
        self._store = store
        self._limits = limits
        self._model = model
        self._tell = tell
        self._baselines = Baselines(store)
        self._active = store.active_baselines()
        self._newest = newest_by_model(self._active)
        self.left_out: Counter[str] = Counter()
        """By reason."""

    def check(self, path: Path, labels: Sequence[tuple[str, Label]]) -> list[bool]:
        """Which of the labels, each given with its entry in the file, are to be stored.

        Raises InputError that names the file, the entry and the reason, for the first that fits no record of its input
        though there is one; unless somebody is told of it.
        """
        fits = []
        for some in portions(labels, AT_ONCE):
            samples = self._store.samples_of(sorted({label.input_id for _, label in some}))
            for entry, label in some:
                misfit = self._misfit(label, samples.get(label.input_id, ()))
                fits.append(misfit is None)
                if misfit is not None:
                    self._refuse(path, f"{entry}: input_id {shorten(label.input_id)}: {misfit}", misfit.reason)
        return fits

    def _refuse(self, path: Path, told: str, reason: str) -> None:
        if self._tell is None:
            raise InputError(f"{path}: {told}")
        self._tell(f"{path.name}: {told}")
        self.left_out[reason] += 1

    def _misfit(self, label: Label, samples: Sequence[LabelledSample]) -> BadRecord | None:
        """Why no record of its model fits; nothing where any record does, and then the others are not looked at."""
        own = label.model.name if label.model is not None else self._model
        first = None
        for one in samples:
            try:
                if self._fits(label, one):
                    return None
            except BadRecord as misfit:
                if one.model == own:
                    first = first or misfit
        return first

    def _fits(self, label: Label, sample: LabelledSample) -> bool:
        """Whether they can be compared; False where nothing can be said or the label is not of it.

        Raises BadRecord where they cannot.
        """
        if label.model is not None and (label.model.name, label.model.version) != (sample.model, sample.version):
            return False
        baseline = self._active.get((sample.model, sample.version), self._newest.get(sample.model))
        if sample.masks is None or baseline is None:
            return False
        classes = self._baselines.of(baseline.meta.id).classes
        check_fit(kept(sample.masks), label, classes, self._limits.max_pixels)
        return True
