"""Which baseline a record belongs to, as the store has it now."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from detectors.quality.confusion import ClassTable
from embeddings.backbones import BackboneSpec, backbone_spec
from embeddings.embedder import Embedder
from embeddings.images import ImageLimits
from monitor.baseline import BackboneRef, Baseline, Dtype
from monitor.classes import Classes
from monitor.embedding_plan import EmbeddingPlan
from monitor.errors import BaselineError
from monitor.extract import Extractor
from monitor.images.keeping import ImageKeeper
from monitor.s3 import s3_reader
from monitor.settings import Settings
from monitor.store.baselines import newest_by_model
from monitor.store.store import Store
from monitor.tallies import BACKBONE_FALLBACKS, EMBEDDING_BATCHES, EMBEDDING_US, TallyKey

log = logging.getLogger(__name__)

REFRESH_S = 5.0
"""An activated baseline is seen within this time by every worker."""
MOST_ROUTES = 1000
RETRY_UNKNOWN_S = 1.0
"""An unknown model name is looked up again at most this often, so that a flood of them costs nothing."""


@dataclass(frozen=True, eq=False)
class Route:
    """How records of one model version are treated. ``baseline`` None: counted, never scored."""

    baseline: Baseline | None
    baseline_id: str
    classes: Classes
    extractor: Extractor


class Embedders:
    """One backbone for each identity, made when first needed and shared by all baselines that name it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.embedding
        self._made: dict[tuple[str, str], Embedder] = {}

    def of(self, spec: BackboneSpec, dtype: Dtype | None = None) -> Embedder:
        """The backbone of ``spec``, ready. ``embedding.dtype`` overrides ``dtype``; without both the embedder chooses.

        Raises ValueError where its weights are not those that the spec names.
        """
        settings = self._settings
        wanted = settings.dtype if settings.dtype != "auto" else dtype or "auto"
        embedder = self._made.get((spec.identity, wanted))
        if embedder is None:
            embedder = self._made[spec.identity, wanted] = Embedder(
                spec,
                device=settings.device,
                dtype=wanted,
                batch_size=settings.batch_size,
                threads=settings.threads,
            )
            # What was chosen is also what baselines built with it name: a second one would take as much memory again.
            self._made.setdefault((spec.identity, embedder.dtype), embedder)
        return embedder

    def of_baseline(self, ref: BackboneRef) -> Embedder:
        """The backbone that a baseline names. Its weights may also lie where ``embedding.weights`` says.

        Raises BaselineError where they are not to be had here, or are others.
        """
        places = [path for path in (ref.weights, self._settings.weights) if path]
        try:
            if ref.weights is None:
                spec = backbone_spec(ref.name, None, ref.input_size)
            else:
                found = next((Path(path) for path in places if Path(path).exists()), Path(ref.weights))
                spec = backbone_spec(ref.name, found, ref.input_size)
        except (ValueError, OSError) as error:
            raise BaselineError(f"the baseline's backbone {ref.name}: {error}") from None
        if spec.weights_sha256 != ref.weights_sha256:
            raise BaselineError(
                f"the baseline's backbone {ref.name}: {spec.weights} is another file than the one it was built with"
                f" (SHA-256 {spec.weights_sha256[:12]}, expected {ref.weights_sha256[:12]})"
            )
        embedder = self.of(spec, ref.dtype)
        if embedder.dtype != ref.dtype:
            log.warning("backbone %s runs in %s, the baseline's ran in %s", ref.name, embedder.dtype, ref.dtype)
        return embedder

    @property
    def fallbacks(self) -> int:
        """How often a GPU was wanted and the CPU was taken."""
        return sum(embedder.fallbacks for embedder in dict.fromkeys(self._made.values()))

    def work(self) -> Counter[TallyKey]:
        """Fallbacks, batches and their time since the start, as tallies."""
        done = Counter({TallyKey(BACKBONE_FALLBACKS, "", "", "", 0): self.fallbacks})
        for embedder in dict.fromkeys(self._made.values()):  # one may be known under two dtypes
            for device, (batches, took_us) in embedder.work().items():
                done[TallyKey(EMBEDDING_BATCHES, "", "", device, 0)] += batches
                done[TallyKey(EMBEDDING_US, "", "", device, 0)] += took_us
        return done


class BaselineBook:
    """Looks up the route of (model, version); refreshed from the store every few seconds. One thread."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        embedders: Embedders,
        pool: Executor,
        clock: Callable[[], float] = time.monotonic,
        *,
        keeper: ImageKeeper | None = None,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._keeper = keeper
        self._s3 = s3_reader(settings)
        self._pool = pool
        self._limits = ImageLimits(settings.images.max_pixels, settings.images.max_bytes)
        self._uri_prefixes = settings.images.uri_prefixes
        self._clock = clock
        self._read_at = -REFRESH_S
        self._active: dict[tuple[str, str], str] = {}
        self._newest: dict[str, str] = {}
        self._baselines: dict[str, Baseline] = {}
        self._routes: dict[tuple[str, str], Route] = {}

    def route(self, model: str, version: str) -> Route | None:
        """The route of a model version, or None where the model's name has no baseline at all."""
        age = self._clock() - self._read_at
        if age > REFRESH_S or (model not in self._newest and age > RETRY_UNKNOWN_S):
            self._refresh()
        if model not in self._newest:
            return None
        route = self._routes.get((model, version))
        if route is None:
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()  # versions that come and go must not fill the memory
            route = self._routes[model, version] = self._make(model, version)
        return route

    def _refresh(self) -> None:
        entries = self._store.active_baselines()
        active = {version: entry.meta.id for version, entry in entries.items()}
        names = {model: entry.meta.id for model, entry in newest_by_model(entries).items()}
        self._read_at = self._clock()
        if (active, names) != (self._active, self._newest):
            self._routes.clear()
        self._active, self._newest = active, names
        needed = set(active.values())
        self._baselines = {key: value for key, value in self._baselines.items() if key in needed}

    def _load(self, baseline_id: str) -> Baseline:
        if baseline_id not in self._baselines:
            self._baselines[baseline_id] = Baseline.from_bytes(self._store.baseline(baseline_id).payload)
        return self._baselines[baseline_id]

    def _make(self, model: str, version: str) -> Route:
        baseline_id = self._active.get((model, version), "")
        if not baseline_id:
            # A version without a baseline takes its classes from the name's newest active one, and is never scored.
            classes = self._load(self._newest[model]).classes
            log.debug("%s version %s has no active baseline: counted, not scored", model, version)
            extractor = self._extractor(None, None, classes)
            return Route(None, "", classes, extractor)
        baseline = self._load(baseline_id)
        embedder = self._embedders.of_baseline(baseline.backbone) if baseline.backbone else None
        extractor = self._extractor(baseline.plan, embedder, baseline.classes)
        return Route(baseline, baseline_id, baseline.classes, extractor)

    def _extractor(self, plan: EmbeddingPlan | None, embedder: Embedder | None, classes: Classes) -> Extractor:
        keep = None if self._keeper is None else partial(self._keeper.keep, classes=classes)
        table = _table(classes)
        return Extractor(plan, embedder, self._pool, self._limits, self._uri_prefixes, table, s3=self._s3, keep=keep)


def _table(classes: Classes) -> ClassTable | None:
    """What the values of maps mean; None for a model without any class."""
    return ClassTable.of(classes.indices, classes.ignore) if classes.names else None
