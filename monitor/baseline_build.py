"""Build a baseline from prediction records, in two passes and in memory that does not grow with their number.

First pass: decode, embed, and spool what is needed (embeddings, class shares, instances) to files, while the
moments for the projection add up. Second pass: project the spooled embeddings, take every signal's values
into a memory-mapped table, fit the bins' edges on its columns (exact quantiles), and count.
"""

from __future__ import annotations

import logging
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.layout import Layout
from embeddings.backbones import BACKBONES, BackboneSpec
from embeddings.embedder import Embedder
from embeddings.images import ImageLimits
from embeddings.projection import Projection, ProjectionFit
from monitor.baseline import BackboneRef, Baseline
from monitor.classes import Classes
from monitor.embedding_plan import GIVEN, EmbeddingPlan
from monitor.errors import BadRecord, BaselineError
from monitor.extract import Extractor, Prepared, features_of
from monitor.records import Label, Limits, Prediction, decode_chunk
from monitor.settings import Settings
from monitor.sources.protocol import RawRecord, Source

log = logging.getLogger(__name__)

CHUNK = 256


@dataclass(slots=True)
class BuildCounts:
    """What became of the records that were read."""

    used: int = 0
    bad: int = 0
    duplicate: int = 0
    not_ok: int = 0
    other: int = 0
    """Of another model or version, or outside the slice."""


class Row(msgspec.Struct, array_like=True):
    """What the second pass needs of a record, beside its embedding."""

    sequence: str
    instances: list[tuple[int, float]] | None
    shares: dict[int, float] | None
    confidence: float | None


@dataclass(slots=True)
class Spool:
    """Rows and embeddings on disk, in one order."""

    rows: BinaryIO
    vectors: BinaryIO
    fit: ProjectionFit | None = None
    dimensions: int = 0
    records: int = 0
    times_us: array[int] = field(default_factory=lambda: array("q"))
    names: dict[str, int] = field(default_factory=dict)
    indices: set[int] = field(default_factory=set)

    def add(
        self, predictions: Sequence[Prediction], prepared: Sequence[Prepared], vectors: NDArray[np.float32]
    ) -> None:
        if self.fit is None:
            self.dimensions = vectors.shape[1]
            self.fit = ProjectionFit()
        self.fit.update(vectors)
        self.vectors.write(np.ascontiguousarray(vectors).tobytes())
        for prediction, item in zip(predictions, prepared, strict=True):
            self.times_us.append(prediction.event_time_us)
            instances = None
            if item.instances is not None:
                instances = [(self.names.setdefault(name, len(self.names)), score) for name, score in item.instances]
            if item.index_shares is not None:
                self.indices.update(item.index_shares)
            row = Row(prediction.sequence or "", instances, item.index_shares, item.semantic_confidence)
            data = msgspec.msgpack.encode(row)
            self.rows.write(len(data).to_bytes(4, "little") + data)
        self.records += len(prepared)

    def read(self) -> Iterator[tuple[list[Row], NDArray[np.float32]]]:
        """Chunks in the order of adding."""
        self.rows.seek(0)
        self.vectors.seek(0)
        for start in range(0, self.records, CHUNK):
            count = min(CHUNK, self.records - start)
            rows = [
                msgspec.msgpack.decode(self.rows.read(int.from_bytes(self.rows.read(4), "little")), type=Row)
                for _ in range(count)
            ]
            data = self.vectors.read(4 * count * self.dimensions)
            yield rows, np.frombuffer(data, dtype=np.float32).reshape(count, self.dimensions)


def build_baseline(
    source: Source,
    settings: Settings,
    spec_of: Callable[[], BackboneSpec],
    embedder_of: Callable[[BackboneSpec], Embedder],
    *,
    model: str,
    version: str,
    slice_key: str = "",
    classes: Classes | None = None,
    on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    now_us: int,
) -> tuple[Baseline, BuildCounts]:
    """Build from every record of ``source`` that is of this model and version, has status ok, and lies in the slice.

    Bad records are handed to ``on_bad`` and left out; a repeated ``input_id`` counts once. All records must be
    embedded in one way: by the backbone, or all with embeddings of one length that they bring along.

    Raises BaselineError where no usable record is left, or where records differ in how they are embedded.
    """
    counts = BuildCounts()
    with tempfile.TemporaryDirectory(prefix="segwatch-baseline-") as folder:
        with (Path(folder) / "rows").open("w+b") as rows, (Path(folder) / "vectors").open("w+b") as vectors:
            spool = Spool(rows, vectors)
            build = _FirstPass(
                settings, spec_of, embedder_of, spool, counts, on_bad, (model, version, slice_key), now_us
            )
            build.run(source)
            if spool.fit is None or build.plan is None:
                raise BaselineError(
                    f"no usable record for model {model!r} version {version!r}"
                    f" ({counts.bad} bad, {counts.not_ok} not ok, {counts.other} of other models, versions or slices)"
                )
            known = classes or Classes.observed(list(spool.names), sorted(spool.indices))
            try:
                projection = spool.fit.finish(settings.embedding.components)
            except ValueError as error:
                raise BaselineError(f"model {model!r} version {version!r}: {error}") from None
            statistic = _count(spool, projection, known, settings.drift.bins, Path(folder))
    baseline = Baseline(model, version, slice_key, known, build.plan, _ref(build.embedder), projection, statistic)
    return baseline, counts


def _ref(embedder: Embedder | None) -> BackboneRef | None:
    if embedder is None:
        return None
    spec = embedder.spec
    named = bool(BACKBONES[spec.name.partition(":")[0]].TAKES_MODEL)
    weights = str(spec.weights.absolute()) if named else None
    return BackboneRef(spec.name, weights, spec.weights_sha256, spec.input_size, embedder.dtype)


class _FirstPass:
    """Decode, choose, embed, spool."""

    def __init__(
        self,
        settings: Settings,
        spec_of: Callable[[], BackboneSpec],
        embedder_of: Callable[[BackboneSpec], Embedder],
        spool: Spool,
        counts: BuildCounts,
        on_bad: Callable[[RawRecord, BadRecord], None] | None,
        wanted: tuple[str, str, str],
        now_us: int,
    ) -> None:
        self._settings = settings
        self._spec_of = spec_of
        self.embedder: Embedder | None = None
        self._embedder_of = embedder_of
        self._spool = spool
        self._counts = counts
        self._on_bad = on_bad
        self._model, self._version, self._slice = wanted
        self._now_us = now_us
        self._seen: set[int] = set()
        self._extractor: Extractor | None = None
        self.plan: EmbeddingPlan | None = None

    def run(self, source: Source) -> None:
        limits = Limits.from_settings(self._settings)
        with ThreadPoolExecutor(self._settings.embedding.decode_threads) as pool:
            while not source.exhausted:
                records = source.poll(0.0, CHUNK).records
                self._take(list(zip(records, decode_chunk(records, limits, self._now_us), strict=True)), pool)
            source.close()

    def _take(
        self, chunk: Sequence[tuple[RawRecord, Prediction | Label | BadRecord]], pool: ThreadPoolExecutor
    ) -> None:
        pending: list[tuple[RawRecord, Prediction, Future[Prepared | BadRecord] | Prepared | BadRecord]] = []
        for raw, value in chunk:
            if isinstance(value, BadRecord):
                self._bad(raw, value)
            elif isinstance(value, Label) or not self._wanted(value):
                self._counts.other += 1
            elif value.status != "ok":
                self._counts.not_ok += 1
            elif (identity := hash(value.input_id)) in self._seen:
                self._counts.duplicate += 1
            else:
                self._seen.add(identity)
                pending.append((raw, value, self._extract(value, pool).submit(value)))
        used: list[tuple[Prediction, Prepared]] = []
        for raw, prediction, outcome in pending:
            ready = outcome.result() if isinstance(outcome, Future) else outcome
            if isinstance(ready, BadRecord):
                self._bad(raw, ready)
            else:
                used.append((prediction, ready))
        if used and self._extractor is not None:
            prepared = [item for _, item in used]
            self._spool.add([prediction for prediction, _ in used], prepared, self._extractor.embeddings(prepared))
            self._counts.used += len(used)

    def _wanted(self, prediction: Prediction) -> bool:
        if (prediction.model.name, prediction.model.version) != (self._model, self._version):
            return False
        key, _, value = self._slice.partition("=")
        return not self._slice or prediction.slices.get(key) == value

    def _extract(self, prediction: Prediction, pool: ThreadPoolExecutor) -> Extractor:
        """The first record decides how all are embedded."""
        if self._extractor is None:
            embedder = None
            if prediction.embedding is not None:
                dimensions = len(prediction.embedding)
                self.plan = EmbeddingPlan(f"{GIVEN}:{dimensions}", dimensions, 0)
            else:
                self.embedder = embedder = self._embedder_of(self._spec_of())
                self.plan = EmbeddingPlan(embedder.identity, embedder.dimensions, embedder.spec.input_size)
            images = self._settings.images
            limits = ImageLimits(images.max_pixels, images.max_bytes)
            self._extractor = Extractor(self.plan, embedder, pool, limits, images.uri_prefixes)
        return self._extractor

    def _bad(self, raw: RawRecord, bad: BadRecord) -> None:
        self._counts.bad += 1
        if self._on_bad is not None:
            self._on_bad(raw, bad)


def _count(spool: Spool, projection: Projection, classes: Classes, bins: int, folder: Path) -> BaselineStatistic:
    """The second pass. Rows are put in the order of event time, so that neither files nor their order matter."""
    layout = Layout.of(classes.names, projection.components)
    table = np.memmap(folder / "values", dtype=np.float64, mode="w+", shape=(spool.records, layout.width))
    place = np.empty(spool.records, dtype=np.int64)
    place[np.argsort(np.asarray(spool.times_us), kind="stable")] = np.arange(spool.records)
    sequences = [""] * spool.records
    by_number = list(spool.names)
    start = 0
    for rows, vectors in spool.read():
        prepared = [_prepared(row, by_number) for row in rows]
        at = place[start : start + len(rows)]
        table[at] = layout.values(features_of(prepared, projection.project(vectors), classes))
        for row, where in zip(rows, at.tolist(), strict=True):
            sequences[where] = row.sequence
        start += len(rows)
    return BaselineStatistic.fit(layout, table, sequences, bins=bins)


def _prepared(row: Row, names: Sequence[str]) -> Prepared:
    instances = None if row.instances is None else [(names[number], score) for number, score in row.instances]
    return Prepared(None, None, instances, row.shares, row.confidence)


def describe(counts: BuildCounts) -> Mapping[str, int]:
    """The counts by name, for people."""
    return {
        "used": counts.used,
        "bad": counts.bad,
        "duplicate": counts.duplicate,
        "not ok": counts.not_ok,
        "other model, version or slice": counts.other,
    }
