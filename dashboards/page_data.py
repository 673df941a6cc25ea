"""What the pages are made from, each piece by its own few queries."""

from __future__ import annotations

from dataclasses import dataclass, field

from dashboards.pooled_quality import PooledQuality
from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.images import ImageStore, ImageStoreError, name_of
from monitor.live_settings import LiveSettings
from monitor.records import Limits
from monitor.store.baselines import newest_by_model
from monitor.store.store import Store
from monitor.store.views import Sample
from monitor.windows import SECOND_US

NO_CLASSES = Classes((), ())


@dataclass(frozen=True, slots=True)
class PageData:
    """The store and what belongs to it; asked from several threads."""

    store: Store
    settings: LiveSettings
    images: ImageStore
    baselines: Baselines
    pooled: PooledQuality = field(default_factory=PooledQuality)

    @classmethod
    def of(cls, store: Store, settings: LiveSettings, images: ImageStore) -> PageData:
        return cls(store, settings, images, Baselines(store))

    @property
    def limits(self) -> Limits:
        return Limits.from_settings(self.settings.current)

    @property
    def pane_us(self) -> int:
        return self.settings.current.windows.pane_seconds * SECOND_US

    def classes(self, model: str, version: str) -> Classes:
        """Of the version's own baseline, else of the model's newest; none where there is no baseline."""
        active = self.store.active_baselines()
        entry = active.get((model, version), newest_by_model(active).get(model))
        return NO_CLASSES if entry is None else self.baselines.of(entry.meta.id).classes

    def image(self, one: Sample) -> bytes | None:
        """The kept image as it is stored; None where there is none, or its place does not answer."""
        own = self.settings.current.samples.format
        try:
            for form in dict.fromkeys((own, "jpeg", "webp")):  # the setting may have changed since
                found = self.images.get(name_of(one.model, one.version, one.input_id, one.event_time_us, form))
                if found is not None:
                    return found
        except ImageStoreError:
            return None
        return None
