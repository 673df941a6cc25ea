"""Build a baseline from prediction records, in two passes and in memory that does not grow with their number.

First pass: decode, embed, and spool what is needed (embeddings, class shares, instances) to files. Then fit the
projection on the spooled embeddings. Second pass: project them, take every signal's values into a memory-mapped
table, fit the bins' edges on its columns (exact quantiles), and count.

Whatever depends on an order (sums of floats, the sample of rows) goes by event time and input, so that the same
records give the same baseline however they are spread over files.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.clusters import ClusterCentres, sample_rows
from detectors.layout import Layout
from detectors.moments_baseline import MomentsBaseline
from detectors.signals.embedding import Embedding
from detectors.signals.mask_geometry import SHAPES
from embeddings.backbones import BACKBONES, BackboneSpec
from embeddings.embedder import Embedder
from embeddings.images import ImageLimits
from embeddings.projection import Projection, ProjectionFit
from monitor.baseline import BackboneRef, Baseline
from monitor.classes import Classes
from monitor.contributions import slices_of
from monitor.embedding_plan import GIVEN, EmbeddingPlan
from monitor.errors import BadRecord, BaselineError
from monitor.extract import Extractor, Prepared, features_of, images_at_once, instances_in, sizes_of
from monitor.kept_masks import keep
from monitor.mask_shapes import shapes_of
from monitor.records import Label, Limits, Prediction, decode_chunk
from monitor.reference import LabelledRecord, Labels, Reference, make_reference
from monitor.s3 import s3_reader
from monitor.settings import Settings
from monitor.sources.protocol import RawRecord, Source

log = logging.getLogger(__name__)

CHUNK = 256
READ_ROWS = 8192
FEWEST_OF_SLICE = 50
"""Records of a slice, below which its windows are counted and not scored."""
MOST_SLICES = 200
SLICE_SAMPLE_ROWS = 4096
"""Of each slice: enough to draw windows of 512 records from, and small enough for 200 slices."""


@dataclass(slots=True)
class BuildCounts:
    """What became of the records that were read."""

    used: int = 0
    bad: int = 0
    duplicate: int = 0
    not_ok: int = 0
    other: int = 0
    """Of another model or version, or outside the slice."""
    labelled: int = 0
    """Of those used, records that a label was held against."""
    bad_labels: int = 0


class Row(msgspec.Struct, array_like=True):
    """What the second pass needs of a record, beside its embedding."""

    sequence: str
    kinds: list[int] | None
    scores: list[float]
    shares: dict[int, float] | None
    confidence: float | None
    slices: dict[str, str]
    statistics: list[float] | None
    shapes: bytes
    """(M, len(SHAPES)) float64: rounding would move values across the bins' edges."""
    overlap: float


@dataclass(slots=True)
class Spool:
    """Rows and embeddings on disk, in the order of reading."""

    rows: BinaryIO
    vectors: BinaryIO
    dimensions: int = 0
    records: int = 0
    times_us: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    names: dict[str, int] = field(default_factory=dict)
    indices: set[int] = field(default_factory=set)

    def add(
        self,
        keys: Sequence[int],
        predictions: Sequence[Prediction],
        prepared: Sequence[Prepared],
        vectors: NDArray[np.float32],
    ) -> None:
        """Append records; ``keys`` name their inputs."""
        self.dimensions = vectors.shape[1]
        self.keys.extend(keys)
        self.vectors.write(np.ascontiguousarray(vectors).tobytes())
        shapes, overlap = shapes_of(predictions, image_sizes=sizes_of(prepared))
        ends = np.cumsum([len(item.names or ()) for item in prepared])
        measured = np.split(shapes, ends[:-1])
        for prediction, item, own, shared in zip(predictions, prepared, measured, overlap.tolist(), strict=True):
            self.times_us.append(prediction.event_time_us)
            kinds = None
            if item.names is not None:
                kinds = [self.names.setdefault(name, len(self.names)) for name in item.names]
            if item.index_shares is not None:
                self.indices.update(item.index_shares)
            row = Row(
                prediction.sequence or "",
                kinds,
                list(item.scores),
                item.index_shares,
                item.semantic_confidence,
                prediction.slices,
                None if item.statistics is None else item.statistics.tolist(),
                own.tobytes(),
                shared,
            )
            data = msgspec.msgpack.encode(row)
            self.rows.write(len(data).to_bytes(4, "little") + data)
        self.records += len(prepared)

    def order(self) -> NDArray[np.int64]:
        """(N,) rows by event time, and by input within one time."""
        return np.lexsort((np.asarray(self.keys), np.asarray(self.times_us)))

    def fit(self) -> ProjectionFit:
        """The embeddings' moments."""
        self.vectors.flush()
        vectors = np.memmap(self.vectors, np.float32, "r", shape=(self.records, self.dimensions))
        order = self.order()
        fit = ProjectionFit()
        for start in range(0, self.records, CHUNK):
            fit.update(vectors[order[start : start + CHUNK]])
        return fit

    def centres(self, projection: Projection) -> ClusterCentres | None:
        """Clusters of the projected embeddings, from a sample of them; None where no embedding is finite."""
        vectors = np.memmap(self.vectors, np.float32, "r", shape=(self.records, self.dimensions))
        components = projection.project(vectors[self.order()[sample_rows(self.records)]])
        return ClusterCentres.fit(components) if np.isfinite(components).all(axis=1).any() else None

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
    labels: Labels | None = None,
    on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    now_us: int,
) -> tuple[Baseline, BuildCounts]:
    """Build from every record of ``source`` that is of this model and version, has status ok, and lies in the slice.

    ``labels``: what the records are held against, for quality. Bad records, and labels that do not fit, are handed to
    ``on_bad`` and left out; a repeated ``input_id`` counts once. All records must be
    embedded in one way: by the backbone, or all with embeddings of one length that they bring along.

    Raises BaselineError where no usable record is left, or where records differ in how they are embedded.
    """
    counts = BuildCounts()
    with tempfile.TemporaryDirectory(prefix="segwatch-baseline-") as folder:
        with (Path(folder) / "rows").open("w+b") as rows, (Path(folder) / "vectors").open("w+b") as vectors:
            spool = Spool(rows, vectors)
            build = _FirstPass(
                settings, spec_of, embedder_of, spool, counts, on_bad, (model, version, slice_key), now_us, labels or {}
            )
            build.run(source)
            if build.plan is None or not spool.records:
                raise BaselineError(
                    f"no usable record for model {model!r} version {version!r}"
                    f" ({counts.bad} bad, {counts.not_ok} not ok, {counts.other} of other models, versions or slices)"
                )
            if spool.records < FEWEST_OF_SLICE:
                log.warning(
                    "model %r version %r: a baseline of %d records hardly tells drift from chance; build it from %d"
                    " at least, better from thousands",
                    model,
                    version,
                    spool.records,
                    FEWEST_OF_SLICE,
                )
            known = classes or Classes.observed(list(spool.names), sorted(spool.indices))
            if spool.names and spool.indices:
                known = known.with_things(spool.names)
            try:
                projection = spool.fit().finish(settings.embedding.components)
            except ValueError as error:
                raise BaselineError(f"model {model!r} version {version!r}: {error}") from None
            centres = spool.centres(projection)
            counted = _count(spool, projection, centres, known, settings, Path(folder))
    baseline = Baseline(
        model,
        version,
        slice_key,
        known,
        build.plan,
        _ref(build.embedder),
        projection,
        counted.statistic,
        counted.slices,
        centres,
        counted.moments,
        _reference(build, known, settings, on_bad, labels, counts) if labels else None,
    )
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
        labels: Labels,
    ) -> None:
        self._labels = labels
        self.labelled: list[LabelledRecord] = []
        """Records that have labels, with their masks."""
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
        with closing(source), ThreadPoolExecutor(self._settings.embedding.decode_threads) as pool:
            while not source.exhausted:
                records = source.poll(0.0, self._at_once()).records
                self._take(list(zip(records, decode_chunk(records, limits, self._now_us), strict=True)), pool)

    def _at_once(self) -> int:
        """Records of the next poll: of images no more than memory should hold, and few until the first has come."""
        embedding = self._settings.embedding
        if self.plan is not None and self.plan.given:
            return CHUNK
        return images_at_once(embedding.input_size, embedding.batch_size, CHUNK)

    def _take(
        self, chunk: Sequence[tuple[RawRecord, Prediction | Label | BadRecord]], pool: ThreadPoolExecutor
    ) -> None:
        pending: list[tuple[RawRecord, int, Prediction, Future[Prepared | BadRecord] | Prepared | BadRecord]] = []
        for raw, value in chunk:
            if isinstance(value, BadRecord):
                self._bad(raw, value)
            elif isinstance(value, Label) or not self._wanted(value):
                self._counts.other += 1
            elif value.status != "ok":
                self._counts.not_ok += 1
            elif (key := _key(value.input_id)) in self._seen:
                self._counts.duplicate += 1
            else:
                pending.append((raw, key, value, self._extract(raw, value, pool).submit(value)))
        keys: list[int] = []
        predictions: list[Prediction] = []
        prepared: list[Prepared] = []
        for raw, key, prediction, outcome in pending:
            ready = outcome.result() if isinstance(outcome, Future) else outcome
            if isinstance(ready, BadRecord):
                if ready.reason == "embedding_mismatch":
                    raise _differs(raw, ready.detail)
                self._bad(raw, ready)
            elif key in self._seen:
                self._counts.duplicate += 1
            else:
                # Only now: a bad record leaves no identity, here as in production.
                self._seen.add(key)
                keys.append(key)
                predictions.append(prediction)
                prepared.append(ready)
                if prediction.input_id in self._labels:
                    self.labelled.append(_labelled(prediction, ready))
        if prepared and self._extractor is not None:
            self._spool.add(keys, predictions, prepared, self._extractor.embeddings(prepared))
            self._counts.used += len(prepared)

    def _wanted(self, prediction: Prediction) -> bool:
        if (prediction.model.name, prediction.model.version) != (self._model, self._version):
            return False
        key, _, value = self._slice.partition("=")
        return not self._slice or prediction.slices.get(key) == value

    def _extract(self, raw: RawRecord, prediction: Prediction, pool: ThreadPoolExecutor) -> Extractor:
        """The first record decides how all are embedded; one that is embedded otherwise is an error."""
        if self.plan is not None and self.plan.given != (prediction.embedding is not None):
            raise _differs(raw, "it has no embedding" if self.plan.given else "it brings its embedding along")
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
            s3 = s3_reader(self._settings)
            self._extractor = Extractor(self.plan, embedder, pool, limits, images.uri_prefixes, s3=s3)
        return self._extractor

    def _bad(self, raw: RawRecord, bad: BadRecord) -> None:
        self._counts.bad += 1
        if self._on_bad is not None:
            self._on_bad(raw, bad)


def _labelled(prediction: Prediction, prepared: Prepared) -> LabelledRecord:
    return (
        prediction.input_id,
        prediction.sequence,
        msgspec.json.encode(prediction.slices, order="sorted").decode(),
        prediction.sampling_probability,
        prediction.event_time_us,
        keep(prediction, prepared.size),
    )


def _reference(
    build: _FirstPass,
    classes: Classes,
    settings: Settings,
    on_bad: Callable[[RawRecord, BadRecord], None] | None,
    labels: Labels,
    counts: BuildCounts,
) -> Reference | None:
    """How good the model was on the records that have labels."""

    def bad_label(raw: RawRecord, bad: BadRecord) -> None:
        counts.bad_labels += 1
        if on_bad is not None:
            on_bad(raw, bad)

    found = make_reference(build.labelled, labels, classes, settings.images.max_pixels, bad_label)
    counts.labelled = found.labelled if found else 0
    return found


def _key(input_id: str) -> int:
    """64 bits of a hash: of a million inputs two share theirs with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(input_id.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _differs(raw: RawRecord, how: str) -> BaselineError:
    return BaselineError(
        f"{raw.partition.topic}:{raw.offset}: {how}: all records of a baseline are embedded in the way of the first one"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    statistic: BaselineStatistic
    slices: dict[str, BaselineStatistic]
    moments: MomentsBaseline | None


def _count(
    spool: Spool,
    projection: Projection,
    centres: ClusterCentres | None,
    classes: Classes,
    settings: Settings,
    folder: Path,
) -> _Counted:
    """The second pass: all records, and those of each slice on the same bins."""
    layout = Layout.of(classes.names, projection.components)
    table = np.memmap(folder / "values", dtype=np.float64, mode="w+", shape=(spool.records, layout.width))
    valued = np.zeros(layout.width, dtype=np.bool_)
    place = np.empty(spool.records, dtype=np.int64)
    place[spool.order()] = np.arange(spool.records)
    sequences = [""] * spool.records
    members: dict[str, array[int]] = defaultdict(lambda: array("q"))
    by_number = list(spool.names)
    start = 0
    for rows, vectors in spool.read():
        prepared = [_prepared(row, by_number) for row in rows]
        at = place[start : start + len(rows)]
        instances = instances_in(prepared, classes)
        components = projection.project(vectors)
        features = features_of(
            prepared,
            instances,
            components,
            classes,
            cluster=centres.nearest(components) if centres is not None else None,
            shapes=np.concatenate([np.frombuffer(row.shapes).reshape(-1, len(SHAPES)) for row in rows]),
            overlap=np.array([row.overlap for row in rows]),
        )
        table[at] = values = layout.values(features)
        valued |= np.isfinite(values).any(axis=0)
        for row, where in zip(rows, at.tolist(), strict=True):
            sequences[where] = row.sequence
            for name in slices_of(row.slices, settings.windows.slice_keys):
                members[name].append(where)
        start += len(rows)
    layout, table = _without_empty(layout, table, valued, folder)
    times_us = np.asarray(spool.times_us, dtype=np.int64)[spool.order()]
    whole = BaselineStatistic.fit(
        layout, table, sequences, bins=settings.drift.bins, times_us=times_us, zone=settings.drift.season_time_zone
    )
    rhythm = whole.seasons.rhythm if whole.seasons else None
    slices = {}
    for name in _largest(members):
        at = np.sort(np.frombuffer(members[name], dtype=np.int64))
        slices[name] = BaselineStatistic.counted(
            layout,
            whole.binning,
            table,
            sequences,
            at,
            sample_rows=SLICE_SAMPLE_ROWS,
            times_us=times_us,
            rhythm=rhythm,
        )
    return _Counted(whole, slices, _moments(layout, table, sequences))


def _moments(
    layout: Layout, table: np.memmap[Any, np.dtype[np.float64]], sequences: Sequence[str]
) -> MomentsBaseline | None:
    """Of the embedding's components; None where there is none of it."""
    columns = [part for part in layout.signals if part.signal == Embedding.name]
    return MomentsBaseline.fit(table[:, columns[0].start : columns[0].stop], sequences) if columns else None


def _without_empty(
    layout: Layout, table: np.memmap[Any, np.dtype[np.float64]], valued: NDArray[np.bool_], folder: Path
) -> tuple[Layout, np.memmap[Any, np.dtype[np.float64]]]:
    """Leave out signals of which no record has a value (no image, no map): production need not count them."""
    kept = [part for part in layout.signals if valued[part.start : part.stop].any()]
    if len(kept) == len(layout.signals):
        return layout, table
    smaller = Layout.stacked((part.signal, part.dimensions) for part in kept)
    columns = np.concatenate([np.arange(part.start, part.stop) for part in kept])
    copy = np.memmap(folder / "kept", dtype=np.float64, mode="w+", shape=(len(table), smaller.width))
    for start in range(0, len(table), READ_ROWS):
        copy[start : start + READ_ROWS] = table[start : start + READ_ROWS, columns]
    return smaller, copy


def _largest(members: Mapping[str, array[int]]) -> list[str]:
    """The slices that get a baseline of their own: with enough records, the largest first where there are too many."""
    enough = [name for name, rows in members.items() if len(rows) >= FEWEST_OF_SLICE]
    kept = sorted(enough, key=lambda name: (-len(members[name]), name))[:MOST_SLICES]
    if len(kept) < len(members):
        log.log(
            logging.WARNING if len(enough) > MOST_SLICES else logging.INFO,
            "%d of %d slices have a baseline of their own: at most %d, of at least %d records each",
            len(kept),
            len(members),
            MOST_SLICES,
            FEWEST_OF_SLICE,
        )
    return kept


def _prepared(row: Row, names: Sequence[str]) -> Prepared:
    kinds = None if row.kinds is None else [names[number] for number in row.kinds]
    statistics = None if row.statistics is None else np.array(row.statistics)
    return Prepared(None, None, kinds, row.scores, row.shares, row.confidence, statistics)


def describe(counts: BuildCounts) -> Mapping[str, int]:
    """The counts by name, for people."""
    return {
        "used": counts.used,
        "bad": counts.bad,
        "duplicate": counts.duplicate,
        "not ok": counts.not_ok,
        "other model, version or slice": counts.other,
        "bad labels": counts.bad_labels,
    }
