"""What a window's labels are worth: per metric and class, sums for each labelled record, with its weight and sequence.

A record weighs 1 / (probability of its choice x sampling probability), so that labels which were picked because they
looked bad do not bias the figure. The probability is what the label says, else what segwatch's own ledger has; a spot
check of which neither is known counts as drawn at random from the window's records, and that is said. Labels made for
another purpose, whose probability is not known, stay out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.quality import instance_metrics, panoptic, semantic_metrics
from detectors.quality.expected import ExpectedSums
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_semantic import SemanticJudgement
from detectors.quality.panoptic import PanopticJudgement
from detectors.quality.ratio import RatioSample
from monitor.judgements import Judged, JudgedLabel, from_payload
from monitor.store.values import JudgedRow

LEAST_PROBABILITY = 1e-9
SEMANTIC_NAMES = {"precision": "pixel_precision", "recall": "pixel_recall"}
"""Of maps, where instances have metrics of the same name."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """One metric: (n, C) numerators and denominators of the records ``rows`` (n,)."""

    rows: NDArray[np.int64]
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """N labelled records of a window."""

    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    probability: NDArray[np.float64]
    """(N,) of being labelled, given that segwatch saw the record."""
    sampling: NDArray[np.float64]
    """(N,) of being seen by segwatch at all."""
    clusters: NDArray[np.int64]
    """(N,) number of the sequence; a record without one is a sequence of its own."""
    assumed: int
    """Records whose probability is not known: they count as drawn at random."""
    left_out: int
    """Labelled records that no estimate may use."""
    metrics: Mapping[str, Sums]
    instances: Sequence[tuple[int, float, InstanceJudgement]] = field(default=())
    """Record, share of it (1 / annotators) and judgement; ``maps`` alike."""
    label_times_us: tuple[int, int] | None = None
    """Of the first and the last label."""
    annotators: Sequence[str] = field(default=())
    """Who made each of ``maps``, or where there are none of ``instances``."""
    expected: Sequence[ExpectedSums | None] = field(default=())
    """(N,) how sure the model was of each record; None where it is not known."""
    maps: Sequence[tuple[int, float, SemanticJudgement]] = field(default=())

    @property
    def weights(self) -> NDArray[np.float64]:
        """(N,) 1 over the probability that the record was chosen and seen at all."""
        weights: NDArray[np.float64] = 1 / (self.probability * self.sampling)
        return weights

    def sample(
        self, rows: NDArray[np.int64], numerator: NDArray[np.float64], denominator: NDArray[np.float64]
    ) -> RatioSample:
        """What records ``rows`` (n,) say of one metric, whose sides are (n,) each.

        The records' weights are those of choice, in 1..; what was seen of the traffic at all stands in both sides.
        """
        seen = self.seen(rows)
        return RatioSample.of(numerator * seen, denominator * seen, 1 / self.probability[rows], self.clusters[rows])

    def column(self, sums: Sums, column: int) -> RatioSample:
        """The same of one class."""
        return self.sample(sums.rows, sums.numerator[:, column], sums.denominator[:, column])

    def pooled_pixels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each of ``maps``, or where there are none of ``instances``: pixels in both and in either, all classes."""
        if self.maps:
            maps, of_maps = [one for *_, one in self.maps], semantic_metrics.METRICS["iou"]
            sides = of_maps.numerator(maps), of_maps.denominator(maps)
        else:
            lists, of_lists = [one for *_, one in self.instances], instance_metrics.METRICS["iou"]
            sides = of_lists.numerator(lists), of_lists.denominator(lists)
        return sides[0].sum(1).astype(np.float64), sides[1].sum(1).astype(np.float64)

    def seen(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) how much more of the traffic each of the records stands for than that which stands for most: 0..1.

        Only the proportions matter in a ratio.
        """
        factor = 1 / self.sampling[rows]
        found: NDArray[np.float64] = factor / factor.max(initial=1.0)
        return found


def in_slice(row: JudgedRow, slice_key: str) -> bool:
    """Whether a record belongs to a slice; to "" all do."""
    if not slice_key:
        return True
    key, _, value = slice_key.partition("=")
    slices: dict[str, str] = msgspec.json.decode(row.slices)
    return slices.get(key) == value


def evidence_of(rows: Sequence[JudgedRow], records: int, metrics: Collection[str] | None = None) -> Evidence:
    """Bring the judged records of one window together; ``records`` is the number of all its records.

    ``metrics``: those to add up; None for all.
    """
    used: list[tuple[JudgedRow, Judged, list[JudgedLabel], float | None]] = []
    left_out = 0
    for row in rows:
        judged = from_payload(row.payload)
        settled = judged.settled
        if not settled:
            continue
        good = [one for one in judged.labels if not one.problem]
        known = _probability(judged, good)
        if known is None and all(one.purpose != "spot_check" for one in good):
            left_out += 1
        else:
            used.append((row, judged, settled, known))
    # Judgements of an earlier order of classes cannot be added to those of the present one.
    classes = tuple(used[-1][1].classes) if used else ()
    left_out += sum(1 for _, judged, *_ in used if tuple(judged.classes) != classes)
    used = [one for one in used if tuple(one[1].classes) == classes]
    assumed = sum(1 for *_, known in used if known is None)
    uniform = min(1.0, assumed / records) if records else 1.0
    numbers: dict[str, int] = {}
    clusters = [numbers.setdefault(_cluster(row), len(numbers)) for row, *_ in used]
    instances, maps, segments = _judgements(used)
    times_us = [one.label_time_us for _, _, settled, _ in used for one in settled]
    return Evidence(
        classes=classes,
        inputs=tuple(row.input_id for row, *_ in used),
        probability=_floored([uniform if known is None else known for *_, known in used]),
        sampling=_floored([row.sampling_probability or 1.0 for row, *_ in used]),
        clusters=np.array(clusters, np.int64),
        assumed=assumed,
        left_out=left_out,
        metrics=_metrics(instances, maps, segments, metrics),
        instances=instances,
        maps=maps,
        label_times_us=(min(times_us), max(times_us)) if times_us else None,
        annotators=_annotators(used),
        expected=[None if one.sureness is None else ExpectedSums.from_bytes(one.sureness) for _, one, *_ in used],
    )


def _probability(judged: Judged, good: Sequence[JudgedLabel]) -> float | None:
    """Also where another annotation, an audit for example, has settled the record."""
    told = [one.selection_probability for one in good if one.selection_probability is not None]
    return max(told) if told else judged.probability


def _floored(probabilities: Sequence[float]) -> NDArray[np.float64]:
    """No record may stand for more than a billion others: its inverse would drown, or overflow, everything else."""
    floored: NDArray[np.float64] = np.maximum(np.array(probabilities, np.float64), LEAST_PROBABILITY)
    return floored


def _cluster(row: JudgedRow) -> str:
    return f"s{row.sequence}" if row.sequence else f"i{row.input_id}"


_Used = Sequence[tuple[JudgedRow, Judged, list[JudgedLabel], float | None]]
_Instances = list[tuple[int, float, InstanceJudgement]]
_Maps = list[tuple[int, float, SemanticJudgement]]
_Segments = list[tuple[int, float, PanopticJudgement]]


def _judgements(used: _Used) -> tuple[_Instances, _Maps, _Segments]:
    instances: _Instances = []
    maps: _Maps = []
    segments: _Segments = []
    for index, (_, _, settled, _) in enumerate(used):
        of_lists = [judgement for one in settled if (judgement := one.instance_judgement()) is not None]
        of_maps = [judged_map for one in settled if (judged_map := one.semantic_judgement()) is not None]
        instances += [(index, 1 / len(of_lists), each) for each in of_lists]
        maps += [(index, 1 / len(of_maps), own) for own in of_maps]
        of_both = [judged_both for one in settled if (judged_both := one.panoptic_judgement()) is not None]
        segments += [(index, 1 / len(of_both), own) for own in of_both]
    return instances, maps, segments


def _annotators(used: _Used) -> list[str]:
    settled = [one for _, _, many, _ in used for one in many]
    maps = [one.annotator for one in settled if one.semantic is not None]
    return maps or [one.annotator for one in settled if one.instances is not None]


def _metrics(
    instances: _Instances, maps: _Maps, segments: _Segments, wanted: Collection[str] | None
) -> dict[str, Sums]:
    found: dict[str, Sums] = {}
    tables: tuple[tuple[Any, Mapping[str, Any], Mapping[str, str]], ...] = (
        (instances, instance_metrics.METRICS, {}),
        (maps, semantic_metrics.METRICS, SEMANTIC_NAMES),
        (segments, panoptic.METRICS, {}),
    )
    for judgements, metrics, names in tables:
        if not judgements:
            continue
        index = np.array([one[0] for one in judgements], np.int64)
        share = np.array([one[1] for one in judgements])[:, None]
        rows, place = np.unique(index, return_inverse=True)
        given = [one[2] for one in judgements]
        for name, metric in metrics.items():
            if wanted is not None and names.get(name, name) not in wanted:
                continue
            sides = []
            for values in (metric.numerator(given), metric.denominator(given)):
                total = np.zeros((len(rows), values.shape[1]))
                np.add.at(total, place, values * share)
                sides.append(total)
            found[names.get(name, name)] = Sums(rows, *sides)
    return found
