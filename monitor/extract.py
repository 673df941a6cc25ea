"""From decoded predictions to what the statistics take: one path for the baseline and for production.

Preparing (decoding images and maps) runs on a thread pool, one record at a time; embedding runs in batches. A record
that turns out to be bad on the way becomes a BadRecord in its place, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.features import Features
from detectors.quality.confusion import ClassTable, IndexMap
from detectors.signals.input import COLUMNS
from embeddings.embedder import Embedder
from embeddings.image_statistics import image_statistics
from embeddings.images import ImageError, ImageLimits, prepare_sized
from monitor.classes import Classes
from monitor.embedding_plan import EmbeddingPlan
from monitor.errors import BadRecord
from monitor.instances import Instances, instances_of
from monitor.records import Prediction, check_map_size, decode_semantic, fetch_image, semantic_summary
from monitor.records.uris import S3Client
from monitor.sureness import map_sureness

Keep = Callable[[Prediction, Callable[[], bytes]], None]
"""Takes a record and what gives its image."""

UNUSED_SIZE = 64
"""Side to which images are prepared that no backbone will see: what counts is whether they can be decoded."""


IMAGE_BYTES = 8 << 20
"""Prepared images of one chunk. Of ingest's chunks some five are under way at a time, and each stacks its images once
more for the backbone."""


def images_at_once(side: int, batch: int, most: int) -> int:
    """Records of a chunk whose images of ``side`` pixels fit IMAGE_BYTES: whole batches, one at least; or ``most``.

    >>> images_at_once(224, 8, 1024), images_at_once(1024, 8, 1024), images_at_once(64, 8, 256)
    (48, 8, 256)
    """
    return min(most, max(1, IMAGE_BYTES // (3 * side * side * batch)) * batch)


class Prepared(NamedTuple):
    """A record ready for a batch: an image or an embedding (neither once embedded), and what the signals look at.

    A named tuple, because one is made for every record.
    """

    image: NDArray[np.uint8] | None
    embedding: NDArray[np.floating] | None
    """As the record brought it, (D,); becomes float32 with its batch."""
    names: Sequence[str] | None
    """Class of each instance; None where the record has no list of them."""
    scores: Sequence[float]
    """Score of each instance."""
    index_shares: dict[int, float] | None
    """Share of the semantic map's pixels by value; None without a map."""
    semantic_confidence: float | None
    statistics: NDArray[np.float64] | None = None
    """(I,) of `embeddings.image_statistics`; None where no image was decoded."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the original image; zeros where there is none."""
    sureness: NDArray[np.int64] | None = None
    """(C + 1, BINS) pixels of the map by class and confidence; None without a confidence map, or where nobody asks."""


class Extractor:
    """Prepares and embeds the records of one plan.

    ``plan`` None (a version without a baseline): images are still checked, nothing is embedded. ``table``: what the
    values of maps mean, where it is to be counted how sure the model was of each class.
    """

    def __init__(
        self,
        plan: EmbeddingPlan | None,
        embedder: Embedder | None,
        pool: Executor,
        limits: ImageLimits,
        uri_prefixes: Sequence[str],
        table: ClassTable | None = None,
        *,
        s3: S3Client | None = None,
        keep: Keep | None = None,
    ) -> None:
        """``keep`` is offered the image of each record that is good, as far as one record can tell."""
        self.plan = plan
        self._s3 = s3
        self._keep = keep
        self._table = table
        self._embedder = embedder
        self._pool = pool
        self._limits = limits
        self._uri_prefixes = tuple(uri_prefixes)

    def submit(self, prediction: Prediction) -> Future[Prepared | BadRecord] | Prepared | BadRecord:
        """Start preparing; what needs no decoding is done at once, since a thread would cost more than it saves."""
        if prediction.semantic is None and prediction.embedding is not None and not self._offers(prediction):
            return self._prepare(prediction)
        return self._pool.submit(self._prepare, prediction)

    def _prepare(self, prediction: Prediction) -> Prepared | BadRecord:
        try:
            shares: dict[int, float] | None = None
            confidence: float | None = None
            maps: tuple[IndexMap, NDArray[np.uint8]] | None = None
            if prediction.semantic is not None:
                indices, probabilities = decode_semantic(prediction.semantic, self._limits.max_pixels)
                shares, confidence = semantic_summary(indices, probabilities)
                maps = None if probabilities is None else (indices, probabilities)
            names: list[str] | None = None
            scores: list[float] = []
            if prediction.instances is not None:
                names = [instance.class_name for instance in prediction.instances]
                scores = [instance.score for instance in prediction.instances]
            if prediction.embedding is not None:
                given = self._check_given(prediction.embedding)
                sureness = self._sureness(maps, (0, 0))
                if self._keep is not None and self._offers(prediction):
                    self._keep(prediction, lambda: self._data(prediction))
                return Prepared(None, given, names, scores, shares, confidence, sureness=sureness)
            data = self._data(prediction)
            pixels, statistics, size = self._image(data)
            if prediction.semantic is not None:
                check_map_size(indices.shape, size)
            sureness = self._sureness(maps, size)
            if self._keep is not None:
                self._keep(prediction, lambda: data)
            return Prepared(pixels, None, names, scores, shares, confidence, statistics, size, sureness)
        except ImageError as error:
            return BadRecord(error.reason, error.detail)
        except BadRecord as error:
            return error

    def _sureness(
        self, maps: tuple[IndexMap, NDArray[np.uint8]] | None, size: tuple[int, int]
    ) -> NDArray[np.int64] | None:
        return None if maps is None or self._table is None else map_sureness(*maps, self._table, size)

    def _check_given(self, embedding: NDArray[np.floating]) -> NDArray[np.floating]:
        if self.plan is not None and len(embedding) != self.plan.dimensions:
            raise BadRecord(
                "embedding_mismatch",
                f"embedding has {len(embedding)} dimensions,"
                f" the baseline's {self.plan.identity} has {self.plan.dimensions}",
            )
        return embedding

    def _offers(self, prediction: Prediction) -> bool:
        """Whether there is an image beside the embedding, and somebody who may want it."""
        return self._keep is not None and prediction.image is not None

    def _data(self, prediction: Prediction) -> bytes:
        image = prediction.image
        if image is None:  # the decoder lets no such record through
            raise BadRecord("missing_field", "neither image nor embedding")
        if self.plan is not None and self.plan.given and prediction.embedding is None:
            raise BadRecord(
                "embedding_mismatch", "the baseline takes embeddings that records bring; this one has only an image"
            )
        if image.data is not None:
            return image.data
        return fetch_image(image.uri or "", self._uri_prefixes, self._limits.max_bytes, s3=self._s3)

    def _image(self, data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None, tuple[int, int]]:
        size = self.plan.input_size if self.plan else UNUSED_SIZE
        pixels, width, height = prepare_sized(data, size, self._limits)
        statistics = image_statistics(pixels, width, height) if self.plan else None
        return pixels, statistics, (height, width)

    def embeddings(self, prepared: Sequence[Prepared]) -> NDArray[np.float32]:
        """(N, D) float32 of prepared records, in order."""
        if self.plan is None:
            return np.zeros((len(prepared), 0), dtype=np.float32)
        out = np.empty((len(prepared), self.plan.dimensions), dtype=np.float32)
        with_image = [i for i, item in enumerate(prepared) if item.image is not None]
        if with_image:
            if self._embedder is None:
                raise RuntimeError(f"no backbone for {self.plan.identity}")
            images = np.stack([image for item in prepared if (image := item.image) is not None])
            out[with_image] = self._embedder.embed(images)
        given = [i for i, item in enumerate(prepared) if item.embedding is not None]
        if given:
            brought = [row for item in prepared if (row := item.embedding) is not None]
            # Rounding to float32 may overflow to infinity: that is the non-finite bin's business, not a warning's.
            with np.errstate(over="ignore"):
                out[given] = np.concatenate(brought, dtype=np.float32, casting="unsafe").reshape(len(given), -1)
        return out


def features_of(
    prepared: Sequence[Prepared],
    instances: Instances,
    components: NDArray[np.float64],
    classes: Classes,
    *,
    cluster: NDArray[np.float64] | None,
    shapes: NDArray[np.float64],
    overlap: NDArray[np.float64],
) -> Features:
    """Columns for the signals.

    ``components``: (N, K) projected embeddings of the same records, ``cluster``: (N,) their clusters. ``shapes``
    and ``overlap`` as `monitor.mask_shapes.shapes_of` gives them.
    """
    unknown = len(classes.names)
    shares = np.full((len(prepared), unknown + 1), np.nan)
    confidence = np.full(len(prepared), np.nan)
    statistics = np.full((len(prepared), len(COLUMNS)), np.nan)
    position_of_index: dict[int, int] = {}
    for i, item in enumerate(prepared):
        if item.index_shares is not None:
            position_of_index = position_of_index or classes.position_of_index
            shares[i] = _shares(item.index_shares, position_of_index, classes.ignore, unknown)
        if item.semantic_confidence is not None:
            confidence[i] = item.semantic_confidence
        if item.statistics is not None:
            statistics[i] = item.statistics
    return Features(
        components,
        instances.offsets,
        instances.kinds,
        instances.scores,
        instances.listed,
        shares,
        confidence,
        statistics,
        shapes,
        overlap,
        cluster,
    )


def sizes_of(prepared: Sequence[Prepared]) -> NDArray[np.int64]:
    """(N, 2) height and width of the images, zeros where not known."""
    return np.array([item.size for item in prepared], dtype=np.int64).reshape(-1, 2)


def instances_in(prepared: Sequence[Prepared], classes: Classes) -> Instances:
    """The instances of prepared records, column by column."""
    return instances_of([item.names for item in prepared], [item.scores for item in prepared], classes.position)


def _shares(
    by_index: dict[int, float], position_of_index: dict[int, int], ignore: Sequence[int], unknown: int
) -> NDArray[Any]:
    row = np.zeros(unknown + 1)
    for index, share in by_index.items():
        if index not in ignore:
            row[position_of_index.get(index, unknown)] += share
    total = row.sum()
    return row / total if total > 0 else np.full(unknown + 1, np.nan)
