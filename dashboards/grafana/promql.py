"""Queries of panels: every selector carries the variables that its metric has labels for."""

from __future__ import annotations

from typing import Final

RATE: Final = "$__rate_interval"
RANGE: Final = "$__range"


def of(metric: str, *matchers: str) -> str:
    """A selector. A bare word is a label that is chosen by the variable of the same name.

    >>> of("segwatch_records_total", "model", 'outcome="ok"')
    'segwatch_records_total{job=~"$job",instance=~"$instance",model=~"$model",outcome="ok"}'
    """
    chosen = [f'{one}=~"${one}"' if one.isidentifier() else one for one in ("job", "instance", *matchers)]
    return f"{metric}{{{','.join(chosen)}}}"


def eq(label: str, value: str) -> str:
    """A matcher.

    >>> eq("bound", "point")
    'bound="point"'
    """
    return f'{label}="{value}"'


def rate(metric: str, *matchers: str, by: str = "") -> str:
    """Events a second, added up."""
    return f"sum by ({by}) (rate({of(metric, *matchers)}[{RATE}]))"


def increase(metric: str, *matchers: str, by: str = "", over: str = RANGE) -> str:
    """Events of the time that is looked at, added up."""
    return f"sum by ({by}) (increase({of(metric, *matchers)}[{over}]))"


def share(part: str, whole: str) -> str:
    """No value where there is nothing to divide by, rather than NaN."""
    return f"{part} / ({whole} > 0)"


def quantile(q: float, metric: str, *matchers: str, by: str, over: str = RATE) -> str:
    """A quantile of a histogram, interpolated within its bucket; no value where nothing was observed."""
    change = "rate" if over == RATE else "increase"
    buckets = f"sum by (le, {by}) ({change}({of(metric + '_bucket', *matchers)}[{over}]))"
    return f"histogram_quantile({q:g}, {buckets}) >= 0"  # no comparison holds for NaN


def wilson(good: str, total: str, z: float) -> str:
    """A bound of Wilson's score interval (1927); the lower one where z is negative."""
    n = f"({total} > 0)"
    p = f"({good} / {n})"
    half = z * z / 2
    spread = f"sqrt({p} * (1 - {p}) / {n} + {half / 2:.6g} / {n} ^ 2)"
    sign = "-" if z < 0 else "+"
    return f"clamp(({p} + {half:.6g} / {n} {sign} {abs(z):g} * {spread}) / (1 + {2 * half:.6g} / {n}), 0, 1)"
