"""What goes: whole days that are over, and of each day all but the images of smallest draw."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, islice

from monitor.images.names import ImageName, day_of
from monitor.images.protocol import ImageStore
from monitor.settings import SampleSettings
from monitor.windows import DAY_US

AT_ONCE = 1000


def expire_images(images: ImageStore, samples: SampleSettings, now_us: int) -> int:
    """Remove what is older than ``samples.keep_images_days`` or beyond ``samples.max_per_day``; how many.

    Whoever's orphans: a name tells its day. Raises ImageStoreError.
    """
    first_kept = day_of(max(0, now_us - round(samples.keep_images_days * DAY_US)))
    gone = 0
    for day in images.days():
        if day < first_kept or not samples.keep_images_days:
            gone += _delete(images, images.names(day))
        elif samples.max_per_day:
            gone += _delete(images, _surplus(images.names(day), samples.max_per_day))
    return gone


def _surplus(names: Iterable[ImageName], most: int) -> Iterable[ImageName]:
    for _, folder in groupby(names, key=lambda name: name.folder):
        yield from islice(folder, most, None)


def _delete(images: ImageStore, names: Iterable[ImageName]) -> int:
    count = 0
    waiting = list(names)  # listed before anything goes, because a listing need not stand deletions beside it
    for start in range(0, len(waiting), AT_ONCE):
        count += images.delete(waiting[start : start + AT_ONCE])
    return count
