"""Whether labels belong to the predictions that the store has of their inputs, before they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monitor.drift import Baselines
from monitor.errors import BadRecord, InputError
from monitor.judging import check_fit
from monitor.kept_masks import kept
from monitor.records import Label, Limits
from monitor.records.reasons import shorten
from monitor.store.baselines import newest_by_model
from monitor.store.store import Store
from monitor.store.values import LabelledSample


class LabelFit:
    """What is not known yet (the prediction comes later) or no more (its masks are gone) is no reason to refuse.

    ``model``: whose labels they are where they do not say; what another model has made of an input may be of another
    kind, and refuses nothing.
    """

    def __init__(self, store: Store, limits: Limits, model: str) -> None:
        self._store = store
        self._limits = limits
        self._model = model
        self._baselines = Baselines(store)
        self._active = store.active_baselines()
        self._newest = newest_by_model(self._active)

    def check(self, path: Path, labels: Sequence[tuple[str, Label]]) -> None:
        """``labels``: each with its entry in the file.

        Raises InputError that names the file, the entry and the reason, for the first that fits no record of its input
        though there is one.
        """
        samples = self._store.samples_of(sorted({label.input_id for _, label in labels}))
        for entry, label in labels:
            told = self._misfits(label, samples.get(label.input_id, ()))
            if told:
                raise InputError(f"{path}: {entry}: input_id {shorten(label.input_id)}: {told[0]}")

    def _misfits(self, label: Label, samples: Sequence[LabelledSample]) -> list[str]:
        """Why no record of its model fits; nothing where any record does, and then the others are not looked at."""
        own = label.model.name if label.model is not None else self._model
        told = []
        for one in samples:
            misfit = self._misfit(label, one)
            if misfit == "":
                return []
            if misfit and one.model == own:
                told.append(misfit)
        return told

    def _misfit(self, label: Label, sample: LabelledSample) -> str | None:
        """Why they cannot be compared, "" where they can, None where nothing can be said or the label is not of it."""
        if label.model is not None and (label.model.name, label.model.version) != (sample.model, sample.version):
            return None
        baseline = self._active.get((sample.model, sample.version), self._newest.get(sample.model))
        if sample.masks is None or baseline is None:
            return None
        try:
            classes = self._baselines.of(baseline.meta.id).classes
            check_fit(kept(sample.masks), label, classes, self._limits.max_pixels)
        except BadRecord as bad:
            return str(bad)
        return ""
