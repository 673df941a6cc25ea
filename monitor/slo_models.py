"""Models and classes that SLOs name, held against those that the store knows.

A class that no known model has is a mistake. A model that is not known may be one that comes later, so it is a doubt:
said, with its file and line, since an SLO of a mistyped model never fires.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from alerts.slo.spec import Ratio, Slo, SpecError

Known = Mapping[str, Sequence[str]]
"""Classes by model, of all active baselines."""


def check_classes_of_any(slos: Iterable[Slo], known: Known) -> None:
    """Raises SpecError where an SLO of each model names a class that none of them has."""
    everywhere = {name for classes in known.values() for name in classes}
    for slo in slos:
        missing = [name for name in slo.classes if name not in everywhere]
        if not slo.model and everywhere and missing:
            raise SpecError(
                (*slo.path, "classes"),
                f"SLO {slo.name!r}: no model has a class {missing[0]!r}; there are {', '.join(sorted(everywhere))}",
            )


def doubts(slos: Iterable[Slo], known: Known) -> Iterator[SpecError]:
    """Models without a baseline, and classes that some models lack. None where no model is known at all."""
    for slo in slos if known else ():
        if isinstance(slo.source, Ratio):
            continue  # its counters, and what they call a model, are somebody else's
        if slo.model and slo.model not in known:
            yield SpecError((*slo.path, "model"), f"SLO {slo.name!r}: {_unknown(slo, known)}")
        elif not slo.model:
            for model, classes in sorted(known.items()):
                lacking = [name for name in slo.classes if name not in classes]
                if lacking:
                    yield SpecError(
                        (*slo.path, "classes"),
                        f"SLO {slo.name!r} is of each model, and model {model!r} has no class {lacking[0]!r}",
                    )


def _unknown(slo: Slo, known: Known) -> str:
    close = difflib.get_close_matches(slo.model, known, 1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    unchecked = " Its classes are not checked." if slo.classes else ""
    return (
        f"model {slo.model!r} has no active baseline{meant}: until it has one this SLO sees no records."
        f"{unchecked} Known: {', '.join(sorted(known))}"
    )
