"""The classes of a model: names for indices, ignored indices, critical classes and their targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from monitor.errors import InputError

MAX_CLASSES = 4096


@dataclass(frozen=True, slots=True)
class Classes:
    """``indices[i]`` is the value in a semantic map that means ``names[i]``; positions are the bins' order.

    ``ignore``: values of a semantic map that count as nothing (void). ``critical``: class and its target IoU, or None.
    ``things``: classes whose objects are told apart, for panoptic quality; None where nobody has said.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]
    ignore: tuple[int, ...] = ()
    critical: tuple[tuple[str, float | None], ...] = ()
    things: tuple[str, ...] | None = None

    @property
    def position(self) -> dict[str, int]:
        """Class name to its position."""
        return {name: i for i, name in enumerate(self.names)}

    @property
    def position_of_index(self) -> dict[int, int]:
        """Value in a semantic map to its position."""
        return {index: i for i, index in enumerate(self.indices)}

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "indices": list(self.indices),
            "ignore": list(self.ignore),
            "critical": [list(pair) for pair in self.critical],
            **({} if self.things is None else {"things": list(self.things)}),
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Classes:
        return cls(
            tuple(tree["names"]),
            tuple(tree["indices"]),
            tuple(tree["ignore"]),
            tuple((name, target) for name, target in tree["critical"]),
            tuple(tree["things"]) if "things" in tree else None,
        )

    def with_things(self, listed: Iterable[str]) -> Classes:
        """The same, with those as things that lists of instances have named, where nobody has said otherwise."""
        if self.things is not None:
            return self
        return replace(self, things=tuple(sorted(self.position.keys() & set(listed))))

    @classmethod
    def observed(cls, names: Sequence[str], indices: Sequence[int] = ()) -> Classes:
        """Classes where no file names them: the names that instances carry, and semantic values as their own names."""
        own = [name for name in sorted(set(names)) if name not in {str(i) for i in indices}]
        semantic = sorted(set(indices))
        free = (semantic[-1] + 1) if semantic else 0
        return cls(
            tuple([str(i) for i in semantic] + own),
            tuple(semantic + list(range(free, free + len(own)))),
        )


def read_classes(path: Path) -> Classes:
    """Read a classes file (YAML or JSON): ``{names: {0: sky}, ignore: [11], critical: [pedestrian], things: [car]}``.

    ``names`` may be a list; ``critical`` may map a class to its target IoU. Raises InputError that names the file
    and the key.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(tree, dict) or "names" not in tree:
        raise InputError(f"{path}: expected a mapping with the key names")
    unknown = sorted(set(map(str, tree)) - {"names", "ignore", "critical", "things"})
    if unknown:
        raise InputError(f"{path}: unknown key {unknown[0]}")
    names = tree["names"]
    pairs = (
        list(enumerate(names)) if isinstance(names, list) else list(names.items()) if isinstance(names, dict) else None
    )
    if not pairs:
        raise InputError(f"{path}: names: expected a mapping of indices to names, or a list of names")
    if len(pairs) > MAX_CLASSES:
        raise InputError(f"{path}: names: {len(pairs)} classes, at most {MAX_CLASSES}")
    by_index: dict[int, str] = {}
    for key, name in pairs:
        index = _index(path, "names", key)
        if not isinstance(name, str) or not 0 < len(name) <= 256 or "\0" in name:
            raise InputError(f"{path}: names.{key}: expected a name of 1 to 256 characters, got {name!r}")
        if index in by_index or name in by_index.values():
            raise InputError(f"{path}: names.{key}: {name!r} stands there twice")
        by_index[index] = name
    ignore = tuple(sorted({_index(path, "ignore", value) for value in _list(path, "ignore", tree.get("ignore"))}))
    kept = {index: name for index, name in sorted(by_index.items()) if index not in ignore}
    critical = _critical(path, tree.get("critical"), set(kept.values()))
    return Classes(tuple(kept.values()), tuple(kept), ignore, critical, _things(path, tree, set(kept.values())))


def _things(path: Path, tree: Mapping[str, Any], names: set[str]) -> tuple[str, ...] | None:
    if tree.get("things") is None:
        return None
    listed = _list(path, "things", tree["things"])
    for name in listed:
        if name not in names:
            raise InputError(f"{path}: things: {name!r} is none of the class names")
    return tuple(sorted(set(listed)))


def _index(path: Path, key: str, value: Any) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65_535:
        raise InputError(f"{path}: {key}: {value!r} is no index of 0..65535")
    return int(value)


def _list(path: Path, key: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: {key}: expected a list")
    return value


def _critical(path: Path, value: Any, names: set[str]) -> tuple[tuple[str, float | None], ...]:
    pairs = (
        list(value.items()) if isinstance(value, dict) else [(name, None) for name in _list(path, "critical", value)]
    )
    for name, target in pairs:
        if name not in names:
            raise InputError(f"{path}: critical: {name!r} is none of the class names")
        if target is not None and (
            isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target < 1
        ):
            raise InputError(f"{path}: critical.{name}: expected a target IoU between 0 and 1, got {target!r}")
    return tuple((name, None if target is None else float(target)) for name, target in pairs)
