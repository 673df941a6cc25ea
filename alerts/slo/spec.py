"""What an SLO file says, as frozen values. SLI, SLO, error budget and burn rate as in Google's SRE workbook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DAY_S = 86_400


class SpecError(ValueError):
    """An SLO that cannot be rendered. ``path``: the keys and indices that lead to the field at fault."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message

    @property
    def field(self) -> str:
        """The path as a person writes it.

        >>> SpecError(("slos", 0, "objective"), "expected a ratio").field
        'slos[0].objective'
        """
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text


@dataclass(frozen=True, slots=True)
class Availability:
    """Share of inferences whose status was ok."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Share of inferences that took at most ``seconds``, a bucket bound of the latency histogram."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ClassIou:
    """Share of spot-checked instances of a class (images, for semantic maps) whose IoU is above ``iou``."""

    iou: float


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """Share of labelled instances of a class that were found (IoU of 0.5)."""


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """At most ``limit`` invented instances an image, over spot-checked images."""

    limit: float


@dataclass(frozen=True, slots=True)
class Confidence:
    """Share of predicted instances whose score is above ``score``."""

    score: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """Share of minutes in which the newest of something was at most ``max_age_s`` old."""

    of: Literal["events", "labels", "drift_windows", "baseline"]
    max_age_s: int


@dataclass(frozen=True, slots=True)
class DriftFreeTime:
    """Share of minutes in which no drift alarm stood, over all records; ``signals`` empty: any signal."""

    signals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnnotatorAgreement:
    """Share of instances of a class on which two annotators of the same record agree (IoU of 0.5)."""


@dataclass(frozen=True, slots=True)
class CostPerInference:
    """At most ``limit_usd`` an inference, on average."""

    limit_usd: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Anybody's counters: a counter's selector, or an expression with ``$window`` that gives events of the window.

    Exactly one of ``good`` and ``bad`` is set.
    """

    total: str
    good: str = ""
    bad: str = ""


Source = (
    Availability
    | Latency
    | ClassIou
    | ClassRecall
    | AnnotatorAgreement
    | FalsePositives
    | Confidence
    | Freshness
    | DriftFreeTime
    | CostPerInference
    | Ratio
)


@dataclass(frozen=True, slots=True)
class Tier:
    """One pair of burn-rate windows: alarm where both burn at ``factor`` times the sustainable rate.

    ``critical_budget``: alarm at half the factor already once less than this share of the budget is left.
    """

    notify: Literal["page", "ticket"]
    long_s: int
    short_s: int
    factor: float
    critical_budget: float | None = None


@dataclass(frozen=True, slots=True)
class Slo:
    """One objective. ``model`` empty: each model; ``classes`` empty: each class; ``version`` empty: all together."""

    name: str
    kind: str
    source: Source
    objective: float | None
    """Share of good events, 0..1 (both exclusive); None for kinds that have a limit."""
    category: Literal["quality", "ops"]
    model: str = ""
    version: str = ""
    classes: tuple[str, ...] = ()
    period_s: int = 30 * DAY_S
    tiers: tuple[Tier, ...] = ()
    events_per_hour: float | None = None
    """Expected; sizes the windows. None: the windows stay, and the floor of events decides when they count."""
    guard: bool = True
    """Wilson's lower bound and the floors; without it the point estimate alone decides, as in the workbook."""
    min_events: int = 6
    design_effect: float | None = None
    """Variance of clustered events over that of independent ones; None: from the events an image, where known."""
    hold: bool = True
    """A firing alert stays until data say otherwise; without it, it resolves when data stop."""
    unreachable: Literal["rescale", "refuse"] = "rescale"
    blind_after_s: int = DAY_S
    description: str = ""
    path: tuple[str | int, ...] = ()
    """Where the SLO stands in its file, for errors found later."""

    @property
    def bounded(self) -> bool:
        """Whether bad events are a part of all events, so that the ratio cannot exceed 1."""
        return not isinstance(self.source, (FalsePositives, CostPerInference))

    @property
    def timed(self) -> bool:
        """Whether events are minutes in a state rather than counts."""
        return isinstance(self.source, (Freshness, DriftFreeTime))

    @property
    def by_class(self) -> bool:
        """Whether each class has its own series."""
        if isinstance(self.source, Freshness):
            return self.source.of == "labels"
        return isinstance(self.source, (ClassIou, ClassRecall, FalsePositives, Confidence, AnnotatorAgreement))

    @property
    def budget(self) -> float:
        """Bad events allowed for each event: 1 - objective, or the limit.

        >>> Slo("a", "availability", Availability(), 0.99, "ops").budget
        0.01
        """
        if isinstance(self.source, FalsePositives):
            return self.source.limit
        if isinstance(self.source, CostPerInference):
            return self.source.limit_usd
        assert self.objective is not None
        return round(1 - self.objective, 12)  # 1 - 0.99 is 0.010000000000000009
