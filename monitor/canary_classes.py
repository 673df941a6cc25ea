"""Which classes of a canary are which of the stable version's: by name, or as somebody says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from monitor.classes import Classes
from monitor.errors import InputError
from monitor.kept_masks import KeptMasks
from monitor.labels.index_png import index_png
from monitor.records import Label, decode_semantic

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Ontology:
    """Classes under which both versions are compared: the stable version's names, but those that were left out."""

    stable: Classes
    canary: Classes
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The stable version's name to the canary's, where they differ."""
    left_out: frozenset[str] = frozenset()

    @property
    def classes(self) -> Classes:
        """Those that are compared, under the stable version's names and indices."""
        kept = [i for i, name in enumerate(self.stable.names) if name not in self.left_out]
        gone = [
            index for name, index in zip(self.stable.names, self.stable.indices, strict=True) if name in self.left_out
        ]
        things = self.stable.things
        return replace(
            self.stable,
            names=tuple(self.stable.names[i] for i in kept),
            indices=tuple(self.stable.indices[i] for i in kept),
            ignore=tuple(sorted({*self.stable.ignore, *gone})),
            critical=tuple(pair for pair in self.stable.critical if pair[0] not in self.left_out),
            things=None if things is None else tuple(name for name in things if name not in self.left_out),
        )

    @property
    def changed(self) -> bool:
        """Whether what was judged by each version's own classes must be judged again."""
        return bool(self.renamed or self.left_out) or self.stable.names != self.canary.names

    def as_stable(self, masks: KeptMasks, max_pixels: int) -> KeptMasks:
        """A canary's masks under the stable version's names and indices; classes that were left out are gone."""
        old_name = {new: old for old, new in self.renamed.items()}
        instances = masks.instances
        if instances is not None:
            named = [
                msgspec.structs.replace(one, class_name=old_name.get(one.class_name, one.class_name))
                for one in instances
            ]
            instances = [one for one in named if one.class_name not in self.left_out]
        semantic = masks.semantic
        if semantic is not None:
            indices, _ = decode_semantic(semantic, max_pixels)
            table = np.arange(65_536, dtype=np.uint16)
            at = self.stable.position
            for name, index in zip(self.canary.names, self.canary.indices, strict=True):
                old = old_name.get(name, name)
                if old in at:
                    table[index] = self.stable.indices[at[old]]
            semantic = msgspec.structs.replace(semantic, classes_png=index_png(table[indices]))
        return KeptMasks(masks.height, masks.width, instances, semantic)

    def without(self, masks: KeptMasks) -> KeptMasks:
        """A stable version's masks without the classes that were left out."""
        if masks.instances is None or not self.left_out:
            return masks
        kept = [one for one in masks.instances if one.class_name not in self.left_out]
        return KeptMasks(masks.height, masks.width, kept, masks.semantic)

    def label(self, label: Label) -> Label:
        """A label under the stable version's names, whichever of the two its annotator used."""
        if label.instances is None:
            return label
        old_name = {new: old for old, new in self.renamed.items()}
        named = [
            msgspec.structs.replace(one, class_name=old_name.get(one.class_name, one.class_name))
            for one in label.instances
        ]
        return msgspec.structs.replace(label, instances=[one for one in named if one.class_name not in self.left_out])


def ontology_of(
    stable: Classes, canary: Classes, given: Sequence[tuple[str, str]] = (), unknown: Collection[str] = ()
) -> Ontology:
    """Classes by name; ``given`` says which differ: (OLD, NEW), with "" on one side for a class to be left out.

    ``unknown``: names that the canary's records carry, and that neither the classes of its baseline nor the stable
    version's records know. Raises InputError that names the classes which nobody has paired.
    """
    new_names = {*canary.names, *unknown}
    renamed: dict[str, str] = {}
    left_out: set[str] = set()
    for old, new in given:
        for name, names, which in ((old, set(stable.names), "stable version"), (new, new_names, "canary")):
            if name and name not in names:
                raise InputError(f"--map {old}={new}: {name!r} is no class of the {which}")
        if old and new:
            if old in renamed or new in renamed.values():
                raise InputError(f"--map {old}={new}: one of them was mapped before")
            renamed[old] = new
        else:
            left_out.add(old or new)
    settled = {*renamed, *renamed.values(), *left_out}
    only_stable = [name for name in stable.names if name not in new_names and name not in settled]
    only_canary = sorted(name for name in new_names if name not in stable.names and name not in settled)
    if only_stable or only_canary:
        said = [f"only the stable version knows {_listed(only_stable)}"] if only_stable else []
        said += [f"only the canary knows {_listed(only_canary)}"] if only_canary else []
        raise InputError(
            f"the versions' classes differ: {', '.join(said)}; say which are the same with --map OLD=NEW, or leave"
            " one out with --map OLD= or --map =NEW"
        )
    return Ontology(stable, canary, renamed, frozenset(left_out))


def renames(option: str, given: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """``OLD=NEW`` as pairs; one side may be empty. Raises InputError."""
    pairs = []
    for one in given:
        old, found, new = one.partition("=")
        if not found or not (old or new):
            raise InputError(f"{option} {one}: expected OLD=NEW, OLD= or =NEW")
        pairs.append((old, new))
    return tuple(pairs)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more
