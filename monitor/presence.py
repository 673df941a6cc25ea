"""In how many of a window's records the model finds each class: what is known of a class before its first label."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from monitor.classes import Classes
from monitor.kept_masks import found_classes
from monitor.store.store import Store
from monitor.windows import Window

LOOKED_AT = 200
"""Records, at random: of a class in one record of twenty that is ten."""


def presence_of(
    store: Store, model: str, version: str, slice_key: str, window: Window, classes: Classes, max_pixels: int
) -> dict[str, float]:
    """Class to the share of the records looked at in which the model finds it; a class in none of them counts as in
    half a record. Empty where no masks are kept."""
    found: Counter[str] = Counter()
    masks = _some(store, model, version, slice_key, window)
    for one in masks:
        found.update(found_classes(one, classes, max_pixels))
    return {name: max(found[name], 0.5) / len(masks) for name in classes.names} if masks else {}


def _some(store: Store, model: str, version: str, slice_key: str, window: Window) -> list[bytes]:
    key, _, value = slice_key.partition("=")
    inputs = [
        input_id
        for input_id, slices in store.inputs_between(model, version, window.start_us, window.end_us)
        if not key or msgspec.json.decode(slices).get(key) == value
    ]
    # Not every k-th: cameras take turns.
    at = np.random.default_rng(0).choice(len(inputs), min(LOOKED_AT, len(inputs)), replace=False)
    chosen = [inputs[i] for i in np.sort(at).tolist()]
    return [
        one.masks
        for rows in store.samples_of(chosen).values()
        for one in rows
        if (one.model, one.version) == (model, version) and one.masks is not None
    ]
